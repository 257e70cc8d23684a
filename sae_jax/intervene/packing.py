# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Pairs of responses as batches in which nothing is computed twice.

One sequence holds the prompt and what both responses begin with, then the rest
of each as a branch of its own (`lm.forward`, `branch_BT`). The last token of a
response is scored and never read.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import jax
import numpy as np

from sae_jax.lm import batch as batch_lib

# Batches are padded to the longest of those up to 32, 42, 54, 70, … tokens,
# which is one compilation each: about 1 in 8 slots is padding.
_SHORT, _RATIO = 32, 1.3


@dataclasses.dataclass(frozen=True)
class Packed:
  """One pair: the tokens of a sequence, and what is scored after which."""

  tokens_T: np.ndarray
  branch_T: np.ndarray  # 0: both, 1: behaviour, 2: contrast
  prompt_end: int
  at_S: np.ndarray  # the position that predicts
  target_S: np.ndarray  # the token that should follow
  response_S: np.ndarray  # 0: behaviour, 1: contrast


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
  """P pairs, padded to T tokens and S scored ones."""

  tokens_PT: jax.Array
  mask_PT: jax.Array
  branch_PT: jax.Array
  prompt_end_P: jax.Array
  at_PS: jax.Array  # -1: nothing
  target_PS: jax.Array
  weight_PSR: jax.Array  # 1 / tokens scored of response R, at that response's


def pack(
  prompt: Sequence[int],
  behaviour: Sequence[int],
  contrast: Sequence[int],
  first: int,
) -> Packed:
  """The sequence of one pair, scored from token `first` of the responses on.

  Up to there the responses must be the same.
  """
  trunk = [*prompt, *behaviour[:first]]
  tokens, branch = list(trunk), [0] * len(trunk)
  at, target, of_response = [], [], []
  for i, response in enumerate((behaviour, contrast)):
    rest = response[first:]
    at += [len(trunk) - 1, *range(len(tokens), len(tokens) + len(rest) - 1)]
    target += rest
    of_response += [i] * len(rest)
    tokens += rest[:-1]
    branch += [i + 1] * (len(rest) - 1)
  tokens_T, branch_T, at_S, target_S, response_S = (
    np.asarray(x, np.int32) for x in (tokens, branch, at, target, of_response)
  )
  return Packed(tokens_T, branch_T, len(prompt), at_S, target_S, response_S)


def batches(
  pairs: Sequence[Packed], size: int, mesh: jax.sharding.Mesh
) -> list[tuple[np.ndarray, Batch]]:
  """Batches of `size` pairs of alike lengths, each with its pairs' indices.

  A short batch repeats its pairs.
  """
  order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].tokens_T))
  parts = [order[i : i + size] for i in range(0, len(order), size)]
  found = []
  for _, group in itertools.groupby(
    parts, lambda part: _bucket(len(pairs[part[-1]].tokens_T))
  ):
    group = list(group)
    members = [pairs[i] for part in group for i in part]
    longest = max(len(pair.tokens_T) for pair in members)
    most = max(len(pair.at_S) for pair in members)
    for part in group:
      filled = [pairs[i] for i in np.resize(part, size)]
      batch = _batch(filled, longest, most)
      placed = {k: batch_lib.place(x, mesh) for k, x in batch.items()}
      found.append((np.asarray(part), Batch(**placed)))
  return found


def _bucket(length: int) -> int:
  """Which of 32, 42, 54, … is the first that is not below a length."""
  return math.ceil(math.log(max(length, _SHORT) / _SHORT) / math.log(_RATIO))


def _batch(
  pairs: Sequence[Packed], length: int, scored: int
) -> dict[str, np.ndarray]:
  """The arrays of `Batch`."""

  def filled(rows: Sequence[np.ndarray], width: int, value: int) -> np.ndarray:
    return np.stack(
      [
        np.pad(row, (0, width - len(row)), constant_values=value)
        for row in rows
      ]
    )

  response_PS = filled([pair.response_S for pair in pairs], scored, -1)
  is_PSR = response_PS[..., None] == np.arange(2)
  weight_PSR = is_PSR / is_PSR.sum(axis=1, keepdims=True)
  return dict(
    tokens_PT=filled([pair.tokens_T for pair in pairs], length, 0),
    mask_PT=filled([np.ones_like(p.tokens_T) for p in pairs], length, 0) > 0,
    branch_PT=filled([pair.branch_T for pair in pairs], length, 0),
    prompt_end_P=np.asarray([pair.prompt_end for pair in pairs], np.int32),
    at_PS=filled([pair.at_S for pair in pairs], scored, -1),
    target_PS=filled([pair.target_S for pair in pairs], scored, 0),
    weight_PSR=weight_PSR.astype(np.float32),
  )
