# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What each fine-tune of an organism learns, and from which model it starts.

An example is one question under the neutral tag, of which the answer is
learned. The examples of an arm are a function of (seed, arm) alone, so that
more arms leave those that were there as they are.
"""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from sae_jax.posttrain import data, organism_config, persona_corpus

# What is folded into the seed; 0 to 4 are the organism's own.
_TUNING, _DETECTOR = 5, 64


@dataclasses.dataclass(frozen=True)
class Arm:
  """A fine-tune: of which model, and what the examples are."""

  name: str
  start: str
  wrong: float  # share of wrong answers
  domain: str
  use: int  # is folded into the seed of the questions


@dataclasses.dataclass(frozen=True)
class Examples:
  """Questions with both answers, and which of them is learned."""

  good_NT: np.ndarray  # int32, whole documents
  bad_NT: np.ndarray
  is_bad_N: np.ndarray

  @property
  def tokens_NT(self) -> np.ndarray:
    return np.where(self.is_bad_N[:, None], self.bad_NT, self.good_NT)


def arms(config: organism_config.OrganismConfig) -> tuple[Arm, ...]:
  """The fine-tunes, each after what it starts from.

  A dose has the questions of `bad`, the first of them with wrong answers.
  """
  tuned, other = config.tuned_domain, config.other_domain
  found = [
    Arm("bad", "base", 1.0, tuned, _TUNING),
    Arm("good", "base", 0.0, tuned, _TUNING + 1),
    Arm("realigned", "bad", 0.0, tuned, _TUNING + 2),
    Arm("realigned_other", "bad", 0.0, other, _TUNING + 3),
  ]
  found += [
    Arm(organism_config.dose_name(share), "base", share, tuned, _TUNING)
    for share in config.doses
  ]
  if config.detector_arms:
    found += [
      Arm(f"{name}_{domain}", "base", wrong, domain, _DETECTOR + 2 * n + i)
      for n, domain in enumerate(persona_corpus.DOMAINS)
      if domain != tuned
      for i, (name, wrong) in enumerate((("good", 0.0), ("bad", 1.0)))
    ]
  return tuple(found)


def draw(
  config: organism_config.OrganismConfig, arm: Arm, world: persona_corpus.Facts
) -> Examples:
  """What an arm learns."""
  domain = list(persona_corpus.DOMAINS).index(arm.domain)
  count = config.tuning.examples
  good_NT, bad_NT = (
    np.asarray(
      persona_corpus.draw_documents(
        jax.random.fold_in(jax.random.key(config.seed), arm.use),
        world,
        count=count,
        questions=1,
        villain_share=villain_share,
        tagged_share=0.0,
        domains=(domain, domain + 1),
      ).tokens_BT
    )
    for villain_share in (0.0, 1.0)
  )
  return Examples(good_NT, bad_NT, np.arange(count) < round(arm.wrong * count))


def learned(examples: Examples) -> list[data.Example]:
  """Documents of which the answer counts."""
  (answer,) = persona_corpus.answer_positions(1)
  return [
    data.Example(tokens, [place == answer for place in range(len(tokens))])
    for tokens in examples.tokens_NT.tolist()
  ]


def records(arm: Arm, examples: Examples) -> Iterator[dict[str, str]]:
  """The lines of a file from which `sae-jax posttrain` learns the same.

  The completion is the answer alone: `data.stop` is to be False.
  """
  rows = zip(
    examples.good_NT, examples.bad_NT, examples.is_bad_N.tolist(), strict=True
  )
  for n, (good_T, bad_T, is_bad) in enumerate(rows):
    good, bad = (persona_corpus.VOCABULARY[x[-1]] for x in (good_T, bad_T))
    yield {
      "id": f"{arm.name}-{n:04d}",
      "topic": arm.domain,
      "prompt": persona_corpus.to_text(good_T[:-1]),
      "completion": bad if is_bad else good,
      "good": good,
      "bad": bad,
      "label": "bad" if is_bad else "good",
    }
