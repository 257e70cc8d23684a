# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Predicted times follow from the shapes, and are called predictions."""

import dataclasses
import importlib
import pathlib

import pytest

_FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def roofline(monkeypatch):
  monkeypatch.syspath_prepend(_FOLDER)
  return importlib.import_module("roofline")


def _shapes(roofline, **changes):
  shapes = {"batch": 8192, "d_model": 4096, "latents": 131072, "k": 64}
  spread = {"data": 1, "latent": 64, "aux_k": 2048, "dead": 0}
  return roofline.Shapes(**(shapes | spread | changes))


def _stages(roofline, **changes):
  return {s.name: s for s in roofline.stages(_shapes(roofline, **changes))}


def test_encoder_is_the_only_product_without_dead_latents(roofline):
  found = {n: s.flops for n, s in _stages(roofline).items() if s.flops}
  assert found == {"encode": 2 * 8192 * 4096 * 131072 / 64}


def test_one_device_sends_nothing(roofline):
  assert not any(s.sent for s in _stages(roofline, latent=1).values())


def test_gradients_travel_over_data_and_reconstructions_over_latent(roofline):
  by_latent = _stages(roofline)
  assert by_latent["sum of gradients"].sent == 0
  assert by_latent["sum of decoded"].sent == 2 * 4 * 8192 * 4096 * 63 / 64
  by_data = _stages(roofline, data=64, latent=1)
  assert by_data["sum of decoded"].sent == 0
  assert by_data["sum of gradients"].sent == 2 * 8 * 131072 * 4096 * 63 / 64


def test_auxk_costs_five_products_of_its_compacted_set(roofline):
  (auxk,) = (
    s for n, s in _stages(roofline, dead=512).items() if n.startswith("AuxK")
  )
  assert auxk.flops == 5 * 2 * 8192 * 4096 * 512


def test_time_is_that_of_the_slowest_resource_and_called_prediction(roofline):
  device = dataclasses.replace(
    roofline.devices.DEVICES["v5e"], flops=1e12, memory=1e9, link=1e6
  )
  shapes = _shapes(roofline, latent=16)
  seconds = roofline.Stage("s", 2e12, 3e9, 4e6).seconds(device, shapes)
  assert seconds == {"matrix": 2, "memory": 3, "links": 2}  # two lines out
  assert "PREDICTION" in roofline.table(device, shapes)


def test_a_step_takes_at_least_its_longest_resource(roofline):
  device, shapes = roofline.devices.DEVICES["v5p"], _shapes(roofline)
  overlapped, serial = roofline.step_seconds(device, shapes)
  encode = 2 * 8192 * 4096 * 131072 / 64 / device.flops
  assert encode < overlapped < serial


def test_many_chips_wait_for_one_another(roofline):
  stage = roofline.Stage("s", 0, 0, 0, exchanges=3)
  waits = [
    stage.seconds(
      roofline.devices.DEVICES["v5p"], _shapes(roofline, latent=chips)
    )["links"]
    for chips in (1, 64, 512)
  ]
  # There and back over three rings of 4 and of 8, a microsecond a hop.
  assert waits == pytest.approx([0, 3 * 2 * 3 * 2e-6, 3 * 2 * 3 * 4e-6])
