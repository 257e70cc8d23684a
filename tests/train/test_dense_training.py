# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""JumpReLU, L1-ReLU and gated dictionaries go through the normal loop."""

import dataclasses
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sae_jax import errors, formats, mesh, metrics, sae, store, stream
from sae_jax.train import config as config_lib
from sae_jax.train import loop, one_pass
from sae_jax.train import optimizer as optimizer_lib

HOOK = "blocks.0.hook_resid_post"
D, F, FEATURES, ACTIVE = 16, 64, 32, 3.2
TARGET = 4.0
KINDS = {
  "jumprelu": {"target_l0": TARGET},
  "relu": {"sparsity": 0.3},
  "gated": {"sparsity": 0.3},
}


@pytest.fixture(scope="module", autouse=True)
def quickly(quick_compilation):
  """Most of the time here is XLA's."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A directory with a store: a tenth of 32 features in every row."""
  directory = tmp_path_factory.mktemp("dense")
  rng = np.random.default_rng(0)
  codes_NG = 0.5 + rng.exponential(size=(2048, FEATURES))
  codes_NG *= rng.random(codes_NG.shape) < ACTIVE / FEATURES
  features_GD = rng.normal(size=(FEATURES, D))
  features_GD /= np.linalg.norm(features_GD, axis=1, keepdims=True)
  x_ND = codes_NG @ features_GD + rng.normal(size=D)
  x_ND += 0.02 * rng.normal(size=x_ND.shape)
  store.write_arrays(
    str(directory / "store"),
    {HOOK: x_ND.astype(np.float32)},
    read_rows=64,
    write_rows=256,
  )
  return directory


def _config(place, activation, steps, **more):
  own = KINDS[activation] | more.pop("sae", {})
  return config_lib.TrainConfig(
    store=str(place / "store"),
    hook=HOOK,
    sae=sae.SaeConfig(
      latents=F,
      activation=activation,
      matmul_dtype="float32",
      dead_after_tokens=500,
      **own,
    ),
    optimizer=optimizer_lib.OptimizerConfig(
      learning_rate=1e-2, warmup_steps=10
    ),
    stream=stream.StreamConfig(batch_size=128, mix_chunks=4),
    steps=steps,
    held_out_rows=256,
    eval_every=2,
    checkpoint_every=max(4, steps // 2),
    log_every=1,
    **more,
  )


def _train(config, directory):
  """The trace without the clock's readings, and the exported dictionary."""
  loop.train(config, store.open_store(config.store), directory)
  return _trace(directory), formats.load_sae(str(directory / "sae"))


def _trace(directory):
  return [
    {k: v for k, v in line.items() if not k.startswith("perf/")}
    for line in metrics.read(pathlib.Path(directory) / "metrics.jsonl")
  ]


def _assert_same(found: sae.Sae, wanted: sae.Sae):
  assert jax.tree.structure(found.params) == jax.tree.structure(wanted.params)
  for name in ("w_enc_FD", "w_dec_FD", "threshold_F", "b_mag_F"):
    a, b = (getattr(one.params, name) for one in (found, wanted))
    if a is not None:
      np.testing.assert_array_equal(a, b, err_msg=name)


def _held_out(place):
  source = store.open_store(str(place / "store"))
  chunks = list(source.holdout(256)[1])
  return jnp.asarray(np.concatenate(source.read_chunks(HOOK, chunks)))


@pytest.mark.slow
def test_jumprelu_falls_to_its_target(place, tmp_path):
  config = _config(place, "jumprelu", 200)
  trace, found = _train(config, tmp_path)
  first, last = trace[0], trace[-1]
  assert first["eval/l0"] > 2 * TARGET
  # 256 held-out rows, whose L0 deviate by about 2, give it ±0.12.
  np.testing.assert_allclose(last["eval/l0"], TARGET, rtol=0.15)
  assert last["eval/fvu"] < 0.5 * first["eval/fvu"]
  # λ rises over the first twentieth of the run.
  lambdas = [line["train/sparsity"] for line in trace[:-1]]
  np.testing.assert_allclose(lambdas[:10], np.arange(1, 11) / 10, rtol=1e-6)
  assert set(lambdas[10:]) == {1.0}
  # Thresholds were one number at first.
  threshold_F = np.asarray(found.params.threshold_F)
  assert found.activation == "jumprelu" and threshold_F.dtype == np.float32
  assert threshold_F.min() >= 0 and threshold_F.std() > 0.02
  # What is exported takes raw rows, and does to them what the look saw.
  x_ND = _held_out(place)
  values_NK, indices_NK = sae.encode(found, x_ND)
  error_ND = sae.decode(found, values_NK, indices_NK) - x_ND
  fvu = jnp.sum(error_ND**2) / jnp.sum((x_ND - x_ND.mean(0)[None]) ** 2)
  # The look's is the mean of two batches', each with a mean of its own.
  np.testing.assert_allclose(fvu, last["eval/fvu"], rtol=0.02)
  # A value within rounding of its threshold may fall on the other side.
  l0 = jnp.mean(jnp.sum(values_NK > 0, axis=1))
  np.testing.assert_allclose(l0, last["eval/l0"], atol=1 / 256)

  # Resumed half way it is the same to the bit.
  shutil.rmtree(tmp_path / "sae")
  shutil.rmtree(tmp_path / "checkpoints" / "200")
  trace_again, found_again = _train(config, tmp_path)
  assert trace_again == trace
  _assert_same(found_again, found)


@pytest.mark.slow
def test_a_sweep_on_a_mesh_is_its_separate_runs_up_to_rounding(place, tmp_path):
  config = _config(
    place,
    "jumprelu",
    6,
    sweep=(
      config_lib.MemberConfig(),
      config_lib.MemberConfig(
        sparsity=0.1, target_l0=8.0, seed=3, learning_rate=3e-3
      ),
    ),
  )
  split = dataclasses.replace(
    config, mesh=mesh.MeshConfig(sae=2, data=2, latent=2)
  )
  source = store.open_store(config.store)
  result = loop.train(split, source, tmp_path / "sweep")
  assert [m["sparsity"] for m in result["members"]] == [1.0, 0.1]
  assert [m["target_l0"] for m in result["members"]] == [TARGET, 8.0]
  alone = config_lib.members(config)[1]
  trace, found = _train(alone, tmp_path / "alone")
  split_trace = _trace(tmp_path / "sweep" / "members" / "1")
  for line, wanted in zip(split_trace, trace, strict=True):
    assert line.keys() == wanted.keys()
    for name, value in line.items():
      # Six steps let roundings grow, and values pass their thresholds.
      np.testing.assert_allclose(value, wanted[name], rtol=2e-3, err_msg=name)
  one = formats.load_sae(str(tmp_path / "sweep" / "sae" / "1"))
  assert jax.tree.structure(one) == jax.tree.structure(found)


def test_thresholds_move_as_far_as_pre_activations_and_stop_at_zero():
  on = mesh.make(mesh.MeshConfig(), jax.devices()[:1])
  rng = np.random.default_rng(0)
  w_FD = rng.normal(size=(F, D))
  w_FD /= np.linalg.norm(w_FD, axis=1, keepdims=True)
  threshold_F = np.where(np.arange(F) % 2, 1.0, 1e-3)

  def params(*arrays, threshold_F):
    arrays = [jnp.asarray(a, jnp.float32) for a in arrays]
    return sae.Params(*arrays, threshold_F=jnp.float32(threshold_F))

  before = params(w_FD, w_FD, np.zeros(F), np.ones(D), threshold_F=threshold_F)
  random = [rng.normal(size=a.shape) for a in jax.tree.leaves(before)]
  grads = params(*random[:4], threshold_F=1 + rng.random(F))
  config = optimizer_lib.OptimizerConfig(learning_rate=0.01, warmup_steps=0)
  chain = optimizer_lib.make_optimizer(config, latents=F, steps=10)
  apply = one_pass.make_apply(config, on, latents=F, steps=10)
  specs = sae.partition_specs(before)
  opt_specs = jax.tree.map(
    lambda s: s.spec,
    optimizer_lib.state_sharding(
      chain,
      before,
      jax.tree.map(lambda s: jax.NamedSharding(on, s), specs),
      jax.NamedSharding(on, jax.P()),
    ),
  )
  state = chain.init(before)
  after, _, square = jax.jit(
    jax.shard_map(
      apply,
      mesh=on,
      in_specs=(specs, opt_specs, specs),
      out_specs=(specs, opt_specs, jax.P()),
      check_vma=False,
    )
  )(grads, state, before)
  updates, _ = chain.update(grads, state, before)
  expected = optax.apply_updates(before, updates)
  # Adam's first step is the rate, whatever the gradient; √D = 4 times it.
  np.testing.assert_allclose(
    after.threshold_F, np.maximum(threshold_F - 0.04, 0), rtol=1e-5
  )
  assert float(after.threshold_F.min()) == 0
  np.testing.assert_allclose(
    after.threshold_F, expected.threshold_F, rtol=0, atol=2**-23
  )
  wanted = sum(float(np.sum(np.square(a))) for a in jax.tree.leaves(grads))
  np.testing.assert_allclose(square, wanted, rtol=1e-5)


@pytest.mark.parametrize(
  ("more", "words"),
  [
    ({"activation": "relu"}, "needs sae.sparsity, such as 0.03"),
    ({"activation": "jumprelu"}, "or sae.target_l0, such as 32"),
    ({"activation": "gated", "sparsity": 1.0, "k": 3}, "have no top-k"),
    ({"activation": "gated", "target_l0": 3.0}, "only jumprelu can aim"),
    ({"activation": "jumprelu", "target_l0": 99.0}, "at most latents (64)"),
    ({"activation": "relu", "sparsity": -1.0}, "sae.sparsity=-1.0: need"),
    ({"activation": "tanh", "sparsity": 1.0}, "sae.activation='tanh'"),
    ({"k": 4, "sparsity": 0.1}, "leave it out with activation='topk'"),
  ],
)
def test_configs_that_cannot_be_are_refused(more, words):
  with pytest.raises(errors.InputError, match=re.escape(words)):
    sae.SaeConfig(latents=F, **more)
