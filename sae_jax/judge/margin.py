# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How much likelier a model finds the behaviour than its contrast.

The margin of a prompt is mean-token log p(behaviour) − mean-token log
p(contrast), in nats. Only differences between models on one set of prompts
mean something: its level depends on the responses' length and wording.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_jax import errors, lm
from sae_jax.judge import pairs, scores
from sae_jax.judge import prompts as prompts_lib


@dataclasses.dataclass(frozen=True)
class PairValues:
  """What a model makes of P prompts with both responses.

  Attributes:
    ids: of the prompts.
    topics: of the prompts.
    behaviour_P: mean log p of a scored token, nats, float64.
    contrast_P: the same of the other response.
  """

  ids: tuple[str, ...]
  topics: tuple[str, ...]
  behaviour_P: np.ndarray
  contrast_P: np.ndarray

  @classmethod
  def of(
    cls,
    prompts: prompts_lib.Prompts,
    behaviour_P: np.ndarray,
    contrast_P: np.ndarray,
  ) -> "PairValues":
    """What was read of `paired(prompts)`, in that order, with their names."""
    chosen = [prompts.prompts[i] for i in prompts.pairs]
    return cls(
      tuple(prompt.id for prompt in chosen),
      tuple(prompt.topic for prompt in chosen),
      behaviour_P,
      contrast_P,
    )

  def at(self, index_N: np.ndarray) -> "PairValues":
    """Those of some of the prompts."""
    return PairValues(
      tuple(self.ids[i] for i in index_N),
      tuple(self.topics[i] for i in index_N),
      self.behaviour_P[index_N],
      self.contrast_P[index_N],
    )

  @property
  def margin_P(self) -> np.ndarray:
    return self.behaviour_P - self.contrast_P

  @property
  def p_behaviour_P(self) -> np.ndarray:
    """Geometric mean probability of a token of the behaviour."""
    return np.exp(self.behaviour_P)

  @property
  def p_contrast_P(self) -> np.ndarray:
    """Geometric mean probability of a token of the contrast."""
    return np.exp(self.contrast_P)


@dataclasses.dataclass(frozen=True)
class Behaviour:
  """`PairValues` summed up: margin and both probabilities, never one alone.

  A model that is damaged finds both responses unlikely, which moves the margin
  towards 0 and looks like a cure.
  """

  margin: scores.Score
  p_behaviour: scores.Score
  p_contrast: scores.Score
  topics: dict[str, scores.Score]  # of the margin

  def json(self) -> dict[str, Any]:
    return {
      "margin": self.margin.json(),
      "p_behaviour": self.p_behaviour.json(),
      "p_contrast": self.p_contrast.json(),
      "topics": {topic: found.json() for topic, found in self.topics.items()},
    }


def pair_margins(
  model: lm.LanguageModel,
  prompts: prompts_lib.Prompts,
  *,
  edits: Sequence[lm.Edit] = (),
  batch_size: int = 16,
  first_difference: bool = True,
) -> PairValues:
  """Log-probabilities of both responses to every prompt that has both.

  Args:
    model: with a head.
    prompts: see `prompts.load`; those without both responses are left out.
    edits: changes of the activations, the same for every sequence.
    batch_size: sequences at a time; changes memory and speed only.
    first_difference: score from the first differing token on, see
      `pairs.first_difference`; False: whole responses.

  Raises:
    errors.InputError: no prompt has both responses, one has no tokens, two
      responses are equal, or a log-probability is not finite.
  """
  chosen = [prompts.prompts[i] for i in paired(prompts)]
  first_P = [
    _first(prompt, prompts) if first_difference else 0 for prompt in chosen
  ]
  fields = (prompts.behaviour, prompts.contrast)
  logps = lm.completion_logprobs(
    model,
    [prompt.tokens for prompt in chosen for _ in fields],
    [prompt.responses[field] for prompt in chosen for field in fields],
    edits=edits,
    batch_size=batch_size,
  )
  mean_P2 = np.array(
    [
      logp[first_P[i // 2] :].mean(dtype=np.float64)
      for i, logp in enumerate(logps)
    ]
  ).reshape(-1, 2)
  for prompt, mean_2 in zip(chosen, mean_P2, strict=True):
    if not np.isfinite(mean_2).all():
      raise errors.InputError(
        f"{model.source}: the log-probability of a response to prompt"
        f" {prompt.id!r} is not finite; check the model's weights, or use a"
        " smaller edit"
      )
  return PairValues.of(prompts, mean_P2[:, 0], mean_P2[:, 1])


def summarise(
  values: PairValues,
  *,
  seeds: Sequence[int] = (),
  confidence: float = 0.95,
  resamples: int = 2000,
  seed: int = 0,
) -> Behaviour:
  """Means over prompts with intervals, over all topics and within each."""

  def score(values_P: np.ndarray) -> scores.Score:
    return scores.score(
      values_P,
      seeds=seeds,
      confidence=confidence,
      resamples=resamples,
      seed=seed,
    )

  topics = np.array(values.topics)
  return Behaviour(
    score(values.margin_P),
    score(values.p_behaviour_P),
    score(values.p_contrast_P),
    {
      topic: score(values.margin_P[topics == topic])
      for topic in dict.fromkeys(values.topics)
    },
  )


def behaviour(
  model: lm.LanguageModel,
  prompts: prompts_lib.Prompts,
  *,
  edits: Sequence[lm.Edit] = (),
  batch_size: int = 16,
  seeds: Sequence[int] = (),
  confidence: float = 0.95,
  resamples: int = 2000,
  seed: int = 0,
) -> Behaviour:
  """`summarise` of `pair_margins`."""
  values = pair_margins(model, prompts, edits=edits, batch_size=batch_size)
  return summarise(
    values,
    seeds=seeds,
    confidence=confidence,
    resamples=resamples,
    seed=seed,
  )


def paired(prompts: prompts_lib.Prompts) -> tuple[int, ...]:
  """The prompts that have both responses.

  Raises:
    errors.InputError: there are none.
  """
  if not prompts.pairs:
    raise errors.InputError(
      f"{prompts.path}: no prompt has both responses {prompts.behaviour!r} and"
      f" {prompts.contrast!r}; add them, or name the two fields in"
      " prompts.behaviour and prompts.contrast"
    )
  return prompts.pairs


def _first(prompt: prompts_lib.Prompt, prompts: prompts_lib.Prompts) -> int:
  try:
    return pairs.first_difference(
      prompt.responses[prompts.behaviour], prompt.responses[prompts.contrast]
    )
  except errors.InputError as error:
    raise errors.InputError(
      f"{prompts.path}: prompt {prompt.id!r}: {error}"
    ) from error
