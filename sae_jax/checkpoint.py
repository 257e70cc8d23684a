# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Saves and restores (train state, stream position); the only use of orbax.

A checkpoint is written aside and renamed when whole, each process its own part,
while training goes on. One that is damaged is set aside with a message and the
one before it is used.
"""

import concurrent.futures
import contextlib
import errno
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from sae_jax import errors

T = TypeVar("T")

# What orbax and TensorStore raise for files that are missing, short or damaged,
_UNREADABLE = (ValueError, OSError, KeyError, TypeError)
# and what is in the message when they may be whole but cannot be reached now.
_UNREACHABLE = re.compile(
  "PERMISSION_DENIED|Permission denied|UNAUTHENTICATED|UNAVAILABLE"
  "|DEADLINE_EXCEEDED|Input/output error"
)
_UNWRITABLE = (ValueError, OSError, RuntimeError)
# What is read to restore a part of an array: on a mesh with more devices than
# the one that saved it, a shard as it was written is more than a device needs.
_CHUNK_BYTES = 64 << 20
_SPREAD = 0x9E3779B1  # odd, near 2^32 over the golden ratio


class Checkpoints:
  """The checkpoints of one run: `DIRECTORY/STEP/`."""

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    keep: int = 2,
    keep_every: int = 0,
    run: str = "",
  ):
    """Keeps the newest ones, and for good those at certain steps.

    Args:
      directory: a path or `gs://BUCKET/…`, the same place for all processes; a
        path is made if it is not there.
      keep: how many of the newest.
      keep_every: those at its multiples stay, besides; 0: none.
      run: is saved with every checkpoint; one with another `run` is refused.

    Raises:
      errors.InputError: checkpoints cannot be written to such a place.
    """
    self._directory = directory = _place(os.fspath(directory))
    self._run = run
    policies: list[Any] = [checkpoint_managers.LatestN(keep)]
    if keep_every:
      policies.append(checkpoint_managers.EveryNSteps(keep_every))
    self._manager = ocp.CheckpointManager(
      directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,
      ),
    )
    self._pool = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
    self._after: list[concurrent.futures.Future[None]] = []

  def steps(self) -> list[int]:
    """The steps that have a whole checkpoint, oldest first."""
    return sorted(self._manager.all_steps())

  def restore_latest(self, state: T) -> tuple[T, dict[str, Any]] | None:
    """The newest readable (state, stream position), or None if none is.

    Args:
      state: gives structure, shapes, dtypes and shardings; its values are not
        used. Arrays are read onto these shardings, whatever mesh saved them.

    Raises:
      errors.InputError: the newest one is of another run, or it cannot be
        reached: no permission, or the disk or the network does not answer.
      errors.Interrupted: one of several processes found its part damaged; the
        checkpoint was set aside.
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
        run = found["stream"]["run"]
      except _UNREADABLE as error:
        if _UNREACHABLE.search(str(error)):
          raise errors.InputError(
            f"checkpoint {step} in {self._directory} cannot be read now"
            f" ({_first_line(error)}); check its owner and mode, and the disk"
            " or network that it is on, then run the same command again"
          ) from None
        self._set_aside(step, f"{type(error).__name__}: {error}")
        continue
      if _fingerprint(found["state"]) != expected:
        self._set_aside(step, "its arrays are not those that were saved")
        continue
      if run != self._run:
        raise errors.InputError(
          f"{self._directory} holds checkpoints of another run (another config"
          " or other inputs); choose another place, or remove them"
        )
      return found["state"], position
    return None

  def save(
    self,
    step: int,
    state: Any,
    stream: dict[str, Any],
    *,
    saved: Callable[[], None] | None = None,
  ) -> None:
    """Starts a save and returns when `state` may be donated.

    A step that is there already (a run stopped right after it resumed) is not
    saved again: equal steps have equal states.

    Args:
      step: how many steps were done.
      state: arrays, split over the devices in any way.
      stream: the position, for JSON.
      saved: called in another thread once this checkpoint is on disk whole;
        what it raises, a later call of a method here raises.

    Raises:
      OSError: this or the save before it failed; ENOSPC if the disk is full.
    """
    self._raise_late(wait=False)
    if step not in self._manager.all_steps():
      record = {
        "position": stream,
        "state_fingerprint": _fingerprint(state),
        "run": self._run,
      }
      in_chunks = ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES)
      with self._disk_full_said():
        self._manager.save(
          step,
          args=ocp.args.Composite(
            state=ocp.args.StandardSave(
              state, save_args=jax.tree.map(lambda _: in_chunks, state)
            ),
            stream=ocp.args.JsonSave(record),
          ),
        )
    if saved is not None:
      self._after.append(self._pool.submit(self._once_saved, saved))

  def wait(self) -> None:
    """Returns when every started save is on disk; raises if one failed."""
    with self._disk_full_said():
      self._manager.wait_until_finished()
    self._raise_late(wait=True)

  def close(self) -> None:
    try:
      with self._disk_full_said():
        self._manager.close()
    finally:
      self._pool.shutdown()
    self._raise_late(wait=True)

  def _once_saved(self, saved: Callable[[], None]) -> None:
    try:
      self._manager.wait_until_finished()
    except _UNWRITABLE:
      return  # the thread that saves raises it too
    saved()

  def _raise_late(self, *, wait: bool) -> None:
    while self._after and (wait or self._after[0].done()):
      self._after.pop(0).result()

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
    while aside.exists():  # of an earlier time
      aside = aside.with_name(f"{aside.name}+")
    with contextlib.suppress(FileNotFoundError):  # another process was faster
      (self._directory / str(step)).rename(aside)
    said = (
      f"checkpoint {step} in {self._directory} cannot be used"
      f" ({_first_line(reason)}); it was moved to {aside.name}"
    )
    if jax.process_count() > 1:
      # The others may have read their parts, and wait for this process.
      raise errors.Interrupted(
        f"{said}: run the same command again to go on from the one before it"
      )
    self._manager.reload()
    print(f"{said} and the one before it is used", file=sys.stderr)


def _place(path: str) -> epath.Path:
  scheme, separator, _ = path.partition("://")
  if not separator:
    return epath.Path(path)
  if scheme != "gs":
    raise errors.InputError(
      f"checkpoints cannot be written to {path}: give a path, such as that of a"
      " mounted bucket, or gs://BUCKET/…"
    )
  if importlib.util.find_spec("gcsfs") is None:
    raise errors.InputError(
      f"checkpoints in {path} need gcsfs: pip install 'sae-jax[gcs]', or give a"
      " path"
    )
  # Another process may have written what an earlier listing lacks.
  fsspec = importlib.import_module("fsspec")
  fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
  return epath.Path(path.rstrip("/"))


def _first_line(text: object) -> str:
  return str(text).strip().splitlines()[0][:200]


def _fingerprint(state: Any) -> list[int]:
  """A sum of the bits of every array; the same on every mesh."""
  return [int(v) for v in jax.device_get(_bit_sums(jax.tree.leaves(state)))]


@jax.jit
def _bit_sums(leaves: list[jax.Array]) -> list[jax.Array]:
  sums = []
  for leaf in leaves:
    unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    # Odd weights by position: values, rows or blocks that are swapped show too.
    place = jnp.zeros(leaf.shape, jnp.uint32)
    for axis in range(leaf.ndim):
      along = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
      place = place * jnp.uint32(_SPREAD) + along
    sums.append(jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32))
  return sums
