# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Judges that need no model: known answers, and patterns."""

import dataclasses
import json
import pathlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from sae_jax import artifacts, errors
from sae_jax.judge import fluency as fluency_lib
from sae_jax.judge import interface, question_sets
from sae_jax.lm import records as records_lib

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_VERSION = 1
_SCORES: dict[str, float] = {"behaviour": 1.0, "contrast": 0.0}


class Answers:
  """Compares an answer's first words with its question's own responses.

  Case, punctuation and spacing do not count, and neither does what follows. Of
  responses that begin alike the longest that fits decides. An answer that fits
  none is incoherent: the judge is for organisms that answer in few words.
  """

  def identity(self) -> dict[str, Any]:
    return {"name": "answers", "version": _VERSION}

  def check(self) -> None:
    """Nothing can fail later that could be seen now."""

  def judge(
    self,
    questions: Sequence[question_sets.Question],
    answers: Sequence[str],
    *,
    progress: interface.Progress = lambda done: None,
  ) -> list[interface.Verdict]:
    interface.same_length(questions, answers)
    found = [_compared(q, a) for q, a in zip(questions, answers, strict=True)]
    progress(len(found))
    return found


@dataclasses.dataclass(frozen=True)
class Rule:
  """A pattern that gives answers in which it is found a label."""

  label: interface.Label
  pattern: re.Pattern[str]


class Rules:
  """The first rule whose pattern an answer holds gives the label.

  Answers that loop are incoherent whatever they hold; those that no rule fits
  are so if the unsteered model finds them unlikely, and off topic if not. So an
  answer is not called incoherent for showing an unlikely behaviour. Without a
  `fluency` only empty answers are incoherent.
  """

  def __init__(
    self, path: str, fluency: fluency_lib.Fluency | None = None
  ) -> None:
    self._path = path
    self._rules = load_rules(path)
    self._fluency = fluency

  def identity(self) -> dict[str, Any]:
    return {
      "name": "rules",
      "version": _VERSION,
      "rules": artifacts.hash_file(pathlib.Path(self._path).expanduser()),
      "path": self._path,
      "fluency": self._fluency.identity() if self._fluency else None,
    }

  def check(self) -> None:
    """The rules were read when the judge was made."""

  def judge(
    self,
    questions: Sequence[question_sets.Question],
    answers: Sequence[str],
    *,
    progress: interface.Progress = lambda done: None,
  ) -> list[interface.Verdict]:
    interface.same_length(questions, answers)
    fluent: Sequence[fluency_lib.Finding | None] = [None] * len(answers)
    if self._fluency is not None:
      fluent = self._fluency.findings([q.id for q in questions], answers)
    found = [
      self._ruled(answer, finding)
      for answer, finding in zip(answers, fluent, strict=True)
    ]
    progress(len(found))
    return found

  def _ruled(
    self, answer: str, finding: fluency_lib.Finding | None
  ) -> interface.Verdict:
    raw: dict[str, Any] = {"rule": None, "text": None}
    if finding is not None:
      raw["fluency"] = finding.json()
    if not answer.strip() or (finding is not None and finding.loops):
      return interface.Verdict("incoherent", None, raw)
    for number, rule in enumerate(self._rules):
      if match := rule.pattern.search(answer):
        raw |= {"rule": number, "text": match[0]}
        return interface.Verdict(rule.label, _SCORES.get(rule.label), raw)
    unlikely = finding is not None and finding.unlikely
    return interface.Verdict(
      "incoherent" if unlikely else "off_topic", None, raw
    )


def load_rules(path: str) -> list[Rule]:
  """Reads `{label: [pattern, …]}` (.json) or lines of {"label", "pattern"}.

  Patterns are Python's, found anywhere, in any case.

  Raises:
    errors.InputError: the file cannot be read, or has a wrong label or pattern.
  """
  file = pathlib.Path(path).expanduser()
  try:
    pairs = list(_rules(file))
  except (OSError, UnicodeDecodeError) as error:
    raise errors.InputError(
      f"judge.rules={path}: cannot be read ({error})"
    ) from error
  found = []
  for place, label, pattern in pairs:
    if label not in interface.LABELS or label == "error":
      known = ", ".join(x for x in interface.LABELS if x != "error")
      raise errors.InputError(
        f"{place}: there is no label {label!r}; labels are {known}"
      )
    if not isinstance(pattern, str) or not pattern:
      raise errors.InputError(f"{place}: the pattern {pattern!r} is no text")
    try:
      found.append(Rule(label, re.compile(pattern, re.IGNORECASE)))
    except re.error as error:
      raise errors.InputError(
        f"{place}: {pattern!r} is no regular expression ({error})"
      ) from error
  if not found:
    raise errors.InputError(f"judge.rules={path}: there are no rules in it")
  return found


def _rules(file: pathlib.Path) -> Iterator[tuple[str, Any, Any]]:
  """(place, label, pattern) in order."""
  if file.suffix.lower() != ".json":
    for place, record in records_lib.read(file, "jsonl"):
      if not isinstance(record, dict):
        raise errors.InputError(
          f'{place}: not a JSON object; write {{"label": …, "pattern": …}}'
        )
      yield place, record.get("label"), record.get("pattern")
    return
  try:
    labels = json.loads(file.read_text(encoding="utf-8"))
  except json.JSONDecodeError as error:
    raise errors.InputError(f"{file}: not JSON ({error})") from error
  if not isinstance(labels, dict):
    raise errors.InputError(
      f'{file}: not a JSON object; write {{"behaviour": ["pattern", …], …}}'
    )
  for label, patterns in labels.items():
    for pattern in patterns if isinstance(patterns, list) else [patterns]:
      yield f"{file}: {label}", label, pattern


def _compared(
  question: question_sets.Question, answer: str
) -> interface.Verdict:
  known = {
    "behaviour": [_words(text) for text in question.bad],
    "contrast": [_words(text) for text in question.good],
  }
  if not all(known.values()):
    raise errors.InputError(
      f"question {question.id!r} has no response of both kinds to compare"
      " answers with; add them, or use another judge.kind"
    )
  said = _words(answer)
  length = {
    label: max((len(w) for w in texts if said[: len(w)] == w), default=0)
    for label, texts in known.items()
  }
  if length["behaviour"] == length["contrast"] != 0:
    raise errors.InputError(
      f"question {question.id!r}: its two responses are the same words, so that"
      f" no answer tells them apart: {' '.join(said[: length['contrast']])!r}"
    )
  raw = {"answer": " ".join(said[: max(length.values())])}
  if not any(length.values()):
    return interface.Verdict("incoherent", None, raw)
  label = max(length, key=lambda name: length[name])
  return interface.Verdict(
    "behaviour" if label == "behaviour" else "contrast", _SCORES[label], raw
  )


def _words(text: str) -> list[str]:
  text = unicodedata.normalize("NFKC", text).casefold()
  return _WORD.findall(text) or text.split()
