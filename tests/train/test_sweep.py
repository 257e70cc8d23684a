# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A sweep is the separate runs of its dictionaries, on one reading of rows."""

import dataclasses
import json
import os
import pathlib
import time

import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import checkpoint, errors, formats, mesh, metrics, store
from sae_jax import config as config_lib
from sae_jax.jobs import train as job
from sae_jax.train import config as train_config
from sae_jax.train import program, records, start

A, B, WIDE = (f"blocks.{i}.hook_resid_post" for i in range(3))
STEPS, DIVERGING = 24, 3
CONFIG = """
from sae_jax import mesh, sae, stream
from sae_jax.train import config, optimizer

def get_config():
  member = config.MemberConfig
  return config.TrainConfig(
    store={store!r}, hook={hook!r},
    sae=sae.SaeConfig(latents=48, k=4, dead_after_tokens=300, aux_k=4),
    optimizer=optimizer.OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
    stream=stream.StreamConfig(batch_size=64, mix_chunks=4),
    mesh=mesh.MeshConfig(sae=2, data=2, latent=2),
    steps={steps}, held_out_rows=64, eval_every=8, checkpoint_every=4,
    log_every=2,
    sweep=(
      member(),
      member(k=7, seed=1, learning_rate=3e-3),
      member(hook={other!r}, aux_coefficient=0.0),
      member(learning_rate=1e25),
    ),
  )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A directory with a store and the file of a sweep's config."""
  directory = tmp_path_factory.mktemp("sweep")
  rng = np.random.default_rng(0)

  def rows(width):
    codes_NF = rng.exponential(size=(1024, 40))
    codes_NF *= rng.random(codes_NF.shape) < 0.1
    return codes_NF @ rng.normal(size=(40, width)) + rng.normal(size=width)

  hooks = {A: rows(16), B: 3 * rows(16), WIDE: rows(24)}
  arrays = {hook: x_ND.astype(np.float32) for hook, x_ND in hooks.items()}
  path = directory / "store"
  store.write_arrays(path, arrays, read_rows=32, write_rows=128)
  (directory / "config.py").write_text(
    CONFIG.format(store=str(path), hook=A, other=B, steps=STEPS)
  )
  return directory


@pytest.fixture(scope="module")
def config(place):
  return config_lib.load(str(place / "config.py"), train_config.TrainConfig)


@pytest.fixture(scope="module")
def finished(place, config, quick_compilation):
  """(directory, result) of the sweep, on a mesh of 2 x 2 x 2 devices."""
  out = place / "finished"
  return out, job.run(config, str(out))


def trace(directory):
  """A metrics file except the clock's readings."""
  return [
    {k: v for k, v in line.items() if not k.startswith("perf/")}
    for line in metrics.read(pathlib.Path(directory) / "metrics.jsonl")
  ]


def exported(directory):
  return {
    str(file.relative_to(directory)): file.read_bytes()
    for file in sorted((pathlib.Path(directory) / "sae").rglob("*.*"))
  }


def test_every_dictionary_has_its_metrics_and_its_export(finished, config):
  out, result = finished
  lines = trace(out)
  assert [line["step"] for line in lines] == list(range(0, STEPS, 2))
  assert [line["sweep/live"] for line in lines] == [4] + [3] * 11
  assert {"perf/step_ms", "perf/tokens_per_s", "perf/stall_ms"} <= {
    name for line in metrics.read(out / "metrics.jsonl") for name in line
  }
  for i, member in enumerate(train_config.members(config)[:DIVERGING]):
    own = trace(out / "members" / str(i))
    assert [line["step"] for line in own] == list(range(0, STEPS + 1, 2))
    looks = [line["step"] for line in own if "eval/fvu" in line]
    assert looks == [0, 8, 16, 24]
    assert own[-2]["train/fvu"] < 0.8 * own[0]["train/fvu"]
    dictionary = formats.load_sae(out / "sae" / str(i))
    assert dictionary.k == member.sae.k
    assert dictionary.metadata["hook_name"] == member.hook
    assert (out / "members" / str(i) / "tensorboard").is_dir()
    found = result["members"][i]
    assert found["sae"] == str(out / "sae" / str(i))
    assert found["frozen_at"] is None
    assert found["train/fvu"] == own[-2]["train/fvu"]
    assert found["eval/fvu"] == own[-1]["eval/fvu"]
  assert [m["k"] for m in result["members"]] == [4, 7, 4, 4]
  assert [m["seed"] for m in result["members"]] == [0, 1, 0, 0]
  assert [m["hook"] for m in result["members"]] == [A, A, B, A]
  assert [m["learning_rate"] for m in result["members"][:2]] == [1e-2, 3e-3]
  assert [m["aux_coefficient"] for m in result["members"]][2] == 0
  assert result["steps"] == STEPS and "sae" not in result
  manifest = json.loads((out / "manifest.json").read_text())
  assert manifest["result"] == result


def test_a_dictionary_that_diverged_is_kept_as_it_was(finished, config):
  out, result = finished
  frozen = result["members"][DIVERGING]
  assert frozen["frozen_at"] == 1
  own = trace(out / "members" / str(DIVERGING))
  assert [line["step"] for line in own] == [0]
  assert frozen["train/fvu"] == own[0]["train/fvu"]
  kept = np.asarray(formats.load_sae(frozen["sae"]).params.w_enc_FD)
  assert np.isfinite(kept).all() and np.abs(kept).max() > 1e20
  json.dumps(result, allow_nan=False)
  # What a resumed run knows of it is in the checkpoint.
  source = store.open_store(config.store)
  chunks = source.holdout(config.held_out_rows)
  made = program.sweep(config, source, mesh.make(config.mesh), *chunks)
  saved = checkpoint.Checkpoints(
    out / "checkpoints", run=start.identity(config, source)
  )
  state_S, _ = saved.restore_latest(made.abstract_state)
  saved.close()
  np.testing.assert_array_equal(state_S.step, [STEPS] * 3 + [1])
  np.testing.assert_array_equal(state_S.opt_state[1].count, [STEPS] * 3 + [1])


def test_a_finished_sweep_is_left_alone_and_another_refused(
  finished, config, capsys
):
  out, result = finished
  again = dataclasses.replace(config, log_every=4)
  assert job.run(again, str(out)) == result
  assert "already trained" in capsys.readouterr().err
  fewer = dataclasses.replace(config, sweep=config.sweep[:2])
  with pytest.raises(errors.InputError, match=r"started with config .*sweep"):
    job.run(fewer, str(out))
  one = dataclasses.replace(config, sweep=())
  with pytest.raises(errors.InputError, match=r"started with config .*sweep"):
    job.run(one, str(out))


def _start(forge, place, out):
  environment = dict(
    os.environ,
    JAX_NUM_CPU_DEVICES="8",
    JAX_DISABLE_MOST_OPTIMIZATIONS="1",  # as `finished` was compiled
  )
  return forge.start(
    *("train", f"--config={place}/config.py", f"--out={out}"), env=environment
  )


@pytest.mark.slow
def test_killed_after_one_diverged_and_resumed_is_bit_equal(
  place, finished, forge, tmp_path
):
  out, result = finished
  process = _start(forge, place, tmp_path / "run")
  path = tmp_path / "run" / "members" / "0" / "metrics.jsonl"
  while process.poll() is None:
    if path.exists() and path.read_bytes().count(b"\n") >= 5:
      process.kill()
    time.sleep(0.002)
  stderr = process.communicate()[1]
  assert process.returncode == -9, stderr
  assert "dictionary 3 (k=4, learning_rate=1e+25) diverged at step 1" in stderr
  process = _start(forge, place, tmp_path / "run")
  stdout, stderr = process.communicate(timeout=300)
  assert process.returncode == 0, stderr
  assert "diverged" not in stderr
  found = json.loads(stdout.splitlines()[-1])["members"]
  for ours, theirs in zip(found, result["members"], strict=True):
    assert ours | {"sae": ""} == theirs | {"sae": ""}
  assert trace(tmp_path / "run") == trace(out)
  for i in range(4):
    member = pathlib.Path("members") / str(i)
    assert trace(tmp_path / "run" / member) == trace(out / member)
  assert exported(tmp_path / "run") == exported(out)


@pytest.mark.parametrize(
  ("sweep", "named"),
  [
    ([{"k": 49}], r"sweep\[0\]: sae\.k=49"),
    ([{}, {"learning_rate": -1.0}], r"sweep\[1\]: optimizer\.learning_rate=-1"),
    ([{}, {"aux_coefficient": -1.0}], r"sweep\[1\]: sae\.aux_coefficient=-1"),
    ([{"seed": 1}, {}, {"seed": 1}], r"sweep\[0\] and sweep\[2\] are one"),
    ([{}, {"k": 4}], r"sweep\[0\] and sweep\[1\] are one"),
    (["k=4"], r"sweep\[0\] is 'k=4': give MemberConfig"),
  ],
)
def test_a_sweep_that_cannot_be_is_named(config, sweep, named):
  members = tuple(
    train_config.MemberConfig(**m) if isinstance(m, dict) else m for m in sweep
  )
  with pytest.raises(errors.InputError, match=named):
    dataclasses.replace(config, sweep=members)


def test_a_wrong_type_in_a_sweep_is_named(config):
  half = dataclasses.replace(
    config, sweep=(train_config.MemberConfig(k=3), config.sweep[0])
  )
  object.__setattr__(half.sweep[0], "k", 2.5)
  with pytest.raises(errors.InputError, match=r"sweep\[0\]\.k = 2\.5"):
    config_lib.override(half, ())
  as_list = dataclasses.replace(config, sweep=list(config.sweep))
  with pytest.raises(errors.InputError, match=r"field sweep = .*tuple"):
    config_lib.override(as_list, ())


def test_a_seed_beside_init_from_is_refused(config):
  with pytest.raises(errors.InputError, match=r"sweep\[1\]\.seed=1.*init_from"):
    dataclasses.replace(config, init_from="elsewhere")


@pytest.mark.parametrize(
  ("sweep", "named"),
  [
    (({}, {"hook": WIDE}), "0.hook_resid_post is 16 wide.*2.*is 24 wide"),
    (({}, {"hook": "blocks.9.hook_resid_post"}), "has no hook"),
    (({}, {"k": 5}, {"k": 6}), r"3 dictionaries .* mesh\.sae=2"),
  ],
)
def test_a_sweep_that_does_not_fit_leaves_nothing(
  config, tmp_path, sweep, named
):
  members = tuple(train_config.MemberConfig(**m) for m in sweep)
  config = dataclasses.replace(config, sweep=members)
  with pytest.raises(errors.InputError, match=named):
    job.run(config, str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


def test_when_the_last_dictionary_diverges_the_run_stops(
  config, tmp_path, capsys
):
  members = train_config.members(config)[:3]
  # Of the two steps before, dictionary 1 has done one.
  log = records.Sweep(config, members, tmp_path, 2, np.array([2, 1, 2]))
  for step, live in enumerate(([1, 0, 1], [1, 0, 0], [0, 0, 0]), 2):
    log.log(
      step,
      {
        "sweep/live": jnp.array(live, jnp.float32),
        "train/loss": jnp.full((3,), float(step)),
        "train/fvu": jnp.array([0.25, 0.5, 0.75]),
      },
      {"perf/step_ms": 1.0},
    )
  assert capsys.readouterr().err == (
    "dictionary 2 (k=4, learning_rate=0.01) diverged at step 3: it stays as it"
    " was before; the others go on\n"
  )
  assert log.note() == "fvu 0.2500 – 0.2500, 1 of 3"
  with pytest.raises(metrics.NonFiniteError, match="step 4; all 3"):
    log.flush()
  log.close()
  lines = [trace(tmp_path / "members" / str(i)) for i in range(3)]
  assert [[line["step"] for line in own] for own in lines] == [[2], [], [2]]


@pytest.mark.parametrize(
  ("name", "count"), [("sweep_k", 10), ("sweep_layers", 4)]
)
def test_the_sweeps_that_come_with_it_are_configs(name, count):
  path = pathlib.Path(__file__).parents[2] / "configs" / f"{name}.py"
  config = config_lib.load(str(path), train_config.TrainConfig)
  assert len(train_config.members(config)) == count
  as_json = json.loads(json.dumps(config_lib.to_dict(config)))
  assert config_lib.from_dict(train_config.TrainConfig, as_json) == config
