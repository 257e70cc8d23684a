# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs one model on the prompts and keeps its activations as a store.

Every token of every sequence is a row, so stores of different models on the
same prompts are paired. A capture that was cut off is made again.
"""

import pathlib
import shutil
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from sae_jax import errors, lm, metrics, store
from sae_jax.judge import prompts as prompts_lib
from sae_jax.lm import batch as batch_lib

READ_ROWS = 256
_WRITE_ROWS = 8192


def capture(
  model: lm.LanguageModel,
  sequences: Sequence[prompts_lib.Sequence],
  hook: str,
  path: pathlib.Path,
  *,
  batch_size: int,
  left: bool = False,
  progress: metrics.Progress | None = None,
) -> None:
  """Writes the store of `hook` over all tokens of the sequences.

  Args:
    model: loaded at least to the hook.
    sequences: what it reads.
    hook: canonical name.
    path: a store there that is whole is left as it is.
    batch_size: sequences per forward pass.
    left: pad on the left; with another batch size a way to do the same
      calculation with other roundings.

  Raises:
    errors.InputError: an activation is not finite; it names the prompt.
  """
  if (path / "manifest.json").is_file():
    return
  if path.exists():
    shutil.rmtree(path)
  documents = [np.array(s.tokens, np.int32) for s in sequences]
  store.write_blocks(
    path,
    {hook: model.config.d_model},
    _blocks(model, sequences, hook, batch_size, left, progress),
    documents=documents,
    rows_N2=store.all_rows(documents),
    read_rows=READ_ROWS,
    write_rows=_WRITE_ROWS,
    model=model.source,
    weights_hash=model.weights_hash,
    tokenizer_hash=model.tokenizer.hash,
  )


def _blocks(
  model: lm.LanguageModel,
  sequences: Sequence[prompts_lib.Sequence],
  hook: str,
  batch_size: int,
  left: bool,
  progress: metrics.Progress | None,
) -> Iterator[dict[str, np.ndarray]]:
  for first in range(0, len(sequences), batch_size):
    part = sequences[first : first + batch_size]
    tokens_BT, mask_BT = batch_lib.pad(
      [s.tokens for s in part],
      batch_size,
      max(len(s.tokens) for s in part),
      left=left,
    )
    x_BTD = lm.activations(model, tokens_BT, (hook,), mask_BT)[hook]
    x_ND = np.asarray(_everywhere(x_BTD, model.mesh))[mask_BT]
    if not np.isfinite(x_ND.astype(np.float32)).all():
      raise errors.InputError(
        f"{model.source}: {hook} is not finite on sequences {first} to"
        f" {first + len(part) - 1}; run it with dtype=float32, or check its"
        " weights"
      )
    yield {hook: x_ND}
    if progress is not None:
      progress.update(first + len(part))


def _everywhere(x: jax.Array, mesh: jax.sharding.Mesh) -> jax.Array:
  """Replicated, so that every process can read it."""
  return jax.device_put(x, jax.NamedSharding(mesh, jax.P()))
