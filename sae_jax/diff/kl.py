# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How far apart two models' predictions are: KL divergence, token by token.

Both models run on the diff's own sequences. Their logits exist for a block of
positions at a time.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import artifacts, errors, lm
from sae_jax.diff import pairs, resampling
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import on_mesh
from sae_jax.judge import likelihood
from sae_jax.lm import batch as batch_lib

_SHOWN = 20  # tokens and words in the summary
_BEFORE = 12  # tokens before a shown one
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def measure(problem: problem_lib.Problem, name: str) -> dict[str, Any]:
  """KL(arm ‖ base) of the predictions made at the tokens in scope, in nats.

  Args:
    problem: with prompts and live models; kept in `work` when it is done.
    name: the arm.

  Returns:
    JSON values: `tokens` in scope; `mean` over them with an interval (`low`,
    `high`) that draws prompts; `quantiles` over tokens; `top`: the tokens after
    which predictions differ most, with the word that adds most to it; `words`:
    those whose probability rose and fell most, mean over all tokens.

  Raises:
    errors.InputError: no prompts or models, models of different vocabularies,
      or KL is not finite.
  """
  path = problem.work / f"kl.{name}.json"
  found = artifacts.read_json(path)
  if found is None:
    found = _measure(problem, name)
    artifacts.write_json_atomic(path, found)
  return found


def _measure(problem: problem_lib.Problem, name: str) -> dict[str, Any]:
  sequences = pairs.given(problem).sequences(problem.config.scope)
  base, tuned = problem.model("base"), problem.model(name)
  if base.config.vocab_size != tuned.config.vocab_size:
    raise errors.InputError(
      f"{tuned.source} has {tuned.config.vocab_size} words and {base.source}"
      f" {base.config.vocab_size}; their predictions cannot be compared"
    )
  lanes = on_mesh.lanes(problem.mesh)
  size = -(-min(problem.config.batch_size, len(sequences)) // lanes) * lanes
  order = sorted(
    range(len(sequences)), key=lambda i: (len(sequences[i].tokens), i)
  )
  width = pairs.rounded(
    max(
      stop - start
      for start, stop in (pairs.span(problem, s) for s in sequences)
    )
  )
  kl_of: dict[int, np.ndarray] = {}
  word_of: dict[int, np.ndarray] = {}
  at_of: dict[int, np.ndarray] = {}
  change_V = np.zeros(base.config.vocab_size)
  progress = problem.progress(len(order), "sequences")
  for first in range(0, len(order), size):
    some = order[first : first + size]
    batch = [sequences[i] for i in some]
    tokens_BT, mask_BT = pairs.padded([s.tokens for s in batch], size, base)
    spans = [pairs.span(problem, s) for s in batch]
    scope_BS = pairs.positions(spans, size, min(width, tokens_BT.shape[1]))
    placed = [
      batch_lib.place(x, problem.mesh) for x in (tokens_BT, mask_BT, scope_BS)
    ]
    kl_BS, word_BS, part_V = jax.device_get(
      _compare(base.model, tuned.model, *placed, mesh=problem.mesh)
    )
    change_V += part_V
    for row, i in enumerate(some):
      at_of[i] = np.arange(*spans[row])
      kl_of[i] = kl_BS[row, : len(at_of[i])]
      word_of[i] = word_BS[row, : len(at_of[i])]
    progress.update(first + len(some), f"KL {name}")
  progress.close()
  return _summary(
    problem, base, tuned, sequences, kl_of, word_of, at_of, change_V
  )


@functools.partial(jax.jit, static_argnames="mesh")
def _compare(base, tuned, tokens_BT, mask_BT, scope_BS, *, mesh):
  """KL [B, S], the word that adds most to it, and summed changes [V]."""

  def run(model):
    out = lm.forward(model, tokens_BT, mask_BT, want_logits=False, mesh=mesh)
    return likelihood.picked(out.resid_BTD, scope_BS)

  def part(xs):
    base_BsD, tuned_BsD, scope_Bs = xs
    log_p_BsV = jax.nn.log_softmax(tuned.unembed(tuned_BsD))
    log_q_BsV = jax.nn.log_softmax(base.unembed(base_BsD))
    p_BsV, q_BsV = jnp.exp(log_p_BsV), jnp.exp(log_q_BsV)
    gain_BsV = p_BsV * (log_p_BsV - log_q_BsV)
    change_BsV = jnp.where((scope_Bs > 0)[..., None], p_BsV - q_BsV, 0)
    return (
      jnp.sum(gain_BsV, axis=-1),
      jnp.argmax(gain_BsV, axis=-1),
      jnp.sum(change_BsV, axis=(0, 1)),
    )

  # Scope counts from 1 here, as blocks are filled up with 0.
  blocks = likelihood.position_blocks(
    (run(base), run(tuned), scope_BS + 1), 2 * base.config.vocab_size
  )
  kl_nBs, word_nBs, change_nV = jax.lax.map(part, blocks)

  def whole(x_nBs):
    x_Bns = jnp.moveaxis(x_nBs, 0, 1)
    return x_Bns.reshape(x_Bns.shape[0], -1)[:, : scope_BS.shape[1]]

  found = whole(kl_nBs), whole(word_nBs), jnp.sum(change_nV, axis=0)
  return jax.tree.map(lambda x: on_mesh.everywhere(x, mesh), found)


def _summary(
  problem, base, tuned, sequences, kl_of, word_of, at_of, change_V
) -> dict[str, Any]:
  ids = sorted(kl_of)
  sequence_N = np.concatenate([np.full(len(kl_of[i]), i) for i in ids])
  kl_N = np.concatenate([kl_of[i] for i in ids]).astype(np.float64)
  at_N = np.concatenate([at_of[i] for i in ids])
  word_N = np.concatenate([word_of[i] for i in ids])
  if not len(kl_N):
    raise errors.InputError(
      f"no token is in scope {problem.config.scope!r}; widen the scope, or"
      " lower skip_positions"
    )
  if not np.isfinite(kl_N).all():
    worst = pairs.given(problem).prompts[
      sequences[sequence_N[np.argmin(np.isfinite(kl_N))]].prompt
    ]
    raise errors.InputError(
      f"KL of {tuned.source} and {base.source} is not finite on prompt"
      f" {worst.id!r}; run with dtype=float32, or check the weights"
    )
  prompt_N = np.array([s.prompt for s in sequences])[sequence_N]
  quantiles = np.quantile(kl_N, QUANTILES)
  return {
    "tokens": len(kl_N),
    **_interval(problem, kl_N, prompt_N),
    "quantiles": {
      str(q): float(v) for q, v in zip(QUANTILES, quantiles, strict=True)
    },
    "top": [
      _shown(problem, base, sequences[sequence_N[n]], at_N[n], kl_N[n], word)
      for n, word in (
        (n, int(word_N[n])) for n in np.argsort(-kl_N, kind="stable")[:_SHOWN]
      )
    ],
    "words": _words(base, change_V / len(kl_N)),
  }


def _interval(problem, kl_N, prompt_N) -> dict[str, float | None]:
  """Mean over tokens; prompts are drawn with replacement."""
  config = problem.config.statistics
  _, group_N = np.unique(prompt_N, return_inverse=True)
  sum_P, count_P = np.bincount(group_N, kl_N), np.bincount(group_N)
  found: dict[str, float | None] = {
    "mean": float(kl_N.mean()),
    "low": None,
    "high": None,
  }
  if len(sum_P) > 1:
    weight_RP = resampling.draw(
      config.seed, len(sum_P), 1, config.resamples
    ).weight_RG
    mean_R = (weight_RP @ sum_P) / (weight_RP @ count_P)
    tail = (1 - config.confidence) / 2
    found["low"], found["high"] = map(
      float, np.quantile(mean_R, [tail, 1 - tail])
    )
  return found


def _shown(problem, model, sequence, at, kl, word: int) -> dict[str, Any]:
  pieces = model.tokenizer.token_strings
  start = max(0, at + 1 - _BEFORE)
  after = sequence.tokens[at + 1 : at + 2]
  return {
    "kl": float(kl),
    "prompt": pairs.given(problem).prompts[sequence.prompt].id,
    "position": int(at),
    "tokens": pieces(list(sequence.tokens[start : at + 1])),
    "next": pieces(list(after))[0] if after else None,
    "gained": pieces([word])[0],
  }


def _words(model, change_V: np.ndarray) -> dict[str, list]:
  rows = min(len(change_V), model.tokenizer.vocab_size)
  order = np.argsort(-change_V[:rows], kind="stable")
  return {
    name: [
      [token, float(change_V[i])]
      for token, i in zip(
        model.tokenizer.token_strings(some.tolist()), some, strict=True
      )
    ]
    for name, some in (
      ("risen", order[:_SHOWN]),
      ("fallen", order[::-1][:_SHOWN]),
    )
  }
