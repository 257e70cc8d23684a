# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a compiled training step or kernel does per device, as JSON values.

Branches are told apart by the file whose conditional it is: `selection:1` is
the exact repeat of a batch whose top-k was not certified, `auxk:1` what runs
only when latents are dead, and inside of it one branch per size of AuxK.
"""

import collections
import dataclasses
import math
import pathlib
import re
from typing import Any

import hlo
import hlo_text

# Whose conditionals normally take their first branch; in other files, such as
# the capacities of a list of pairs, any branch may be the usual one.
_RARE = ("auxk", "selection")
# Their parts are told apart by what they call.
_PASSED = ("step", "stacked", "losses", "selection")
# They pass an array on, or name it again.
_ALIASES = (
  "bitcast",
  "conditional",
  "get-tuple-element",
  "optimization-barrier",
  "parameter",
  "tuple",
  "while",
)


@dataclasses.dataclass(frozen=True)
class Problem:
  """The shapes of a training step, of the whole mesh."""

  batch: int
  d_model: int
  latents: int
  k: int
  data: int = 1
  latent: int = 1

  @property
  def encoder_flops(self) -> float:
    """Per device, of the encoder's product alone: the floor of a step."""
    devices = self.data * self.latent
    return 2 * self.batch * self.d_model * self.latents / devices

  def forbidden(self, array: hlo_text.Array) -> str | None:
    """Whether this array is a dense [B, F], or one row per pair, [B, K, D]."""
    rows = {self.batch, self.batch // self.data}
    latents = {self.latents, self.latents // self.latent}
    if array.shape in {(f, self.d_model) for f in latents}:
      return None  # weights, where a batch has as many rows as D
    if _is(array, latents, rows):
      return "[B, F]"
    pairs = {b * self.k for b in rows} - rows
    return "[B, K, D]" if _is(array, {self.d_model}, pairs) else None


def _is(array, last, rest):
  """Whether one axis is in `last` and the others multiply to one of `rest`."""
  elements = array.elements
  return any(
    size in last and elements // size in rest for size in array.shape if size
  )


def label(branches: tuple[hlo.Branch, ...]) -> str:
  """`auxk:2/auxk:1` for the branch that stands inside another one."""
  return "/".join(f"{pathlib.Path(b.source).stem}:{b.index}" for b in branches)


def normal(branches: tuple[hlo.Branch, ...]) -> bool:
  """Whether it can run when all is certified and no latent is dead."""
  return not any(
    b.index and pathlib.Path(b.source).stem in _RARE for b in branches
  )


def stage(program: hlo.Program, instruction: hlo_text.Instruction) -> str:
  """The room of `sae_jax` that the instruction comes from."""
  for file, function in program.source(instruction):
    path = pathlib.Path(file)
    if path.stem in _PASSED or "sae_jax" not in path.parts:
      continue
    if path.parent.parent.name == "ops":
      return path.parent.name
    return path.stem if path.parent.name != "topk_encode" else function
  return "loss"


def of_program(program: hlo.Program, problem: Problem) -> dict[str, Any]:
  """FLOPs, kernels, collectives and buffers."""
  flops: collections.Counter[str] = collections.Counter()
  stages: collections.Counter[str] = collections.Counter()
  turns: collections.Counter[str] = collections.Counter()
  for count, visit in program.products():
    flops[label(visit.branches)] += count * visit.times
    if normal(visit.branches):
      by = stages if visit.bounded else turns
      by[stage(program, visit.instruction)] += count * visit.times
  kernels = [_kernel(k) for k in program.kernels()]
  declared = sum((k["flops"] or 0) * k["times"] for k in kernels if k["normal"])
  usual = sum(stages.values())
  return {
    "encoder_flops": problem.encoder_flops,
    "flops": {
      "normal": usual,
      "kernels": declared,
      "over_encoder": (usual + declared) / problem.encoder_flops,
      "by_stage": dict(stages),
      "per_turn": dict(turns),  # of loops of unknown length; not in `normal`
      "by_branch": dict(flops),
    },
    "kernels": kernels,
    "collectives": _collectives(program, problem),
    "dense": _dense(program, problem),
    "largest": _largest(program),
  }


def _kernel(kernel: hlo.Kernel) -> dict[str, Any]:
  return {
    "name": kernel.name,
    "target": kernel.target,
    "flops": kernel.flops,
    "bytes": kernel.bytes,
    "times": kernel.visit.times,
    "branch": label(kernel.visit.branches),
    "normal": normal(kernel.visit.branches),
  }


def shape(array: hlo_text.Array) -> str:
  return f"{array.dtype}[{','.join(map(str, array.shape))}]"


def _collectives(program, problem):
  return [
    {
      "kind": c.kind,
      "shapes": [shape(a) for a in c.arrays],
      "devices": c.group,
      "groups": c.groups[:80],
      "times": c.visit.times,
      "bytes": c.bytes,
      "wire_bytes": c.wire_bytes,
      "stage": stage(program, c.visit.instruction),
      "branch": label(c.visit.branches),
      "normal": normal(c.visit.branches),
      "dense": any(problem.forbidden(a) for a in c.arrays),
      # A gathered matrix has D as its last axis and more rows than a batch's.
      "weights": c.kind == "all-gather"
      and any(
        problem.latents in a.shape and problem.d_model in a.shape
        for a in c.arrays
      ),
    }
    for c in program.collectives()
  ]


def _dense(program, problem):
  found = {}
  for array, visit in program.buffers():
    what = problem.forbidden(array)
    if what and visit.instruction.opcode not in _ALIASES:
      key = (what, shape(array), label(visit.branches))
      found[key] = {
        "what": what,
        "shape": shape(array),
        "branch": label(visit.branches),
        "normal": normal(visit.branches),
        "stage": stage(program, visit.instruction),
      }
  return list(found.values())


def _largest(program, count=12):
  """The largest arrays in the device's memory that are no input."""
  found = {}
  for array, visit in program.buffers():
    if array.space == 0 and visit.instruction.opcode not in _ALIASES:
      room = stage(program, visit.instruction)
      key = (shape(array), label(visit.branches), room)
      found.setdefault(key, array.bytes)
  ranked = sorted(found.items(), key=lambda item: -item[1])[:count]
  return [
    {"shape": shape, "branch": branch, "stage": room, "bytes": size}
    for (shape, branch, room), size in ranked
  ]


def temporaries(assignment: str, program: hlo.Program) -> dict[str, Any]:
  """What the device's temporary memory holds, from XLA's buffer assignment.

  `normal` is how far up the path that normally runs reaches in the compiled
  layout; other branches may reach further.
  """
  branches = {}
  stages = {}
  for visit in program.visits:
    branches.setdefault(visit.instruction.name, visit.branches)
    stages.setdefault(visit.instruction.name, stage(program, visit.instruction))
  reach: collections.Counter[str] = collections.Counter()
  values = []
  for block in re.split(r"\nallocation ", assignment):
    if "preallocated-temp" not in block or re.search(r", color \d", block):
      continue
    for name, size, offset, shape in re.findall(
      r"value: <\d+ ([\w.\-]+)[^>]*> \(size=(\d+),offset=(\d+)\): (\S+)", block
    ):
      if name not in branches:
        continue
      where = branches[name]
      key = "normal" if normal(where) else label(where)
      reach[key] = max(reach[key], int(size) + int(offset))
      values.append((int(size), name, shape, key, stages[name]))
  top = sorted(set(values), reverse=True)[:12]
  return {
    "normal": reach["normal"],
    "by_branch": dict(reach),
    "largest": [
      {"bytes": s, "name": n, "shape": h, "branch": b, "stage": g}
      for s, n, h, b, g in top
    ],
  }


def memory(compiled) -> dict[str, int]:
  """XLA's own count of a device's memory, bytes; the one to trust."""
  stats = compiled.memory_analysis()
  return {
    "arguments": stats.argument_size_in_bytes,
    "outputs": stats.output_size_in_bytes,
    "aliased": stats.alias_size_in_bytes,
    "temporaries": stats.temp_size_in_bytes,
    "code": stats.generated_code_size_in_bytes,
  }


def gigabytes(count: float) -> str:
  """Bytes in 10^9, three digits."""
  return f"{count / 1e9:.3g}" if math.isfinite(count) else "?"
