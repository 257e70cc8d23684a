# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Meshes of every shape, and what is said of impossible ones."""

import dataclasses

import jax
import numpy as np
import pytest

from sae_jax import errors, mesh


def test_minus_one_takes_the_devices_left():
  made = mesh.make(mesh.MeshConfig(data=2))
  assert dict(made.shape) == {"sae": 1, "data": 2, "latent": 4}
  assert dict(mesh.single().shape) == {"sae": 1, "data": 1, "latent": 1}


def test_impossible_meshes_are_refused():
  with pytest.raises(errors.InputError, match="needs 6 devices"):
    mesh.make(mesh.MeshConfig(data=3, latent=2))
  with pytest.raises(errors.InputError, match="not a multiple of 3"):
    mesh.make(mesh.MeshConfig(data=3))
  with pytest.raises(errors.InputError, match="at most one axis"):
    mesh.MeshConfig(data=-1, latent=-1)
  with pytest.raises(errors.InputError, match=r"mesh\.data=0"):
    mesh.MeshConfig(data=0)


def test_a_mesh_can_leave_devices_out():
  made = mesh.make(mesh.MeshConfig(latent=2), jax.devices()[:2])
  assert made.devices.size == 2


def test_peak_flops_of_known_devices():
  assert mesh.peak_flops("TPU v5 lite") == 197e12
  assert mesh.peak_flops("TPU v5p") == 459e12
  assert mesh.peak_flops("NVIDIA H100 80GB HBM3") == 989e12
  assert mesh.peak_flops("cpu") is None


def test_jobs_of_one_process_refuse_more(monkeypatch):
  mesh.refuse_processes("diff")
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(errors.InputError) as caught:
    mesh.refuse_processes("diff")
  assert str(caught.value) == (
    "sae-jax diff runs in one process, on all devices of its host; start it"
    " without --distributed"
  )


@dataclasses.dataclass(frozen=True)
class Device:
  """What a mesh is laid by of a device."""

  id: int
  slice_index: int
  coords: tuple[int, int, int]
  platform: str = "tpu"
  device_kind: str = "TPU v6 lite"
  process_index: int = 0
  core_on_chip: int = 0


def slices_of(count, width, height, **kind):
  """Slices of `width` x `height` chips, in the order of their hosts."""
  size = width * height
  return [
    Device(i, i // size, (i % width, i % size // width, 0), **kind)
    for i in range(count * size)
  ]


def lay(config, devices):
  """The slice's number at every place of the mesh."""
  made = mesh.make(config, devices).devices
  assert {device.id for device in made.flat} == set(range(len(devices)))
  return np.vectorize(lambda device: device.slice_index)(made)


@pytest.mark.parametrize(
  ("count", "sizes", "sae_slices"),
  [
    (2, (1, 2, 16), 1),
    (2, (1, 8, 4), 1),
    (2, (2, 1, 16), 2),
    (2, (2, 2, 8), 2),
    (4, (2, 2, 16), 2),
    (6, (2, 6, 8), 2),
  ],
)
def test_latents_stay_inside_a_tpu_slice(count, sizes, sae_slices):
  sae, data, latent = sizes
  found = lay(
    mesh.MeshConfig(sae=sae, data=data, latent=latent), slices_of(count, 4, 4)
  )
  assert found.shape == sizes
  assert (found == found[..., :1]).all()
  # Dictionaries exchange nothing, so that they are divided before the rows.
  per_sae = [set(found[i].flat) for i in range(sae)]
  assert all(len(slices) == count // sae_slices for slices in per_sae)
  for rows in found[..., 0]:  # a slice's rows are neighbours
    assert (np.diff(rows) >= 0).all()


def test_latents_between_tpu_slices_are_refused():
  devices = slices_of(2, 4, 4)
  for config in (
    mesh.MeshConfig(),
    mesh.MeshConfig(latent=32),
    mesh.MeshConfig(data=1, sae=1),
  ):
    with pytest.raises(errors.InputError) as caught:
      mesh.make(config, devices)
    assert str(caught.value) == (
      "mesh {'sae': 1, 'data': 1, 'latent': 32} over 2 TPU slices of 16"
      " devices: latents cannot be split between slices, whose network is too"
      " slow for every step's exchange; set mesh.data (or mesh.sae) to a"
      " multiple of 2"
    )


@pytest.mark.parametrize("kind", ["TPU v4", "TPU v5 lite", "TPU v6 lite"])
def test_any_factorisation_of_a_torus_has_a_mesh(kind):
  devices = slices_of(1, 4, 4, device_kind=kind)
  for sae, data in [(1, 1), (1, 2), (1, 8), (2, 2), (4, 2), (2, 8)]:
    lay(mesh.MeshConfig(sae=sae, data=data), devices)


def test_gpu_nodes_are_filled_by_latents_first():
  nodes = slices_of(
    2, 8, 1, platform="gpu", device_kind="NVIDIA H100 80GB HBM3"
  )
  shuffled = nodes[1::2] + nodes[::2]
  found = lay(mesh.MeshConfig(data=2, latent=8), shuffled)
  assert (found == [[[0] * 8, [1] * 8]]).all()
  # No rule against more latents than a node holds: networks of GPUs carry it.
  assert lay(mesh.MeshConfig(latent=16), shuffled).tolist() == [
    [[0] * 8 + [1] * 8]
  ]


def test_hosts_of_a_tpu_slice_that_are_not_joined_are_told(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 4)
  with pytest.raises(errors.InputError, match=r"one of the 4 hosts.*--distrib"):
    mesh.make(mesh.MeshConfig())
