# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The metrics of a run, one step late: of one dictionary, or of a sweep's.

Writes `metrics.jsonl` and `tensorboard/`; of a sweep those of the run, which
hold what dictionaries share, and `members/I/` with each dictionary's own, the
same lines as if it were trained alone.
"""

import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from sae_jax import metrics, sae
from sae_jax.train import config as config_lib
from sae_jax.train import optimizer


class Records(Protocol):
  """What the loop tells and asks."""

  def log(
    self, step: int, scalars: Mapping[str, jax.Array], rates: dict[str, float]
  ) -> None:
    """Takes step `step` and reports the one before it."""

  def flush(self) -> None:
    """Reads, checks and writes what was handed in last.

    Raises:
      metrics.NonFiniteError: nothing is left to train.
    """

  def note(self) -> str:
    """A few words for the progress bar."""

  def result(self, looked: Mapping[str, jax.Array]) -> dict[str, Any]:
    """The last metrics and a look at the final state, which is written."""

  def close(self) -> None: ...


class One:
  """Of one dictionary."""

  def __init__(
    self, config: config_lib.TrainConfig, directory: pathlib.Path, first: int
  ):
    self._path = directory / "metrics.jsonl"
    self._steps = config.steps
    self._writer = _writer(directory, first, config.wandb_project)
    self._late = metrics.OneStepLate(
      self._writer, config.log_every, watch="train/loss"
    )

  def log(
    self, step: int, scalars: Mapping[str, jax.Array], rates: dict[str, float]
  ) -> None:
    self._late(step, scalars, rates)

  def flush(self) -> None:
    self._late.flush()

  def note(self) -> str:
    last = self._late.last
    return f"fvu {last['train/fvu']:.4f}" if last else ""

  def result(self, looked: Mapping[str, jax.Array]) -> dict[str, Any]:
    final = {name: float(v) for name, v in jax.device_get(looked).items()}
    last = self._late.last or _last(self._path)  # resumed after the last step
    if self._writer is not None and final:
      self._writer.write(self._steps, final)
    return last | final

  def close(self) -> None:
    if self._writer is not None:
      self._writer.close()


class Sweep:
  """Of several dictionaries.

  One that has diverged has no lines from that step on.
  """

  def __init__(
    self,
    config: config_lib.TrainConfig,
    members: Sequence[config_lib.TrainConfig],
    directory: pathlib.Path,
    first: int,
    steps_S: np.ndarray,
  ):
    """`steps_S`: how many steps each dictionary has done of the `first`."""
    self._every, self._steps = config.log_every, config.steps
    self._members = members
    self._frozen_at = [int(n) if n < first else None for n in steps_S]
    places = [directory / "members" / str(i) for i in range(len(members))]
    self._writer = _writer(directory, first, config.wandb_project)
    self._writers = [_writer(place, first) for place in places]
    self._rates = _last(directory / "metrics.jsonl", "perf/step_ms")
    self._last = [_last(place / "metrics.jsonl") for place in places]
    self._waiting: tuple[int, Mapping[str, jax.Array], dict[str, float]] | None
    self._waiting = None

  def log(
    self, step: int, scalars: Mapping[str, jax.Array], rates: dict[str, float]
  ) -> None:
    for value in scalars.values():
      value.copy_to_host_async()
    self.flush()
    self._waiting = (step, scalars, rates)

  def flush(self) -> None:
    if self._waiting is None:
      return
    step, scalars, rates = self._waiting
    self._waiting = None
    self._freeze(step, jax.device_get(scalars["sweep/live"]))
    if step % self._every:
      return
    values = jax.device_get(dict(scalars))
    del values["sweep/live"]
    live = self._live()
    self._rates = rates | {"sweep/live": float(len(live))}
    if self._writer is not None:
      self._writer.write(step, self._rates)
    for i in live:
      self._last[i] = {name: float(v_S[i]) for name, v_S in values.items()}
      self._write(i, step, self._last[i])

  def note(self) -> str:
    live = self._live()
    fvu = [self._last[i]["train/fvu"] for i in live if self._last[i]]
    if not fvu:
      return ""
    note = f"fvu {min(fvu):.4f} – {max(fvu):.4f}"
    count = len(self._members)
    return note if len(live) == count else f"{note}, {len(live)} of {count}"

  def result(self, looked: Mapping[str, jax.Array]) -> dict[str, Any]:
    final = jax.device_get(dict(looked))
    found = []
    for i, member in enumerate(self._members):
      own = {name: float(v_S[i]) for name, v_S in final.items()}
      if own and self._frozen_at[i] is None:
        self._write(i, self._steps, own)
      found.append(
        {
          "member": i,
          "k": member.sae.k,
          "seed": member.seed,
          "learning_rate": _rate(member),
          "aux_coefficient": member.sae.aux_coefficient,
          **_dense(member.sae),
          "hook": member.hook,
          **({"target": member.target} if member.target else {}),
          "frozen_at": self._frozen_at[i],
          **_finite(self._last[i] | own),
        }
      )
    return {"members": found, **self._rates}

  def close(self) -> None:
    for writer in (self._writer, *self._writers):
      if writer is not None:
        writer.close()

  def _live(self) -> list[int]:
    return [i for i, step in enumerate(self._frozen_at) if step is None]

  def _freeze(self, step: int, live_S: np.ndarray) -> None:
    """Notes which dictionaries this step has left as they were."""
    diverged = [i for i in self._live() if not live_S[i]]
    for i in diverged:
      self._frozen_at[i] = step
    if not self._live():
      raise metrics.NonFiniteError(
        f"train/loss or train/grad_norm is not finite at step {step}; all"
        f" {len(self._members)} dictionaries of the sweep have diverged"
      )
    for i in diverged if self._writer is not None else ():
      member = self._members[i]
      print(
        f"dictionary {i} (k={member.sae.k}, learning_rate={_rate(member):g})"
        f" diverged at step {step}: it stays as it was before; the others go"
        " on",
        file=sys.stderr,
        flush=True,
      )

  def _write(self, index: int, step: int, values: dict[str, float]) -> None:
    writer = self._writers[index]
    if writer is None or self._writer is None:
      return
    writer.write(step, values)
    self._writer.write_remote(
      step, {f"members/{index}/{name}": v for name, v in values.items()}
    )


def _writer(
  directory: pathlib.Path, first: int, wandb_project: str = ""
) -> metrics.Writer | None:
  if jax.process_index():
    return None
  directory.mkdir(parents=True, exist_ok=True)
  return metrics.Writer(directory, first, wandb_project)


def _last(path: pathlib.Path, having: str = "train/loss") -> dict[str, Any]:
  """The last line of a metrics file that has a certain metric."""
  lines = reversed(metrics.read(path))
  line = next((line for line in lines if having in line), {})
  return {name: value for name, value in line.items() if name != "step"}


def _rate(member: config_lib.TrainConfig) -> float:
  return optimizer.resolve_learning_rate(
    member.optimizer, member.sae.latents, member.steps
  )


def _finite(values: dict[str, Any]) -> dict[str, Any]:
  """JSON has no NaN: null, as in metrics.jsonl."""
  return {
    name: value if value is not None and math.isfinite(value) else None
    for name, value in values.items()
  }


def _dense(config: sae.SaeConfig) -> dict[str, float]:
  """What dictionaries without a k have in its place."""
  if config.activation not in sae.DENSE:
    return {}
  own = {"sparsity": config.resolve_sparsity()}
  if config.target_l0 is not None:
    own["target_l0"] = config.target_l0
  return own
