# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Transcoders: what is decoded to is another hook, maybe of another width."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import checkpoint, errors, formats, mesh, sae, store, stream
from sae_jax import config as config_lib
from sae_jax.sae import losses, transcoder
from sae_jax.train import config as train_config
from sae_jax.train import normalize, optimizer, program, stack, start
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib

IN, OUT = "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out"
OTHER_IN, OTHER_OUT = "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"
D, E, F, K, ROWS, B, STEPS = 16, 12, 32, 4, 768, 64, 12

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


@pytest.mark.parametrize(
  ("data", "latent", "skip"),
  [
    (1, 1, False),
    (2, 4, True),
    pytest.param(8, 1, True, marks=pytest.mark.slow),
    pytest.param(1, 8, True, marks=pytest.mark.slow),
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


@pytest.mark.slow
def test_every_mesh_makes_the_same_step():
  state, scalars = _one_step(2, 4)
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
  hooks = (IN, OUT, OTHER_IN, OTHER_OUT)
  arrays = dict(zip(hooks, _rows(ROWS) + _rows(ROWS, 7), strict=True))
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
    steps=STEPS,
    held_out_rows=64,
    seed=3,
  )


class Run:
  """A run's program, and its state after every step."""

  def __init__(self, make, config):
    source = store.open_store(config.store)
    on = mesh.make(config.mesh, jax.devices()[:1])
    chunks = source.holdout(config.held_out_rows)
    self.program = make(config, source, on, *chunks)
    with_stream = stream.open_stream(
      source, self.program.hooks, config.stream, mesh=on, chunks=chunks[0]
    )
    self.batches = [next(with_stream) for _ in range(STEPS)]
    with_stream.close()
    state = self.program.new_state()
    self.first_look = jax.device_get(self.program.look(state))
    self.halfway, self.last = None, state
    for i, batch in enumerate(self.batches):
      if i == STEPS // 2:
        self.halfway = jax.tree.map(np.asarray, self.last)
      self.last, self.scalars = self.program.train_step(self.last, batch)


@pytest.fixture(scope="module")
def one(config, quick_compilation):
  return Run(program.one, config)


@pytest.mark.slow
def test_it_learns_and_its_export_takes_raw_rows(one, config, tmp_path):
  last_look = one.program.look(one.last)
  assert last_look["eval/fvu"] < 0.5 * one.first_look["eval/fvu"]
  one.program.export(one.last, tmp_path)
  dictionary = formats.load_sae(tmp_path / "sae")
  assert (dictionary.d_model, dictionary.d_out) == (D, E)
  assert not dictionary.centred and dictionary.k == K
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
  np.testing.assert_allclose(np.mean(fvu), last_look["eval/fvu"], rtol=1e-4)


def _restored(run, directory):
  """A state halfway that was saved and read again."""
  abstract = run.program.abstract_state
  placed = jax.device_put(
    run.halfway, jax.tree.map(lambda a: a.sharding, abstract)
  )
  saved = checkpoint.Checkpoints(directory)
  saved.save(STEPS // 2, placed, {})
  saved.wait()
  state, _ = saved.restore_latest(abstract)
  saved.close()
  return state


@pytest.mark.slow
def test_a_resumed_run_is_bit_equal(one, tmp_path):
  """With a skip, a mean subtracted and an average of the weights."""
  state = _restored(one, tmp_path)
  for batch in one.batches[STEPS // 2 :]:
    state, scalars = one.program.train_step(state, batch)
  jax.tree.map(np.testing.assert_array_equal, state, one.last)
  assert jax.device_get(scalars) == jax.device_get(one.scalars)


@pytest.mark.slow
def test_a_sweep_is_its_transcoders_alone(one, config, tmp_path):
  """To the bit on one device, each at its own hooks."""
  member = train_config.MemberConfig
  together = Run(
    program.sweep,
    dataclasses.replace(
      config, sweep=(member(hook=OTHER_IN, target=OTHER_OUT), member())
    ),
  )
  assert set(together.program.hooks) == {IN, OUT, OTHER_IN, OTHER_OUT}
  jax.tree.map(
    np.testing.assert_array_equal, stack.member(together.last, 1), one.last
  )
  looked = together.program.look(together.last)
  assert looked["eval/fvu"][1] == one.program.look(one.last)["eval/fvu"]
  assert looked["eval/fvu"][0] < 0.5 * together.first_look["eval/fvu"][0]
  together.program.export(together.last, tmp_path)
  for i, (hook, target) in enumerate(((OTHER_IN, OTHER_OUT), (IN, OUT))):
    metadata = formats.load_sae(tmp_path / "sae" / str(i)).metadata
    assert (metadata["hook_name"], metadata["hook_name_out"]) == (hook, target)
  _restored(together, tmp_path / "checkpoints")  # its structure is whole


@pytest.mark.slow
def test_it_starts_from_a_transcoder(one, config, tmp_path):
  one.program.export(one.last, tmp_path)
  again = dataclasses.replace(config, init_from=str(tmp_path / "sae"))
  source = store.open_store(config.store)
  made = program.one(
    again,
    source,
    mesh.make(config.mesh, jax.devices()[:1]),
    *source.holdout(config.held_out_rows),
  )
  found = made.new_state()
  before = state_lib.trained(one.last).params
  for name, wanted in dataclasses.asdict(before).items():
    after = getattr(found.params, name)
    if wanted is None:
      assert after is None
      continue
    # Means are subtracted and added again, of numbers up to about 30.
    np.testing.assert_allclose(
      after, wanted, rtol=1e-5, atol=1e-4, err_msg=name
    )
  with pytest.raises(errors.InputError, match="width of what is decoded to is"):
    start.initial(again, D, D)


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


@pytest.mark.slow
def test_what_is_restored_has_the_structure_of_what_was_saved():
  on = mesh.make(mesh.MeshConfig(data=2, latent=4))
  adam = optimizer.make_optimizer(OPTIMIZER, latents=F, steps=9)
  abstract = state_lib.abstract_state(
    SKIP, adam, D, on, normalization="standardize", d_out=E
  )
  state = _first(on, SKIP)
  assert jax.tree.structure(abstract) == jax.tree.structure(state)
  for a, b in zip(
    jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True
  ):
    assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)


def test_the_config_that_comes_with_it_is_one():
  path = pathlib.Path(__file__).parents[2] / "configs" / "transcoder.py"
  config = config_lib.load(str(path), train_config.TrainConfig)
  assert config.sae.skip and config.target == "blocks.9.hook_mlp_out"
