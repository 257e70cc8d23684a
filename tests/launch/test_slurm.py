# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Jobs of launch/slurm/train.sbatch in a real Slurm, and every end of them."""

import re
import sys

import numpy as np
import private_slurm
import pytest
import safetensors.numpy

from sae_jax import metrics, store

HOOK = "blocks.0.hook_resid_post"
# After a signal the processes agree within about a second, and a step takes 10
# to 20 ms on two cores: told at the first one, they stop on the way.
STEPS = 300


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
  if why_not := private_slurm.why_not():
    pytest.skip(why_not)
  with private_slurm.start(tmp_path_factory.mktemp("slurm")) as cluster:
    yield cluster


@pytest.fixture
def stoppable(slurm, tmp_path):
  """A running job of two tasks; started again, it is done at once."""
  (tmp_path / "bin").mkdir()
  private_slurm.executable(
    tmp_path / "bin" / "sae-jax",
    "[[ -e saved ]] && exit 0\n"
    "trap 'touch saved; exit 75' TERM\n"
    "touch started-$SLURM_PROCID\n"
    "while :; do sleep 0.1; done",
  )
  # Told of the limit in its first minute the script would go on.
  job = slurm.submit(tmp_path, "train", VENV=str(tmp_path), SECONDS="100")
  job.wait_file("started-0")
  job.wait_file("started-1")
  return job


@pytest.mark.slow
@pytest.mark.parametrize(
  ("signal", "says"),
  [
    # What --signal=B:USR1@180 does of itself when the time limit is near …
    (["--batch", "--signal=USR1"], "the time limit is near"),
    # … and a preemption when its grace time begins.
    (["--signal=TERM"], ""),
  ],
)
def test_told_to_stop_it_goes_back_into_the_queue(stoppable, signal, says):
  stoppable.slurm.call("scancel", *signal, stoppable.number)
  stoppable.start_soon()
  stoppable.wait(JobState="COMPLETED", Restarts="1", ExitCode="0:0")
  log = stoppable.log.read_text()
  assert says in log
  assert "back into the queue" in log
  assert "start 2, 2 process(es) on " in log
  assert "failed" not in log


@pytest.mark.slow
def test_a_cancelled_job_stays_cancelled(stoppable):
  stoppable.slurm.call("scancel", stoppable.number)
  stoppable.wait(JobState="CANCELLED", Restarts="0")
  assert (stoppable.log.parent / "saved").exists()
  log = stoppable.log.read_text()
  assert "otherwise with the same sbatch command" in log


CONFIG = """
from sae_jax import mesh, sae, stream
from sae_jax.train import config

def get_config():
  return config.TrainConfig(
    store={store!r}, hook={hook!r}, sae=sae.SaeConfig(latents=64, k=4),
    stream=stream.StreamConfig(batch_size=64, mix_chunks=4, lanes=2),
    mesh=mesh.MeshConfig(data=2, latent=2), steps={steps},
    checkpoint_every={steps}, log_every=1,
  )
"""


@pytest.mark.slow
def test_requeued_in_the_middle_it_ends_the_same_to_the_bit(slurm, tmp_path):
  x_ND = np.random.default_rng(0).normal(size=(1024, 16)).astype(np.float32)
  store.write_arrays(
    str(tmp_path / "store"), {HOOK: x_ND}, read_rows=32, write_rows=64
  )
  (tmp_path / "config.py").write_text(
    CONFIG.format(store=str(tmp_path / "store"), hook=HOOK, steps=STEPS)
  )
  jobs = {}
  for name in ("whole", "requeued"):
    (tmp_path / name).mkdir()
    jobs[name] = job = slurm.submit(
      tmp_path / name,
      *("train", "--config=../config.py", "--out=run"),
      VENV=sys.prefix,
      JAX_PLATFORMS="cpu",
      JAX_NUM_CPU_DEVICES="2",
      JAX_DISABLE_MOST_OPTIMIZATIONS="1",  # compiles in half the time
      https_proxy="http://127.0.0.1:9",  # leads nowhere: not to be used
    )
    if name == "requeued":
      job.wait_file("run/metrics.jsonl", lines=1)
      slurm.call("scontrol", "requeue", job.number)
      job.start_soon()
    job.wait(JobState="COMPLETED", ExitCode="0:0")
  assert jobs["whole"].show()["Restarts"] == "0"
  assert jobs["requeued"].show()["Restarts"] == "1"
  log = jobs["requeued"].log.read_text()
  assert "start 2, 2 process(es) on " in log
  # Both saved at one step that no period asks for: the signal's own checkpoint.
  stops = re.findall(r"(\d): sae-jax: SIGTERM at step (\d+) of", log)
  assert {process for process, _ in stops} == {"0", "1"}, log
  assert len({step for _, step in stops}) == 1, log
  whole, requeued = (
    metrics.read(tmp_path / name / "run" / "metrics.jsonl") for name in jobs
  )
  for lines in (whole, requeued):
    assert [line["step"] for line in lines] == list(range(STEPS))
  for a, b in zip(whole, requeued, strict=True):
    for found in (a, b):
      for rate in [name for name in found if name.startswith("perf/")]:
        del found[rate]
    assert a == b
  whole, requeued = (
    safetensors.numpy.load_file(
      tmp_path / name / "run" / "sae" / "sae_weights.safetensors"
    )
    for name in jobs
  )
  assert whole.keys() == requeued.keys()
  for name, array in whole.items():
    np.testing.assert_array_equal(array, requeued[name], err_msg=name)
