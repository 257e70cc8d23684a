# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Dictionaries of ours beside the peers': the same rows, the same measure.

Every cell (library, learning rate, F, K, seed, hook) is trained in a process of
its own on the same rows in the same order, brought into our arrays, and
measured by `sae_jax.evaluate` on rows that nobody trained on. Finished cells
are kept in --cache: a run that is stopped anywhere goes on with the next one.
Prints one table per problem, means ± standard errors over seeds, and
differences seed by seed.

  python benchmarks/quality.py --store STORE --cache CACHE --model MODEL
  python benchmarks/quality.py … --rates default 1e-3 --warmup 60 --k 16 32 64
  python benchmarks/quality.py … --table     what is there, without training

Without --rates every library has its own defaults, schedule included. With
--text, a missing store is harvested first.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import machine
import quality_cells
import quality_learners
import quality_loss
import quality_plot
import quality_table

from sae_jax import harvest, store
from sae_jax.lm import text

_SCRIPT = pathlib.Path(__file__).resolve()


def grid(options: argparse.Namespace) -> list[quality_cells.Cell]:
  """The cells in the order they are trained: all libraries, seed by seed."""
  return [
    quality_cells.Cell(
      system=system,
      hook=hook,
      latents=latents,
      k=k,
      seed=seed,
      batch=options.batch,
      steps=options.steps,
      activation=activation,
      rate=None if rate == "default" else float(rate),
      warmup=0 if rate == "default" else options.warmup,
    )
    for hook in options.hooks
    for latents in options.latents
    for activation in options.activations
    for rate in options.rates
    for k in options.k
    for seed in options.seeds
    for system in options.systems
    if quality_learners.has(system, activation)
  ]


def train_missing(
  cells: list[quality_cells.Cell],
  source: store.Store,
  options: argparse.Namespace,
) -> None:
  """Trains what the cache lacks, a process each, until the time is up.

  With `in_process` in this one: quicker where cells are small.
  """
  end = time.monotonic() + 60 * options.minutes
  missing = [
    cell
    for cell in cells
    if quality_cells.result(quality_cells.place(options.cache, source, cell))
    is None
  ]
  for i, cell in enumerate(missing):
    if time.monotonic() > end:
      print(f"time is up, {len(missing) - i} cells are left", file=sys.stderr)
      return
    print(f"{i + 1}/{len(missing)} {cell.name}", file=sys.stderr, flush=True)
    if options.in_process:
      place = quality_cells.place(options.cache, source, cell)
      quality_cells.run(cell, source, options.held_out, place)
      continue
    done = subprocess.run(
      [
        *(sys.executable, str(_SCRIPT), "--cell", quality_cells.to_json(cell)),
        *("--store", options.store, "--cache", str(options.cache)),
        *("--held_out", str(options.held_out)),
      ],
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    if done.returncode:
      print(f"{cell.name} failed:\n{done.stderr[-2000:]}", file=sys.stderr)


def open_store(options: argparse.Namespace) -> store.Store:
  """The store, harvested if it is missing and there is a text for it."""
  if options.text:
    harvest.harvest(
      harvest.HarvestConfig(
        model=options.model,
        hooks=tuple(options.hooks),
        text=text.TextConfig(path=options.text),
        rows=options.rows,
        write_rows=16384,
      ),
      options.store,
    )
  return store.open_store(options.store)


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--store", required=True, help="activation store")
  add("--cache", type=pathlib.Path, required=True, help="directory of cells")
  add("--model", default="", help="language model; without: no loss recovered")
  add("--text", default="", help="text to harvest the store from")
  add("--rows", type=int, default=1_081_344, help="rows to harvest")
  add("--hooks", nargs="+", default=["blocks.9.hook_resid_post"])
  add("--latents", nargs="+", type=int, default=[4608])
  add("--k", nargs="+", type=int, default=[32])
  add("--activations", nargs="+", default=["topk"], help="topk batch_topk")
  add("--seeds", nargs="+", type=int, default=[0, 1, 2])
  add("--systems", nargs="+", default=list(quality_learners.LEARNERS))
  add("--rates", nargs="+", default=["default"], help="default, or peaks")
  add("--warmup", type=int, default=60, help="steps, with a given rate")
  add("--batch", type=int, default=512)
  add("--steps", type=int, default=1200)
  add("--held_out", type=int, default=32_768, help="rows")
  add("--contexts", type=int, default=32, help="of the language model's loss")
  add("--minutes", type=float, default=1e9, help="start no cell after these")
  add("--in_process", action="store_true", help="no process for each cell")
  add("--table", action="store_true", help="train nothing")
  add("--plot", type=pathlib.Path, help="write frontier and time as HTML")
  add("--cell", help=argparse.SUPPRESS)
  return parser.parse_args()


def main() -> None:
  options = _parse()
  if options.cell:
    source = store.open_store(options.store)
    cell = quality_cells.from_json(options.cell)
    place = quality_cells.place(options.cache, source, cell)
    quality_cells.run(cell, source, options.held_out, place)
    return
  source = open_store(options)
  cells = grid(options)
  if not options.table:
    train_missing(cells, source, options)
    if options.model:
      for hook in options.hooks:
        quality_loss.fill(
          [
            quality_cells.place(options.cache, source, cell)
            for cell in cells
            if cell.hook == hook
          ],
          source,
          hook,
          options.held_out,
          options.model,
          options.contexts,
        )
  found = [
    quality_cells.result(quality_cells.place(options.cache, source, cell))
    for cell in cells
  ]
  by_problem = quality_table.entries(r for r in found if r is not None)
  training = source.chunk_rows(source.holdout(options.held_out)[0])
  print(machine.line())
  print(
    f"Store of {source.rows:,} rows, of which {training:,} are trained on;"
    f" {sum(r is not None for r in found)} of {len(cells)} cells."
  )
  for problem, entries in by_problem.items():
    print(f"\n{quality_table.markdown(problem, entries)}")
    ahead = quality_table.losses(entries)
    print("\n" + ("\n".join(ahead) or "No peer is ahead."))
  if options.plot:
    quality_plot.write(by_problem, options.plot)
  print(json.dumps({"cells": sum(r is not None for r in found)}))


if __name__ == "__main__":
  main()
