# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The lines of an HLO program as data: arrays, instructions, source locations.

Reads what `Compiled.as_text()` and libtpu's dumps print. `hlo.py` says what the
program does.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128}


@dataclasses.dataclass(frozen=True)
class Array:
  """An array that an instruction makes; `space` 0 is the device's memory."""

  dtype: str
  shape: tuple[int, ...]
  space: int
  padded: tuple[int, ...]  # to whole tiles of its layout

  @property
  def elements(self) -> int:
    return math.prod(self.shape)

  @property
  def bytes(self) -> int:
    return math.prod(self.padded) * _bits(self.dtype) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation."""

  name: str
  opcode: str
  arrays: tuple[Array, ...]  # one, or those of a tuple
  operands: tuple[str, ...]
  text: str  # what is between the parentheses
  attributes: str  # what follows them

  def called(self, *attributes: str) -> tuple[str, ...]:
    """Computations that one of these attributes names."""
    names = "|".join(attributes)
    found = re.search(
      rf"\b(?:{names})=\{{?([^,}}\s]+(?:, ?%[^,}}]+)*)", self.attributes
    )
    if not found:
      return ()
    return tuple(n.strip().lstrip("%") for n in found[1].split(","))


def _bits(dtype: str) -> int:
  if dtype in _BITS:
    return _BITS[dtype]
  digits = re.search(r"\d+", dtype)
  return int(digits[0]) if digits else 0


def _padded(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
  """The shape in whole tiles, as `{1,0:T(8,128)}` says; order is kept."""
  order = re.match(r"[\d,]+", layout)
  tile = re.search(r"T\(([\d,]+)\)", layout)
  if not order or not tile:
    return shape
  minor_first = [int(i) for i in order[0].split(",") if i]
  sizes = [int(t) for t in reversed(tile[1].split(","))]
  padded = list(shape)
  for axis, size in zip(minor_first, sizes, strict=False):
    padded[axis] = -(-padded[axis] // size) * size
  return tuple(padded)


def arrays(text: str) -> tuple[Array, ...]:
  """All arrays of a type, those of a tuple in order."""
  found = []
  for dtype, dims, layout in re.findall(
    r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?", text
  ):
    shape = tuple(int(d.strip("<=")) for d in dims.split(",") if d)
    space = re.search(r"S\((\d+)\)", layout)
    found.append(
      Array(dtype, shape, int(space[1]) if space else 0, _padded(shape, layout))
    )
  return tuple(found)


def _closing(text: str, start: int) -> int:
  """Where the parenthesis that opens at `start` closes."""
  depth = 0
  for i in range(start, len(text)):
    depth += {"(": 1, ")": -1}.get(text[i], 0)
    if not depth:
      return i
  raise ValueError(f"unbalanced parentheses: {text[:200]}")


def instruction(line: str) -> Instruction | None:
  """The instruction on this line, if there is one."""
  found = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = ", line)
  if not found:
    return None
  rest = line[found.end() :]
  end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
  call = re.match(r"\s*([\w\-]+)\(", rest[end:])
  if not call:
    return None
  start = end + call.end() - 1
  stop = _closing(rest, start)
  inside = rest[start + 1 : stop]
  return Instruction(
    name=found[1],
    opcode=call[1],
    arrays=arrays(rest[:end]),
    operands=tuple(re.findall(r"%([\w.\-]+)", inside)),
    text=inside,
    attributes=rest[stop + 1 :],
  )


def source_frames(
  text: str,
) -> Callable[[int], tuple[tuple[str, str], ...]]:
  """From `stack_frame_id` to (file, function) of its calls, outermost first."""
  tables: dict[str, dict[int, str]] = {}
  current: dict[int, str] = {}
  for line in itertools.islice(text.splitlines(), 1, None):
    if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
      current = tables[line] = {}
    elif row := re.match(r"(\d+) (.*)", line):
      current[int(row[1])] = row[2]
    elif "{" in line:
      break

  def number(row, name):
    found = re.search(rf"{name}=(\d+)", row)
    return int(found[1]) if found else 0

  def frames(frame):
    row = tables.get("StackFrames", {}).get(frame)
    if row is None:
      return ()
    location = tables["FileLocations"][number(row, "file_location_id")]
    here = (
      tables["FileNames"][number(location, "file_name_id")].strip('"'),
      tables["FunctionNames"][number(location, "function_name_id")].strip('"'),
    )
    # Counted from one; a root names none.
    parent = number(row, "parent_frame_id") - 1
    return (*frames(parent), here)

  return functools.cache(frames)
