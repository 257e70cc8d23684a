# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the TPU generations differ in, as far as kernels care.

Figures of one TensorCore. A JAX device is one core, or both cores of a chip
("megacore"), which then share the "parallel" dimensions of a kernel's grid.
"""

import dataclasses

import jax

from sae_jax.ops import dispatch

_MIB = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """One generation; everything but `cores` is per core.

  As in `jax.experimental.pallas.tpu.TpuInfo`; a test compares them.
  """

  name: str
  cores: int = 1  # of a JAX device
  vmem_bytes: int
  smem_bytes: int = _MIB
  mxu_size: int  # rows and columns of one matrix unit
  mxus: int
  flops_per_s: float  # bfloat16 products, float32 sums
  hbm_bytes: float
  hbm_bytes_per_s: float

  @property
  def kernel_vmem_bytes(self) -> int:
    """What a kernel may ask for: `CompilerParams(vmem_limit_bytes=...)`.

    The compiler keeps some for itself and for transfers that overlap the
    kernel: an eighth.
    """
    return self.vmem_bytes // 8 * 7


V4 = Chip(
  name="v4",
  vmem_bytes=16 * _MIB,
  mxu_size=128,
  mxus=4,
  flops_per_s=137.5e12,
  hbm_bytes=17.2e9,
  hbm_bytes_per_s=615e9,
)
V5E = Chip(
  name="v5e",
  vmem_bytes=128 * _MIB,
  mxu_size=128,
  mxus=4,
  flops_per_s=197e12,
  hbm_bytes=17.2e9,
  hbm_bytes_per_s=820e9,
)
V5P = Chip(
  name="v5p",
  vmem_bytes=64 * _MIB,
  mxu_size=128,
  mxus=4,
  flops_per_s=229.5e12,
  hbm_bytes=51.5e9,
  hbm_bytes_per_s=1230e9,
)
V6E = Chip(
  name="v6e",
  vmem_bytes=128 * _MIB,
  mxu_size=256,
  mxus=2,
  flops_per_s=920e12,
  hbm_bytes=34.4e9,
  hbm_bytes_per_s=1640e9,
)
V7X = Chip(
  name="v7x",
  vmem_bytes=64 * _MIB,
  mxu_size=256,
  mxus=2,
  flops_per_s=1155e12,
  hbm_bytes=103e9,
  hbm_bytes_per_s=3700e9,
)
CHIPS = (V4, V5E, V5P, V6E, V7X)

_BY_DEVICE_KIND = {
  "TPU v4": V4,
  "TPU v5e": V5E,
  "TPU v5 lite": V5E,
  "TPU v5": V5P,
  "TPU v5p": V5P,
  "TPU v6e": V6E,
  "TPU v6 lite": V6E,
  "TPU7": V7X,
  "TPU7x": V7X,
}


def of_device(device: jax.sharding.AbstractDevice | jax.Device) -> Chip:
  """The chip of a TPU device; of an unknown one, what runs on them all: v4."""
  chip = _BY_DEVICE_KIND.get(device.device_kind, V4)
  if device.platform != "tpu":
    return chip
  return dataclasses.replace(chip, cores=device.num_cores or 1)


def target() -> Chip:
  """The chip that is traced for, see `dispatch.target`.

  v4, which has the least memory, where that is no TPU (interpreted kernels).
  """
  return of_device(dispatch.target())
