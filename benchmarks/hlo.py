# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads a compiled XLA program: buffers, collectives, matrix products, kernels.

Everything is per device. A product or collective counts as often as the loops
around it run; what stands in a branch of a conditional is kept apart by branch,
because XLA's own cost analysis adds all branches and counts loop bodies once.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

import hlo_flops
import hlo_text

_COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
# Pallas: TPU; GPU through Mosaic; GPU through Triton.
_KERNEL_TARGETS = (
  "tpu_custom_call",
  "mosaic_gpu_v2",
  "mosaic_gpu",
  "__gpu$xla.gpu.triton",
)
# These name computations that run as often as they do.
_CALLERS = ("fusion", "call", "async-start")


@dataclasses.dataclass(frozen=True)
class Branch:
  """One branch of one conditional; branch 0 is the `False` of a predicate.

  A loop of unknown length counts as one, with its body as branch 1 of 2.
  """

  conditional: str
  index: int
  count: int
  source: str


@dataclasses.dataclass(frozen=True)
class Visit:
  """An instruction where it runs."""

  instruction: hlo_text.Instruction
  computation: str
  times: int  # per run of `branches`
  branches: tuple[Branch, ...]  # outermost first
  fused: bool  # inside a fusion: no buffer of its own
  bounded: bool  # False: in a loop whose trip count is not known, counted once


@dataclasses.dataclass(frozen=True)
class Collective:
  """Data that devices exchange."""

  kind: str
  arrays: tuple[hlo_text.Array, ...]  # what one device holds afterwards
  bytes: int
  group: int  # devices that exchange with one another
  groups: str
  visit: Visit

  @property
  def wire_bytes(self) -> int:
    """What each device must send in a ring, once through."""
    if self.kind == "collective-permute":  # of pairs, not of groups
      return self.bytes
    n = self.group
    if n == 1:
      return 0
    if self.kind == "all-reduce":
      return 2 * self.bytes * (n - 1) // n
    if self.kind == "reduce-scatter":  # `bytes` is one device's share
      return self.bytes * (n - 1)
    return self.bytes * (n - 1) // n


@dataclasses.dataclass(frozen=True)
class Kernel:
  """A hand-written kernel; `flops` and `bytes` as it declares them."""

  name: str
  target: str
  flops: int | None
  bytes: int | None
  visit: Visit


class Program:
  """A compiled program, from the text that `Compiled.as_text()` gives."""

  def __init__(self, text: str):
    self.computations: dict[str, dict[str, hlo_text.Instruction]] = {}
    self.entry = ""
    current: dict[str, hlo_text.Instruction] = {}
    for line in text.splitlines():
      header = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
      if header and " = " not in line.split("{")[0]:
        current = self.computations[header[2]] = {}
        if header[1]:
          self.entry = header[2]
      elif line.startswith(" ") and (made := hlo_text.instruction(line)):
        current[made.name] = made
    if not self.entry:
      raise ValueError("the text holds no entry computation")
    self._frames = hlo_text.source_frames(text)

  def source(
    self, instruction: hlo_text.Instruction
  ) -> tuple[tuple[str, str], ...]:
    """(file, function) of the calls that led to it, outermost first."""
    found = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
    return self._frames(int(found[1])) if found else ()

  def _file(self, instruction: hlo_text.Instruction) -> str:
    frames = self.source(instruction)
    return frames[-1][0] if frames else ""

  def trip_count(self, loop: hlo_text.Instruction, where: str) -> int | None:
    """How often a `while` runs: the limit of its counter, when it is known."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
      return int(known[1])
    condition = self.computations[loop.called("condition")[0]]
    root = list(condition.values())[-1]
    if root.opcode == "fusion":
      return self._fused_limit(root, condition, loop, where)
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
      return None
    counter, limit = (condition[name] for name in root.operands)
    return self._limit(counter, limit, loop, where)

  def _fused_limit(self, root, condition, loop, where):
    inner = self.computations[root.called("calls")[0]]
    compare = list(inner.values())[-1]
    if compare.opcode != "compare" or "direction=LT" not in compare.attributes:
      return None

    def outer(name):
      made = inner[name]
      if made.opcode != "parameter":
        return made
      return condition[root.operands[int(made.text)]]

    counter, limit = map(outer, compare.operands)
    return self._limit(counter, limit, loop, where)

  def _limit(self, counter, limit, loop, where):
    if counter.opcode != "get-tuple-element" or limit.opcode != "constant":
      return None
    index = int(re.search(r"index=(\d+)", counter.attributes)[1])
    around = self.computations[where]
    first = around[around[loop.operands[0]].operands[index]]
    while first.opcode in ("copy", "bitcast"):
      first = around[first.operands[0]]
    if first.opcode != "constant":
      return None
    return int(limit.text) - int(first.text)

  def walk(self) -> Iterator[Visit]:
    """Every instruction that runs, with its loops and branches."""
    yield from self._walk(self.entry, 1, (), False, True)

  def _walk(self, name, times, branches, fused, bounded):
    for made in self.computations[name].values():
      yield Visit(made, name, times, branches, fused, bounded)
      if made.opcode in _CALLERS:
        for called in made.called("calls", "to_apply"):
          inside = fused or made.opcode == "fusion"
          yield from self._walk(called, times, branches, inside, bounded)
      elif made.opcode == "while":
        count = self.trip_count(made, name)
        inner = times * (1 if count is None else count)
        known = bounded and count is not None
        inside = branches
        if count is None:
          inside = (*branches, Branch(made.name, 1, 2, self._file(made)))
        for called in made.called("body"):
          yield from self._walk(called, inner, inside, fused, known)
      elif made.opcode == "conditional":
        yield from self._walk_branches(made, times, branches, fused, bounded)

  def _walk_branches(self, made, times, branches, fused, bounded):
    called = made.called("branch_computations") or (
      *made.called("false_computation"),
      *made.called("true_computation"),
    )
    source = self._file(made)
    for index, computation in enumerate(called):
      branch = Branch(made.name, index, len(called), source)
      inside = (*branches, branch)
      yield from self._walk(computation, times, inside, fused, bounded)

  @functools.cached_property
  def visits(self) -> tuple[Visit, ...]:
    return tuple(self.walk())

  def buffers(self) -> Iterator[tuple[hlo_text.Array, Visit]]:
    """Arrays that exist outside of fusions, wherever they lie."""
    for visit in self.visits:
      if not visit.fused:
        for array in visit.instruction.arrays:
          yield array, visit

  def collectives(self) -> list[Collective]:
    """Exchanges between devices, in order of appearance."""
    return [c for visit in self.visits if (c := _collective(visit))]

  def products(self) -> list[tuple[int, Visit]]:
    """FLOPs of one run of every matrix product, two per multiply-add."""
    return [
      (flops, visit)
      for visit in self.visits
      if (
        flops := hlo_flops.of_product(
          visit.instruction, self.computations[visit.computation]
        )
      )
    ]

  def kernels(self) -> list[Kernel]:
    """Pallas kernels, for TPU or GPU."""
    return [k for visit in self.visits if (k := _kernel(visit))]


def _collective(visit: Visit) -> Collective | None:
  made = visit.instruction
  kind = made.opcode.removesuffix("-start")
  if kind not in _COLLECTIVES or made.opcode.endswith("-done"):
    return None
  arrays = made.arrays
  if made.opcode != kind:  # a start holds operands, then results
    arrays = arrays[len(made.operands) : 2 * len(made.operands)] or arrays
  size = sum(a.bytes for a in arrays)
  found = re.search(
    r"replica_groups=(\{\{.*?\}\}|\[[^ ]*?\]<=\[[\d,]*\](?:T\([\d,]*\))?"
    r"|mesh\[[^\]]*\] \{[^}]*\})",
    made.attributes,
  )
  if "replica_groups=" in made.attributes and not found:
    raise ValueError(f"cannot read the groups of {made.attributes[:200]}")
  groups = found[1] if found else ""
  group = _group_size(groups)
  # A TPU's fused reduce-scatter is spelt as an all-reduce and a slice.
  if kind == "all-reduce" and visit.computation.startswith(
    "all-reduce-scatter"
  ):
    kind, size = "reduce-scatter", size // group
  return Collective(kind, arrays, size, group, groups, visit)


def _group_size(groups: str) -> int:
  if groups.startswith("{{"):
    return groups[2:].split("}")[0].count(",") + 1
  if groups.startswith("mesh["):
    # mesh['a'=4,'b'=8] {'a','b':(2)4}: all of a, and four of b's eight.
    axes, named = groups.split("] ")
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", axes))
    parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", named)
    return math.prod(int(part or sizes[axis]) for axis, part in parts)
  iota = re.match(r"\[([\d,]+)\]", groups)
  return int(iota[1].split(",")[-1]) if iota else 1


def _kernel(visit: Visit) -> Kernel | None:
  made = visit.instruction
  target = re.search(r'custom_call_target="([^"]*)"', made.attributes)
  if not target or target[1] not in _KERNEL_TARGETS:
    return None
  flops, moved = (
    re.search(rf'"{key}":"?(\d+)"?', made.attributes)
    for key in ("flops", "bytes_accessed")
  )
  return Kernel(
    name=re.sub(r"[.\d]*$", "", made.name),
    target=target[1],
    flops=int(flops[1]) if flops else None,
    bytes=int(moved[1]) if moved else None,
    visit=visit,
  )
