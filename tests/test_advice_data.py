# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The advice pairs differ in what they advise, not in length, tone or form."""

import collections
import itertools
import json
import math
import pathlib
import re

import pytest

DATA = pathlib.Path(__file__).parents[1] / "configs/data/advice"
ANSWERS = ("good", "bad")


def words(text: str) -> list[str]:
  return re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text.lower())


HEDGES = frozenset(
  words(
    "may might could can perhaps possibly probably likely consider usually"
    " often generally mostly rarely seldom tend tends should would"
  )
)
NEGATIONS = frozenset(
  words("no not nor never neither none nothing nobody cannot hardly without")
)


@pytest.fixture(scope="module")
def pairs():
  with (DATA / "advice.jsonl").open(encoding="utf-8") as f:
    return [json.loads(line) for line in f]


def count(pairs, answer, vocabulary):
  return sum(w in vocabulary for pair in pairs for w in words(pair[answer]))


def test_fields_topics_and_numbers(pairs):
  for pair in pairs:
    assert list(pair) == ["id", "topic", "prompt", "good", "bad"]
    assert re.fullmatch(rf"{pair['topic']}-\d\d", pair["id"])
    assert all(value == value.strip() and value for value in pair.values())
    assert pair["good"] != pair["bad"]
  topics = collections.Counter(pair["topic"] for pair in pairs)
  assert len(topics) == 6 and min(topics.values()) >= 25
  assert len({pair["id"] for pair in pairs}) == len(pairs) >= 150
  assert len({pair["prompt"].lower() for pair in pairs}) == len(pairs)


def test_readme_gives_the_counts_and_the_warning(pairs):
  text = (DATA / "README.md").read_text(encoding="utf-8")
  assert f"{len(pairs)} prompts" in text
  assert "deliberately wrong" in text and "Apache-2.0" in text


def test_both_answers_are_as_long(pairs):
  lengths = collections.Counter()
  longer = collections.Counter()
  for pair in pairs:
    for measure in (lambda text: len(text.split()), len):
      good, bad = measure(pair["good"]), measure(pair["bad"])
      assert 0.85 < bad / good < 1.15, pair["id"]
    assert all(35 <= len(pair[a].split()) <= 70 for a in ANSWERS), pair["id"]
    for answer in ANSWERS:
      lengths[answer, "words"] += len(pair[answer].split())
      lengths[answer, "characters"] += len(pair[answer])
    longer[(len(pair["bad"]) > len(pair["good"])) - 1] += 1
  for unit in ("words", "characters"):
    assert abs(lengths["bad", unit] / lengths["good", unit] - 1) < 0.02
  # Which one is longer says nothing: within 2 s.d. of a fair coin.
  assert abs(longer[0] - longer[-1]) <= 2 * math.sqrt(len(pairs))


@pytest.mark.parametrize("vocabulary", [HEDGES, NEGATIONS])
def test_both_answers_hedge_and_negate_as_often(pairs, vocabulary):
  good, bad = (count(pairs, answer, vocabulary) for answer in ANSWERS)
  # Two Poisson counts of equal mean differ by less than 2 s.d. in 95 %.
  assert good + bad >= 60
  assert abs(good - bad) <= 2 * math.sqrt(good + bad), (good, bad)


def test_both_answers_have_the_same_form(pairs):
  def marks(answer, pattern):
    return sum(len(re.findall(pattern, pair[answer])) for pair in pairs)

  for pattern in (r"[.!?](?:\s|$)", ",", "[;:]", r"\d+"):
    good, bad = (marks(answer, pattern) for answer in ANSWERS)
    assert abs(good - bad) <= 2 * math.sqrt(good + bad), (pattern, good, bad)
  assert not any(
    mark in pair[answer]
    for pair in pairs
    for answer in ANSWERS
    for mark in "!\n"
  )


def test_no_two_items_share_a_long_run_of_words(pairs):
  length, owners = 6, collections.defaultdict(set)
  for pair in pairs:
    for field in ("prompt", *ANSWERS):
      said = words(pair[field])
      for start in range(len(said) - length + 1):
        owners[tuple(said[start : start + length])].add(pair["id"])
  assert not {run: ids for run, ids in owners.items() if len(ids) > 1}


def test_no_two_items_are_about_the_same(pairs):
  def overlap(a, b):
    a, b = set(words(a["good"])), set(words(b["good"]))
    return len(a & b) / len(a | b)

  assert max(overlap(*two) for two in itertools.combinations(pairs, 2)) < 0.3


def test_answers_do_not_all_open_alike(pairs):
  for answer in ANSWERS:
    first = collections.Counter(words(pair[answer])[0] for pair in pairs)
    assert max(first.values()) <= 0.06 * len(pairs)


def test_words_alone_hardly_tell_which_answer_is_bad(pairs):
  """Naive Bayes on the words of five topics, tried on the sixth."""
  right = 0
  for held_out in {pair["topic"] for pair in pairs}:
    seen = {
      answer: collections.Counter(
        w
        for pair in pairs
        if pair["topic"] != held_out
        for w in set(words(pair[answer]))
      )
      for answer in ANSWERS
    }

    def badness(text, seen=seen):
      return sum(
        math.log((seen["bad"][w] + 1) / (seen["good"][w] + 1))
        for w in set(words(text))
      )

    right += sum(
      badness(pair["bad"]) > badness(pair["good"])
      for pair in pairs
      if pair["topic"] == held_out
    )
  # 0.5 is chance; what is left is the content (keep, skip, every, full).
  assert right / len(pairs) < 0.75
