# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""On one CPU device a sweep's files are those of separate runs, to the bit.

Compiled as users' programs are: without optimisations XLA places roundings by
the program.
"""

import numpy as np
import pytest

from sae_jax import mesh, metrics, sae, store, stream
from sae_jax.jobs import train as job
from sae_jax.train import config as train_config
from sae_jax.train import optimizer

A, B = "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"
SWEEP = (
  {},
  {"k": 6, "seed": 1, "learning_rate": 3e-3},
  {"hook": B, "aux_coefficient": 0.0},
)


@pytest.fixture
def config(tmp_path):
  rng = np.random.default_rng(0)
  codes_NF = rng.exponential(size=(512, 40)) * (rng.random((512, 40)) < 0.1)
  hooks = {
    hook: (codes_NF @ rng.normal(size=(40, 16)) + 1).astype(np.float32)
    for hook in (A, B)
  }
  store.write_arrays(tmp_path / "store", hooks, read_rows=32, write_rows=128)
  return train_config.TrainConfig(
    store=str(tmp_path / "store"),
    hook=A,
    # Latents that do not fire for two steps are dead: AuxK has work to do.
    sae=sae.SaeConfig(latents=128, k=4, aux_k=5, dead_after_tokens=100),
    optimizer=optimizer.OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
    stream=stream.StreamConfig(batch_size=64, mix_chunks=4),
    steps=12,
    held_out_rows=64,
    eval_every=4,
    log_every=1,
    sweep=tuple(train_config.MemberConfig(**own) for own in SWEEP),
  )


def _lines(directory):
  return [
    {k: v for k, v in line.items() if not k.startswith("perf/")}
    for line in metrics.read(directory / "metrics.jsonl")
  ]


@pytest.mark.slow
def test_a_sweep_leaves_what_separate_runs_leave(config, tmp_path, monkeypatch):
  one_device = mesh.single()
  monkeypatch.setattr(mesh, "make", lambda _: one_device)
  together = tmp_path / "together"
  found = job.run(config, str(together))["members"]
  for i, member in enumerate(train_config.members(config)):
    alone = tmp_path / f"alone-{i}"
    result = job.run(member, str(alone))
    lines = _lines(alone)
    assert _lines(together / "members" / str(i)) == lines
    active = [line.get("train/auxk", 0) > 0 for line in lines]
    assert any(active) == (member.sae.aux_coefficient > 0)
    for name, value in result.items():
      if name.startswith(("train/", "eval/")):
        assert found[i][name] == value, name
    for name in ("sae_weights.safetensors", "cfg.json"):
      ours = (together / "sae" / str(i) / name).read_bytes()
      assert ours == (alone / "sae" / name).read_bytes(), name
