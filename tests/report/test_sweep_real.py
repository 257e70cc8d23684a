# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a sweep that the train job wrote: nothing is made up."""

import json

import numpy as np
import pytest
from diff_pages import figures, write

from sae_jax import sae, store, stream
from sae_jax.jobs import train as job
from sae_jax.report import sweep_entry
from sae_jax.train import config as train_config
from sae_jax.train import optimizer

HOOK = "blocks.0.hook_resid_post"


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_what_the_job_wrote_is_what_the_page_shows(tmp_path):
  x_ND = np.random.default_rng(0).normal(size=(384, 8))
  store.write_arrays(
    tmp_path / "store", {HOOK: x_ND}, read_rows=32, write_rows=64
  )
  config = train_config.TrainConfig(
    store=str(tmp_path / "store"),
    hook=HOOK,
    sae=sae.SaeConfig(latents=16, k=4, matmul_dtype="float32"),
    optimizer=optimizer.OptimizerConfig(learning_rate=1e-2, warmup_steps=1),
    stream=stream.StreamConfig(batch_size=16, mix_chunks=2),
    steps=6,
    held_out_rows=64,
    eval_every=2,
    log_every=1,
    sweep=(
      train_config.MemberConfig(k=2),
      train_config.MemberConfig(learning_rate=1e30),
    ),
  )
  run = tmp_path / "run"
  result = job.run(config, str(run))
  frozen_at = result["members"][1]["frozen_at"]
  assert frozen_at is not None
  page = write([run], tmp_path)
  assert "Members 2 1 diverged" in page.text
  assert f"Member 1: k 4, lr 1e30, at step {frozen_at}" in page.text
  fvu = figures(page)["FVU"]["data"]
  assert [len(trace["x"]) for trace in fvu] == [6, frozen_at, 1]
  front = figures(page)["FVU against L0"]["data"][0]
  assert front["y"] == pytest.approx(
    [result["members"][0]["eval/fvu"]], rel=1e-3
  )
  # Without its result, the run is read as one under way: the same.
  (run / "manifest.json").unlink()
  shown = sweep_entry.read(run, "run", "s-", [])
  assert [m.frozen_at for m in shown.members] == [None, frozen_at]
  for member, told in zip(shown.members, result["members"], strict=True):
    for name in sweep_entry.SETTINGS:
      # Sparsity is told of kinds that have it.
      assert member.settings[name] == told.get(name)
  assert json.loads((run / "config.json").read_text())["config"]["sweep"]
