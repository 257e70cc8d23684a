# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The GPU's top-k, compiled for an H100 that is not here.

jax's CUDA plugin needs neither driver nor GPU to compile for a described one;
`benchmarks/h100_target.txtpb` is the description. Mosaic's kernel is compiled
to PTX in the same go, so that what it cannot lower is refused here.
"""

import pathlib
import re

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies

from sae_jax.ops.topk_encode import pallas_gpu

_TARGET = pathlib.Path(__file__).parents[2] / "benchmarks/h100_target.txtpb"


@pytest.fixture(scope="module")
def h100():
  pytest.importorskip(
    "jax_plugins.xla_cuda12",
    reason="jax-cuda12-plugin is missing: pip install 'sae-jax[aot-gpu]'",
  )
  described = topologies.get_topology_desc(
    platform="cuda",
    topology_name="h100",
    target_config=_TARGET.read_text(),
    topology="1x1x1",
  )
  return jax.sharding.SingleDeviceSharding(described.devices[0])


def _compile(h100, batch, d_model, latents, k, dtype):
  def encode(x_BD, w_enc_FD, b_enc_F):
    found = pallas_gpu.candidates(x_BD, w_enc_FD, b_enc_F, k)
    assert found.bound_B is not None, "the exact path was taken"
    return found.values_BK, found.indices_BK, found.bound_B

  return (
    jax.jit(encode)
    .lower(
      jax.ShapeDtypeStruct((batch, d_model), dtype, sharding=h100),
      jax.ShapeDtypeStruct((latents, d_model), dtype, sharding=h100),
      jax.ShapeDtypeStruct((latents,), jnp.float32, sharding=h100),
    )
    .compile()
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ("batch", "latents", "k", "dtype"),
  [
    (2048, 16384, 32, "bfloat16"),  # two chunks of 1024 rows
    (1100, 66000, 64, "float32"),  # padded; two of 512 and one of 76
  ],
)
def test_nothing_as_wide_as_the_latents_is_sorted(
  h100, batch, latents, k, dtype
):
  compiled = _compile(h100, batch, 64, latents, k, dtype)
  text = compiled.as_text()
  kernels = re.findall(r'custom_call_target="(\w+)"', text)
  assert "mosaic_gpu_v2" in kernels
  assert pallas_gpu.NAME in text

  kept, buckets = pallas_gpu.shape(k, batch, latents)
  padded = latents + -latents % buckets
  chunk = max(512, (1 << 24) // latents)
  assert chunk < batch
  assert f"f32[{chunk},{padded}]" in text
  assert f"[{batch},{padded}]" not in text
  sorts = re.findall(r"= \((.*?)\) sort\(", text)
  assert sorts
  for shapes in sorts:
    widths = {int(w) for w in re.findall(r"\[\d+,(\d+)\]", shapes)}
    assert widths == {kept * buckets}

  # The product of a chunk, its candidates before and after the sort, results;
  # float32 [F, D] again where latents are padded.
  candidates = 2 * chunk * 8 * kept * buckets
  weights = 4 * padded * 64 if padded > latents else 0
  results = 4 * batch * (2 * k + 1)
  most = 4 * chunk * padded + candidates + weights + results
  assert compiled.memory_analysis().temp_size_in_bytes <= 1.1 * most
