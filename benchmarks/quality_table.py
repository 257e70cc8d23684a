# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Tables of quality.py's cells: means over seeds, differences.

A difference is taken seed by seed, between dictionaries that saw the same rows
in the same order; its standard error is over the seeds.
"""

import collections
import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import quality_cells

OURS = "sae_jax"
Result = dict[str, Any]
# What a table compares, and what its heading says.
Problem = tuple[Any, ...]
_PROBLEM = ("hook", "latents", "k", "activation", "batch", "steps")


@dataclasses.dataclass(frozen=True)
class Entry:
  """All seeds of one library with one recipe on one problem."""

  system: str
  recipe: str
  by_seed: dict[int, Result]


def entries(results: Iterable[Result]) -> dict[Problem, list[Entry]]:
  """Entries by problem: defaults first, of each recipe ours first."""
  found: dict[Problem, dict[tuple[str, str], dict[int, Result]]] = {}
  for result in results:
    cell = quality_cells.Cell(**result["cell"])
    problem = tuple(getattr(cell, name) for name in _PROBLEM)
    by_system = found.setdefault(problem, collections.defaultdict(dict))
    by_system[cell.system, cell.recipe][cell.seed] = result
  return {
    problem: [
      Entry(*key, by_system[key]) for key in sorted(by_system, key=_order)
    ]
    for problem, by_system in sorted(found.items())
  }


def _order(key: tuple[str, str]):
  system, recipe = key
  return recipe != "default", recipe, system != OURS, system


def fvu(result: Result) -> float:
  return result["metrics"]["eval/fvu"]


def l0(result: Result) -> float:
  return result["metrics"]["eval/l0"]


def dead(result: Result) -> float:
  return result["metrics"]["eval/dead_frac"]


def recovered(result: Result) -> float | None:
  return result["loss"] and result["loss"]["recovered"]


def mean(values: list[float], form: str) -> str:
  """`mean ± standard error`; of one value the value."""
  if not values:
    return "–"
  middle = statistics.fmean(values)
  if len(values) == 1:
    return f"{middle:{form}}"
  error = statistics.stdev(values) / math.sqrt(len(values))
  return f"{middle:{form}} ± {error:{form.lstrip('+')}}"


def differences(
  ours: Entry | None, other: Entry, read: Callable[[Result], float | None]
) -> list[float]:
  """Ours − the other's, for every seed that both have."""
  if ours is None or ours is other:
    return []
  pairs = [
    (read(ours.by_seed[seed]), read(other.by_seed[seed]))
    for seed in sorted(ours.by_seed.keys() & other.by_seed.keys())
  ]
  return [a - b for a, b in pairs if a is not None and b is not None]


def reference(found: list[Entry], other: Entry) -> Entry | None:
  """Ours with the other's recipe; where we have not run it, our default."""
  ours = {entry.recipe: entry for entry in found if entry.system == OURS}
  if other.system == OURS:
    return ours.get("default")
  return ours.get(other.recipe, ours.get("default"))


def markdown(problem: Problem, found: list[Entry]) -> str:
  """One problem's table."""
  hook, latents, k, activation, batch, steps = problem
  lines = [
    f"### {activation}, {hook}, F={latents:,}, K={k}: {steps:,} steps of"
    f" {batch:,} rows\n",
    "| library | learning rate | seeds | FVU | ours − it | L0 | never fired |"
    " ours − it | loss recovered | ours − it | CPU s |",
    "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
  ]
  for entry in found:
    against = reference(found, entry)
    results = list(entry.by_seed.values())
    loss = [r for r in map(recovered, results) if r is not None]
    version = results[0]["version"] or ""
    seconds = statistics.fmean(r["clock"]["processor_s"] for r in results)
    cells = [
      f"{entry.system} {version}",
      entry.recipe,
      str(len(results)),
      mean([fvu(r) for r in results], ".4f"),
      mean(differences(against, entry, fvu), "+.4f"),
      mean([l0(r) for r in results], ".2f"),
      mean([dead(r) for r in results], ".2%"),
      mean(differences(against, entry, dead), "+.2%"),
      mean(loss, ".4f"),
      mean(differences(against, entry, recovered), "+.4f"),
      f"{seconds:,.0f}",
    ]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def losses(found: list[Entry]) -> list[str]:
  """Where a peer is ahead of ours by more than the bar allows."""
  bars = (
    ("FVU", fvu, lambda d: d > 0),
    ("latents that never fired", dead, lambda d: d > 0),
    ("loss recovered", recovered, lambda d: d < -0.002),
  )
  said = []
  for entry in found:
    if entry.system == OURS:
      continue
    for name, read, missed in bars:
      values = differences(reference(found, entry), entry, read)
      if values and missed(statistics.fmean(values)):
        said.append(
          f"- {name}: {entry.system} ({entry.recipe}) is ahead, ours − it"
          f" {mean(values, '+.4f')}"
        )
  return said
