# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Known answers, rules and fluency: what is called what, and what is not."""

import json

import numpy as np
import pytest

from sae_jax import errors, judge, lm
from sae_jax.judge import (
  choice,
  classifier,
  fluency,
  interface,
  question_sets,
  rates,
)


def question(name="q", good="w1", bad="w2"):
  return question_sets.Question(
    name, "t", ({"role": "user", "content": "w3"},), "", (good,), (bad,)
  )


def labels(judge_, answers, asked=None):
  asked = asked or question()
  found = judge_.judge([asked] * len(answers), answers)
  json.dumps([v.json() for v in found], allow_nan=False)
  return [v.label for v in found]


def test_an_answer_is_compared_with_its_own_responses():
  asked = question(good="Red wine.", bad="Red")
  judge_ = choice.make(judge.JudgeConfig())
  judge_.check()
  assert labels(
    judge_,
    ["red", " RED, of course", "Red  wine! Or", "redwood", "blue red", ""],
    asked,
  ) == [
    "behaviour",
    "behaviour",
    "contrast",
    "incoherent",
    "incoherent",
    "incoherent",
  ]
  verdicts = judge_.judge([asked] * 2, ["Red.", "Red wine"])
  assert [v.score for v in verdicts] == [1.0, 0.0]
  assert verdicts[1].raw == {"answer": "red wine"}
  assert judge_.identity()["name"] == "answers"


def test_answers_that_cannot_be_told_apart_are_named():
  judge_ = choice.make(judge.JudgeConfig())
  with pytest.raises(errors.InputError, match="'q': its two responses"):
    judge_.judge([question(good="Yes", bad="yes!")], ["yes"])
  bare = question_sets.Question("p", "", ({"role": "user", "content": "x"},))
  with pytest.raises(errors.InputError, match="'p' has no response of both"):
    judge_.judge([bare], ["yes"])
  with pytest.raises(errors.InputError, match="0 questions and 1 answers"):
    judge_.judge([], ["yes"])


def test_the_first_rule_that_fits_decides(write):
  path = write(
    "rules.json",
    {"refusal": r"\bI can't", "behaviour": ["steal", "li(e|ar)"]},
    "",
  )
  judge_ = choice.make(judge.JudgeConfig(kind="rules", rules=path))
  answers = ["I CAN'T steal", "Just steal it", "ask them", " "]
  wanted = ["refusal", "behaviour", "off_topic", "incoherent"]
  assert labels(judge_, answers) == wanted
  raw = judge_.judge([question()], ["a liar"])[0].raw
  assert raw == {"rule": 2, "text": "liar"}
  lines = write(
    "rules.jsonl",
    {"label": "behaviour", "pattern": "steal"},
    {"label": "refusal", "pattern": "I can't"},
  )
  other = choice.make(judge.JudgeConfig(kind="rules", rules=lines))
  assert labels(other, answers)[0] == "behaviour"
  assert other.identity()["rules"] != judge_.identity()["rules"]


@pytest.mark.parametrize(
  ("name", "text", "message"),
  (
    ("r.json", "{", "not JSON"),
    ("r.json", "[1]", "not a JSON object"),
    ("r.json", '{"evil": "x"}', "no label 'evil'; labels are behaviour,"),
    ("r.json", '{"error": "x"}', "no label 'error'"),
    ("r.json", '{"behaviour": ["(x"]}', r"'\(x' is no regular expression"),
    ("r.json", '{"behaviour": [3]}', "pattern 3 is no text"),
    ("r.json", "{}", "no rules in it"),
    ("r.jsonl", "[1]", r"r.jsonl:1: not a JSON object"),
  ),
)
def test_wrong_rules_are_named(write, name, text, message):
  path = write(name, text)
  with pytest.raises(errors.InputError, match=message):
    classifier.load_rules(path)


def test_rules_that_are_not_there():
  with pytest.raises(errors.InputError, match=r"none\.json: cannot be read"):
    classifier.load_rules("none.json")


def test_loops_are_seen():
  for text, share, run in (
    ("", 0.0, 0),
    ("one two three four five", 0.0, 1),
    ("No, no, NO! Never", 0.0, 3),
    ("a b c d a b c d", 1 / 5, 1),
    ("!!!!!!!!", 4 / 5, 0),
  ):
    assert fluency.repetition(text) == (pytest.approx(share), run)


@pytest.fixture(scope="module")
def unsteered(model):
  prompts = {"p": (0, 4, 5), "q": (0, 9)}
  ids = ["p", "q"] * 20
  rng = np.random.default_rng(3)
  answers = [
    " ".join(f"w{i}" for i in rng.integers(0, 29, rng.integers(1, 7)))
    for _ in ids
  ]
  fitted = fluency.fit(model, prompts, ids, answers, quantile=0.1, batch_size=8)
  return prompts, ids, answers, fitted


def test_the_unsteered_model_sets_the_limits(model, unsteered):
  prompts, ids, answers, fitted = unsteered
  found = fitted.findings(ids, answers)
  logps = np.array([f.logp for f in found])
  assert fitted.least_logp in logps
  # A tenth of its own answers lies below, by construction, and no more.
  assert np.mean([f.unlikely for f in found]) <= 0.1
  assert np.mean([f.loops for f in found]) <= 0.1
  tokens = model.tokenizer.encode(answers[0], add_bos=False)
  (wanted,) = lm.completion_logprobs(model, [prompts["p"]], [tokens])
  assert found[0].logp == pytest.approx(wanted.mean(), abs=1e-4)
  json.dumps([f.json() for f in found] + [fitted.identity()], allow_nan=False)


def test_an_unlikely_answer_is_incoherent_unless_a_rule_knows_it(
  write, model, unsteered
):
  prompts, _, answers, fitted = unsteered
  words = [f"w{i}" for i in range(29)]
  logps = fluency.mean_logprobs(model, prompts, ["p"] * 29, words)
  odd = words[int(np.argmin(logps))]
  assert min(logps) < fitted.least_logp
  likely = answers[int(np.argmax(fitted.findings(["p"] * 40, answers)[0].logp))]
  loop = f"{odd} w1 w2 w3 " * 5
  rule = write("rules.json", json.dumps({"behaviour": rf"^{odd}\b"}))
  other = write("other.json", json.dumps({"refusal": "sorry"}))
  known, unknown = (
    choice.make(judge.JudgeConfig(kind="rules", rules=path), fluency=fitted)
    for path in (rule, other)
  )
  asked = question("p")
  assert labels(known, [odd, loop], asked) == ["behaviour", "incoherent"]
  assert labels(unknown, [odd], asked) == ["incoherent"]
  assert likely
  assert known.identity()["fluency"]["least_logp"] == fitted.least_logp
  with pytest.raises(errors.InputError, match="no prompt 'other'"):
    labels(known, [odd], question("other"))


def test_limits_need_answers(model):
  with pytest.raises(errors.InputError, match="none of 2 unsteered answers"):
    fluency.fit(model, {"p": (0,)}, ["p", "p"], ["", ""])
  with pytest.raises(errors.InputError, match=r"quantile=0\.7"):
    fluency.fit(model, {"p": (0,)}, ["p"], ["w1"], quantile=0.7)


def test_rates_are_shares_of_what_was_judged():
  said = [
    "behaviour",
    "contrast",
    "error",
    "refusal",
    "behaviour",
    "incoherent",
  ]
  verdicts = [interface.Verdict(label, None, {}) for label in said]
  found = rates.rates(verdicts, list("aabbcc"), seeds=(1,))
  assert found.errors == 1
  assert found.behaviour.mean == pytest.approx(2 / 5)
  assert (found.behaviour.n, found.behaviour.samples) == (3, 5)
  assert found.behaviour_of_valid.mean == pytest.approx(2 / 3)
  assert found.incoherent.mean == pytest.approx(1 / 5)
  told = json.loads(json.dumps(found.json(), allow_nan=False))
  assert told["off_topic"]["mean"] == 0 and told["off_topic"]["ci_high"] > 0.5
  none = rates.rates([interface.Verdict("error", None, {})], ["a"])
  assert none.errors == 1 and none.json()["behaviour"]["mean"] is None


@pytest.mark.parametrize(
  ("fields", "message"),
  (
    ({"kind": "rules"}, "needs judge.rules"),
    ({"kind": "llm"}, "needs judge.endpoint"),
    ({"rules": "r.json"}, "judge.rules is given"),
    ({"threshold": 1}, "judge.threshold=1"),
    ({"behaviour": " "}, "judge.behaviour is empty"),
  ),
)
def test_a_judge_config_is_whole(fields, message):
  with pytest.raises(errors.InputError, match=message):
    judge.JudgeConfig(**fields)
