# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Whether an answer hangs together, without asking a chat model.

All limits are taken from what the model writes unsteered, so that incoherence
is what steering adds: a weak model's own loops and blunders are its normal.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sae_jax import errors, lm

_VERSION = 1
_GRAM = 4  # words
# Limits are never below these, however clean the unsteered answers are.
_LEAST_REPEATED = 0.2  # share of 4-grams; prose of 50 words has up to 0.05
_LEAST_RUN = 3  # "no, no, no" is English
_PIECE = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"\w+")


@dataclasses.dataclass(frozen=True)
class Finding:
  """What is odd about one answer.

  Attributes:
    repeated: share of its 4-grams of words that it has had before.
    run: most times that it says one word in a row.
    logp: mean log p of a token under the unsteered model, nats; None where
      there is no token.
    loops: it repeats more than the unsteered model's answers do.
    unlikely: the unsteered model finds it less likely than its own answers.
  """

  repeated: float
  run: int
  logp: float | None
  loops: bool
  unlikely: bool

  @property
  def incoherent(self) -> bool:
    return self.loops or self.unlikely

  def json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Fluency:
  """The unsteered model, its prompts, and the limits that it sets.

  Attributes:
    model: unsteered; the model whose steered answers are looked at.
    prompts: id -> tokens.
    quantile: share of the unsteered answers beyond each limit, about.
    answers: how many of those there were.
    most_repeated: limit of `Finding.repeated`.
    most_run: limit of `Finding.run`.
    least_logp: limit of `Finding.logp`.
    batch_size: answers at a time; changes memory and speed only.
  """

  model: lm.LanguageModel
  prompts: Mapping[str, Sequence[int]]
  quantile: float
  answers: int
  most_repeated: float
  most_run: float
  least_logp: float
  batch_size: int = 32

  def identity(self) -> dict[str, Any]:
    return {
      "name": "fluency",
      "version": _VERSION,
      "model": self.model.source,
      "quantile": self.quantile,
      "answers": self.answers,
      "most_repeated": self.most_repeated,
      "most_run": self.most_run,
      "least_logp": self.least_logp,
    }

  def findings(
    self, ids: Sequence[str], answers: Sequence[str]
  ) -> list[Finding]:
    """Looks at answers to the prompts of these ids.

    Raises:
      errors.InputError: there is no prompt of an id.
    """
    logps = mean_logprobs(
      self.model, self.prompts, ids, answers, batch_size=self.batch_size
    )
    found = []
    for answer, logp in zip(answers, logps, strict=True):
      repeated, run = repetition(answer)
      loops = repeated > self.most_repeated or run > self.most_run
      unlikely = logp is None or logp < self.least_logp
      found.append(Finding(repeated, run, logp, loops, unlikely))
    return found


def fit(
  model: lm.LanguageModel,
  prompts: Mapping[str, Sequence[int]],
  ids: Sequence[str],
  answers: Sequence[str],
  *,
  quantile: float = 0.05,
  batch_size: int = 32,
) -> Fluency:
  """Takes the limits from answers that the model gave unsteered.

  Args:
    model: unsteered.
    prompts: id -> tokens.
    ids: the prompt of each answer.
    answers: sampled as the steered ones are.
    quantile: share of them that may be beyond each limit.
    batch_size: answers at a time.

  Raises:
    errors.InputError: there is no answer with a token, or the quantile is no
      share.
  """
  if not 0 < quantile < 0.5:
    raise errors.InputError(
      f"quantile={quantile}: give a share between 0 and 0.5"
    )
  logps = mean_logprobs(model, prompts, ids, answers, batch_size=batch_size)
  real = [logp for logp in logps if logp is not None]
  if not real:
    raise errors.InputError(
      f"{model.source}: none of {len(answers)} unsteered answers has a token;"
      " raise max_new_tokens, or check the prompts"
    )
  said = [repetition(answer) for answer in answers]
  upper = 1 - quantile
  return Fluency(
    model,
    prompts,
    quantile,
    len(real),
    max(_upper([repeated for repeated, _ in said], upper), _LEAST_REPEATED),
    max(_upper([run for _, run in said], upper), _LEAST_RUN),
    float(np.quantile(real, quantile, method="lower")),
    batch_size,
  )


def repetition(text: str) -> tuple[float, int]:
  """Share of repeated 4-grams, and the longest run of one word.

  Words are compared without case; punctuation marks count as words in the
  share, so that a row of marks is a loop too.
  """
  pieces = _PIECE.findall(text.casefold())
  grams = list(zip(*(pieces[i:] for i in range(_GRAM)), strict=False))
  repeated = 1 - len(set(grams)) / len(grams) if grams else 0.0
  longest = run = 0
  last = None
  for word in _WORD.findall(text.casefold()):
    run = run + 1 if word == last else 1
    longest, last = max(longest, run), word
  return repeated, longest


def mean_logprobs(
  model: lm.LanguageModel,
  prompts: Mapping[str, Sequence[int]],
  ids: Sequence[str],
  answers: Sequence[str],
  *,
  batch_size: int = 32,
) -> list[float | None]:
  """Mean log p of each answer's tokens, nats; None of an answer without any.

  Raises:
    errors.InputError: lists of different lengths, or no prompt of an id.
  """
  if len(ids) != len(answers):
    raise errors.InputError(
      f"{len(ids)} prompts and {len(answers)} answers: give the prompt of every"
      " answer"
    )
  if unknown := [name for name in ids if name not in prompts]:
    raise errors.InputError(
      f"there is no prompt {unknown[0]!r} among the {len(prompts)} whose"
      " unsteered answers are known"
    )
  tokens = [model.tokenizer.encode(text, add_bos=False) for text in answers]
  some = [i for i, ids_T in enumerate(tokens) if ids_T]
  logps = lm.completion_logprobs(
    model,
    [prompts[ids[i]] for i in some],
    [tokens[i] for i in some],
    batch_size=batch_size,
  )
  found: list[float | None] = [None] * len(answers)
  for i, logp in zip(some, logps, strict=True):
    found[i] = float(logp.mean(dtype=np.float64))
  return found


def _upper(values: Sequence[float], share: float) -> float:
  return float(np.quantile(values, share, method="higher"))
