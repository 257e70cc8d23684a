# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of paired responses under many interventions.

Of each prompt, p(behaviour) and p(contrast) are means per token from the first
token in which the two responses differ.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from sae_jax import errors, lm
from sae_jax.intervene import edits
from sae_jax.judge import pairs as pairs_lib
from sae_jax.judge import prompts as prompts_lib


@dataclasses.dataclass(frozen=True)
class PairScores:
  """Mean log p per scored token of N interventions and P pairs, in nats."""

  behaviour_NP: np.ndarray  # float64
  contrast_NP: np.ndarray  # float64
  behaviour_tokens_P: np.ndarray  # how many tokens were scored
  contrast_tokens_P: np.ndarray

  @property
  def margin_NP(self) -> np.ndarray:
    return self.behaviour_NP - self.contrast_NP

  @property
  def p_behaviour_NP(self) -> np.ndarray:
    """The geometric mean of the tokens' probabilities."""
    return np.exp(self.behaviour_NP)

  @property
  def p_contrast_NP(self) -> np.ndarray:
    return np.exp(self.contrast_NP)

  @property
  def mass_NP(self) -> np.ndarray:
    """log(p(behaviour) + p(contrast)): what steering costs shows here."""
    return np.logaddexp(self.behaviour_NP, self.contrast_NP)


class Scorer:
  """Scores the pairs of a prompt set under interventions on one model."""

  def __init__(
    self,
    model: lm.LanguageModel,
    prompts: prompts_lib.Prompts,
    *,
    batch_rows: int = 64,
    first_difference: bool = True,
  ):
    self.model, self.batch_rows = model, batch_rows
    self.pairs = prompts.pairs
    if not self.pairs:
      raise errors.InputError(
        f"{prompts.path}: no prompt has both {prompts.behaviour!r} and"
        f" {prompts.contrast!r}; steering is scored on such pairs"
      )
    chosen = [prompts.prompts[i] for i in self.pairs]
    self.ids = tuple(prompt.id for prompt in chosen)
    self.topics = tuple(prompt.topic for prompt in chosen)
    self._prompts = [prompt.tokens for prompt in chosen]
    self._responses = [
      (
        prompt.responses[prompts.behaviour],
        prompt.responses[prompts.contrast],
      )
      for prompt in chosen
    ]
    self._first = [
      pairs_lib.first_difference(a, b) if first_difference else 0
      for a, b in self._responses
    ]

  def scores(
    self,
    interventions: edits.Interventions,
    progress: Callable[[int], None] | None = None,
  ) -> PairScores:
    """Scores every pair under every intervention."""
    prompts = [p for p in self._prompts for _ in range(2)]
    responses = [r for pair in self._responses for r in pair]
    firsts = [f for f in self._first for _ in range(2)]
    found_NP2 = np.zeros((interventions.n, len(self.pairs), 2))
    for i in range(interventions.n):
      one = interventions.take(np.asarray([i]))
      for j, (prompt, response, first) in enumerate(
        zip(prompts, responses, firsts, strict=True)
      ):
        (logp,) = lm.completion_logprobs(
          self.model,
          [prompt],
          [response],
          edits=one.lm_edits(np.zeros(1, np.int32), np.asarray([len(prompt)])),
        )
        found_NP2[i, j // 2, j % 2] = logp[first:].astype(np.float64).mean()
      if progress is not None:
        progress(i + 1)
    counts_P2 = np.asarray(
      [
        [len(response) - first for response in pair]
        for pair, first in zip(self._responses, self._first, strict=True)
      ]
    )
    return PairScores(
      found_NP2[..., 0], found_NP2[..., 1], counts_P2[:, 0], counts_P2[:, 1]
    )
