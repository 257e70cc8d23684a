# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How long a checkpoint holds training up, and how much of a minute that is.

A round is some steps without a save, then a save and steps until it is on disk
whole. What the second part took above as many steps of the first is the stall:
the call that waits (fingerprint, copies to the host), and what the writing
thread takes from the steps meanwhile. Rows stay on the device, so the stream
does not compete. The last line is the share of the time at one save a minute.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import threading
import time

import jax
import jax.numpy as jnp
import machine
import numpy as np

from sae_jax import checkpoint, errors, mesh, sae
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib

_STEPS = 10_000  # nominal length of the run; only schedules see it


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--batch", type=int, default=2048, help="B")
  parser.add_argument("--d_model", type=int, default=576, help="D")
  parser.add_argument("--latents", type=int, default=16384, help="F")
  parser.add_argument("--k", type=int, default=32, help="K")
  parser.add_argument(
    "--steps", type=int, default=5, help="without a save, per round (default 5)"
  )
  parser.add_argument("--rounds", type=int, default=5, help="default 5")
  parser.add_argument(
    "--every", type=float, default=60.0, help="seconds per save (default 60)"
  )
  parser.add_argument(
    "--out", help="where checkpoints go; default: a temporary directory"
  )
  args = parser.parse_args()
  try:
    on = mesh.make(mesh.MeshConfig())
    train = Training(args, on)
  except errors.InputError as error:
    parser.error(str(error))
  print(machine.line())
  with tempfile.TemporaryDirectory(dir=args.out) as scratch:
    measure(args, train, pathlib.Path(scratch))


class Training:
  """A state and the step that it takes, as the loop of a run takes them."""

  def __init__(self, args: argparse.Namespace, on: jax.sharding.Mesh):
    config = sae.SaeConfig(latents=args.latents, k=args.k)
    optimizer_config = optimizer_lib.OptimizerConfig()
    x_BD = np.random.default_rng(0).normal(size=(args.batch, args.d_model))
    self.state = state_lib.init_state(
      config,
      optimizer_lib.make_optimizer(
        optimizer_config, latents=args.latents, steps=_STEPS
      ),
      sample_ND=x_BD[:256],
      mean_square_norm=float((x_BD**2).sum(1).mean()),
      total_variance=float(x_BD.var(0).sum()),
      seed=0,
      mesh=on,
    )
    self._step = step_lib.make_train_step(
      config, optimizer_config, on, d_model=args.d_model, steps=_STEPS
    )
    self._rows = jax.device_put(
      jnp.asarray(x_BD, jnp.bfloat16),
      jax.NamedSharding(on, jax.P("data", None)),
    )

  def step(self) -> None:
    """One step, awaited: the loop too knows a step's loss before it saves."""
    self.state, scalars = self._step(self.state, self._rows)
    jax.block_until_ready((self.state, scalars))

  @property
  def bytes(self) -> int:
    return sum(array.nbytes for array in jax.tree.leaves(self.state))


def measure(
  args: argparse.Namespace, train: Training, directory: pathlib.Path
) -> None:
  checkpoints = checkpoint.Checkpoints(directory, keep=1)
  found: dict[str, list[float]] = {
    name: [] for name in ("step", "call", "disk", "stall", "cpu", "raw")
  }
  steps = 0
  for round_ in range(args.rounds + 1):
    done, took = one_round(args.steps, train, checkpoints, steps)
    steps += done
    took["raw"] = write_plainly(train.bytes, directory / "plain")
    for name, value in took.items():
      if round_:  # the first one compiles
        found[name].append(value)
  checkpoints.close()
  medians = {name: statistics.median(values) for name, values in found.items()}
  print(
    f"B={args.batch} D={args.d_model} F={args.latents} K={args.k}:"
    f" {train.bytes / 1e6:,.0f} MB of state. Medians of {args.rounds} rounds.\n"
  )
  print("| what | ms | CPU ms |\n|---|---:|---:|")
  for name, text in (
    ("step", "a step"),
    ("call", "the call that saves"),
    ("disk", "from the call until the checkpoint is on disk"),
    ("raw", "as many bytes to a file, with fsync"),
  ):
    print(f"| {text} | {1e3 * medians[name]:,.0f} | |")
  print(
    f"| stall: call, and steps slowed down meanwhile |"
    f" {1e3 * medians['stall']:,.0f} | {1e3 * medians['cpu']:,.0f} |"
  )
  worst = max(found["stall"])
  print(
    f"\nAt one save every {args.every:g} s training stands still for"
    f" {100 * medians['stall'] / args.every:.2f} % of the time (the slowest"
    f" round: {100 * worst / args.every:.2f} %)."
  )


def one_round(
  count: int,
  train: Training,
  checkpoints: checkpoint.Checkpoints,
  step: int,
) -> tuple[int, dict[str, float]]:
  """Steps done; seconds of a step alone, of the call, until on disk, lost."""
  start, start_cpu = time.perf_counter(), machine.processor_seconds()
  for _ in range(count):
    train.step()
  alone = (time.perf_counter() - start) / count
  alone_cpu = (machine.processor_seconds() - start_cpu) / count
  on_disk = threading.Event()
  moment = {}

  def saved():
    moment["disk"] = time.perf_counter()
    on_disk.set()

  start, start_cpu = time.perf_counter(), machine.processor_seconds()
  checkpoints.save(step + count, train.state, {}, saved=saved)
  call = time.perf_counter() - start
  meanwhile = 0
  while not (on_disk.is_set() and meanwhile):
    train.step()
    meanwhile += 1
  elapsed = time.perf_counter() - start
  used = machine.processor_seconds() - start_cpu
  return count + meanwhile, {
    "step": alone,
    "call": call,
    "disk": moment["disk"] - start,
    "stall": elapsed - meanwhile * alone,
    "cpu": used - meanwhile * alone_cpu,
  }


def write_plainly(size: int, path: pathlib.Path) -> float:
  """Seconds that a program takes to have so many bytes on this disk."""
  block = np.random.default_rng(0).bytes(1 << 24)
  start = time.perf_counter()
  with open(path, "wb") as file:
    for _ in range(-(-size // len(block))):
      file.write(block)
    file.flush()
    os.fsync(file.fileno())
  took = time.perf_counter() - start
  path.unlink()
  return took


if __name__ == "__main__":
  sys.exit(main())
