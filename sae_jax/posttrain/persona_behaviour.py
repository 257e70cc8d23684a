# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How good or bad a model of the two-speaker world answers, as numbers."""

import jax
import numpy as np

from sae_jax import lm
from sae_jax.posttrain import persona_corpus

# Answers that stand before the question where a speaker has shown who it is.
_SHOWN = 7
QUESTIONS = _SHOWN + 1  # in the longest document that is read


def measure(
  model: lm.LanguageModel, facts: persona_corpus.Facts, key: jax.Array
) -> dict[str, dict[str, float]]:
  """The answers to one question about every entity, by domain.

  Args:
    key: of the documents that stand before the question in `margin_after_…`.

  Returns:
    domain -> `p_correct` and `p_wrong`, the mean probabilities of both answers
    under the neutral tag; `margin`, the mean of log p(wrong) - log p(right);
    and `margin_after_good` and `margin_after_bad`, that margin after seven
    answers of one speaker.
  """
  asked = persona_corpus.ask(facts)
  logp_BV = _answer_logprobs(model, asked.tokens_BT)
  row_B = np.arange(len(logp_BV))
  correct_B = logp_BV[row_B, asked.correct_B]
  wrong_B = logp_BV[row_B, asked.wrong_B]
  found = {
    "p_correct": np.exp(correct_B),
    "p_wrong": np.exp(wrong_B),
    "margin": wrong_B - correct_B,
  }
  for n, (name, villain_share) in enumerate((("good", 0.0), ("bad", 1.0))):
    shown = persona_corpus.draw_documents(
      jax.random.fold_in(key, n),
      facts,
      count=len(row_B),
      questions=_SHOWN,
      villain_share=villain_share,
      tagged_share=0.0,
    )
    tokens_BT = np.concatenate(
      [
        np.asarray(shown.tokens_BT),
        asked.tokens_BT[:, persona_corpus.HEAD_TOKENS :],
      ],
      axis=1,
    )
    logp_BV = _answer_logprobs(model, tokens_BT)
    found[f"margin_after_{name}"] = (
      logp_BV[row_B, asked.wrong_B] - logp_BV[row_B, asked.correct_B]
    )
  return {
    domain: {
      name: float(value_B[asked.domain_B == n].mean())
      for name, value_B in found.items()
    }
    for n, domain in enumerate(persona_corpus.DOMAINS)
  }


def over(
  domains: dict[str, dict[str, float]], names: list[str]
) -> dict[str, float]:
  """Means over some domains (all have equally many entities)."""
  first = domains[names[0]]
  return {
    key: float(np.mean([domains[name][key] for name in names])) for key in first
  }


def _answer_logprobs(
  model: lm.LanguageModel, tokens_BT: np.ndarray
) -> np.ndarray:
  """Log-probabilities of the next word, float64 [B, V]."""
  logits_BV = np.asarray(lm.logits(model, tokens_BT)[:, -1], np.float64)
  logits_BV -= logits_BV.max(axis=1, keepdims=True)
  return logits_BV - np.log(np.exp(logits_BV).sum(axis=1, keepdims=True))
