# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A batch of activations to the rows that are kept, in text order."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from sae_jax import errors
from sae_jax.store import statistics

# tokens_BT, mask_BT -> {hook: x_BTD}; the arrays may still be computing.
Activations = Callable[[np.ndarray, np.ndarray], Mapping[str, Any]]
Batches = Iterable[tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filters:
  """Which tokens are no rows.

  Attributes:
    special: token id -> reason; empty: all ids are kept.
    largest_norms: hook -> norm above which a row is an outlier.
  """

  special: dict[int, str]
  largest_norms: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Kept:
  """The rows of one batch.

  Attributes:
    batch: the lane's number of the batch.
    tokens_BT: int32 as fed, -1 where nothing was.
    rows_R2: int32 (context in the batch, position).
    x: hook -> x_RD bfloat16.
    dropped: reason -> tokens left out.
  """

  batch: int
  tokens_BT: np.ndarray
  rows_R2: np.ndarray
  x: dict[str, np.ndarray]
  dropped: dict[str, int]


def kept(
  activations: Activations,
  batches: Batches,
  filters: Filters,
  first_batch: int = 0,
) -> Iterator[Kept]:
  """The rows that the filters leave of each batch."""
  for fed in _one_ahead(activations, batches, first_batch):
    yield _select(filters, *fed)


def given(
  activations: Activations,
  batches: Batches,
  keeps: Iterable[np.ndarray],
  first_batch: int = 0,
) -> Iterator[Kept]:
  """The rows at the positions keep_BT bool of each batch, unfiltered.

  Raises:
    errors.InputError: such a row is not finite.
  """
  ahead = _one_ahead(activations, batches, first_batch)
  for (batch, tokens_BT, mask_BT, found), keep_BT in zip(
    ahead, keeps, strict=True
  ):
    one = _take_all(batch, tokens_BT, mask_BT, found, keep_BT.reshape(-1))
    left = int(mask_BT.sum()) - len(one.rows_R2)
    for hook, x_RD in one.x.items():
      finite_R = np.isfinite(statistics.norms(x_RD))
      if not finite_R.all():
        context, position = one.rows_R2[int(np.argmin(finite_R))]
        raise errors.InputError(
          f"{hook} is not finite at position {position} of context {context} of"
          f" batch {batch}, a row of the store that tokens_of names, which"
          " cannot be left out; run the model in dtype='float32'"
        )
    yield dataclasses.replace(
      one, dropped={"not_in_tokens_of": left} if left else {}
    )


def _one_ahead(
  activations: Activations, batches: Batches, first_batch: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray, Mapping[str, Any]]]:
  """Starts the next batch before it yields one, so that the device works while
  the host filters."""
  ahead = None
  for batch, (tokens_BT, mask_BT) in enumerate(batches, first_batch):
    running = batch, tokens_BT, mask_BT, activations(tokens_BT, mask_BT)
    if ahead is not None:
      yield ahead
    ahead = running
  if ahead is not None:
    yield ahead


def special_reasons(
  bos: int | None, eos: int | None, pad: int | None, special: Iterable[int]
) -> dict[int, str]:
  """token id -> why it is left out; an id with several roles has the first."""
  reasons = dict.fromkeys(special, "special")
  for token, reason in ((pad, "pad"), (eos, "eos"), (bos, "bos")):
    if token is not None:
      reasons[token] = reason
  return reasons


@dataclasses.dataclass(frozen=True)
class FirstLook:
  """Sizes of the first batch that has a row; empty if none has."""

  widths: dict[str, int]  # hook -> D
  median_norms: dict[str, float]


def first_look(
  activations: Activations, batches: Batches, special: Mapping[int, str]
) -> FirstLook:
  filters = Filters(special=dict(special), largest_norms={})
  for one in kept(activations, batches, filters):
    if len(one.rows_R2):
      return FirstLook(
        {hook: x_RD.shape[1] for hook, x_RD in one.x.items()},
        {
          hook: float(np.median(statistics.norms(x_RD)))
          for hook, x_RD in one.x.items()
        },
      )
  return FirstLook({}, {})


def _select(
  filters: Filters,
  batch: int,
  tokens_BT: np.ndarray,
  mask_BT: np.ndarray,
  activations: Mapping[str, Any],
) -> Kept:
  dropped: dict[str, int] = {}
  keep_N = mask_BT.reshape(-1).copy()
  tokens_N = tokens_BT.reshape(-1)
  special_N = keep_N & np.isin(tokens_N, np.array([*filters.special], int))
  keep_N &= ~special_N
  for token, count in zip(
    *np.unique(tokens_N[special_N], return_counts=True), strict=True
  ):
    reason = filters.special[int(token)]
    dropped[reason] = dropped.get(reason, 0) + int(count)
  one = _take_all(batch, tokens_BT, mask_BT, activations, keep_N)
  good_R = np.ones(len(one.rows_R2), bool)
  outlier_R = np.zeros(len(one.rows_R2), bool)
  for hook, x_RD in one.x.items():
    norm_R = statistics.norms(x_RD)
    good_R &= np.isfinite(norm_R)
    if hook in filters.largest_norms:
      outlier_R |= norm_R > filters.largest_norms[hook]
  for reason, bad_R in (
    ("non_finite", ~good_R),
    ("outlier_norm", good_R & outlier_R),
  ):
    if bad_R.any():
      dropped[reason] = int(bad_R.sum())
  good_R &= ~outlier_R
  one = dataclasses.replace(one, dropped=dropped)
  if good_R.all():
    return one
  return dataclasses.replace(
    one,
    rows_R2=one.rows_R2[good_R],
    x={hook: _take(x_RD, good_R) for hook, x_RD in one.x.items()},
  )


def _take_all(
  batch: int,
  tokens_BT: np.ndarray,
  mask_BT: np.ndarray,
  activations: Mapping[str, Any],
  keep_N: np.ndarray,
) -> Kept:
  """The rows of the flat positions `keep_N`, nothing dropped yet."""
  at_R = np.flatnonzero(keep_N)
  width = tokens_BT.shape[1]
  return Kept(
    batch,
    np.where(mask_BT, tokens_BT, -1).astype(np.int32),
    np.stack([at_R // width, at_R % width], axis=1).astype(np.int32),
    {hook: _take(x_BTD, at_R) for hook, x_BTD in activations.items()},
    {},
  )


def _take(x: Any, at: np.ndarray) -> np.ndarray:
  """Rows of [..., D] as bf16; moved as integers, which releases the GIL."""
  host = np.asarray(x)
  host = host.astype(ml_dtypes.bfloat16, copy=False)
  flat = host.reshape(-1, host.shape[-1]).view(np.uint16)
  return flat[at].view(ml_dtypes.bfloat16)
