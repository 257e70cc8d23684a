# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs on paper: slices, memory, reads and what does not fit."""

import importlib
import pathlib
import re

import pytest

_FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _folder(monkeypatch):
  monkeypatch.syspath_prepend(_FOLDER)


@pytest.fixture
def devices():
  return importlib.import_module("devices")


@pytest.fixture
def sizing():
  return importlib.import_module("sizing")


@pytest.fixture
def run(sizing, monkeypatch, capsys):
  """What the script prints for these arguments."""

  def run(*arguments):
    monkeypatch.setattr("sys.argv", ["sizing.py", *arguments])
    sizing.main()
    return capsys.readouterr().out

  return run


def _shapes(sizing, **changes):
  shapes = {"batch": 8192, "d_model": 4096, "latents": 1 << 24, "k": 64}
  spread = {"data": 1, "latent": 256, "aux_k": 2048, "dead": 0}
  return sizing.roofline.Shapes(**(shapes | spread | changes))


@pytest.mark.parametrize(
  ("name", "chips", "sides"),
  [
    ("v5e", 8, (2, 4)),
    ("v5e", 256, (16, 16)),
    ("v6e", 128, (8, 16)),
    ("v5p", 4, (1, 2, 2)),
    ("v5p", 64, (4, 4, 4)),
    ("v4", 128, (4, 4, 8)),
    ("h100", 12, ()),
  ],
)
def test_slices_are_as_near_to_a_cube_as_powers_of_two(
  devices, name, chips, sides
):
  assert devices.DEVICES[name].sides(chips) == sides


@pytest.mark.parametrize(
  ("name", "sides", "group", "paths"),
  [
    ("v5e", (4, 4), 16, (2, 6)),  # lines
    ("v5e", (16, 16), 256, (4, 16)),  # two rings
    ("v5e", (16, 8), 16, (2, 8)),  # the ring of the two sides
    ("v5e", (16, 8), 64, (3, 8 + 3)),
    ("v5p", (4, 4, 4), 64, (6, 6)),
    ("v5p", (4, 4, 4), 4, (2, 2)),
    ("v5p", (4, 4, 2), 32, (3, 3 + 3 + 1)),  # no torus
    ("h100", (), 8, (1, 0)),
  ],
)
def test_a_group_uses_the_links_of_its_sides(
  devices, name, sides, group, paths
):
  assert devices.DEVICES[name].paths(sides, group) == paths


def test_chips_of_a_tpu_are_a_power_of_two(devices):
  with pytest.raises(ValueError, match="12 chips of v5e"):
    devices.DEVICES["v5e"].sides(12)


def test_parameters_and_moments_are_24_bytes_of_a_pair(sizing):
  need = sizing.memory(_shapes(sizing))
  assert need.state == pytest.approx(24 * 2**36 / 256, rel=1e-3)
  # 16 M x 4096 fits in a v5e pod, and in nothing smaller.
  hbm = sizing.devices.DEVICES["v5e"].hbm
  assert need.total < hbm < sizing.memory(_shapes(sizing, latent=128)).total


@pytest.mark.parametrize(
  ("dead", "size"), [(0, 0), (1, 256), (256, 256), (257, 1024), (4000, 4096)]
)
def test_auxk_takes_the_next_compacted_size(sizing, dead, size):
  assert sizing.compacted(dead, 4096) == size


@pytest.mark.parametrize(
  ("data", "latent", "share"),
  [(1, 16, 0.5), (16, 1, 0.5), (4, 4, 0.5), (1, 8, 1), (1, 256, 1 / 32)],
)
def test_a_host_reads_the_rows_of_its_chips(sizing, data, latent, share):
  shapes = _shapes(sizing, data=data, latent=latent)  # hosts of 8
  assert sizing.read_share(sizing.devices.DEVICES["v5e"], shapes) == share


def test_meshes_that_do_not_fit_are_named_and_the_fastest_is_bold(run):
  printed = run("v5e/16", "--latents=1048576", "--tokens=1e10")
  (row,) = re.findall(r"^\|.*\*\*.*$", printed, re.MULTILINE)
  cells = [cell.strip() for cell in row.split("|")[1:-1]]
  assert cells[:2] == ["v5e/16, **1x16**", "65,536"]
  rate, hours = (float(cells[i].replace(",", "")) for i in (6, 7))
  assert hours == pytest.approx(16 * 1e10 / rate / 3600, rel=0.01)
  assert "Do not fit in 17.2 GB: 2x8 4x4 8x2 16x1" in printed
  assert "PREDICTION" in printed
  assert "81.9 TB (8,192 bytes a token)" in printed


def test_the_best_meshes_share_a_table(run):
  printed = run("v5e/16", "v5p/64", "v5e/8", "--latents=1048576", "--best")
  rows = [line for line in printed.splitlines() if line.startswith("| v")]
  assert [row.split("|")[1].strip() for row in rows] == [
    "v5e/16, 1x16",
    "v5p/64, 1x64",
  ]
  assert "v5e/8: Do not fit in 17.2 GB: 1x8" in printed


def test_a_dictionary_that_fits_nowhere_is_said_to(run):
  printed = run("v5e/16", "--latents=16777216")
  assert "**" not in printed
  assert "Do not fit in 17.2 GB: 1x16" in printed


@pytest.mark.parametrize("case", ["v5e", "v7/16", "v5e/12", "v5e/x"])
def test_an_unknown_slice_is_refused(run, case):
  with pytest.raises(SystemExit, match="write DEVICE/CHIPS"):
    run(case)
