# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Examples to learn from, their order, and batches of them.

Which examples a step sees is a function of (seed, step) alone, so that a run
that is resumed needs no position but its step.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from sae_jax import errors, lm
from sae_jax.lm import batch as batch_lib


@dataclasses.dataclass(frozen=True)
class Example:
  """One sequence, and which of its tokens are to be learned.

  The first token cannot be predicted, so its mask does not count.
  """

  tokens: Sequence[int]
  loss_mask: Sequence[bool]


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("tokens_BT", "mask_BT", "at_BM", "target_BM", "weight_BM"),
  meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Batch:
  """B examples; M is the largest number of tokens that one of them learns.

  Attributes:
    tokens_BT: int32, padded on the right.
    mask_BT: bool, False on padding.
    at_BM: int32, the positions that predict a learned token.
    target_BM: int32, those tokens.
    weight_BM: float32, 1 / (learned tokens of the batch), 0 on padding.
  """

  tokens_BT: jax.Array
  mask_BT: jax.Array
  at_BM: jax.Array
  target_BM: jax.Array
  weight_BM: jax.Array


def check(model: lm.LanguageModel, examples: Sequence[Example]) -> None:
  """Refuses examples that a model cannot learn.

  Raises:
    errors.InputError: naming the example by its number, from 0.
  """
  if not examples:
    raise errors.InputError("no examples to fine-tune on; give at least one")
  vocab, limit = model.config.vocab_size, model.config.learned_positions
  for i, example in enumerate(examples):
    length = len(example.tokens)
    if length != len(example.loss_mask):
      raise errors.InputError(
        f"example {i}: {length} tokens and a loss mask of"
        f" {len(example.loss_mask)}; give one mask value per token"
      )
    if not any(example.loss_mask[1:]):
      raise errors.InputError(
        f"example {i}: no token after the first is marked to be learned"
      )
    if min(example.tokens) < 0 or max(example.tokens) >= vocab:
      raise errors.InputError(
        f"example {i}: token ids from {min(example.tokens)} to"
        f" {max(example.tokens)}, but {model.source} has ids 0 to {vocab - 1};"
        " use its own tokenizer"
      )
    if limit and length > limit:
      raise errors.InputError(
        f"example {i}: {length} tokens, but {model.source} has {limit}"
        " positions; shorten it"
      )


def order(count: int, batch_size: int, seed: int, step: int) -> np.ndarray:
  """The numbers of the examples of one step, [batch_size] int64.

  Steps walk through permutations of all examples, a new one for every epoch;
  a batch may run over the end of one into the next.
  """
  places = step * batch_size + np.arange(batch_size)
  chosen = np.empty(batch_size, np.int64)
  for epoch in np.unique(places // count):
    permutation = np.random.default_rng([seed, int(epoch)]).permutation(count)
    mine = places // count == epoch
    chosen[mine] = permutation[places[mine] % count]
  return chosen


def batch(
  examples: Sequence[Example], mesh: jax.sharding.Mesh, limit: int = 0
) -> Batch:
  """Pads some examples to one shape and puts them on the mesh.

  Lengths are rounded up to 32, 48, 64, 96, 128 … so that few shapes are
  compiled and at most a third of one is padding.

  Args:
    limit: the most positions that the model has; 0: no limit.
  """
  learned = [np.flatnonzero(e.loss_mask[1:]) for e in examples]
  t = _rounded(max(len(e.tokens) for e in examples))
  t = min(t, limit) if limit else t
  m = min(_rounded(max(map(len, learned))), t)
  shape, positions = (len(examples), t), (len(examples), m)
  tokens_BT = np.zeros(shape, np.int32)
  mask_BT = np.zeros(shape, bool)
  at_BM = np.zeros(positions, np.int32)
  target_BM = np.zeros(positions, np.int32)
  weight_BM = np.zeros(positions, np.float32)
  total = sum(map(len, learned))
  for row, (example, at) in enumerate(zip(examples, learned, strict=True)):
    tokens_BT[row, : len(example.tokens)] = example.tokens
    mask_BT[row, : len(example.tokens)] = True
    at_BM[row, : len(at)] = at
    target_BM[row, : len(at)] = tokens_BT[row, at + 1]
    weight_BM[row, : len(at)] = 1.0 / total
  arrays = (tokens_BT, mask_BT, at_BM, target_BM, weight_BM)
  return Batch(*(batch_lib.place(x, mesh) for x in arrays))


def _rounded(length: int) -> int:
  size = 32
  while size < length:
    size = size * 3 // 2 if size & (size - 1) == 0 else size // 3 * 4
  return size
