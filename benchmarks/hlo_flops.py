# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""FLOPs of the matrix products of an HLO program, from their shapes."""

import math
import re

import hlo_text


def _numbers(name: str, text: str) -> list[int]:
  found = re.search(rf"\b{name}=\{{([\d,]*)\}}", text)
  return [int(i) for i in found[1].split(",") if i] if found else []


def of_product(
  made: hlo_text.Instruction, around: dict[str, hlo_text.Instruction]
) -> int:
  """FLOPs of a matrix product, two per multiply-add; 0 for anything else.

  Args:
    made: an instruction.
    around: its computation, in which its operands are.
  """
  if made.opcode == "dot":
    left = around[made.operands[0]].arrays[0]
    contracted = _numbers("lhs_contracting_dims", made.attributes)
    return (
      2 * made.arrays[0].elements * math.prod(left.shape[i] for i in contracted)
    )
  if made.opcode == "convolution":
    left, right = (around[o].arrays[0].shape for o in made.operands)
    return _convolution_flops(
      left, right, made.arrays[0].shape, made.attributes
    )
  return 0


def _convolution_flops(left, right, out, attributes) -> int:
  """TPUs spell products as convolutions, batch axes as spatial ones."""
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
  left_at, right_at, out_at = labels[1], labels[2], labels[3]
  flops = 2 * out[out_at.index("b")] * out[out_at.index("f")]
  flops *= right[right_at.index("i")]
  window = re.search(r"window=\{([^}]*)\}", attributes)
  settings = dict(s.split("=") for s in window[1].split()) if window else {}
  for axis in sorted(c for c in out_at if c.isdigit()):
    spatial = int(axis)
    size = right[right_at.index(axis)]

    def setting(name, default, spatial=spatial):
      values = settings.get(name)
      return values.split("x")[spatial] if values else default

    low = int(setting("pad", "0_0").split("_")[0])
    stride, spread, spread_right = (
      int(setting(name, "1")) for name in ("stride", "lhs_dilate", "rhs_dilate")
    )
    reach = (left[left_at.index(axis)] - 1) * spread
    places = (
      o * stride + k * spread_right - low
      for o in range(out[out_at.index(axis)])
      for k in range(size)
    )
    flops *= sum(0 <= p <= reach and p % spread == 0 for p in places)
  return flops
