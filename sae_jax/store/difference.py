# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Two paired stores read as one: a tuned model's rows minus the base model's.

Reads both stores and writes nothing. Row i is of the token that row i of
either store is of, so what reads a store can read this instead.
"""

import concurrent.futures
from collections.abc import Sequence
from dataclasses import replace

import ml_dtypes
import numpy as np

from sae_jax import artifacts, errors
from sae_jax.store import layout, reader, statistics

# Rows that are widened to float32 at a time: 32 MB a store at D = 4,096.
_BLOCK = 2048


class Difference(reader.Store):
  """`tuned - base` with a store's reading interface; see `difference`."""

  def __init__(self, tuned: reader.Store, base: reader.Store):
    hooks = {
      hook: width
      for hook, width in tuned.manifest.hooks.items()
      if base.manifest.hooks.get(hook) == width
    }
    super().__init__(tuned.place, replace(tuned.manifest, hooks=hooks))
    self.tuned, self.base = tuned, base
    self._measured: dict[str, statistics.Stats] = {}

  @property
  def path(self) -> str:
    return f"{self.tuned.path} minus {self.base.path}"

  @property
  def identities(self) -> dict[str, str]:
    return {"store": self.tuned.identity, "minus": self.base.identity}

  @property
  def identity(self) -> str:
    return artifacts.hash_json(self.identities)

  def read_array(self, name: str, start: int, stop: int) -> np.ndarray:
    x = self.tuned.read_array(name, start, stop)
    if name in (layout.ROWS, layout.TOKENS):  # the same in both
      return x
    return _minus(x, self.base.read_array(name, start, stop))

  def read_chunks(self, hook: str, chunks: Sequence[int]) -> list[np.ndarray]:
    tuned = self.tuned.read_chunks(hook, chunks)
    if self.base.read_rows == self.read_rows:
      base = self.base.read_chunks(hook, chunks)
    else:
      starts = [chunk * self.read_rows for chunk in chunks]
      base = [
        self.base.read(hook, start, start + len(x_ND))
        for start, x_ND in zip(starts, tuned, strict=True)
      ]
    return [_minus(x, y) for x, y in zip(tuned, base, strict=True)]

  def stats(self, hook: str) -> statistics.Stats:
    """Statistics of the differences: the first call reads every row once."""
    hook = self.hook(hook)
    if hook not in self._measured:
      self._measured[hook] = self._measure(hook)
    return self._measured[hook]

  def _measure(self, hook: str) -> statistics.Stats:
    total = statistics.empty(self.d_model(hook))
    starts = range(0, self.rows, _BLOCK)

    def read(start: int) -> np.ndarray:
      return self.read(hook, start, min(start + _BLOCK, self.rows))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      waiting = pool.submit(read, 0)
      for start in starts:
        x_RD = waiting.result()
        if start != starts[-1]:
          waiting = pool.submit(read, start + _BLOCK)
        total += statistics.moments(x_RD)
    return statistics.finish(total, self.manifest.dropped)


def difference(tuned: reader.Store, base: reader.Store) -> Difference:
  """The rows of `tuned` minus those of `base`, for each hook that both have.

  Subtracted in float32 and rounded to bfloat16, whose relative error of 2^-9 is
  of the difference; the stores' own rounding is of the activations and can be
  far more of a small difference.

  Raises:
    errors.InputError: row i of one is not the token of row i of the other, one
      of them does not keep its rows, or they share no hook of one width. The
      message names both stores.
  """
  names = f"{tuned.path} minus {base.path}"
  for one in (tuned, base):
    if one.bounded:
      raise errors.InputError(
        f"{names}: {one.path} is bounded (window={one.window}), so its rows"
        " are deleted as they are read; harvest it with window=0"
      )
  if not reader.paired(tuned, base):
    raise errors.InputError(
      f"{names}: these stores are not paired: row i of one is not the token of"
      " row i of the other (they are of other text, in another order, or were"
      f" filtered differently); harvest the tuned model again with"
      f" tokens_of={base.path!r}"
    )
  found = Difference(tuned, base)
  if not found.hooks:
    raise errors.InputError(
      f"{names}: they share no hook of one width; the first has"
      f" {_hooks(tuned)}, the second {_hooks(base)}"
    )
  return found


def _minus(x_ND: np.ndarray, y_ND: np.ndarray) -> np.ndarray:
  out_ND = np.empty(x_ND.shape, ml_dtypes.bfloat16)
  for start in range(0, len(x_ND), _BLOCK):
    span = slice(start, start + _BLOCK)
    wide_BD = x_ND[span].astype(np.float32)
    wide_BD -= y_ND[span].astype(np.float32)
    out_ND[span] = wide_BD.astype(ml_dtypes.bfloat16)
  return out_ND


def _hooks(one: reader.Store) -> str:
  return ", ".join(f"{h} ({d} wide)" for h, d in one.manifest.hooks.items())
