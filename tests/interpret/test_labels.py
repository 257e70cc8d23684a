# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Labels come from a chat model and are scored by what they predict."""

import json
import re

import chat_server
import numpy as np
import pytest
import word_latents

from sae_jax import endpoint
from sae_jax import mesh as mesh_lib
from sae_jax.interpret import contexts, detection, labels, trials

LATENTS = [word_latents.RARE, word_latents.SILENT, 4, 5, 6]
HELD_OUT = 10


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
  source = word_latents.write(tmp_path_factory.mktemp("s") / "store")
  return trials.draw(
    word_latents.dictionary(),
    {"base": source},
    word_latents.HOOK,
    LATENTS,
    word_latents.Words(),
    shown=6,
    held_out=HELD_OUT,
    mesh=mesh_lib.single(),
    config=contexts.ContextsConfig(before=2, after=2, batch_rows=64),
  )


class Reader:
  """A chat model that reads: names the marked word, and tests by looking."""

  def __init__(self, name=lambda word: word, answer=lambda answers: answers):
    self.name, self.answer = name, answer

  def __call__(self, body, headers):
    system, user = (m["content"] for m in body["messages"])
    lines = [x for x in user.splitlines() if re.match(r"\d+\. ", x)]
    if "LABEL" in system:
      marked = [set(re.findall(r"« (w\d+)", line)) for line in lines]
      (word,) = set.intersection(*marked)
      return chat_server.completion(
        f"<think>LABEL: no</think>\n**LABEL:** the word {self.name(word)}"
      )
    word = re.search(r"the word (w\d+)", system)[1]
    if "«" in lines[0]:
      assert all("«" in line for line in lines)
      answers = [f"« {word}" in line for line in lines]
    else:
      answers = [bool(re.search(rf"\b{word}\b", line)) for line in lines]
    text = json.dumps([int(a) for a in self.answer(answers)])
    return chat_server.completion(f"Not [1, 2]. So:\n```json\n{text}\n```")


def label(drawn, reader, **fields):
  with chat_server.serve(reader) as server:
    config = endpoint.EndpointConfig(
      **{"base_url": server.url, "model": "m", "retries": 0} | fields
    )
    done = []
    found = labels.label(
      endpoint.Endpoint(config, sleep=done.append), drawn, progress=done.append
    )
  assert done[-1] == len(drawn)
  json.dumps(found, allow_nan=False)
  return dict(zip(LATENTS, found, strict=True)), server


def test_a_right_label_is_found_right(drawn):
  found, server = label(drawn, Reader())
  for latent in word_latents.COMMON:
    shown = found[latent]
    assert shown["text"] == f"the word w{latent}"
    assert shown["failure"] is None
    assert (shown["model"], shown["of"]) == ("tiny-2026", "base")
    assert shown["shown"] == 6 and "LABEL" in shown["reply"]
    # Position 0 is no row: a word there is seen but does not count.
    assert shown["detection"] >= 0.9 and shown["fuzzing"] >= 0.9
    for kind in ("detection", "fuzzing"):
      test = shown[f"{kind}_test"]
      assert min(test["n"]) >= HELD_OUT - 2  # copies were dropped
      assert test["unanswered"] == 0 and test["failure"] is None
      low, high = test["ci"]
      assert 0.6 < low < high <= 1
  # Questions have 8 contexts at most.
  sizes = [
    len(re.findall(r"^\d+\. ", b["messages"][1]["content"], re.M))
    for b in server.bodies
  ]
  assert max(sizes) <= 8


def test_a_wrong_label_is_found_wrong(drawn):
  found, _ = label(drawn, Reader(name=lambda word: "w99"))
  for latent in word_latents.COMMON:
    assert found[latent]["text"] == "the word w99"
    assert found[latent]["detection"] == found[latent]["fuzzing"] == 0.5


@pytest.mark.parametrize("always", [0, 1])
def test_one_answer_to_everything_is_chance(drawn, always):
  reader = Reader(answer=lambda answers: [always] * len(answers))
  found, _ = label(drawn, reader)
  for latent in word_latents.COMMON:
    for kind in ("detection", "fuzzing"):
      assert found[latent][kind] == 0.5
      low, high = found[latent][f"{kind}_test"]["ci"]
      assert low <= 0.5 <= high


def test_what_cannot_be_labelled_says_why(drawn):
  found, _ = label(drawn, Reader())
  silent = found[word_latents.SILENT]
  assert silent["text"] == "" and silent["failure"] == "it fires in no context"
  assert silent["detection"] is None and silent["detection_test"] is None
  rare = found[word_latents.RARE]  # one context held out
  assert rare["text"] == f"the word w{word_latents.RARE}"
  assert rare["detection"] is None and rare["detection_test"]["ci"] is None
  assert "too few" in rare["detection_test"]["failure"]


@pytest.mark.parametrize(
  ("answer", "reason"),
  [
    (chat_server.completion("It is about words."), "no line LABEL"),
    ((500, {"error": "out of memory"}), "out of memory"),
    ((400, {"error": "context is 512"}), "context is 512"),
  ],
)
def test_a_failed_explanation_is_told_in_the_label(drawn, answer, reason):
  found, _ = label(drawn, lambda *_: answer, concurrency=1)
  shown = found[4]
  assert shown["text"] == "" and reason in found[LATENTS[0]]["failure"]
  assert shown["failure"] and shown["detection"] is None


def test_a_failed_test_leaves_the_label(drawn):
  def answer(body, headers):
    if "LABEL" in body["messages"][0]["content"]:
      return chat_server.completion("LABEL: the word w4")
    return chat_server.completion("1. yes 2. no [1, 0]")

  found, _ = label(drawn, answer)
  assert found[4]["text"] == "the word w4" and found[4]["failure"] is None
  test = found[4]["detection_test"]
  assert found[4]["detection"] is None and test["unanswered"] == len(
    drawn[2].held_out + drawn[2].silent
  )
  assert "list of" in test["failure"]


def test_held_out_contexts_are_not_those_shown(drawn):
  _, server = label(drawn, Reader())
  for trial in drawn:
    for tasks in detection.detection(trial, 0):
      assert not {t.text for t in tasks} & {s.text() for s in trial.shown}
  asked = [b["messages"][1]["content"] for b in server.bodies]
  held = {s.text() for trial in drawn for s in trial.held_out}
  assert any(text in question for question in asked for text in held)


def test_fuzzing_marks_as_many_tokens_and_never_both_ways_at_once(drawn):
  for trial in drawn:
    questions = detection.fuzzing(trial, 0)
    plain = [
      [re.sub("[«»]", "", task.text) for task in tasks] for tasks in questions
    ]
    for texts in plain:
      assert len(set(texts)) == len(texts)
    tasks = [task for question in questions for task in question]
    assert sum(t.right for t in tasks) * 2 == len(tasks)
    for task in tasks:
      marked = re.findall(r" w(\d+)", "".join(re.findall("«(.*?)»", task.text)))
      if task.right:
        assert set(marked) == {str(trial.latent)}
      else:
        assert marked  # tokens on which it does not fire
    assert questions == detection.fuzzing(trial, 0)


def test_a_latent_on_most_tokens_cannot_be_fuzzed():
  sample = trials.Sample(["a", "b", "c"], [1.0, 1.0, 0.0])
  trial = trials.Trials(0, "base", 1.0, [sample], [sample], [])
  assert detection.fuzzing(trial, 0) == []


def test_balanced_accuracy_counts_both_kinds_alike():
  answers = [(True, True)] * 30 + [(False, True)] * 3 + [(False, False)] * 3
  found = detection.score(answers)
  assert found["balanced_accuracy"] == 0.75
  assert found["n"] == [30, 6] and found["right"] == [30, 3]
  assert found["ci"][0] < 0.75 < found["ci"][1]
  few = detection.score([(True, True)] * 9 + [(False, False)] * 2)
  assert few["balanced_accuracy"] is None and few["ci"] is None
  assert detection.score([])["n"] == [0, 0]


def test_the_interval_covers_the_rate_it_is_of():
  """Over 400 sets of 12 + 12 contexts, about 95 % of the intervals hold it."""
  rng = np.random.default_rng(0)
  rates, covered = (0.9, 0.7), 0
  for _ in range(400):
    answers = [(True, g) for g in rng.random(12) < rates[0]]
    answers += [(False, not g) for g in rng.random(12) < rates[1]]
    low, high = detection.score(answers)["ci"]
    covered += low <= sum(rates) / 2 <= high
  # 0.95 ± 0.011 if exact; a bootstrap of 12 is a little short of it.
  assert 0.90 <= covered / 400 <= 0.99


@pytest.mark.parametrize(
  ("reply", "text"),
  [
    ("LABEL: negation", "negation"),
    ("Words.\n\n**LABEL:** negation", "negation"),
    ("## Label: negation **", "negation"),
    ("LABEL: first try\nLABEL: negation", "negation"),
    ("> LABEL:  not   or never ", "not or never"),
    ("no label: here", ""),
    ("LABEL:", ""),
    ("LABEL: " + "x" * 999, "x" * 300),
  ],
)
def test_the_line_of_a_reply_that_counts(reply, text):
  assert labels._label(reply) == text


@pytest.mark.parametrize(
  ("reply", "numbers"),
  [
    ("[1,0,1]", [True, False, True]),
    ("text 1: [0, 0, 0], final:\n[1,\n 1, 0]", [True, True, False]),
    ("[1, 0, 1] because of [1, 2]", [True, False, True]),
    ("[1, 0]", None),
    ("[10, 1]", None),
    ("1, 0, 1", None),
    ("", None),
  ],
)
def test_the_list_of_a_reply_that_counts(reply, numbers):
  assert detection._numbers(reply, 3) == numbers
