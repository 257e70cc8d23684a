# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Accelerators as published figures: rates, memory, links, hosts.

For predictions (`roofline.py`, `sizing.py`, `aot_harvest.py`); nothing here was
measured.
"""

import dataclasses
import math

from sae_jax.ops import tpu_chips

_HOP_SECONDS = 1e-6  # from one chip to the next


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
  """One JAX device: a TPU chip or a GPU.

  TPU rates: jax's table of chips (`ops/tpu_chips.py`).
  """

  name: str
  flops: float  # bfloat16 products, per second
  memory: float  # bytes per second
  hbm: float  # bytes
  link: float  # bytes per second that a device sends to one neighbour
  axes: int  # of the torus. 0: a switch
  ring: int = 1  # sides of so many chips, or a multiple, are rings, not lines
  host: int  # devices per host
  network: float  # bytes per second of a host's network cards

  def sides(self, chips: int) -> tuple[int, ...]:
    """The slice of so many chips, such as (4, 4); a power of two.

    Raises:
      ValueError: it is none.
    """
    if not self.axes:
      return ()
    power = chips.bit_length() - 1
    if chips != 1 << power:
      raise ValueError(f"{chips} chips of {self.name}: give a power of two")
    return tuple(1 << (power + i) // self.axes for i in range(self.axes))

  def paths(self, sides: tuple[int, ...], group: int) -> tuple[int, int]:
    """How a group lies on a slice, filling sides from the first one on.

    Returns:
      neighbours that a device of the group sends to at once, and hops across.
    """
    # Slices of v4 and v5p are tori as a whole or not at all.
    torus = self.axes < 3 or min(sides, default=0) % self.ring == 0
    ways = hops = 0
    for side in sides:
      part = math.gcd(group, side)
      group //= part
      if part > 1:
        is_ring = torus and part == side and side % self.ring == 0
        ways += 2 if is_ring else 1
        hops += part // 2 if is_ring else part - 1
    return max(ways, 1), hops

  def exchange_seconds(
    self, sides: tuple[int, ...], group: int, sent: float, exchanges: int
  ) -> float:
    """What a device sends, at full rate, and the way there and back."""
    ways, hops = self.paths(sides, group)
    return sent / (self.link * ways) + exchanges * 2 * hops * _HOP_SECONDS


def _tpu(chip: tpu_chips.Chip, cores: int, **figures) -> Device:
  return Device(
    name=chip.name,
    flops=chip.flops_per_s * cores,
    memory=chip.hbm_bytes_per_s * cores,
    hbm=chip.hbm_bytes * cores,
    **figures,
  )


# Links (one way), what is a ring, a microsecond per hop: "How to Scale Your
# Model" (Google DeepMind 2025, ch. 2). Hosts and their network: Cloud TPU's
# pages on each generation; 2 cards of 100 Gbit/s for v5e, 50 Gbit/s per chip
# for v4 and v5p, 100 per chip for v6e.
# H100 SXM: NVIDIA's data sheets; NVLink's 900 GB/s are both ways, a DGX has 8
# cards of 400 Gbit/s.
DEVICES = {
  "v4": _tpu(tpu_chips.V4, 2, link=45e9, axes=3, ring=4, host=4, network=25e9),
  "v5e": _tpu(
    tpu_chips.V5E, 1, link=45e9, axes=2, ring=16, host=8, network=25e9
  ),
  "v5p": _tpu(
    tpu_chips.V5P, 2, link=90e9, axes=3, ring=4, host=4, network=25e9
  ),
  "v6e": _tpu(
    tpu_chips.V6E, 1, link=90e9, axes=2, ring=16, host=8, network=100e9
  ),
  "h100": Device(
    name="h100",
    flops=989e12,
    memory=3.35e12,
    hbm=80e9,
    link=450e9,
    axes=0,
    host=8,
    network=400e9,
  ),
}


def of_topology(topology: str) -> Device:
  """The device of `v5e:4x4`, or of so many H100s, `8`."""
  return DEVICES["h100" if topology.isdigit() else topology.partition(":")[0]]
