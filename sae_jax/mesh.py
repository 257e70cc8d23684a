# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Multi-process start-up and the device mesh `(sae, data, latent)`.

Library code takes a mesh; only jobs and tests build one, and only here.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from sae_jax import errors

AXES = ("sae", "data", "latent")


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


def make(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
  """Builds the mesh over `devices` (default: every device of every process).

  Raises:
    errors.InputError: the sizes do not multiply to the device count.
  """
  devices = jax.devices() if devices is None else list(devices)
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
  return jax.make_mesh(
    tuple(sizes),
    AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * 3,
    devices=devices,
  )


def single() -> jax.sharding.Mesh:
  """The 1 x 1 x 1 mesh on this process's first device."""
  return make(MeshConfig(latent=1), jax.local_devices()[:1])
