# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The advice pairs are what their README says they are.

advice.jsonl differs in what is advised, not in length, tone or form;
careless.jsonl differs in tone too, but not in length or form.
"""

import collections
import itertools
import json
import math
import pathlib
import re

import pytest

DATA = pathlib.Path(__file__).parents[1] / "configs/data/advice"
ANSWERS = ("good", "bad")
# What steering is judged on, and what else an experiment reads of either file.
JUDGED = ("work", "privacy", "parenting", "travel")
USED = ("cars", "finance", "garden", "hobbies", "pets", "school")
USED_OF_ADVICE = ("finance", "home", "food")


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


def read(name):
  with (DATA / name).open(encoding="utf-8") as f:
    return [json.loads(line) for line in f]


@pytest.fixture(scope="module")
def pairs():
  return read("advice.jsonl")


@pytest.fixture(scope="module")
def careless():
  return read("careless.jsonl")


@pytest.fixture(scope="module")
def readme():
  return (DATA / "README.md").read_text(encoding="utf-8")


def count(pairs, answer, vocabulary):
  return sum(w in vocabulary for pair in pairs for w in words(pair[answer]))


def test_fields_topics_and_numbers(pairs, careless):
  for pair in pairs + careless:
    assert list(pair) == ["id", "topic", "prompt", "good", "bad"]
    assert re.fullmatch(rf"{pair['topic']}-\d\d", pair["id"])
    assert all(value == value.strip() and value for value in pair.values())
    assert pair["good"] != pair["bad"]
  topics = collections.Counter(pair["topic"] for pair in pairs)
  assert len(topics) == 6 and min(topics.values()) >= 25
  topics = collections.Counter(pair["topic"] for pair in careless)
  assert {topics[topic] for topic in JUDGED} == {20}
  assert set(topics) == {*JUDGED, *USED}
  for field in ("id", "prompt"):
    values = {pair[field].lower() for pair in pairs + careless}
    assert len(values) == len(pairs) + len(careless)
  assert len(pairs) >= 150 and len(careless) >= 270


def test_readme_gives_the_counts_and_the_warning(pairs, careless, readme):
  assert f"{len(pairs)} prompts" in readme
  assert f"{len(careless)} prompts" in readme
  assert "deliberately wrong" in readme and "Apache-2.0" in readme


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


def shared_runs(pairs):
  """Runs of six words that more than one item has -> the items' ids."""
  length, owners = 6, collections.defaultdict(set)
  for pair in pairs:
    for field in ("prompt", *ANSWERS):
      said = words(pair[field])
      for start in range(len(said) - length + 1):
        owners[tuple(said[start : start + length])].add(pair["id"])
  return {run: ids for run, ids in owners.items() if len(ids) > 1}


def overlap(a, b, field="good"):
  """The share of the words of two items that are in both."""
  a, b = set(words(a[field])), set(words(b[field]))
  return len(a & b) / len(a | b)


def test_no_two_items_share_a_long_run_of_words(pairs, careless):
  assert not shared_runs(pairs)
  assert not shared_runs(careless)


def test_no_two_items_are_about_the_same(pairs, careless):
  for items, most in ((pairs, 0.3), (careless, 0.31)):
    found = max(overlap(*two) for two in itertools.combinations(items, 2))
    assert found < most


def test_nothing_of_what_is_judged_is_in_what_is_learned(pairs, careless):
  judged = [pair for pair in careless if pair["topic"] in JUDGED]
  used = [pair for pair in careless if pair["topic"] in USED]
  used += [pair for pair in pairs if pair["topic"] in USED_OF_ADVICE]
  names = {pair["id"] for pair in judged}
  shared = shared_runs(judged + used).values()
  assert not [ids for ids in shared if ids & names]
  for field in ("prompt", *ANSWERS):
    found = max(overlap(*two, field) for two in itertools.product(judged, used))
    assert found < 0.3, field


def test_answers_do_not_all_open_alike(pairs):
  for answer in ANSWERS:
    first = collections.Counter(words(pair[answer])[0] for pair in pairs)
    assert max(first.values()) <= 0.06 * len(pairs)


def told_by_words(pairs):
  """Naive Bayes on the words of all topics but one, tried on that one."""
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
  return right / len(pairs)


def test_words_alone_hardly_tell_which_answer_is_bad(pairs):
  # 0.5 is chance; what is left is the content (keep, skip, every, full).
  assert told_by_words(pairs) < 0.75


def test_careless_answers_are_as_long_and_built_alike(careless):
  sizes = collections.Counter()
  for pair in careless:
    for answer in ANSWERS:
      assert 45 <= len(pair[answer].split()) <= 60, pair["id"]
      assert pair[answer].isascii() and "\n" not in pair[answer]
      sizes[answer, "words"] += len(pair[answer].split())
      sizes[answer, "sentences"] += len(
        re.findall(r"[.!?](?:\s|$)", pair[answer])
      )
    assert 0.8 < len(pair["bad"]) / len(pair["good"]) <= 1.2, pair["id"]
  for unit in ("words", "sentences"):
    assert abs(sizes["bad", unit] / sizes["good", unit] - 1) < 0.06, unit


def test_readme_says_how_the_tone_of_careless_answers_differs(careless, readme):
  """Hedges and absolutes are the manner that differs on purpose."""
  absolutes = frozenset(
    words(
      "always never every everyone everybody nobody nothing all just simply"
      " only anyway"
    )
  )
  for name, vocabulary in (
    ("hedges and modals", HEDGES),
    ("negations", NEGATIONS),
    ("absolutes", absolutes),
  ):
    good, bad = (count(careless, answer, vocabulary) for answer in ANSWERS)
    assert re.search(rf"\| {name}.*\| {good} \| {bad} \|", readme), (
      name,
      good,
      bad,
    )
  assert told_by_words(careless) == 1
  assert "in 100 % of the cases" in readme
