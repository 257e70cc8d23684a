# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Low-rank corrections of a decoder's weights (LoRA, Hu et al. 2021).

A weight [*out, *in] acts as `weight + scale * b a` with `a` [R, *in] and `b`
[*out, R]; the sum is made only by `merge`.
"""

import dataclasses
import math
from typing import TypeVar

import jax
import jax.numpy as jnp

from sae_jax import errors

T = TypeVar("T")

# target -> (path of the weight in a block, how many of its last axes are in)
TARGETS = {
  "q": ("attention.w_q_NHD", 1),
  "k": ("attention.w_k_KHD", 1),
  "v": ("attention.w_v_KHD", 1),
  "o": ("attention.w_o_DNH", 2),
  "gate": ("mlp.w_gate_FD", 1),
  "up": ("mlp.w_up_FD", 1),
  "down": ("mlp.w_down_DF", 1),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRank:
  """One corrected weight, as the blocks' products take it."""

  weight: jax.Array
  a: jax.Array
  b: jax.Array
  scale: float = dataclasses.field(metadata={"static": True})

  def __getitem__(self, index) -> "LowRank":
    """Itself: a flax parameter is read as `param[...]`."""
    if index is not ...:
      raise errors.InputError("a corrected weight can only be read whole")
    return self


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
  """Corrections of L consecutive blocks from block `first` on.

  Attributes:
    a: path of a weight in a block -> [L, R, *in].
    b: the same paths -> [L, *out, R].
  """

  a: dict[str, jax.Array]
  b: dict[str, jax.Array]
  first: int = dataclasses.field(metadata={"static": True})
  scale: float = dataclasses.field(metadata={"static": True})

  @property
  def end(self) -> int:
    """One more than the last corrected block."""
    return self.first + next(iter(self.a.values())).shape[0]

  def blocks(self, start: int, stop: int) -> "Adapter":
    """That of the blocks from `start` to before `stop`."""
    part = slice(start - self.first, stop - self.first)
    return Adapter(
      a={name: x[part] for name, x in self.a.items()},
      b={name: x[part] for name, x in self.b.items()},
      first=start,
      scale=self.scale,
    )


def segments(
  adapter: Adapter | None, start: int, stop: int
) -> list[tuple[range, Adapter | None]]:
  """Blocks `start` to before `stop` as corrected and uncorrected runs."""
  if adapter is None:
    return [(range(start, stop), None)] if start < stop else []
  first, end = (
    min(max(layer, start), stop) for layer in (adapter.first, adapter.end)
  )
  runs = [
    (range(start, first), None),
    (range(first, end), adapter.blocks(first, end)),
    (range(end, stop), None),
  ]
  return [(layers, part) for layers, part in runs if layers]


def attach(block: T, adapter: Adapter | None) -> T:
  """A block with its corrected weights; `adapter` without its layer axis."""
  if adapter is None:
    return block

  def correct(path, weight):
    name = jax.tree_util.keystr(path[:-1], simple=True, separator=".")
    if name not in adapter.a:
      return weight
    a, b = (x[name].astype(weight.dtype) for x in (adapter.a, adapter.b))
    return LowRank(weight, a, b, adapter.scale)

  return jax.tree_util.tree_map_with_path(correct, block)


def merge(decoder: T, adapter: Adapter) -> T:
  """The decoder with the corrections added to its weights, in f32."""

  def add(path, weight_L):
    name = jax.tree_util.keystr(path[:-1], simple=True, separator=".")
    name = name.removeprefix("blocks.")
    if name not in adapter.a:
      return weight_L
    part = slice(adapter.first, adapter.end)
    old_L = weight_L[part].astype(jnp.float32)
    a_LRI, b_LOR = adapter.a[name], adapter.b[name]
    layers, rank = a_LRI.shape[:2]
    width = math.prod(a_LRI.shape[2:])
    delta_LOI = jnp.einsum(
      "lor,lri->loi",
      b_LOR.reshape(layers, -1, rank),
      a_LRI.reshape(layers, rank, width),
      precision=jax.lax.Precision.HIGHEST,
    )
    new_L = old_L + adapter.scale * delta_LOI.reshape(old_L.shape)
    return weight_L.at[part].set(new_L.astype(weight_L.dtype))

  return jax.tree_util.tree_map_with_path(add, decoder)
