# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Statistics of a hook's rows: accumulated in float64, in a fixed order.

Sums of a write chunk are added in row order and chunks in chunk order, so that
a resumed harvest ends with the same bits.
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np

from sae_jax import artifacts

PROBABILITIES = (
  0.0, 0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0
)  # fmt: skip

# Norms are counted in bins of 2^(1/32): a quantile is right to within 2.2 %.
_BINS_PER_OCTAVE = 32
_LOW, _HIGH = -16, 20  # 2^-16 … 2^20; norms outside fall into the end bins
_BINS = (_HIGH - _LOW) * _BINS_PER_OCTAVE

# Rows that are widened to float32 at a time: 2 MB at D = 2,048.
_BLOCK = 256


@dataclasses.dataclass(frozen=True)
class Stats:
  """Statistics of one hook over all rows of the store.

  Attributes:
    rows: how many rows they are of.
    mean_D: float64.
    mean_square_norm: mean of the squared Euclidean norm.
    variance_D: float64, of the population.
    norm_quantiles: probability -> norm, right to within 2.2 % (0 and 1 exact).
    dropped: reason -> tokens that were left out.
  """

  rows: int
  mean_D: np.ndarray
  mean_square_norm: float
  variance_D: np.ndarray
  norm_quantiles: dict[float, float]
  dropped: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Moments:
  """Running sums of one hook's rows."""

  rows: int
  sum_D: np.ndarray
  sum_square_D: np.ndarray
  bins: np.ndarray  # rows per norm bin
  least: float  # norm
  most: float  # norm

  def __add__(self, other: "Moments") -> "Moments":
    return Moments(
      self.rows + other.rows,
      self.sum_D + other.sum_D,
      self.sum_square_D + other.sum_square_D,
      self.bins + other.bins,
      min(self.least, other.least),
      max(self.most, other.most),
    )


def empty(width: int) -> Moments:
  zeros_D = np.zeros(width)
  bins = np.zeros(_BINS, np.int64)
  return Moments(0, zeros_D, zeros_D, bins, float("inf"), 0.0)


def moments(x_RD: np.ndarray) -> Moments:
  """Sums of bf16 rows, in float64 (squares of bf16 are exact in float32)."""
  total = empty(x_RD.shape[1])
  sum_D, sum_square_D = total.sum_D.copy(), total.sum_square_D.copy()
  norms = []
  for start in range(0, len(x_RD), _BLOCK):
    x_BD = x_RD[start : start + _BLOCK].astype(np.float32)
    sum_D += x_BD.sum(0, dtype=np.float64)
    np.square(x_BD, out=x_BD)
    sum_square_D += x_BD.sum(0, dtype=np.float64)
    norms.append(np.sqrt(x_BD.sum(1, dtype=np.float64)))
  if not norms:
    return total
  norm_R = np.concatenate(norms)
  with np.errstate(divide="ignore"):
    bin_R = np.floor((np.log2(norm_R) - _LOW) * _BINS_PER_OCTAVE)
  bin_R = np.clip(np.nan_to_num(bin_R, nan=_BINS), 0, _BINS - 1).astype(int)
  bins = np.bincount(bin_R, minlength=_BINS).astype(np.int64)
  return Moments(
    len(x_RD),
    sum_D,
    sum_square_D,
    bins,
    float(norm_R.min()),
    float(norm_R.max()),
  )


def norms(x_RD: np.ndarray) -> np.ndarray:
  """Euclidean norms, float64 [R]; the same bits for a row in any company."""
  out_R = np.empty(len(x_RD))
  for start in range(0, len(x_RD), _BLOCK):
    x_BD = x_RD[start : start + _BLOCK].astype(np.float32)
    np.square(x_BD, out=x_BD)
    out_R[start : start + _BLOCK] = np.sqrt(x_BD.sum(1, dtype=np.float64))
  return out_R


def finish(total: Moments, dropped: Mapping[str, int]) -> Stats:
  mean_D = total.sum_D / total.rows
  square_D = total.sum_square_D / total.rows
  return Stats(
    rows=total.rows,
    mean_D=mean_D,
    mean_square_norm=float(square_D.sum()),
    variance_D=np.maximum(square_D - mean_D**2, 0.0),
    norm_quantiles=_quantiles(total),
    dropped=dict(dropped),
  )


def equal(a: Stats, b: Stats) -> bool:
  """Whether two are the same to the bit (the order of sums is fixed)."""
  return to_bytes({"": a}) == to_bytes({"": b})


def _quantiles(total: Moments) -> dict[float, float]:
  """Log-linear inside a bin; the extremes are the measured ones."""
  below = np.concatenate([[0], np.cumsum(total.bins)])
  found = {}
  for p in PROBABILITIES:
    rank = p * total.rows
    at = int(np.searchsorted(below, rank, side="left"))
    at = min(max(at, 1), _BINS)
    inside = (rank - below[at - 1]) / max(below[at] - below[at - 1], 1)
    norm = 2.0 ** (_LOW + (at - 1 + inside) / _BINS_PER_OCTAVE)
    found[p] = float(np.clip(norm, total.least, total.most))
  found[0.0], found[1.0] = total.least, total.most
  return found


def pack_moments(by_hook: Sequence[Moments]) -> dict[str, np.ndarray]:
  """Named arrays of one npz; hooks by their number."""
  packed = {}
  for i, total in enumerate(by_hook):
    packed[f"{i}/sums"] = np.stack([total.sum_D, total.sum_square_D])
    packed[f"{i}/bins"] = total.bins
    packed[f"{i}/norms"] = np.array([total.least, total.most])
    packed[f"{i}/rows"] = np.array(total.rows)
  return packed


def unpack_moments(
  packed: Mapping[str, np.ndarray], hooks: int
) -> list[Moments]:
  """The list that `pack_moments` packed."""
  found = []
  for i in range(hooks):
    sum_D, sum_square_D = packed[f"{i}/sums"]
    least, most = packed[f"{i}/norms"].tolist()
    found.append(
      Moments(
        int(packed[f"{i}/rows"]),
        sum_D,
        sum_square_D,
        packed[f"{i}/bins"],
        least,
        most,
      )
    )
  return found


def to_bytes(by_hook: Mapping[str, Stats]) -> bytes:
  """`stats.npz`: `HOOK/FIELD` arrays, the same bytes for the same values."""
  arrays = {}
  for hook, stats in by_hook.items():
    arrays[f"{hook}/rows"] = np.array(stats.rows)
    arrays[f"{hook}/mean_D"] = stats.mean_D
    arrays[f"{hook}/mean_square_norm"] = np.array(stats.mean_square_norm)
    arrays[f"{hook}/variance_D"] = stats.variance_D
    arrays[f"{hook}/norm_probabilities"] = np.array(list(stats.norm_quantiles))
    arrays[f"{hook}/norm_quantiles"] = np.array(
      list(stats.norm_quantiles.values())
    )
    arrays[f"{hook}/dropped_reasons"] = np.array(list(stats.dropped), "U")
    arrays[f"{hook}/dropped"] = np.array(list(stats.dropped.values()), np.int64)
  return artifacts.npz(arrays)


def from_bytes(data: bytes, hooks: Sequence[str]) -> dict[str, Stats]:
  found = {}
  with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
    for hook in hooks:
      of = {k: arrays[f"{hook}/{k}"] for k in _FIELDS}
      found[hook] = Stats(
        rows=int(of["rows"]),
        mean_D=of["mean_D"],
        mean_square_norm=float(of["mean_square_norm"]),
        variance_D=of["variance_D"],
        norm_quantiles=_pairs(of["norm_probabilities"], of["norm_quantiles"]),
        dropped=_pairs(of["dropped_reasons"], of["dropped"]),
      )
  return found


_FIELDS = (
  "rows",
  "mean_D",
  "mean_square_norm",
  "variance_D",
  "norm_probabilities",
  "norm_quantiles",
  "dropped_reasons",
  "dropped",
)


def _pairs(keys: np.ndarray, values: np.ndarray) -> dict:
  return dict(zip(keys.tolist(), values.tolist(), strict=True))
