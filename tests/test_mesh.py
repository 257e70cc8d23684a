# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Meshes of every shape, and what is said of impossible ones."""

import jax
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
