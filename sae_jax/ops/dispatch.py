# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which implementation of an operation runs, and on what.

`None` means the best one of the platform that is traced for; a name is taken
literally and never replaced by another one.
"""

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np

from sae_jax import errors

# Traced code depends on it, so that `jax.jit` must not reuse what it traced
# outside: a plain global would be missed by its cache.
_compiled_for = jax.make_user_context(default_value=None)
_UNNAMED = jax.sharding.AbstractDevice(
  device_kind="", num_cores=None, platform=""
)


def _abstract(device: jax.Device) -> jax.sharding.AbstractDevice:
  mesh = jax.sharding.Mesh(np.array([device]), ("device",))
  return mesh.abstract_mesh.abstract_device


def compiled_kernels(
  device: jax.Device | None = None,
) -> AbstractContextManager[None]:
  """A context in which Pallas kernels are lowered to be compiled.

  For ahead-of-time compilation in a process that has no such device: the
  default backend is the CPU there, where kernels would be interpreted. Not
  needed inside `shard_map` over a mesh of the devices that are compiled for.

  Args:
    device: what is compiled for, e.g. one of a topology's devices. None if the
      mesh tells, or if anything will do.
  """
  return _compiled_for(_UNNAMED if device is None else _abstract(device))


def target() -> jax.sharding.AbstractDevice:
  """The device that is traced for.

  That of `compiled_kernels`, else of the mesh that is mapped over, else the
  default one. `device_kind` is "" where `compiled_kernels` names none and there
  is no mesh.
  """
  forced = _compiled_for.value
  mapped = jax.sharding.get_abstract_mesh().abstract_device
  if forced is None:
    return mapped or _abstract(jax.devices()[0])
  return mapped or forced if forced == _UNNAMED else forced


def interpret() -> bool:
  """Whether Pallas kernels are to be interpreted, as there is only a CPU."""
  return _compiled_for.value is None and target().platform == "cpu"


def for_platform(platform: str) -> str:
  """The implementation that `None` stands for on `platform`."""
  return {"cpu": "cpu", "tpu": "pallas_tpu"}.get(platform, "xla")


def when_called(module: str, name: str) -> Callable[..., Any]:
  """A function of a module of Pallas kernels, which a first call imports.

  Pallas takes longer to import than all other operations together.
  """

  def call(*args, **kwargs):
    return getattr(importlib.import_module(module), name)(*args, **kwargs)

  return call


def choose(
  op: str,
  implementations: Mapping[str, Callable[..., Any]],
  implementation: str | None,
) -> Callable[..., Any]:
  """Returns the function that `implementation` names.

  Raises:
    errors.InputError: the operation has no implementation of that name.
  """
  name = implementation or for_platform(target().platform)
  if name not in implementations:
    raise errors.InputError(
      f"{op}: implementation={implementation!r} does not exist; choose one of"
      f" {sorted(implementations)}, or None for the platform's own"
    )
  return implementations[name]
