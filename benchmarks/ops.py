# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Time of every operation and implementation, beside the machine's limits.

The shapes are those of `ops/specs.py`. Implementations of one operation take
turns, so that a noisy machine is noisy for all. `roofline` is the time that the
operation's own FLOPs and bytes take at the peaks measured in the same run: the
product for the encoder, gathered rows once each, the result written once. An
operation in the cache can be faster than that. `temp` is the compiled
program's temporary memory. Pallas kernels run only on the hardware that they
are for: interpreted, their times would mean nothing.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import machine
import numpy as np

from sae_jax import ops
from sae_jax.ops import specs
from sae_jax.ops.pair_grads import api as pair_grads_api
from sae_jax.ops.sparse_decode import api as sparse_decode_api
from sae_jax.ops.topk_encode import api as topk_encode_api

# The backend that each name's code is compiled for; the rest run anywhere.
_HARDWARE = {"pallas_tpu": "tpu", "pallas_gpu": "gpu"}


@dataclasses.dataclass(frozen=True)
class Problem:
  """One operation on one spec; `flops` and `bytes` are the least it needs."""

  op: str
  dtype: str  # of the operands of its products
  call: Callable[..., Any]  # `(*arguments, implementation=…)`
  arguments: tuple[Any, ...]
  implementations: tuple[str, ...]
  flops: float
  bytes: float


def problems(spec: specs.Spec) -> list[Problem]:
  """All operations on the inputs of `spec`; the encoder in both dtypes."""
  made = specs.make_inputs(spec)
  x_BD, w_FD = jnp.float32(made.x_BD), jnp.float32(made.w_enc_FD)
  b_F = jnp.float32(made.b_enc_F)
  del made
  b, d, f, k = spec.batch, spec.d_model, spec.latents, spec.k
  values_BK, indices_BK = ops.topk_encode(
    x_BD.astype(jnp.bfloat16), w_FD.astype(jnp.bfloat16), b_F, k
  )
  touched = len(np.unique(indices_BK))  # rows that have to be read
  pairs = b * k

  found = []
  for dtype in ("bfloat16", "float32"):
    size = jnp.dtype(dtype).itemsize
    found.append(
      Problem(
        "topk_encode",
        dtype,
        lambda x, w, bias, **which: ops.topk_encode(x, w, bias, k, **which),
        (x_BD.astype(dtype), w_FD.astype(dtype), b_F),
        tuple(topk_encode_api.IMPLEMENTATIONS),
        2 * b * d * f,
        (b + f) * d * size + 4 * f + 8 * pairs,
      )
    )
  rows = touched * d * 4
  of_rows = tuple(sparse_decode_api.DECODE)
  of_pairs = tuple(pair_grads_api.GRADS)
  return [
    *found,
    Problem(
      "sparse_decode",
      "float32",
      ops.sparse_decode,
      (values_BK, indices_BK, w_FD),
      of_rows,
      2 * pairs * d,
      8 * pairs + rows + 4 * b * d,
    ),
    Problem(
      "row_dots",
      "float32",
      ops.row_dots,
      (x_BD, indices_BK, w_FD),
      of_rows,
      2 * pairs * d,
      4 * b * d + 8 * pairs + rows,
    ),
    Problem(
      "pair_grads",
      "float32",
      lambda c, i, x, **which: ops.pair_grads(c, i, x, f, **which),
      (values_BK, indices_BK, x_BD),
      of_pairs,
      2 * pairs * d,
      8 * pairs + 4 * b * d + 4 * f * d,
    ),
    Problem(
      "pair_sums",
      "float32",
      lambda c, i, **which: ops.pair_sums(c, i, f, **which),
      (values_BK, indices_BK),
      of_pairs,
      pairs,
      8 * pairs + 4 * f,
    ),
  ]


@dataclasses.dataclass
class Timed:
  """One implementation of a problem, compiled, and what it took so far."""

  name: str
  run: Callable[[], Any]
  temp: int  # bytes
  wall: list[float] = dataclasses.field(default_factory=list)
  processor: list[float] = dataclasses.field(default_factory=list)

  def once(self) -> None:
    processor, start = machine.processor_seconds(), time.perf_counter()
    jax.block_until_ready(self.run())
    self.wall.append(time.perf_counter() - start)
    self.processor.append(machine.processor_seconds() - processor)


def compile_one(problem: Problem, name: str) -> Timed:
  compiled = (
    jax.jit(lambda *arguments: problem.call(*arguments, implementation=name))
    .lower(*problem.arguments)
    .compile()
  )
  memory = compiled.memory_analysis()
  temp = memory.temp_size_in_bytes if memory else 0
  return Timed(name, lambda: compiled(*problem.arguments), temp)


def measure(
  problem: Problem, wanted: list[str] | None, rounds: int, seconds: float
) -> tuple[list[Timed], list[str]]:
  """Times the implementations in turns; also says what was left out, and why.

  An implementation drops out when its turns have taken `seconds` (after two).
  """
  backend = jax.default_backend()
  timed, left_out = [], []
  for name in problem.implementations:
    if wanted and name not in wanted:
      continue
    if _HARDWARE.get(name, backend) != backend:
      left_out.append(f"{name}: needs a {_HARDWARE[name]}, this is a {backend}")
      continue
    one = compile_one(problem, name)
    if one.temp > 0.8 * machine.available():
      left_out.append(f"{name}: needs {one.temp / 1e9:.1f} GB")
      continue
    jax.block_until_ready(one.run())
    timed.append(one)
  for turn in range(rounds):
    for one in timed:
      if turn < 2 or sum(one.wall) < seconds:
        one.once()
  return timed, left_out


def table_rows(problem: Problem, timed: list[Timed], peaks: machine.Peaks):
  """Markdown rows, the fastest last column relative to the roofline."""
  roofline = peaks.seconds(problem.flops, problem.bytes, problem.dtype)
  for one in timed:
    median = statistics.median(one.wall)
    yield (
      f"| {problem.op} | {problem.dtype} | {one.name} | {median * 1e3:.2f}"
      f" ({min(one.wall) * 1e3:.2f} – {max(one.wall) * 1e3:.2f}) |"
      f" {statistics.median(one.processor) * 1e3:.1f} |"
      f" {one.temp / 1e6:,.1f} | {problem.flops / median / 1e9:,.1f} |"
      f" {problem.bytes / median / 1e9:,.1f} | {roofline * 1e3:.2f} |"
      f" {roofline / median:.2f} |"
    )


HEADER = """\
| op | dtype | implementation | ms, median (min – max) | CPU ms | temp MB |\
 GFLOP/s | GB/s | roofline ms | of roofline |
|---|---|---|---:|---:|---:|---:|---:|---:|---:|"""


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--specs",
    nargs="+",
    choices=tuple(specs.BENCHMARK),
    default=["smollm2_135m"],
    help=f"default smollm2_135m; of {', '.join(specs.BENCHMARK)}",
    metavar="NAME",
  )
  parser.add_argument(
    "--implementation",
    nargs="+",
    metavar="NAME",
    help="default: all that run on this machine",
  )
  parser.add_argument("--op", nargs="+", metavar="NAME", help="default: all")
  parser.add_argument(
    "--rounds", type=int, default=7, help="turns each (default 7)"
  )
  parser.add_argument(
    "--seconds",
    type=float,
    default=10,
    help="an implementation whose turns took that long has no more, after two"
    " (default 10)",
  )
  options = parser.parse_args()
  print(machine.line())
  small = all(name == "small" for name in options.specs)
  peaks = machine.measure_peaks(scale=0.25 if small else 1.0)
  print(peaks)
  for name in options.specs:
    spec = specs.BENCHMARK[name]
    print(
      f"\n{name}: B={spec.batch} D={spec.d_model} F={spec.latents} K={spec.k},"
      f" up to {options.rounds} turns each\n"
    )
    print(HEADER)
    absent = []
    for problem in problems(spec):
      if options.op and problem.op not in options.op:
        continue
      timed, left_out = measure(
        problem, options.implementation, options.rounds, options.seconds
      )
      absent += [f"{problem.op} {reason}" for reason in left_out]
      for row in table_rows(problem, timed, peaks):
        print(row, flush=True)
    for reason in dict.fromkeys(absent):
      print(f"\nNot measured: {reason}.")


if __name__ == "__main__":
  main()
