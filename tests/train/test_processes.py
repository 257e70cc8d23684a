# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Two real processes of four devices are one run on eight.

They stop together, die together, and go on to the bits of a run that did not.
"""

import dataclasses
import json
import os
import pathlib
import signal
import socket
import time

import forge as forge_lib
import numpy as np
import pytest
import safetensors.numpy

from sae_jax import metrics, store, stream
from sae_jax.stream import order

HOOK = "blocks.0.hook_resid_post"
STEPS = 40
STREAM = stream.StreamConfig(batch_size=64, mix_chunks=4, lanes=2)
HELD_OUT = 64
CONFIG = """
from sae_jax import mesh, sae, stream
from sae_jax.train import config

def get_config():
  return config.TrainConfig(
    store={store!r}, hook={hook!r}, sae=sae.SaeConfig(latents=64, k=4),
    stream=stream.{stream}, mesh=mesh.MeshConfig(data=1, latent=8),
    steps={steps}, held_out_rows={held_out}, eval_every=20,
    checkpoint_every=10, log_every=1,
  )
"""
# Steps take a moment, so that signals come in the middle of the run, and what
# the reading threads read is noted.
DRIVER = """
import json, sys, threading, time
from sae_jax import __main__, store, stream
pause, log = float(sys.argv.pop(1)), open(sys.argv.pop(1), "a")
following, read_chunks = stream.Stream.__next__, store.Store.read_chunks
def slowly(self):
  time.sleep(pause)
  return following(self)
def noted(self, hook, ids):
  if threading.current_thread() is not threading.main_thread():
    print(json.dumps(ids), file=log, flush=True)
  return read_chunks(self, hook, ids)
stream.Stream.__next__, store.Store.read_chunks = slowly, noted
__main__.main()
"""


@dataclasses.dataclass
class Job:
  """A store, a config, and the runs of it."""

  place: pathlib.Path
  forge: forge_lib.Forge

  def start(self, name, devices, *flags, pause=0.0, log=os.devnull):
    """One process; `pause` lengthens its steps."""
    return self.forge.start(
      *(pause, log, "train", f"--config={self.place}/config.py"),
      *(f"--out={self.place / name}", *flags),
      code=DRIVER,
      env=dict(
        os.environ,
        JAX_NUM_CPU_DEVICES=str(devices),
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",  # most of the time is compilation
      ),
    )

  def start_two(self, name, *flags, pause=0.0):
    """Two processes that are told of each other by flags."""
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      at = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
    return [
      self.start(
        name,
        4,
        *(at, "--processes=2", f"--process={i}", *flags),
        pause=pause,
        log=self.place / f"reads-{name}-{i}",
      )
      for i in range(2)
    ]

  def metrics(self, name):
    return metrics.read(self.place / name / "metrics.jsonl")

  def wait_for_step(self, name, step, processes):
    deadline = time.monotonic() + 300
    while (lines := self.metrics(name))[-1:] == [] or lines[-1]["step"] < step:
      assert all(p.poll() is None for p in processes), ends(processes)
      assert time.monotonic() < deadline
      time.sleep(0.02)

  def weights(self, name):
    file = self.place / name / "sae" / "sae_weights.safetensors"
    return safetensors.numpy.load_file(file)


def ends(processes, timeout=300):
  """(exit code, stdout, stderr) of each."""
  found = []
  for process in processes:
    out, err = process.communicate(timeout=timeout)
    found.append((process.returncode, out, err))
  return found


@pytest.fixture(scope="module")
def job(forge, tmp_path_factory):
  place = tmp_path_factory.mktemp("job")
  x_ND = np.random.default_rng(0).normal(size=(1024, 16)).astype(np.float32)
  store.write_arrays(
    str(place / "store"), {HOOK: x_ND}, read_rows=32, write_rows=64
  )
  (place / "config.py").write_text(
    CONFIG.format(
      store=str(place / "store"),
      hook=HOOK,
      stream=STREAM,
      steps=STEPS,
      held_out=HELD_OUT,
    )
  )
  return Job(place, forge)


@pytest.fixture(scope="module")
def two(job):
  """The run of two processes that nobody interrupts."""
  for code, out, err in ends(job.start_two("two")):
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["steps"] == STEPS
  return "two"


@pytest.mark.slow
def test_two_processes_equal_one(job, two):
  other = "--config.mesh.data=2", "--config.mesh.latent=4"
  [(code, _, err)] = ends([job.start("one", 8, *other)])
  assert code == 0, err
  for a, b in zip(job.metrics("one"), job.metrics(two), strict=True):
    assert a["step"] == b["step"] and a.keys() == b.keys()
    for name in a:
      if not name.startswith("perf/"):
        # The same sums in another order: sqrt(64 rows) eps per step.
        np.testing.assert_allclose(a[name], b[name], rtol=2e-5, atol=1e-7)
  theirs = job.weights(two)
  for name, array in job.weights("one").items():
    np.testing.assert_allclose(array, theirs[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_process_reads_the_chunks_of_its_lane_and_no_others(job, two):
  source = store.open_store(str(job.place / "store"))
  chunks, _ = source.holdout(HELD_OUT)
  plan = order.Plan(STREAM, chunks, source.read_rows, source.rows)
  # Every device needs all rows, but is given its own eighth of them.
  for lane in range(2):
    lines = (job.place / f"reads-{two}-{lane}").read_text().splitlines()
    read = [chunk for line in lines for chunk in json.loads(line)]
    epochs = STEPS * STREAM.batch_size // (len(chunks) * source.read_rows)
    assert len(read) >= epochs * len(chunks) // 2
    expected = [plan.lane_chunks(lane, epoch) for epoch in range(epochs + 3)]
    assert read == np.concatenate(expected)[: len(read)].tolist()


@pytest.mark.slow
def test_stopped_and_killed_together_and_resumed_bit_equal(job, two):
  def start(pause=0.2):
    return job.start_two("cut", "--peer_timeout=10", pause=pause)

  def checkpoints():
    return sorted(
      int(path.name)
      for path in (job.place / "cut" / "checkpoints").iterdir()
      if path.name.isdecimal()
    )

  def stopped(processes, name):
    """The step at which both have stopped."""
    for code, out, err in ends(processes):
      assert code == 75 and "Traceback" not in err, err
      assert "{" not in out  # no result; Gloo says a few words
      assert f"sae-jax: {name} at step {checkpoints()[-1]} of {STEPS}" in err
      assert err.splitlines()[-1].endswith(
        "run the same command again to go on"
      )
    return checkpoints()[-1]

  processes = start()
  job.wait_for_step("cut", 3, processes)
  for process in processes:
    process.send_signal(signal.SIGTERM)
  first = stopped(processes, "SIGTERM")
  assert 3 < first < STEPS

  processes = start()
  job.wait_for_step("cut", first + 2, processes)
  processes[1].send_signal(signal.SIGTERM)
  second = stopped(processes, "SIGTERM")
  assert first < second < STEPS

  processes = start()
  job.wait_for_step("cut", second + 2, processes)
  processes[1].kill()
  killed = time.monotonic()
  [(code, _, err), (_, _, of_killed)] = ends(processes)
  assert code not in (0, 2, 75)
  assert time.monotonic() - killed < 10 + 20
  for said in (err, of_killed):
    assert said.splitlines()[-1].startswith("sae-jax: this process of the job")
    assert "the same command again, on all hosts" in said.splitlines()[-1]

  for code, _, err in ends(start(pause=0)):
    assert code == 0, err
  for a, b in zip(job.metrics("cut"), job.metrics(two), strict=True):
    assert a["step"] == b["step"] and a.keys() == b.keys()
    assert all(a[k] == b[k] for k in a if not k.startswith("perf/")), (a, b)
  theirs = job.weights(two)
  for name, array in job.weights("cut").items():
    assert array.tobytes() == theirs[name].tobytes(), name
