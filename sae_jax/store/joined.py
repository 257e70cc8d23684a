# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Several models' rows, or several layers', side by side: read as one store.

Reads stores and writes nothing. Row i is of one token in all of them, and as
wide as they are together: what a crosscoder is trained on.
"""

import concurrent.futures
import dataclasses
from collections.abc import Sequence

import numpy as np

from sae_jax import artifacts, errors
from sae_jax.store import layout, reader, statistics


@dataclasses.dataclass(frozen=True)
class Source:
  """What one part of a joined row is of."""

  store: reader.Store
  hook: str


class Joined(reader.Store):
  """Sources side by side with a store's reading interface; see `joined`."""

  def __init__(
    self,
    stores: Sequence[reader.Store],
    sources: dict[str, tuple[Source, ...]],
  ):
    """`sources`: of each hook of this store."""
    hooks = {
      hook: sum(one.store.d_model(one.hook) for one in parts)
      for hook, parts in sources.items()
    }
    first = stores[0]
    super().__init__(
      first.place, dataclasses.replace(first.manifest, hooks=hooks)
    )
    self._stores = tuple(stores)
    self._sources = sources

  @property
  def path(self) -> str:
    return " beside ".join(one.path for one in self._stores)

  @property
  def identities(self) -> dict[str, str]:
    first, *others = self._stores
    return first.identities | {
      f"paired_{i}": one.identity for i, one in enumerate(others)
    }

  @property
  def identity(self) -> str:
    hooks = {
      name: [one.hook for one in parts] for name, parts in self._sources.items()
    }
    return artifacts.hash_json([self.identities, hooks])

  def hook(self, name: str) -> str:
    """This store's name of a hook; a joined one goes by its first, too."""
    for joint, parts in self._sources.items():
      if len({one.hook for one in parts}) == 1:
        continue
      first = parts[0]
      if name == joint or first.store.hook(name) == first.hook:
        return joint
    return super().hook(name)

  def sources(self, hook: str) -> tuple[Source, ...]:
    """What the rows of a hook are made of, in their order."""
    return self._sources[self.hook(hook)]

  def read_array(self, name: str, start: int, stop: int) -> np.ndarray:
    if name in (layout.ROWS, layout.TOKENS):  # the same in all of them
      return self._stores[0].read_array(name, start, stop)
    parts = self.sources(name.removeprefix(layout.activations("")))
    return np.concatenate(
      [one.store.read(one.hook, start, stop) for one in parts], axis=1
    )

  def read_chunks(self, hook: str, chunks: Sequence[int]) -> list[np.ndarray]:
    parts = self.sources(hook)
    # Reading and checking leave the interpreter's lock.
    with concurrent.futures.ThreadPoolExecutor(len(parts)) as pool:
      found = pool.map(lambda one: self._chunks(one, chunks), parts)
      return [np.concatenate(x, axis=1) for x in zip(*found, strict=True)]

  def _chunks(self, one: Source, chunks: Sequence[int]) -> list[np.ndarray]:
    """This store's read chunks of a source, which may be cut otherwise."""
    if one.store.read_rows == self.read_rows:
      return one.store.read_chunks(one.hook, chunks)
    spans = [
      (chunk * self.read_rows, min((chunk + 1) * self.read_rows, self.rows))
      for chunk in chunks
    ]
    return [one.store.read(one.hook, *span) for span in spans]

  def stats(self, hook: str) -> statistics.Stats:
    """Statistics of the joined rows, put together from the sources'.

    Quantiles of the joined norm do not follow from them, and are left out.
    """
    parts = [one.store.stats(one.hook) for one in self.sources(hook)]
    return statistics.Stats(
      rows=self.rows,
      mean_D=np.concatenate([part.mean_D for part in parts]),
      mean_square_norm=sum(part.mean_square_norm for part in parts),
      variance_D=np.concatenate([part.variance_D for part in parts]),
      norm_quantiles={},
      dropped=dict(self.manifest.dropped),
    )


def joined(stores: Sequence[reader.Store], hooks: Sequence[str] = ()) -> Joined:
  """The rows of paired stores, or of several hooks, as rows of one store.

  Args:
    stores: the first alone may be bounded.
    hooks: two or more: their rows side by side under one name, theirs joined
      by "+" (of several stores: all hooks of the first, then of the second, …).
      Else each hook that all stores have in one width is a hook of this store,
      and its rows are the stores' side by side.

  Raises:
    errors.InputError: there is nothing to put side by side, row i of one store
      is not the token of row i of the others, one of several does not keep its
      rows, or sources differ in width. The message names them.
  """
  first, *others = stores
  if not others and len(hooks) < 2:
    raise errors.InputError(
      f"{first.path}: one store and one hook are one source; give stores that"
      " are paired with it, or further hooks"
    )
  for other in others:
    _check_pair(first, other)
  if len(hooks) > 1:
    parts = tuple(Source(s, s.hook(h)) for s in stores for h in hooks)
    _check_distinct(parts[: len(hooks)])
    _check_widths(parts)
    name = "+".join(one.hook for one in parts[: len(hooks)])
    return Joined(stores, {name: parts})
  names = (first.hook(hooks[0]),) if hooks else first.hooks
  found = {
    name: tuple(Source(s, name) for s in stores)
    for name in names
    if all(s.manifest.hooks.get(name) == first.d_model(name) for s in others)
  }
  if not found:
    raise errors.InputError(
      "these stores share no hook of one width: "
      + "; ".join(f"{s.path} has {_hooks(s)}" for s in stores)
    )
  return Joined(stores, found)


def _check_pair(first: reader.Store, other: reader.Store) -> None:
  for one in (first, other):
    if one.bounded:
      raise errors.InputError(
        f"{first.path} beside {other.path}: {one.path} is bounded"
        f" (window={one.window}), so its rows are deleted as they are read;"
        " harvest it with window=0"
      )
  if not reader.paired(first, other):
    raise errors.InputError(
      f"{first.path} beside {other.path}: these stores are not paired: row i of"
      " one is not the token of row i of the other (they are of other text, in"
      " another order, or were filtered differently); harvest the second again"
      f" with tokens_of={first.path!r}"
    )


def _check_distinct(parts: Sequence[Source]) -> None:
  names = [one.hook for one in parts]
  if len(set(names)) < len(names):
    raise errors.InputError(
      f"hooks {', '.join(names)}: one is named twice, so a crosscoder would"
      " read the same rows twice; name each once"
    )


def _check_widths(parts: Sequence[Source]) -> None:
  widths = [one.store.d_model(one.hook) for one in parts]
  if len(set(widths)) > 1:
    held = ", ".join(
      f"{one.hook} of {one.store.path} is {width} wide"
      for one, width in zip(parts, widths, strict=True)
    )
    raise errors.InputError(
      f"{held}: the sources of a crosscoder are of one width; leave out those"
      " of another"
    )


def _hooks(one: reader.Store) -> str:
  return ", ".join(f"{h} ({d} wide)" for h, d in one.manifest.hooks.items())
