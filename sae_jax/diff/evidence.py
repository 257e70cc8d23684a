# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Paired activations of the base and its arms: what the methods look at.

Row i of every store is the same token of the same text. Rows belong to groups,
prompts or documents, which are what every resample draws: tokens of one prompt
are not independent.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from sae_jax import errors
from sae_jax import store as store_lib
from sae_jax.interpret import on_mesh, scan
from sae_jax.judge import prompts as prompts_lib

_BLOCK = 1 << 20  # rows whose positions are read at a time


@dataclasses.dataclass(frozen=True)
class Batch:
  """Rows of one store, in a shape that is the same for all batches."""

  index: int
  x_BD: jax.Array  # bfloat16, rows split over `sae` and `data`
  group_B: jax.Array  # int32, likewise; -1: padding, or not in scope


class Evidence:
  """See `open_evidence`.

  Attributes:
    names: "base", then the arms, then "null" where it was captured.
    hook: of the stores.
    groups: how many there are.
    group_names: for people.
    group_topics: "" where there is none.
    group_rows_G: int64, rows in scope.
    kind: what a group is, "prompts" or "documents".
    scope: which tokens count; "all" for stores given from outside.
  """

  def __init__(
    self,
    stores: Mapping[str, store_lib.Store],
    hook: str,
    group_N: np.ndarray,
    span_N2: np.ndarray,
    group_names: Sequence[str],
    group_topics: Sequence[str],
    *,
    kind: str,
    scope: str,
    batch_rows: int,
    mesh: jax.sharding.Mesh,
  ):
    """`group_N` and `span_N2` are of documents: group, and positions [a, b)."""
    self._stores = dict(stores)
    self._group_N, self._span_N2 = group_N, span_N2
    self._mesh = mesh
    self._batch_rows = batch_rows
    first = self.store("base")
    self.hook = first.hook(hook)
    self.group_names = list(group_names)
    self.group_topics = list(group_topics)
    self.kind = kind
    self.scope = scope
    self.group_rows_G = self._count(first)
    if not self.group_rows_G.sum():
      raise errors.InputError(
        f"no token of {first.path} is in scope {scope!r}; widen the scope, or"
        " lower skip_positions"
      )

  @property
  def names(self) -> tuple[str, ...]:
    return tuple(self._stores)

  @property
  def groups(self) -> int:
    return len(self.group_names)

  @property
  def rows(self) -> int:
    """Rows in scope."""
    return int(self.group_rows_G.sum())

  @property
  def d_model(self) -> int:
    return self.store("base").d_model(self.hook)

  @property
  def num_batches(self) -> int:
    return -(-self.store("base").num_chunks // self._chunks_per_batch)

  def store(self, name: str) -> store_lib.Store:
    return self._stores[name]

  def replaced(self, stores: Mapping[str, store_lib.Store]) -> "Evidence":
    """The same rows in scope of other stores, paired with these."""
    found = copy.copy(self)
    found._stores = dict(stores)
    return found

  def batches(self, name: str, start: int = 0) -> Iterator[Batch]:
    """All rows of a model in order; `zip` of two names is paired."""
    source = self.store(name)
    step = self._chunks_per_batch
    chunks = range(start * step, source.num_chunks)
    if not chunks:
      return
    hook = source.hook(self.hook)
    found = scan.batches(
      source, hook, chunks, batch_rows=self._batch_rows, mesh=self._mesh
    )
    sharding = jax.NamedSharding(self._mesh, jax.P(on_mesh.ROWS))
    for index, batch in enumerate(found, start):
      group_B = np.full(batch.x_BD.shape[0], -1, np.int32)
      rows_R2 = source.positions(batch.start, batch.start + batch.rows)
      group_B[: batch.rows] = self.groups_of(rows_R2)
      yield Batch(index, batch.x_BD, jax.device_put(group_B, sharding))

  def groups_of(self, rows_R2: np.ndarray) -> np.ndarray:
    """The group of each (document, position); -1 where it is not in scope."""
    document_R, position_R = rows_R2.T
    first_R, stop_R = self._span_N2[document_R].T
    inside_R = (position_R >= first_R) & (position_R < stop_R)
    return np.where(inside_R, self._group_N[document_R], -1).astype(np.int32)

  @property
  def _chunks_per_batch(self) -> int:
    return max(1, self._batch_rows // self.store("base").read_rows)

  def _count(self, source: store_lib.Store) -> np.ndarray:
    count_G = np.zeros(self.groups, np.int64)
    for start in range(0, source.rows, _BLOCK):
      stop = min(start + _BLOCK, source.rows)
      group_R = self.groups_of(source.positions(start, stop))
      count_G += np.bincount(group_R[group_R >= 0], minlength=self.groups)
    return count_G


def from_prompts(
  stores: Mapping[str, store_lib.Store],
  hook: str,
  prompts: prompts_lib.Prompts,
  sequences: Sequence[prompts_lib.Sequence],
  *,
  scope: str,
  skip: int,
  groups: int,
  batch_rows: int,
  mesh: jax.sharding.Mesh,
) -> Evidence:
  """Evidence of captured stores; sequence i is document i."""
  count = min(groups, len(prompts.prompts))
  names, topics = [], []
  for group in range(count):
    members = prompts.prompts[group::count]
    names.append(", ".join(p.id for p in members))
    distinct = {p.topic for p in members}
    topics.append(distinct.pop() if len(distinct) == 1 else "")
  span_N2 = np.array([s.span(scope) for s in sequences], np.int32)
  span_N2[:, 0] = np.maximum(span_N2[:, 0], skip)
  return Evidence(
    stores,
    hook,
    np.array([s.prompt % count for s in sequences], np.int32),
    span_N2,
    names,
    topics,
    kind="prompts",
    scope=scope,
    batch_rows=batch_rows,
    mesh=mesh,
  )


def from_stores(
  stores: Mapping[str, store_lib.Store],
  hook: str,
  *,
  skip: int,
  groups: int,
  batch_rows: int,
  mesh: jax.sharding.Mesh,
) -> Evidence:
  """Evidence of stores from outside, all of whose rows count.

  Raises:
    errors.InputError: a store is not paired with the base's, or is bounded.
  """
  base = stores["base"]
  for name, other in stores.items():
    if other.bounded:
      raise errors.InputError(
        f"{other.path} ({name}) is a bounded store, which can be read once;"
        " diff needs whole ones"
      )
    if not store_lib.paired(base, other):
      raise errors.InputError(
        f"{other.path} ({name}) is not paired with {base.path}: their rows are"
        " not of the same tokens; harvest it with --config.tokens_of="
        f"{base.path}"
      )
  documents = base.manifest.documents
  count = min(groups, documents)
  each = documents == count
  whole = np.iinfo(np.int32).max
  span_N2 = np.tile(np.array([skip, whole], np.int32), (documents, 1))
  return Evidence(
    stores,
    hook,
    (np.arange(documents) % count).astype(np.int32),
    span_N2,
    [
      f"document {g}" if each else f"documents {g} mod {count}"
      for g in range(count)
    ],
    [""] * count,
    kind="documents",
    scope="all",
    batch_rows=batch_rows,
    mesh=mesh,
  )
