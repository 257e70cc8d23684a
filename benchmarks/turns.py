# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Programs that take turns, so that a noisy machine is noisy for all."""

import dataclasses
import statistics
import time
from collections.abc import Callable

import machine

WARM_UP = 2  # calls: compile, and touch all memory


@dataclasses.dataclass
class Times:
  """Seconds of every step so far."""

  wall: list[float] = dataclasses.field(default_factory=list)
  processor: list[float] = dataclasses.field(default_factory=list)

  @property
  def median(self) -> float:
    return statistics.median(self.wall)

  def cells(self) -> str:
    """Two table cells, in ms."""
    low, high = min(self.wall), max(self.wall)
    return (
      f"{self.median * 1e3:.1f} ({low * 1e3:.1f} – {high * 1e3:.1f}) |"
      f" {statistics.median(self.processor) * 1e3:.0f}"
    )


def take(
  runs: dict[str, Callable[[], None]], rounds: int, steps: int
) -> dict[str, Times]:
  """Times of every run: `rounds` turns of `steps` each, after a warm-up."""
  for run in runs.values():
    for _ in range(WARM_UP):
      run()
  times = {name: Times() for name in runs}
  for _ in range(rounds):
    for name, run in runs.items():
      time.sleep(0.05)  # idle worker threads of the one before go to sleep
      for _ in range(steps):
        processor, start = machine.processor_seconds(), time.perf_counter()
        run()
        times[name].wall.append(time.perf_counter() - start)
        times[name].processor.append(machine.processor_seconds() - processor)
  return times
