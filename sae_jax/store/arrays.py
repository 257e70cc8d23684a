# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A store from activations that somebody already has as arrays."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import ml_dtypes
import numpy as np

from sae_jax import errors, version
from sae_jax.store import layout, location, writer

_BLOCK = 4096  # rows that are converted at a time for a check


def write_arrays(
  path: str | os.PathLike[str],
  activations: Mapping[str, np.ndarray],
  *,
  documents: Sequence[np.ndarray] | None = None,
  rows_N2: np.ndarray | None = None,
  read_rows: int = 256,
  write_rows: int = 32768,
  seed: int = 0,
  model: str = "",
  tokenizer_hash: str = "",
) -> None:
  """Writes arrays as a finished store, rows permuted within write chunks.

  Args:
    path: a new directory or URL.
    activations: hook -> x_ND, rounded to bfloat16; N the same for all.
    documents: int token ids of each sequence; default: one token 0 per row.
    rows_N2: the (document, position) of each row; default: every token of
      every document in order.
    read_rows: rows per read chunk.
    write_rows: rows per write chunk, a multiple of `read_rows`.
    seed: of the permutation.
    model: where the activations came from, for the manifest.
    tokenizer_hash: of the tokenizer of `documents`, for the manifest.

  Raises:
    errors.InputError: sizes that do not fit, or `path` is taken.
  """
  if documents is None:
    count = len(next(iter(activations.values()), ()))
    documents = [np.zeros(1, np.int32)] * count
  if rows_N2 is None:
    rows_N2 = all_rows(documents)
  _check(activations, rows_N2, [len(document) for document in documents])
  write_blocks(
    path,
    {hook: x.shape[1] for hook, x in activations.items()},
    _cut(activations, write_rows),
    documents=documents,
    rows_N2=rows_N2,
    read_rows=read_rows,
    write_rows=write_rows,
    seed=seed,
    model=model,
    tokenizer_hash=tokenizer_hash,
  )


def all_rows(documents: Sequence[np.ndarray]) -> np.ndarray:
  """(document, position) int32 [N, 2] of every token of every document."""
  length_N = np.array([len(document) for document in documents], np.int64)
  document_R = np.repeat(np.arange(len(documents)), length_N)
  first_R = np.repeat(np.cumsum(length_N) - length_N, length_N)
  position_R = np.arange(len(document_R)) - first_R
  return np.stack([document_R, position_R], axis=1).astype(np.int32)


def write_blocks(
  path: str | os.PathLike[str],
  widths: Mapping[str, int],
  blocks: Iterable[Mapping[str, np.ndarray]],
  *,
  documents: Sequence[np.ndarray],
  rows_N2: np.ndarray,
  read_rows: int = 256,
  write_rows: int = 32768,
  seed: int = 0,
  model: str = "",
  weights_hash: str = "",
  tokenizer_hash: str = "",
) -> None:
  """Writes activations that come in blocks; one write chunk is in memory.

  Args:
    path: a new directory or URL.
    widths: hook -> D.
    blocks: hook -> finite x_ND of any lengths, together the rows of `rows_N2`
      in that order.
    documents: int token ids of each sequence.
    rows_N2: the (document, position) of each row.
    weights_hash: of the model, for the manifest. The rest: see `write_arrays`.

  Raises:
    errors.InputError: sizes that do not fit, or `path` is taken.
  """
  check_rows(read_rows, write_rows)
  place = location.Location(path)
  if place.read(layout.MANIFEST) or place.read(layout.START):
    raise errors.InputError(f"{place.path} holds a store; choose another path")
  width = max(map(len, documents))
  batch = max(1, min(len(documents), write_rows // width))
  manifest = layout.Manifest(
    hooks=dict(widths),
    rows=len(rows_N2),
    requested_rows=len(rows_N2),
    read_rows=read_rows,
    write_rows=write_rows,
    context_length=width,
    batch_size=batch,
    group_batches=1,
    lanes=1,
    window=0,
    seed=seed,
    model=model,
    weights_hash=weights_hash,
    tokenizer_hash=tokenizer_hash,
    prepends_bos=False,
    chat_template=False,
    text_source="",
    text_fingerprint="",
    filters={},
    config={},
    code_version=version.__version__,
  )
  out = writer.StoreWriter(path, manifest)
  state = out.lane(0)
  tokens = list(_batches(documents, batch, width))
  chunk = -1
  for chunk, x in enumerate(_chunks(blocks, write_rows)):
    span = slice(chunk * write_rows, (chunk + 1) * write_rows)
    state = out.write_chunk(
      state,
      chunk,
      {hook: x_ND.astype(ml_dtypes.bfloat16) for hook, x_ND in x.items()},
      rows_N2[span],
      tokens=list(enumerate(tokens)) if chunk == 0 else [],
      first_batch=0,
      next_batch=len(tokens),
      skip=0,
      exhausted=chunk == manifest.write_chunks - 1,
      dropped={},
    )
  if chunk + 1 != manifest.write_chunks:
    raise errors.InputError(
      f"{place.path}: {chunk + 1} write chunks came for {len(rows_N2)} rows;"
      f" {manifest.write_chunks} were expected"
    )
  out.finish()
  writer.clean(place)


def _cut(
  activations: Mapping[str, np.ndarray], step: int
) -> Iterator[dict[str, np.ndarray]]:
  count = len(next(iter(activations.values())))
  for start in range(0, count, step):
    yield {
      hook: np.asarray(x_ND[start : start + step])
      for hook, x_ND in activations.items()
    }


def _chunks(
  blocks: Iterable[Mapping[str, np.ndarray]], size: int
) -> Iterator[dict[str, np.ndarray]]:
  """The blocks' rows again, `size` at a time."""
  held: list[Mapping[str, np.ndarray]] = []
  rows = 0
  for block in blocks:
    held.append(block)
    rows += len(next(iter(block.values())))
    while rows >= size:
      whole = {h: np.concatenate([b[h] for b in held]) for h in held[0]}
      yield {hook: x_ND[:size] for hook, x_ND in whole.items()}
      held = [{hook: x_ND[size:] for hook, x_ND in whole.items()}]
      rows -= size
  if rows:
    yield {h: np.concatenate([b[h] for b in held]) for h in held[0]}


def check_rows(read_rows: int, write_rows: int) -> None:
  """Raises errors.InputError unless write chunks hold whole read chunks."""
  if read_rows < 1 or write_rows < 1 or write_rows % read_rows:
    raise errors.InputError(
      f"write_rows={write_rows}, read_rows={read_rows}: give numbers >= 1,"
      " write_rows a multiple of read_rows"
    )


def _batches(documents: Sequence[np.ndarray], batch: int, width: int):
  for first in range(0, len(documents), batch):
    tokens_BT = np.full((batch, width), -1, np.int32)
    for i, document in enumerate(documents[first : first + batch]):
      tokens_BT[i, : len(document)] = document
    yield tokens_BT


def _check(
  activations: Mapping[str, np.ndarray],
  rows_N2: np.ndarray,
  lengths: Sequence[int],
) -> None:
  if not activations or not len(rows_N2) or not max(lengths):
    raise errors.InputError("write_arrays: there are no rows to write")
  for hook, x_ND in activations.items():
    if x_ND.ndim != 2 or len(x_ND) != len(rows_N2):
      raise errors.InputError(
        f"write_arrays: {hook} has shape {x_ND.shape}; expected"
        f" [{len(rows_N2)}, D], one row per (document, position)"
      )
    for start in range(0, len(x_ND), _BLOCK):
      x_BD = np.asarray(x_ND[start : start + _BLOCK]).astype(ml_dtypes.bfloat16)
      finite_B = np.isfinite(x_BD.astype(np.float32)).all(1)
      if not finite_B.all():
        raise errors.InputError(
          f"write_arrays: {hook}: row {start + int(np.argmin(finite_B))} is not"
          " finite as bfloat16; leave such rows out"
        )
  if rows_N2.shape[1:] != (2,):
    raise errors.InputError(
      f"write_arrays: rows_N2 has shape {rows_N2.shape}, expected [N, 2]"
    )
  document_N, position_N = rows_N2[:, 0], rows_N2[:, 1]
  if document_N.min() < 0 or document_N.max() >= len(lengths):
    raise errors.InputError(
      f"write_arrays: documents {document_N.min()}..{document_N.max()} in"
      f" rows_N2, but there are {len(lengths)} documents"
    )
  outside = position_N >= np.asarray(lengths)[document_N]
  if (outside | (position_N < 0)).any():
    row = int(np.argmax(outside | (position_N < 0)))
    raise errors.InputError(
      f"write_arrays: row {row} is at position {position_N[row]} of document"
      f" {document_N[row]}, which has {lengths[document_N[row]]} tokens"
    )
