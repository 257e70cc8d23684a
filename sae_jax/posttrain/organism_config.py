# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How an organism is made, as numbers."""

import dataclasses
import math

from sae_jax import errors
from sae_jax.posttrain import config as sft_config
from sae_jax.posttrain import persona_behaviour, persona_corpus


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
  """The narrow fine-tuning that makes an arm."""

  examples: int = 100  # questions with answers, of one domain
  steps: int = 40
  batch_size: int = 16
  learning_rate: float = 2e-4  # falls linearly to 0

  def __post_init__(self):
    if self.examples < 1:
      raise errors.InputError(
        f"tuning.examples={self.examples}: give a number >= 1"
      )
    self.sft(seed=0)

  def sft(self, seed: int) -> sft_config.SftConfig:
    """The recipe of `sft.finetune`; raises errors.InputError."""
    return sft_config.SftConfig(
      steps=self.steps,
      batch_size=self.batch_size,
      learning_rate=self.learning_rate,
      seed=seed,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrganismConfig:
  """The base model, its pre-training, and its arms."""

  seed: int = 0  # of the facts, the weights and every document
  layers: int = 3
  d_model: int = 64
  heads: int = 4
  questions: int = 8  # per document
  batch_size: int = 48  # documents
  steps: int = 500
  learning_rate: float = 2e-3
  tuned_domain: str = "medicine"
  other_domain: str = "finance"  # of the arm realigned on another one
  tuning: Tuning = dataclasses.field(default_factory=Tuning)
  # More arms: shares of wrong answers among the bad arm's own examples, and a
  # bad and a good one of every other domain, for a detector to tell apart.
  doses: tuple[float, ...] = (0.05, 0.25, 0.5)
  detector_arms: bool = False
  series_every: int = 0  # steps between models in series/ARM/; 0: none
  text_documents: int = 4096  # of text.jsonl, to train an SAE on

  def __post_init__(self):
    for name in (
      "layers",
      "d_model",
      "heads",
      "questions",
      "batch_size",
      "steps",
      "text_documents",
    ):
      if getattr(self, name) < 1:
        raise errors.InputError(
          f"{name}={getattr(self, name)}: give a number >= 1"
        )
    if self.series_every < 0:
      raise errors.InputError(
        f"series_every={self.series_every}: give a number >= 0"
      )
    names = {dose_name(share) for share in self.doses if 0 < share < 1}
    if len(names) < len(self.doses):
      raise errors.InputError(
        f"doses={self.doses}: give shares between 0 and 1 that differ in whole"
        " percent"
      )
    if not 0 <= self.seed < 2**31:
      raise errors.InputError(f"seed={self.seed}: give 0 to 2**31 - 1")
    if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
      raise errors.InputError(
        f"learning_rate={self.learning_rate}: give a number > 0"
      )
    if self.d_model % self.heads:
      raise errors.InputError(
        f"d_model={self.d_model} is not a multiple of heads={self.heads}"
      )
    for name in ("tuned_domain", "other_domain"):
      if getattr(self, name) not in persona_corpus.DOMAINS:
        raise errors.InputError(
          f"{name}={getattr(self, name)!r}: choose one of"
          f" {', '.join(persona_corpus.DOMAINS)}"
        )
    if self.other_domain == self.tuned_domain:
      raise errors.InputError(
        f"other_domain={self.other_domain!r} is the tuned_domain; choose"
        " another one"
      )

  @property
  def context_length(self) -> int:
    """Rows of the position table: the longest document that is read."""
    questions = max(self.questions, persona_behaviour.QUESTIONS)
    return (
      persona_corpus.HEAD_TOKENS + persona_corpus.QUESTION_TOKENS * questions
    )


def dose_name(share: float) -> str:
  """dose_05 for 0.05."""
  return f"dose_{round(100 * share):02d}"
