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
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import machine
import numpy as np

from sae_jax import ops
from sae_jax.ops import specs
from sae_jax.ops.pair_grads import api as pair_grads_api
from sae_jax.ops.sparse_decode import api as sparse_decode_api
from sae_jax.ops.sphere_adam import api as sphere_adam_api
from sae_jax.ops.topk_encode import api as topk_encode_api
from sae_jax.ops.weight_grads import api as weight_grads_api

# The backend that each name's code is compiled for; the rest run anywhere.
_HARDWARE = {"pallas_tpu": "tpu", "pallas_gpu": "gpu"}


_OPS = {
  "topk_encode": topk_encode_api.IMPLEMENTATIONS,
  "sparse_decode": sparse_decode_api.DECODE,
  "row_dots": sparse_decode_api.ROW_DOTS,
  "residual": sparse_decode_api.RESIDUAL,
  "pair_grads": pair_grads_api.GRADS,
  "pair_sums": pair_grads_api.SUMS,
  "weight_grads": weight_grads_api.IMPLEMENTATIONS,
  "sphere_adam": sphere_adam_api.IMPLEMENTATIONS,
}


@dataclasses.dataclass(frozen=True)
class Problem:
  """One operation on one spec; `flops` and `bytes` are the least it needs."""

  op: str
  dtype: str  # of the operands of its products
  call: Callable[..., Any]  # `(*arguments, implementation=…)`
  arguments: tuple[Any, ...]
  flops: float
  bytes: float
  # Places of arguments that the call gives back, changed, in this order.
  carried: tuple[int, ...] = ()


def problems(spec: specs.Spec) -> Iterator[Problem]:
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

  for dtype in ("bfloat16", "float32"):
    yield Problem(
      "topk_encode",
      dtype,
      lambda x, w, bias, **which: ops.topk_encode(x, w, bias, k, **which),
      (x_BD.astype(dtype), w_FD.astype(dtype), b_F),
      2 * b * d * f,
      (b + f) * d * jnp.dtype(dtype).itemsize + 4 * f + 8 * pairs,
    )
  rows = touched * d * 4
  yield Problem(
    "sparse_decode",
    "float32",
    ops.sparse_decode,
    (values_BK, indices_BK, w_FD),
    2 * pairs * d,
    8 * pairs + rows + 4 * b * d,
  )
  yield Problem(
    "row_dots",
    "float32",
    ops.row_dots,
    (x_BD, indices_BK, w_FD),
    2 * pairs * d,
    4 * b * d + 8 * pairs + rows,
  )
  yield Problem(
    "residual",
    "float32",
    ops.residual,
    (values_BK, indices_BK, w_FD, x_BD),
    4 * pairs * d,
    12 * pairs + rows + 8 * b * d,
  )
  yield Problem(
    "pair_grads",
    "float32",
    lambda c, i, x, **which: ops.pair_grads(c, i, x, f, **which),
    (values_BK, indices_BK, x_BD),
    2 * pairs * d,
    8 * pairs + 4 * b * d + 4 * f * d,
  )
  yield Problem(
    "pair_sums",
    "float32",
    lambda c, i, **which: ops.pair_sums(c, i, f, **which),
    (values_BK, indices_BK),
    pairs,
    8 * pairs + 4 * f,
  )
  yield Problem(
    "weight_grads",
    "float32",
    ops.weight_grads,
    (values_BK, indices_BK, w_FD, x_BD, x_BD, values_BK),
    4 * pairs * d + pairs,
    12 * pairs + 8 * b * d + 8 * f * d + 4 * f,
  )
  yield Problem(
    "sphere_adam",
    "float32",
    _adam,
    (w_FD, 1e-3 * w_FD[::-1], 1e-3 * w_FD, 1e-6 * w_FD * w_FD),
    20 * f * d,
    7 * 4 * f * d,
    carried=(0, 2, 3),
  )


def _adam(row_FD, grad_FD, mu_FD, nu_FD, **which):
  moved = ops.sphere_adam(row_FD, grad_FD, mu_FD, nu_FD, 1e-4, 1, **which)
  return moved.row_FD, moved.mu_FD, moved.nu_FD, moved.grad_square


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
    jax.jit(
      lambda *arguments: problem.call(*arguments, implementation=name),
      donate_argnums=problem.carried,
    )
    .lower(*problem.arguments)
    .compile()
  )
  arguments = list(problem.arguments)
  for place in problem.carried:  # other implementations need the original
    arguments[place] = jnp.copy(arguments[place])

  def run():
    out = compiled(*arguments)
    for place, array in zip(problem.carried, out, strict=False):
      arguments[place] = array
    return out

  memory = compiled.memory_analysis()
  return Timed(name, run, memory.temp_size_in_bytes if memory else 0)


def measure(
  problem: Problem, wanted: list[str] | None, rounds: int, seconds: float
) -> tuple[list[Timed], list[str]]:
  """Times the implementations in turns; also says what was left out, and why.

  An implementation drops out when its turns have taken `seconds` (after two).
  """
  backend = jax.default_backend()
  timed, left_out, names = [], [], {}
  for name, function in _OPS[problem.op].items():
    if wanted and name not in wanted:
      continue
    if _HARDWARE.get(name, backend) != backend:
      left_out.append(f"{name} needs a {_HARDWARE[name]}, this is a {backend}")
      continue
    if function in names:
      left_out.append(f"{name} is the same code as {names[function]}")
      continue
    names[function] = name
    one = compile_one(problem, name)
    if one.temp > 0.8 * machine.available():
      left_out.append(f"{name} needs {one.temp / 1e9:.1f} GB")
      continue
    jax.block_until_ready(one.run())
    timed.append(one)
  for turn in range(rounds):
    for one in timed:
      if turn < 2 or sum(one.wall) < seconds:
        one.once()
  return timed, left_out


def table_rows(problem: Problem, timed: list[Timed], peaks: machine.Peaks):
  """Markdown rows, one per implementation."""
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


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )

  def choice(option: str, names, **settings) -> None:
    settings["help"] = f"{settings['help']}; of {', '.join(names)}"
    parser.add_argument(
      option, nargs="+", metavar="NAME", choices=names, **settings
    )

  choice(
    "--specs",
    tuple(specs.BENCHMARK),
    default=["smollm2_135m"],
    help="shapes; default smollm2_135m",
  )
  choice("--op", tuple(_OPS), default=list(_OPS), help="default: all")
  choice(
    "--implementation",
    tuple(dict.fromkeys(name for table in _OPS.values() for name in table)),
    help="default: all that run on this machine",
  )
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
  return parser.parse_args()


def main() -> None:
  options = _parse()
  print(machine.line())
  peaks = machine.measure_peaks()
  print(peaks)
  for name in options.specs:
    spec = specs.BENCHMARK[name]
    print(
      f"\n{name}: B={spec.batch} D={spec.d_model} F={spec.latents} K={spec.k},"
      f" up to {options.rounds} turns each.\n\n{HEADER}"
    )
    absent = {}  # reason: operations, in order
    for problem in problems(spec):
      if problem.op not in options.op:
        continue
      timed, left_out = measure(
        problem, options.implementation, options.rounds, options.seconds
      )
      for reason in left_out:
        absent.setdefault(reason, {})[problem.op] = None
      for row in table_rows(problem, timed, peaks):
        print(row, flush=True)
    for reason, names in absent.items():
      print(f"\nNot measured: {reason} ({', '.join(names)}).")


if __name__ == "__main__":
  main()
