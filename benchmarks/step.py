# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The training step: time beside the peers', memory, growth with its sizes.

Everyone takes the same shapes, random rows and hyper-parameters: TopK with
AuxK, Adam, and the constraint on decoder norms that the library has. One run
prints one table:

  (default)  time of a step. Contenders take turns, a few steps each, so that a
             noisy machine is noisy for all. CPU ms is processor time. The last
             two columns compare with our step and with the encoder's matrix
             product alone, written to memory, in the same run.
  --memory   the most resident memory (VmHWM) above that of the same process
             when it has trained a toy of the same kind and is idle: no library,
             but parameters, moments, batch and temporaries. Each contender has
             processes of its own. "start": while it is made and takes two
             steps, compilation included. "steps": in the steps after that, when
             malloc has given back what it kept of the start.
  --sweep    our step at several sizes, which take turns. "of proportional":
             time per row or latent over that of the first size. "off the line":
             distance from the straight line fitted to all sizes, relative.
  --stacked  one step of several dictionaries beside as many separate steps on
             one device.
"""

import argparse
import dataclasses
import importlib
import json
import statistics
import subprocess
import sys

import contenders
import jax
import machine
import numpy as np
import turns

_TOY = contenders.Problem(batch=64, d_model=16, latents=64, k=4, dead=0.0)
_IMPORTED = {
  "eai-sparsify": "sparsify",
  "dictionary-learning": "dictionary_learning",
  "sae-lens": "sae_lens",
}


def compare(problem: contenders.Problem, names: list[str], options) -> None:
  """Prints the time of every contender."""
  times = turns.take(
    {name: contenders.CONTENDERS[name](problem) for name in names},
    options.rounds,
    options.steps,
  )
  print(
    "| step | version | ms, median (min – max) | CPU ms | tokens/s | / ours |"
    " / product |\n|---|---|---:|---:|---:|---:|---:|"
  )
  for name in contenders.CONTENDERS:
    if name not in times:
      print(f"| {name} | {_version(name)} | – | – | – | – | – |")
      continue
    median = times[name].median
    print(
      f"| {name} | {_version(name)} | {times[name].cells()} |"
      f" {problem.batch / median:,.0f} |"
      f" {median / times[contenders.OURS].median:.2f} |"
      f" {median / times[contenders.PRODUCT].median:.2f} |"
    )


def memory(problem: contenders.Problem, names: list[str], options) -> None:
  """Prints the memory of every contender."""
  command = [sys.executable, __file__]
  for field in dataclasses.fields(problem):
    command += [f"--{field.name}", str(getattr(problem, field.name))]
  found = {name: [] for name in names}
  for _ in range(options.rounds):
    for name in names:
      done = subprocess.run(
        [*command, f"--steps={options.steps}", f"--memory_of={name}"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
      )
      found[name].append(json.loads(done.stdout.splitlines()[-1]))
  ours = statistics.median(steps for steps, _ in found[contenders.OURS])
  weights = 2 * problem.latents * problem.d_model
  weights += problem.latents + problem.d_model
  print(
    f"Parameters and their two moments: {3 * 4 * weights / 1e6:,.0f} MB.\n\n"
    "| step | version | steps, MB, median (min – max) | start, MB | / ours |\n"
    "|---|---|---:|---:|---:|"
  )
  for name in contenders.CONTENDERS:
    if name not in found:
      print(f"| {name} | {_version(name)} | – | – | – |")
      continue
    steps, start = zip(*found[name], strict=True)
    median = statistics.median(steps)
    print(
      f"| {name} | {_version(name)} | {median:,.0f} ({min(steps):,.0f} –"
      f" {max(steps):,.0f}) | {statistics.median(start):,.0f} |"
      f" {median / ours:.2f} |"
    )


def memory_of(
  problem: contenders.Problem, name: str, steps: int
) -> tuple[float, float]:
  """MB of this process that the steps and the start of a contender take."""
  if name in _IMPORTED:
    importlib.import_module(_IMPORTED[name])
  toy = contenders.CONTENDERS[name](_TOY)
  for _ in range(turns.WARM_UP):
    toy()
  del toy
  machine.give_back()
  idle = machine.resident()
  machine.forget_peak()
  run = contenders.CONTENDERS[name](problem)
  for _ in range(turns.WARM_UP):
    run()
  start = machine.peak_resident() - idle
  machine.give_back()
  machine.forget_peak()
  for _ in range(steps):
    run()
  return machine.peak_resident() - idle, start


def sweep(
  problem: contenders.Problem, axis: str, sizes: list[int], options
) -> None:
  """Prints our time at every size."""
  times = turns.take(
    {
      str(size): contenders.CONTENDERS[contenders.OURS](
        dataclasses.replace(problem, **{axis: size})
      )
      for size in sizes
    },
    options.rounds,
    options.steps,
  )
  medians = np.array([times[str(size)].median for size in sizes])
  # Weights: relative distances are what is fitted.
  slope, constant = np.polyfit(sizes, medians, 1, w=1 / medians)
  line = constant + slope * np.array(sizes)
  print(
    f"The line: {constant * 1e3:.1f} ms + {slope * 1e6:.3f} µs per"
    f" {'row' if axis == 'batch' else 'latent'}.\n\n"
    f"| {axis} | ms, median (min – max) | CPU ms | tokens/s | of proportional |"
    " off the line |\n|---:|---:|---:|---:|---:|---:|"
  )
  for i, size in enumerate(sizes):
    rows = size if axis == "batch" else problem.batch
    per_unit = medians[i] / size / (medians[0] / sizes[0])
    print(
      f"| {size} | {times[str(size)].cells()} | {rows / medians[i]:,.0f} |"
      f" {per_unit:.2f} | {medians[i] / line[i] - 1:+.1%} |"
    )


def stack(problem: contenders.Problem, count: int, options) -> None:
  """Prints the time of a stacked step and of separate ones."""
  separate = f"{count} separate steps"
  times = turns.take(
    {
      f"{count} stacked, {devices} × {jax.default_backend()}": (
        contenders.stacked(problem, count, devices)
      )
      for devices in sorted({1, options.devices})
    }
    | {separate: contenders.separate(problem, count)},
    options.rounds,
    options.steps,
  )
  print(
    "| dictionaries | ms, median (min – max) | CPU ms | tokens/s | / separate |"
    "\n|---|---:|---:|---:|---:|"
  )
  for name, found in times.items():
    print(
      f"| {name} | {found.cells()} | {problem.batch / found.median:,.0f} |"
      f" {found.median / times[separate].median:.2f} |"
    )


def _version(name: str) -> str:
  package = name if name in contenders.PEERS else "sae-jax"
  return machine.version(package) or "absent"


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--batch", type=int, default=2048, help="default 2048")
  parser.add_argument("--d_model", type=int, default=576, help="default 576")
  parser.add_argument(
    "--latents", type=int, default=16384, help="default 16384"
  )
  parser.add_argument("--k", type=int, default=32, help="default 32")
  parser.add_argument(
    "--dead",
    type=float,
    default=0.0,
    help="fraction of latents that AuxK is given in every step (default 0)",
  )
  what = parser.add_mutually_exclusive_group()
  what.add_argument(
    "--memory", action="store_true", help="memory instead of time"
  )
  what.add_argument(
    "--sweep",
    nargs="+",
    metavar=("AXIS", "SIZE"),
    help="ours at several sizes: batch 1024 2048 4096 8192, or latents 4096 …",
  )
  what.add_argument(
    "--stacked",
    type=int,
    metavar="S",
    help="S dictionaries in one step, beside S separate steps",
  )
  parser.add_argument(
    "--devices",
    type=int,
    default=1,
    help="with --stacked: also over so many devices; CPUs are cut into them",
  )
  what.add_argument("--memory_of", help=argparse.SUPPRESS)
  parser.add_argument(
    "--rounds", type=int, default=5, help="turns, or processes, of each"
  )
  parser.add_argument("--steps", type=int, default=3, help="steps per turn")
  parser.add_argument(
    "--ours_only", action="store_true", help="leave the peers out"
  )
  options = parser.parse_args()
  if options.sweep:
    axis, *sizes = options.sweep
    if axis not in ("batch", "latents"):
      parser.error(f"--sweep {axis}: sweep batch or latents")
    if len(sizes) < 2 or not all(size.isdecimal() for size in sizes):
      parser.error(f"--sweep {axis}: give two or more sizes, whole numbers")
    options.sweep = (axis, [int(size) for size in sizes])
  return options


def main() -> None:
  options = _parse()
  if options.devices > 1:
    jax.config.update("jax_num_cpu_devices", options.devices)
  problem = contenders.Problem(
    **{
      field.name: getattr(options, field.name)
      for field in dataclasses.fields(contenders.Problem)
    }
  )
  if options.memory_of:
    print(json.dumps(memory_of(problem, options.memory_of, options.steps)))
    return
  names = [
    name
    for name in contenders.CONTENDERS
    if name not in contenders.PEERS
    or (not options.ours_only and machine.version(name))
  ]
  print(machine.line())
  print(
    f"B={problem.batch} D={problem.d_model} F={problem.latents} K={problem.k},"
    f" {problem.dead:.0%} dead; {options.rounds}"
    f" {'processes' if options.memory else 'turns'} of {options.steps}"
    " steps.\n",
    flush=True,
  )
  if options.memory:
    memory(problem, names, options)
  elif options.sweep:
    sweep(problem, *options.sweep, options)
  elif options.stacked:
    stack(problem, options.stacked, options)
  else:
    compare(problem, names, options)


if __name__ == "__main__":
  main()
