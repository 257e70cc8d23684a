# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A chat endpoint is asked once, tried again where it helps, named if not."""

import email.utils
import json
import logging
import os
import pathlib
import signal
import time

import chat_server
import pytest

from sae_jax import endpoint, errors

HELLO = [{"role": "user", "content": "hello"}]
KEY = "sk-secret-1234567890"


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.setenv("TEST_CHAT_KEY", KEY)


def open_endpoint(server, cache=None, waits=None, **fields):
  waits = [] if waits is None else waits
  return endpoint.Endpoint(
    endpoint.EndpointConfig(
      **{"base_url": server.url, "model": "tiny", "retries": 3} | fields
    ),
    cache,
    sleep=waits.append,
  )


def in_turn(*answers):
  """Each of the answers once, the last one ever after."""
  left = list(answers)
  return lambda *_: left.pop(0) if len(left) > 1 else left[0]


def test_a_question_and_its_answer():
  with chat_server.serve(lambda *_: chat_server.completion("Good day.")) as s:
    reply = open_endpoint(s, extra={"seed": 7}).ask(HELLO)
  assert (reply.text, reply.model) == ("Good day.", "tiny-2026")
  assert reply.raw["choices"][0]["finish_reason"] == "stop"
  assert s.paths == ["/v1/chat/completions"]
  assert s.bodies == [
    {
      "model": "tiny",
      "messages": HELLO,
      "temperature": 0.0,
      "max_tokens": 1024,
      "seed": 7,
    }
  ]
  assert "Authorization" not in s.headers[0]


def test_a_local_server_needs_no_proxy(monkeypatch):
  monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
  monkeypatch.delenv("no_proxy", raising=False)
  with chat_server.serve(lambda *_: chat_server.completion("x")) as s:
    assert open_endpoint(s, retries=0).ask(HELLO).text == "x"
  remote = endpoint.EndpointConfig(
    base_url="http://models.example/v1", model="m", retries=0
  )
  with pytest.raises(endpoint.EndpointError, match="refused"):
    endpoint.Endpoint(remote).ask(HELLO)  # by the proxy


def test_an_interrupted_job_waits_for_no_retries():
  """Ctrl-C in the main thread: those asked already end, no more are asked."""
  answers = (503, b"")
  with chat_server.serve(lambda *_: answers) as s:
    chat = open_endpoint(s, concurrency=1, retries=1000)
    sent = []

    def interrupt(seconds):
      # A body that came twice, over a connection that broke, counts twice.
      if len(s.bodies) >= 3 and not sent:
        sent.append(os.kill(os.getpid(), signal.SIGINT))
      time.sleep(0.01)

    chat._sleep = interrupt
    with pytest.raises(KeyboardInterrupt):
      chat.ask_all([[{"role": "user", "content": str(n)}] for n in range(9)])
    assert 3 <= len(s.bodies) < 100


def test_what_a_server_decides_is_left_out():
  with chat_server.serve(lambda *_: chat_server.completion("x")) as s:
    open_endpoint(s, temperature=None, max_tokens=0).ask(HELLO)
  assert s.bodies[0].keys() == {"model", "messages"}


@pytest.mark.parametrize(
  "first",
  [
    (429, {"error": {"message": "slow down"}}),
    (500, b"<html>oops</html>"),
    (503, {"error": "loading model"}),
    (200, b'{"choices": ['),  # cut off
    (200, {"error": "overloaded"}),  # as some proxies say it
    (0, b""),  # hangs up
  ],
)
def test_what_may_pass_is_tried_again(first):
  waits = []
  with chat_server.serve(
    in_turn(first, first, chat_server.completion("at last"))
  ) as s:
    assert open_endpoint(s, waits=waits).ask(HELLO).text == "at last"
  assert len(s.bodies) == 3
  assert 0.5 <= waits[0] <= 1 and 1 <= waits[1] <= 2  # doubling, with jitter


@pytest.mark.parametrize(
  ("header", "low", "high"),
  [("7", 7, 7), ("0", 0.5, 1), ("9999", 60, 60), ("nonsense", 0.5, 1)],
)
def test_the_servers_wish_to_wait_is_kept(header, low, high):
  waits = []
  busy = (429, {"error": "wait"}, {"Retry-After": header})
  with chat_server.serve(in_turn(busy, chat_server.completion("x"))) as s:
    open_endpoint(s, waits=waits).ask(HELLO)
  assert len(waits) == 1 and low <= waits[0] <= high


def test_the_wish_may_be_a_date():
  waits = []
  date = email.utils.formatdate(time.time() + 30, usegmt=True)
  busy = (503, b"", {"Retry-After": date})
  with chat_server.serve(in_turn(busy, chat_server.completion("x"))) as s:
    open_endpoint(s, waits=waits).ask(HELLO)
  assert 20 < waits[0] <= 30


def test_after_the_last_retry_the_reason_is_given():
  waits = []
  with (
    chat_server.serve(lambda *_: (500, {"error": {"message": "no GPU"}})) as s,
    pytest.raises(endpoint.EndpointError, match="HTTP 500: no GPU"),
  ):
    open_endpoint(s, waits=waits).ask(HELLO)
  assert len(s.bodies) == 4 and len(waits) == 3


def test_a_slow_server_is_given_up():
  with (
    chat_server.serve(lambda *_: (200, 0.6)) as s,
    pytest.raises(endpoint.EndpointError, match=r"no answer in 0\.1 s"),
  ):
    open_endpoint(s, timeout=0.1, retries=1).ask(HELLO)
  assert len(s.bodies) == 2


@pytest.mark.parametrize(
  ("answer", "message"),
  [
    ((400, {"error": {"message": "context is 4096"}}), "400: context is 4096"),
    ((404, {"detail": "no model tiny"}), "404: no model tiny"),
    ((302, b"", {"Location": "http://127.0.0.1:1/"}), "redirects"),
    (chat_server.completion("", finish="length"), "empty.*raise.*max_tokens"),
    (chat_server.completion(None, finish="content_filter"), "content_filter"),
  ],
)
def test_what_will_not_pass_is_asked_once(answer, message):
  with (
    chat_server.serve(lambda *_: answer) as s,
    pytest.raises(endpoint.EndpointError, match=message),
  ):
    open_endpoint(s, key_variable="TEST_CHAT_KEY").ask(HELLO)
  assert len(s.bodies) == 1


def needs_key(answer):
  def check(body, headers):
    if headers["Authorization"] != f"Bearer {KEY}":
      return 401, {
        "error": {"message": f"wrong key {headers['Authorization']}"}
      }
    return answer

  return check


def test_the_key_is_sent_and_stays_unsaid(tmp_path, monkeypatch, caplog, capfd):
  """It is in no file, message, repr or log, even if the server echoes it."""
  caplog.set_level(logging.DEBUG)
  said = []
  echo = {"choices": [{"message": {"content": f"your key is {KEY}"}}]}
  answers = in_turn((500, {"error": f"bad {KEY}"}), (200, echo))
  with chat_server.serve(answers) as s:
    chat = open_endpoint(s, tmp_path, key_variable="TEST_CHAT_KEY", retries=0)
    with pytest.raises(endpoint.EndpointError) as failure:
      chat.ask(HELLO)
    said += [str(failure.value), repr(failure.value), repr(chat)]
    said += [repr(chat.ask(HELLO)), repr(chat.config)]
  assert s.headers[0]["Authorization"] == f"Bearer {KEY}"
  wrong = "sk-wrong-987"
  monkeypatch.setenv("TEST_CHAT_KEY", wrong)
  with chat_server.serve(needs_key(chat_server.completion("x"))) as s:
    chat = open_endpoint(s, tmp_path, key_variable="TEST_CHAT_KEY")
    with pytest.raises(errors.InputError) as failure:
      chat.check()
    said.append(str(failure.value))
    with pytest.raises(endpoint.EndpointError, match="TEST_CHAT_KEY"):
      chat.ask([*HELLO, *HELLO])
  assert "refused the key in $TEST_CHAT_KEY (HTTP 401)" in said[-1]
  said += [p.read_text() for p in tmp_path.rglob("*") if p.is_file()]
  said += [caplog.text, *capfd.readouterr()]
  assert not any(KEY in text or wrong in text for text in said)
  assert any("[key]" in text for text in said)


@pytest.mark.parametrize("value", [None, "", " \n", "two words", "na\u00efve"])
def test_a_key_that_is_none_is_refused_unseen(value, monkeypatch):
  monkeypatch.delenv("TEST_CHAT_KEY")
  if value is not None:
    monkeypatch.setenv("TEST_CHAT_KEY", value)
  config = endpoint.EndpointConfig(
    base_url="http://localhost:1", model="m", key_variable="TEST_CHAT_KEY"
  )
  with pytest.raises(errors.InputError, match="TEST_CHAT_KEY") as failure:
    endpoint.Endpoint(config)
  assert not (value or "").strip() or value not in str(failure.value)


def test_what_was_asked_is_not_asked_again(tmp_path):
  with chat_server.serve(lambda *_: chat_server.completion("yes")) as s:
    first = open_endpoint(s, tmp_path / "replies").ask(HELLO)
    again = open_endpoint(s, tmp_path / "replies")
    assert again.ask(HELLO) == first
    assert len(s.bodies) == 1
    other = open_endpoint(s, tmp_path / "replies", model="other")
    other.ask(HELLO)
    again.ask([*HELLO, *HELLO])
    assert len(s.bodies) == 3
  files = list((tmp_path / "replies").iterdir())
  assert len(files) == 3
  for file in files:  # no leftovers: names end in .json and hold whole JSON
    assert file.suffix == ".json"
    assert json.loads(file.read_text())["raw"] == first.raw


def test_failures_are_not_kept(tmp_path):
  answers = in_turn((400, {"error": "no"}), chat_server.completion("yes"))
  with chat_server.serve(answers) as s:
    chat = open_endpoint(s, tmp_path)
    with pytest.raises(endpoint.EndpointError):
      chat.ask(HELLO)
    assert chat.ask(HELLO).text == "yes"


def test_many_are_asked_at_a_time_and_answered_in_order():
  def answer(body, headers):
    time.sleep(0.03)
    number = int(body["messages"][0]["content"])
    if number == 5:
      return 400, {"error": "five"}
    return chat_server.completion(f"reply {number}")

  numbers = [*range(12), 3]
  with chat_server.serve(answer) as s:
    replies = open_endpoint(s, concurrency=4).ask_all(
      [[{"role": "user", "content": str(n)}] for n in numbers]
    )
  for number, reply in zip(numbers, replies, strict=True):
    if number == 5:
      assert isinstance(reply, endpoint.EndpointError) and "five" in str(reply)
    else:
      assert reply.text == f"reply {number}"
  assert len(s.bodies) == 12  # the second 3 is the first
  assert 2 <= s.most_busy <= 4
  assert open_endpoint(s).ask_all([]) == []


def test_a_server_that_is_down_does_not_hold_up_the_rest():
  with chat_server.serve(lambda *_: (503, b"")) as s:
    chat = open_endpoint(s, concurrency=1, retries=1)
    replies = chat.ask_all(
      [[{"role": "user", "content": str(n)}] for n in range(9)]
    )
  assert len(s.bodies) == 3 * 2
  assert "HTTP 503" in str(replies[0])
  assert all("3 requests in a row" in str(reply) for reply in replies[3:])


def test_one_answer_in_between_counts_from_the_start():
  answers = [(500, b""), (500, b""), chat_server.completion("x")] * 3
  with chat_server.serve(in_turn(*answers)) as s:
    chat = open_endpoint(s, concurrency=1, retries=0)
    replies = chat.ask_all(
      [[{"role": "user", "content": str(n)}] for n in range(9)]
    )
  assert len(s.bodies) == 9
  assert sum(isinstance(r, endpoint.Reply) for r in replies) == 3


def test_a_check_finds_what_is_wrong_before_long_work():
  with chat_server.serve(lambda *_: chat_server.completion("ok")) as s:
    open_endpoint(s).check()
    assert len(s.bodies) == 1
  closed = endpoint.Endpoint(
    endpoint.EndpointConfig(
      base_url="http://127.0.0.1:1/v1", model="m", retries=0
    )
  )
  with pytest.raises(errors.InputError, match=r"does not work.*refused"):
    closed.check()
  with (
    chat_server.serve(lambda *_: (404, {"error": "no model"})) as s,
    pytest.raises(errors.InputError, match=r"no model.*correct the endpoint"),
  ):
    open_endpoint(s).check()
  with (
    chat_server.serve(lambda *_: (401, {"error": "no key"})) as s,
    pytest.raises(errors.InputError, match=r"without a key.*key_variable"),
  ):
    open_endpoint(s).check()


def test_thoughts_are_no_answer():
  reply = endpoint.Reply("<think>LABEL: a\nb</think>\nLABEL: c", "m", {})
  assert reply.answer.strip() == "LABEL: c"
  # A template that opens the thought leaves its end only.
  reply = endpoint.Reply("LABEL: a\nb</think>\nLABEL: c", "m", {})
  assert reply.answer.strip() == "LABEL: c"


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"base_url": "localhost:8080"}, "http"),
    ({"base_url": "ftp://host/v1"}, "http"),
    ({"base_url": ""}, "http"),
    ({"model": ""}, "model"),
    ({"retries": -1}, "retries"),
    ({"concurrency": 0}, "concurrency"),
    ({"timeout": 0.0}, "timeout"),
  ],
)
def test_a_wrong_config_is_refused(fields, message):
  with pytest.raises(errors.InputError, match=message):
    endpoint.EndpointConfig(
      **{"base_url": "http://h/v1", "model": "m"} | fields
    )


@pytest.mark.parametrize(
  "url", [f"https://me:{KEY}@host/v1", f"https://host/v1?api-key={KEY}"]
)
def test_a_key_in_the_url_is_refused_unseen(url):
  with pytest.raises(errors.InputError, match="key_variable") as failure:
    endpoint.EndpointConfig(base_url=url, model="m")
  assert KEY not in str(failure.value)


def test_nothing_else_in_the_package_opens_connections():
  """One room talks to endpoints; it is easy to see what it sends."""
  package = pathlib.Path(endpoint.__file__).parent
  users = {
    path
    for path in package.parent.rglob("*.py")
    if any(word in path.read_text() for word in ("urllib", "http.client"))
  }
  assert users == {package / "config.py", package / "transport.py"}
