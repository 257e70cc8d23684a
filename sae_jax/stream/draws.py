# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One grain element: the chunks of a draw, and their rows permuted.

An element is a draw of many read chunks and never one row, so that Python runs
a few times per tens of thousands of rows.
"""

import sys
import threading
from typing import Any

import numpy as np

from sae_jax import store as store_lib
from sae_jax.stream import order


class Draws:
  """A grain source: the chunks of one lane's draws, from `start` on.

  An element is (the chunks of each hook, counter of the row order, rows to
  skip). Nothing of the order depends on the hooks.
  """

  def __init__(
    self,
    plan: order.Plan,
    lane: int,
    start: tuple[int, int, int],
    store: store_lib.Store,
    hooks: tuple[str, ...],
    stop: threading.Event,
  ):
    self.plan = plan
    self._lane, self._store, self._stop = lane, store, stop
    self._hooks = hooks
    self._round, self._draw, self._skip = start
    self._dealt = -1, np.empty(0, np.intp)

  def __len__(self) -> int:
    plan = self.plan
    if plan.block is None:
      return sys.maxsize
    return (
      sum(plan.draws(r) for r in range(self._round, plan.rounds)) - self._draw
    )

  def __getitem__(self, index: int):
    plan = self.plan
    round_, draw = plan.draw_after(self._round, self._draw, index)
    if self._dealt[0] != round_:
      self._dealt = round_, plan.lane_chunks(self._lane, round_)
    dealt, draws = self._dealt[1], plan.draws(round_)
    first, end = (d * len(dealt) // draws for d in (draw, draw + 1))
    ids = dealt[first:end].tolist()
    if plan.block is not None:
      # The chunks of all hooks are written together.
      self._store.wait_chunks(self._hooks[0], ids, stop=self._stop)
      if self._stop.is_set():
        raise _ClosedError("the stream was closed while it waited for data")
    blocks = [self._store.read_chunks(hook, ids) for hook in self._hooks]
    return blocks, (draw, round_, self._lane), self._skip if index == 0 else 0


class _ClosedError(Exception):
  """Ends the reading threads; nobody is left to see it."""


def mix(element: tuple[Any, ...], *, seed: int) -> tuple[np.ndarray, ...]:
  """The permuted rows of a draw, of each hook.

  One copy, straight from the chunks.
  """
  hooks, counter, skip = element
  n = sum(len(block) for block in hooks[0])
  to_N = order.permutation(n, (seed, order.ROW_ORDER), counter)
  return tuple(_scatter(blocks, to_N)[skip:] for blocks in hooks)


def _scatter(blocks: list[np.ndarray], to_N: np.ndarray) -> np.ndarray:
  """Row i of the blocks, one after another, becomes row to_N[i]."""
  # As integers: numpy holds the GIL while it moves bfloat16.
  rows_ND = np.empty((len(to_N), blocks[0].shape[1]), np.uint16)
  start = 0
  for block in blocks:
    rows_ND[to_N[start : start + len(block)]] = block.view(np.uint16)
    start += len(block)
  return rows_ND
