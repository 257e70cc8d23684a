# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The device mesh `(sae, data, latent)`.

Library code takes a mesh; only jobs and tests build one, and only here.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils

from sae_jax import errors

AXES = ("sae", "data", "latent")

# Dense bfloat16 FLOP/s by the start of the device's kind; vendors' figures.
_PEAK_FLOPS = {
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5": 459e12,
  "TPU v6 lite": 918e12,
  "NVIDIA A100": 312e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H200": 989e12,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """How many devices each axis gets; the product is the device count."""

  sae: int = 1  # stacked SAEs
  data: int = 1  # rows of a batch; sequences of a language model
  latent: int = -1  # latents; heads and MLP width of a language model. -1: rest

  def __post_init__(self):
    sizes = dataclasses.asdict(self)
    for axis, size in sizes.items():
      if size < 1 and size != -1:
        raise errors.InputError(
          f"mesh.{axis}={size}: give a number of devices >= 1, or -1 for the"
          " devices that are left"
        )
    if sum(size == -1 for size in sizes.values()) > 1:
      raise errors.InputError(
        f"mesh {sizes}: at most one axis can be -1 (the devices left)"
      )


def refuse_processes(job: str) -> None:
  """Of a job that is not made for several processes.

  Raises:
    errors.InputError: this is one of several.
  """
  if jax.process_count() > 1:
    raise errors.InputError(
      f"sae-jax {job} runs in one process, on all devices of its host; start it"
      " without --distributed"
    )


def make(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
  """Builds the mesh over `devices` (default: every device of every process).

  Neighbours on the last axes are neighbours in the machine: `latent` gets the
  fastest links. Only `sae` and `data` cross the slow network between the slices
  of a TPU job, `sae` first: dictionaries exchange nothing.

  Raises:
    errors.InputError: the sizes do not multiply to the device count, or
      `latent` does not fit into a slice.
  """
  devices = _all_devices() if devices is None else list(devices)
  sizes = [config.sae, config.data, config.latent]
  if -1 in sizes:
    known = -int(np.prod(sizes))
    if len(devices) % known:
      raise errors.InputError(
        f"mesh {dataclasses.asdict(config)}: {len(devices)} devices are not a"
        f" multiple of {known}"
      )
    sizes[sizes.index(-1)] = len(devices) // known
  if int(np.prod(sizes)) != len(devices):
    raise errors.InputError(
      f"mesh {dict(zip(AXES, sizes, strict=True))} needs"
      f" {int(np.prod(sizes))} devices, but there are {len(devices)}; set one"
      " axis to -1 to use them all"
    )
  return jax.sharding.Mesh(
    _arrange(sizes, devices),
    AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * 3,
  )


def _all_devices() -> list[jax.Device]:
  if jax.process_count() > 1 and not jax.distributed.is_initialized():
    raise errors.InputError(
      f"this is one of the {jax.process_count()} hosts of a TPU slice; start"
      " the same command with --distributed on each of them"
    )
  return jax.devices()


def _arrange(sizes: list[int], devices: list[jax.Device]) -> np.ndarray:
  """The devices in the shape of the mesh.

  `jax.make_mesh` refuses several slices, which nodes of GPUs are to it, and
  meshes that divide an axis of a TPU's torus.
  """
  slices = {_slice(device) for device in devices}
  if devices[0].platform != "tpu":
    devices = sorted(devices, key=lambda device: (_slice(device), device.id))
    return np.asarray(devices).reshape(sizes)
  over_sae = math.gcd(sizes[0], len(slices))
  over_data = len(slices) // over_sae
  if sizes[1] % over_data or len(devices) % len(slices):
    raise errors.InputError(
      f"mesh {dict(zip(AXES, sizes, strict=True))} over {len(slices)} TPU"
      f" slices of {len(devices) // len(slices)} devices: latents cannot be"
      " split between slices, whose network is too slow for every step's"
      " exchange; set mesh.data (or mesh.sae) to a multiple of"
      f" {len(slices)}"
    )
  inside = (sizes[0] // over_sae, sizes[1] // over_data, sizes[2])
  if len(slices) == 1:
    return mesh_utils.create_device_mesh(
      inside, devices, allow_split_physical_axes=True
    )
  return mesh_utils.create_hybrid_device_mesh(
    inside, (over_sae, over_data, 1), devices, allow_split_physical_axes=True
  )


def _slice(device: jax.Device) -> int:
  # Of a TPU, or of the GPUs that one NVLink network joins; CPUs have none.
  return getattr(device, "slice_index", 0)


def peak_flops(device_kind: str) -> float | None:
  """Dense bfloat16 FLOP/s of one such device; None if it is not known."""
  known = [kind for kind in _PEAK_FLOPS if device_kind.startswith(kind)]
  return _PEAK_FLOPS[max(known, key=len)] if known else None


def single() -> jax.sharding.Mesh:
  """The 1 x 1 x 1 mesh on this process's first device."""
  return make(MeshConfig(latent=1), jax.local_devices()[:1])
