# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a judge is: answers in, one verdict for each out."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from sae_jax import errors
from sae_jax.judge import question_sets

# A valid answer shows the behaviour or, as contrast, does not. "error": the
# judge came to no clear verdict; such answers are counted, never guessed.
Label = Literal[
  "behaviour", "contrast", "refusal", "incoherent", "off_topic", "error"
]
LABELS: tuple[Label, ...] = (
  "behaviour",
  "contrast",
  "refusal",
  "incoherent",
  "off_topic",
  "error",
)

Progress = Callable[[int], None]  # told how many answers are judged


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What a judge says of one answer.

  Attributes:
    label: the class it falls in.
    score: the more, the more of the behaviour, on the judge's own scale (1-5
      of the llm's rubric, 0 or 1 of a classifier); None where it gave none.
    raw: what it was read from: the reply as it came, or the rule.
  """

  label: Label
  score: float | None
  raw: dict[str, Any]

  def json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)


class Judge(Protocol):
  """Labels answers to questions."""

  def identity(self) -> dict[str, Any]:
    """Who judges, as JSON: "name", "version" and what its verdicts hang on."""
    ...

  def check(self) -> None:
    """Fails now rather than after long work.

    Raises:
      errors.InputError: it cannot judge.
    """
    ...

  def judge(
    self,
    questions: Sequence[question_sets.Question],
    answers: Sequence[str],
    *,
    progress: Progress = lambda done: None,
  ) -> list[Verdict]:
    """A verdict on each answer to the question of the same place.

    Raises:
      errors.InputError: lists of different lengths, a question that this judge
        cannot judge, or a judge that cannot be reached any more.
    """
    ...


def same_length(
  questions: Sequence[question_sets.Question], answers: Sequence[str]
) -> None:
  """Raises errors.InputError unless every answer has its question."""
  if len(questions) != len(answers):
    raise errors.InputError(
      f"{len(questions)} questions and {len(answers)} answers: give the"
      " question of every answer"
    )
