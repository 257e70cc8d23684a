# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Saves and restores (train state, stream position); the only use of orbax.

A checkpoint is written aside and renamed when whole. One that cannot be read
is set aside with a message and the one before it is used.
"""

import contextlib
import errno
import os
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

T = TypeVar("T")

# What orbax and TensorStore raise for files that are missing, short or damaged.
_UNREADABLE = (ValueError, OSError, KeyError, TypeError)


_UNWRITABLE = (ValueError, OSError, RuntimeError)


class Checkpoints:
  """The checkpoints of one run: `DIRECTORY/STEP/`, newest `keep` of them."""

  def __init__(self, directory: pathlib.Path, *, keep: int = 2):
    self._directory = directory
    self._manager = ocp.CheckpointManager(
      directory,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,
      ),
    )

  def steps(self) -> list[int]:
    """The steps that have a whole checkpoint, oldest first."""
    return sorted(self._manager.all_steps())

  def restore_latest(self, state: T) -> tuple[T, dict[str, Any]] | None:
    """The newest readable (state, stream position), or None if none is.

    Args:
      state: gives structure, shapes, dtypes and shardings; its values are not
        used. Arrays are read onto these shardings, whatever mesh saved them.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    for step in reversed(self.steps()):
      try:
        found = self._manager.restore(
          step,
          args=ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract),
            stream=ocp.args.JsonRestore(),
          ),
        )
        position = found["stream"]["position"]
        expected = found["stream"]["state_fingerprint"]
      except _UNREADABLE as error:
        self._set_aside(step, f"{type(error).__name__}: {error}")
        continue
      if _fingerprint(found["state"]) != expected:
        self._set_aside(step, "its arrays are not those that were saved")
        continue
      return found["state"], position
    return None

  def save(self, step: int, state: Any, stream: dict[str, Any]) -> None:
    """Starts a save and returns when `state` may be donated.

    A step that is there already (a run stopped right after it resumed) is not
    saved again: equal steps have equal states.

    Raises:
      OSError: this or the save before it failed; ENOSPC if the disk is full.
    """
    if step in self._manager.all_steps():
      return
    record = {"position": stream, "state_fingerprint": _fingerprint(state)}
    with self._disk_full_said():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state), stream=ocp.args.JsonSave(record)
        ),
      )

  def wait(self) -> None:
    """Returns when every started save is on disk; raises if one failed."""
    with self._disk_full_said():
      self._manager.wait_until_finished()

  def close(self) -> None:
    with self._disk_full_said():
      self._manager.close()

  @contextlib.contextmanager
  def _disk_full_said(self) -> Iterator[None]:
    """Turns orbax's and TensorStore's many ways to say it into ENOSPC."""
    try:
      yield
    except _UNWRITABLE as error:
      if not re.search("RESOURCE_EXHAUSTED|No space left", str(error)):
        raise
      raise OSError(
        errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._directory)
      ) from None

  def _set_aside(self, step: int, reason: str) -> None:
    aside = self._directory / f"damaged-{step}"
    (self._directory / str(step)).rename(aside)
    self._manager.reload()
    print(
      f"checkpoint {step} in {self._directory} cannot be used"
      f" ({reason.strip().splitlines()[0][:200]}); it was moved to {aside.name}"
      " and the one before it is used",
      file=sys.stderr,
    )


def _fingerprint(state: Any) -> list[int]:
  """A sum of the bits of every array; the same on every mesh."""
  return [int(v) for v in jax.device_get(_bit_sums(jax.tree.leaves(state)))]


@jax.jit
def _bit_sums(leaves: list[jax.Array]) -> list[jax.Array]:
  sums = []
  for leaf in leaves:
    unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    # Position-dependent odd weights: swapped or shifted blocks show too.
    if leaf.ndim:
      axis = leaf.ndim - 1
      bits *= 2 * jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) + 1
    sums.append(jnp.sum(bits, dtype=jnp.uint32))
  return sums
