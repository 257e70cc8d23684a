# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The training step and its kernels, compiled for TPUs that are not here.

`benchmarks/aot.py` runs in processes of its own: libtpu reads its environment
when it loads and admits one process at a time.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

_FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
# Operations with a kernel, and what the compiled program calls it.
_KERNELS = {
  "topk_encode": "topk_encode",
  "sparse_decode": "gather_sums",
  "pair_grads": "gather_sums",
  "sphere_adam": "sphere_adam",
}
_CHIPS = ("v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2")

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'sae-jax[aot-tpu]'",
  ),
]


def _aot(tmp_path, *arguments, script="aot.py"):
  """What the script read from the compiled programs."""
  out = tmp_path / "aot.json"
  done = subprocess.run(
    [sys.executable, _FOLDER / script, *map(str, arguments), "--json", out],
    capture_output=True,
    text=True,
    timeout=1800,  # other processes may hold libtpu for minutes
  )
  assert done.returncode == 0, done.stderr
  return json.loads(out.read_text())


# Sizes that no other axis can be mistaken for: a shard has 2048 latents and
# 768 rows, of 8 pairs each.
_SHAPES = ("--batch=1536", "--d_model=256", "--latents=4096", "--k=8")


def test_step_multiplies_and_sends_no_more_than_it_must(tmp_path):
  (step,) = _aot(tmp_path, "v5e:2x2/2x2", *_SHAPES)
  assert step["implementation"] == "pallas_tpu"
  assert step["flops"]["over_encoder"] <= 1.1
  assert not step["flops"]["per_turn"]  # so that all are counted
  usual = [c for c in step["collectives"] if c["normal"]]
  assert usual
  assert not any(c["dense"] or c["weights"] for c in step["collectives"])
  assert not [d for d in step["dense"] if d["normal"]]
  # Per row: candidates of both shards and the reconstruction; then gradients
  # of a shard's latents.
  rows, latents = 768, 2048
  most = rows * (2 * 8 + 256) + 2 * latents * (256 + 2)
  assert sum(c["bytes"] * c["times"] for c in usual) <= 1.1 * 4 * most
  names = {k["name"] for k in step["kernels"] if k["normal"]}
  assert any("topk" in n or "encode" in n for n in names)
  assert any("gather_sums" in n for n in names)


@pytest.mark.parametrize("chip", _CHIPS)
def test_kernels_compile_for_every_generation(tmp_path, chip):
  # 200 and 2000 are whole tiles of nothing.
  results = _aot(
    tmp_path,
    *("--ops", *_KERNELS, "--topologies", chip),
    *("--implementation=pallas_tpu", "--batch=200", "--d_model=384"),
    *("--latents=2000", "--k=8"),
  )
  assert [r["op"] for r in results] == list(_KERNELS)
  for result in results:
    names = {k["name"] for k in result["kernels"]}
    assert _KERNELS[result["op"]] in names, result["op"]
    assert not result["dense"], result["op"]


def test_a_harvest_runs_the_lower_blocks_and_sums_twice_in_each(tmp_path):
  (found,) = _aot(
    tmp_path,
    "8b/v5e:2x2/1x4",
    *("--layers=2", "--batch=4", "--context=128"),
    script="aot_harvest.py",
  )
  # Blocks and embedding in bfloat16, over four chips; norms are on all.
  block = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336
  weights = 2 * (2 * block + 128256 * 4096)
  assert found["memory"]["arguments"] == pytest.approx(weights / 4, rel=1e-3)
  # Two FLOPs a weight and token, and attention's two products.
  attention = 2 * 2 * 128 * 4096
  per_chip = 4 * 128 * 2 * (2 * block + attention) / 4
  assert found["flops"] == pytest.approx(per_chip, rel=0.01)
  # Attention's and the MLP's output in each block; the embedding's rows.
  sums = [c for c in found["collectives"] if c["wire_bytes"]]
  assert {c["kind"] for c in sums} == {"all-reduce"}
  assert sum(c["times"] for c in sums) == 2 * 2 + 1
