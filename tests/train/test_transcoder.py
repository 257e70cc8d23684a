# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Transcoders: what is decoded to is another hook, maybe of another width."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, mesh, metrics, sae, store, stream
from sae_jax.sae import losses, transcoder
from sae_jax.train import config as train_config
from sae_jax.train import loop, normalize, optimizer, program, start
from sae_jax.train import run as run_lib
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib

IN, OUT = "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out"
OTHER_IN, OTHER_OUT = "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"
D, E, F, K, ROWS, B = 16, 12, 32, 4, 768, 64
MESHES = [(1, 1), (8, 1), (1, 8), (2, 4)]  # (data, latent)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def _rows(count, seed=0):
  """Inputs and what a layer makes of them, which is no linear function."""
  rng = np.random.default_rng(seed)
  code_N8 = rng.exponential(size=(count, 8)) * (rng.random((count, 8)) < 0.3)
  rng = np.random.default_rng(seed + 1)
  x_ND = code_N8 @ rng.normal(size=(8, D)) + rng.normal(size=D)
  y_NE = 30 * np.maximum(code_N8 - 0.3, 0) @ rng.normal(size=(8, E)) + 5
  return x_ND.astype(np.float32), y_NE.astype(np.float32)


# The gradient.


def _problem(seed=0):
  """Float64 parameters, inputs and targets; 40 % of the latents are dead."""
  rng = np.random.default_rng(seed)
  params = sae.Params(
    w_enc_FD=rng.normal(size=(F, D)),
    w_dec_FD=rng.normal(size=(F, E)),
    b_enc_F=rng.normal(size=F),
    b_dec_D=rng.normal(size=E),
    w_skip_DE=0.3 * rng.normal(size=(D, E)),
  )
  x_BD, target_BE = rng.normal(size=(B, D)), rng.normal(size=(B, E))
  return params, x_BD, target_BE, rng.random(F) < 0.4


def _dense_loss(params, x_BD, target_BE, dead_F, variance, aux_k, coefficient):
  """The definition, for autograd."""
  pre_BF = x_BD @ params.w_enc_FD.T + params.b_enc_F[None]

  def topk(k, allowed_F):
    ranked_BF = jnp.where(allowed_F[None], pre_BF, -jnp.inf)
    rank_BF = jnp.argsort(jnp.argsort(-ranked_BF, axis=1), axis=1)
    return jax.nn.relu(pre_BF) * ((rank_BF < k) & allowed_F[None])

  out_BE = topk(K, jnp.ones_like(dead_F)) @ params.w_dec_FD
  out_BE = out_BE + params.b_dec_D[None]
  if params.w_skip_DE is not None:
    out_BE = out_BE + x_BD @ params.w_skip_DE
  loss = jnp.sum((out_BE - target_BE) ** 2) / len(x_BD) / variance
  rest_BE = jax.lax.stop_gradient(target_BE - out_BE)
  aux_BE = topk(aux_k, dead_F) @ params.w_dec_FD
  spread = jnp.sum((rest_BE - rest_BE.mean(0, keepdims=True)) ** 2)
  return loss + coefficient * jnp.sum((aux_BE - rest_BE) ** 2) / spread


@functools.cache
def _sharded_gradient(data, latent, skip):
  """Loss and gradient of `_problem` on a mesh, float64."""
  on = mesh.make(
    mesh.MeshConfig(data=data, latent=latent), jax.devices()[: data * latent]
  )
  with jax.enable_x64(True):
    params, x_BD, target_BE, dead_F = jax.tree.map(jnp.asarray, _problem())
    if not skip:
      params = dataclasses.replace(params, w_skip_DE=None)
    spec = losses.LossSpec(
      k=K,
      aux_k=3,
      aux_coefficient=1 / 32,
      implementation="cpu",
      centred=False,
      data_axis="data" if data > 1 else None,
      latent_axis="latent" if latent > 1 else None,
    )

    def gradient(params, x_BD, target_BE, dead_F):
      loss, _, grads = losses.loss_and_grads(
        params, x_BD, dead_F, jnp.asarray(3.7), spec, target_BE=target_BE
      )
      return loss, grads

    specs = sae.partition_specs(params)
    by_row = jax.P("data", None)
    found = jax.jit(
      jax.shard_map(
        gradient,
        mesh=on,
        in_specs=(specs, by_row, by_row, jax.P("latent")),
        out_specs=(jax.P(), specs),
        check_vma=False,
      )
    )(params, x_BD, target_BE, dead_F)
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
  ("data", "latent"),
  [
    m if m in ((1, 1), (2, 4)) else pytest.param(*m, marks=pytest.mark.slow)
    for m in MESHES
  ],
)
def test_gradient_is_dense_autograd_s(data, latent, skip):
  with jax.enable_x64(True):
    params, *arrays = jax.tree.map(jnp.asarray, _problem())
    if not skip:
      params = dataclasses.replace(params, w_skip_DE=None)
    expected, expected_grads = jax.jit(
      jax.value_and_grad(_dense_loss), static_argnums=(4, 5, 6)
    )(params, *arrays, 3.7, 3, 1 / 32)
  loss, grads = _sharded_gradient(data, latent, skip)
  # Float64 sums of at most B · F terms, each within 1e-15 of its size.
  np.testing.assert_allclose(loss, expected, rtol=1e-12)
  assert (grads.w_skip_DE is not None) == skip
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12),
    grads,
    expected_grads,
  )


# The step.


def _first(on, config, seed=0):
  x_ND, y_NE = _rows(500)
  adam = optimizer.make_optimizer(OPTIMIZER, latents=F, steps=9)
  (state,) = state_lib.init_states(
    config,
    adam,
    normalize.treat("standardize", x_ND, normalize.measure(x_ND)),
    target=normalize.treat("standardize", y_NE, normalize.measure(y_NE)),
    seeds=(seed,),
    mesh=on,
  )
  return state


OPTIMIZER = optimizer.OptimizerConfig(learning_rate=1e-2, warmup_steps=2)
SKIP = sae.SaeConfig(latents=F, k=K, matmul_dtype="float32", skip=True)


@functools.cache
def _one_step(data, latent):
  on = mesh.make(
    mesh.MeshConfig(data=data, latent=latent), jax.devices()[: data * latent]
  )
  step = step_lib.make_train_step(
    SKIP, OPTIMIZER, on, d_model=D, d_out=E, steps=9
  )
  by_row = jax.NamedSharding(on, jax.P("data", None))
  batch = tuple(jax.device_put(a, by_row) for a in _rows(B, 5))
  return jax.tree.map(np.asarray, step(_first(on, SKIP), batch))


@pytest.mark.parametrize(("data", "latent"), [(2, 4)])
def test_every_mesh_makes_the_same_step(data, latent):
  state, scalars = _one_step(data, latent)
  expected, expected_scalars = _one_step(1, 1)
  np.testing.assert_array_equal(
    state.tokens_since_fired_F, expected.tokens_since_fired_F
  )
  for name in ("train/loss", "train/fvu", "train/grad_norm"):
    # Sums of B · E terms in another order, and of B · D in the first rows.
    np.testing.assert_allclose(
      scalars[name], expected_scalars[name], rtol=30 * 2**-23, err_msg=name
    )
  # mu = (1 − b1) · gradient; terms of its sums cancel.
  for found, wanted in zip(
    jax.tree.leaves(state.opt_state[1].mu),
    jax.tree.leaves(expected.opt_state[1].mu),
    strict=True,
  ):
    atol = B * 2**-23 * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


# The start.


def test_a_start_with_itself_as_target_is_an_autoencoder_s():
  """The linear map is the identity: rows of the encoder and decoder agree."""
  x_ND, _ = _rows(2000)
  x_ND += np.random.default_rng(9).normal(size=x_ND.shape).astype(np.float32)
  map_DD = transcoder.linear_map(x_ND, x_ND)
  # The ridge takes 1e-3 of the mean variance over each direction's own.
  np.testing.assert_allclose(map_DD, np.eye(D), atol=1e-2)
  on = mesh.make(mesh.MeshConfig(latent=8))
  params = transcoder.init_params(x_ND.mean(0), x_ND.mean(0), map_DD, F, 0, on)
  np.testing.assert_allclose(params.w_enc_FD, params.w_dec_FD, atol=2e-2)
  centre_F = params.w_enc_FD @ x_ND.mean(0) + params.b_enc_F
  np.testing.assert_allclose(centre_F, 0, atol=1e-4)


def test_the_linear_map_is_the_best_one():
  x_ND, y_NE = _rows(3000)
  centred_ND, centred_NE = x_ND - x_ND.mean(0), y_NE - y_NE.mean(0)
  best_DE, *_ = np.linalg.lstsq(centred_ND, centred_NE, rcond=1e-3)

  def error(map_DE):
    return np.square(centred_ND @ map_DE - centred_NE).sum()

  assert error(transcoder.linear_map(x_ND, y_NE)) < 1.02 * error(best_DE)


def test_targets_that_the_inputs_say_nothing_of_still_have_directions():
  on = mesh.make(mesh.MeshConfig(latent=8))
  zeros = np.zeros((D, E), np.float32)
  params = transcoder.init_params(
    np.zeros(D), np.zeros(E), zeros, F, 0, on, skip=True
  )
  norm_F = np.linalg.norm(params.w_dec_FD, axis=1)
  np.testing.assert_allclose(norm_F, 1, rtol=1e-6)
  assert params.w_skip_DE.shape == (D, E) and not params.w_skip_DE.any()


# Runs.


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  path = tmp_path_factory.mktemp("transcoder") / "store"
  arrays = dict(
    zip(
      (IN, OUT, OTHER_IN, OTHER_OUT), _rows(ROWS) + _rows(ROWS, 7), strict=True
    )
  )
  store.write_arrays(path, arrays, read_rows=64, write_rows=256)
  return path


@pytest.fixture(scope="module")
def config(place):
  return train_config.TrainConfig(
    store=str(place),
    hook=IN,
    target=OUT,
    normalize="centre",
    sae=SKIP,
    optimizer=dataclasses.replace(OPTIMIZER, ema_decay=0.9),
    stream=stream.StreamConfig(batch_size=B, mix_chunks=2),
    steps=12,
    held_out_rows=64,
    eval_every=4,
    checkpoint_every=4,
    log_every=1,
    mesh=mesh.MeshConfig(data=2, latent=4),
  )


@pytest.fixture
def exported(monkeypatch):
  """What runs export, which is not written here."""
  found = []
  plain = state_lib.dictionary

  def dictionary(*args):
    found.append(plain(*args))
    return found[-1]

  monkeypatch.setattr(state_lib, "dictionary", dictionary)
  monkeypatch.setattr(program.formats, "save_sae", lambda *_: None)
  return found


def _trace(out):
  return [
    {k: v for k, v in line.items() if not k.startswith("perf/")}
    for line in metrics.read(out / "metrics.jsonl")
  ]


def _train(config, out):
  out.mkdir(exist_ok=True)
  return loop.train(config, start.open_source(config), out)


def test_a_run_learns_and_its_export_takes_raw_rows(config, exported, tmp_path):
  _train(config, tmp_path / "run")
  lines = _trace(tmp_path / "run")
  looks = [line["eval/fvu"] for line in lines if "eval/fvu" in line]
  assert looks[-1] < 0.5 * looks[0]
  (dictionary,) = exported
  assert (dictionary.d_model, dictionary.d_out) == (D, E)
  assert not dictionary.centred
  assert dictionary.metadata["hook_name"] == IN
  assert dictionary.metadata["hook_name_out"] == OUT
  assert dictionary.metadata["sae_jax_normalize"] == "centre"
  assert dictionary.params.w_skip_DE.any()
  # On the held-out rows, what the last look said.
  source = store.open_store(config.store)
  _, held_out = source.holdout(config.held_out_rows)
  x_ND, y_NE = (
    np.concatenate(source.read_chunks(hook, list(held_out))).astype(np.float32)
    for hook in (IN, OUT)
  )
  found_NE = sae.decode(dictionary, *sae.encode(dictionary, x_ND), x_ND)
  fvu = [
    np.square(found_NE[i : i + B] - y_NE[i : i + B]).sum()
    / np.square(y_NE[i : i + B] - y_NE[i : i + B].mean(0)).sum()
    for i in range(0, len(x_ND), B)
  ]
  # Folded and unfolded: roundings of sums of D and K terms, of rows whose mean
  # is larger than what varies.
  np.testing.assert_allclose(np.mean(fvu), looks[-1], rtol=1e-4)


def _interrupt(config, out, at):
  plain = run_lib.Run.log

  def log(self, step, scalars):
    if step == at:
      raise KeyboardInterrupt
    plain(self, step, scalars)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(run_lib.Run, "log", log)
    with pytest.raises(KeyboardInterrupt):
      _train(config, out)


def test_a_resumed_run_is_bit_equal(config, exported, tmp_path):
  """With a skip, a mean subtracted and an average of the weights."""
  _train(config, tmp_path / "whole")
  _interrupt(config, tmp_path / "run", 6)
  _train(config, tmp_path / "run")
  whole, resumed = exported
  jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)
  assert _trace(tmp_path / "whole") == _trace(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("on", [{}, {"sae": 2, "data": 2, "latent": 2}])
def test_a_sweep_is_its_transcoders_alone(config, exported, tmp_path, on):
  """To the bit on one device; on a mesh the first look is the same."""
  member = train_config.MemberConfig
  config = dataclasses.replace(
    config,
    mesh=mesh.MeshConfig(**on),
    sweep=(member(), member(k=3, hook=OTHER_IN, target=OTHER_OUT)),
  )
  _train(config, tmp_path / "sweep")
  together = list(exported)
  alone = dataclasses.replace(config, mesh=mesh.MeshConfig())
  for i, one in enumerate(train_config.members(alone)):
    _train(one, tmp_path / str(i))
    (a, b) = together[i], exported[-1]
    assert a.metadata["hook_name_out"] == one.target
    lines = _trace(tmp_path / "sweep" / "members" / str(i))
    expected = _trace(tmp_path / str(i))
    if not on:
      assert lines == expected
      jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    for line, other in zip(lines[:1], expected[:1], strict=True):
      np.testing.assert_allclose(line["eval/fvu"], other["eval/fvu"], rtol=1e-5)


def test_it_starts_from_a_transcoder(config, exported, tmp_path, monkeypatch):
  _train(config, tmp_path / "first")
  monkeypatch.setattr(start.formats, "map_sae", lambda _: exported[0])
  monkeypatch.setattr(start.formats, "hash_sae", lambda _: "")
  still = dataclasses.replace(
    config,
    init_from="first",
    steps=1,
    optimizer=optimizer.OptimizerConfig(learning_rate=1e-12, warmup_steps=0),
  )
  _train(still, tmp_path / "second")
  for name, before in dataclasses.asdict(exported[0].params).items():
    after = getattr(exported[1].params, name)
    if before is None:
      assert after is None
      continue
    # Means are subtracted and added again, of numbers up to about 30.
    np.testing.assert_allclose(
      after, before, rtol=1e-5, atol=1e-4, err_msg=name
    )


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"target": ""}, r"sae\.skip=True: a skip belongs to a transcoder"),
    ({"target": IN}, "is the hook itself"),
    ({"hooks": (OTHER_IN,)}, "a crosscoder decodes to what it encodes"),
  ],
)
def test_what_makes_no_sense_is_refused(config, change, named):
  with pytest.raises(errors.InputError, match=named):
    dataclasses.replace(config, **change)


def test_a_sweep_of_both_kinds_is_refused(config):
  plain = dataclasses.replace(SKIP, skip=False)
  member = train_config.MemberConfig
  with pytest.raises(errors.InputError, match="some dictionaries are transc"):
    dataclasses.replace(
      config, target="", sae=plain, sweep=(member(), member(target=OUT))
    )


def test_every_combination_has_an_abstract_state():
  """What is restored has the structure of what was saved."""
  on = mesh.make(mesh.MeshConfig(data=2, latent=4))
  adam = optimizer.make_optimizer(OPTIMIZER, latents=F, steps=9)
  for kind, skip in itertools.product(normalize.KINDS, (False, True)):
    config = dataclasses.replace(SKIP, skip=skip)
    abstract = state_lib.abstract_state(
      config, adam, D, on, normalization=kind, d_out=E
    )
    x_ND, y_NE = _rows(100)
    (state,) = state_lib.init_states(
      config,
      adam,
      normalize.treat(kind, x_ND, normalize.measure(x_ND)),
      target=normalize.treat(kind, y_NE, normalize.measure(y_NE)),
      seeds=(0,),
      mesh=on,
    )
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for a, b in zip(
      jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True
    ):
      assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)
