# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The step on every mesh: to the bit what is defined; what it sends is counted.

All numbers are small multiples of a power of two, so that no product or sum is
rounded, in whatever order shards add it up. What remains is the selection, with
a tie for the last place in every row.
"""

import collections
import dataclasses
import functools
import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import mesh, sae
from sae_jax.sae import selection
from sae_jax.train import objective, stack, stacked
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib

# Every size that may travel differs from every one that must not.
B, D, F, K = 32, 10, 320, 23
VARIANCE = 2.0  # so that a gradient's factor, 2 / (B · variance), is exact
CROWD = 40  # latents of the second member that all win: one shard's of eight
SHAPES = [(1, 1, 1), (1, 8, 1), (1, 1, 8), (1, 2, 4), (2, 2, 2)]
CONFIG = sae.SaeConfig(
  latents=F, k=K, aux_coefficient=0, matmul_dtype="float32"
)
OPTIMIZER = optimizer_lib.OptimizerConfig(learning_rate=1e-2, warmup_steps=2)
_BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


def _mesh(shape):
  of_sae, data, latent = shape
  return mesh.make(
    mesh.MeshConfig(sae=of_sae, data=data, latent=latent),
    jax.devices()[: of_sae * data * latent],
  )


@functools.cache
def _problem():
  """Two dictionaries [2, ...] and rows, in float64.

  Latents are twins, of equal pre-activations but other decoder rows. The twins
  of the first member lie on different shards; the second one's are crowded on
  the first shard, beside its other winners.
  """
  rng = np.random.default_rng(0)
  w_enc_SFD = rng.integers(-1, 2, size=(2, F, D)).astype(float)
  b_enc_SF = rng.integers(0, 4, size=(2, F)) / 4
  for member, latents in enumerate((F, CROWD)):
    half = latents // 2
    w_enc_SFD[member, half:latents] = w_enc_SFD[member, :half]
    b_enc_SF[member, half:latents] = b_enc_SF[member, :half]
  b_enc_SF[1, :CROWD] += 12
  # Four entries of 1/2 or -1/2: norm 1.
  sign_SFD = rng.choice([-0.5, 0.5], size=(2, F, D))
  w_dec_SFD = sign_SFD * (rng.random((2, F, D)).argsort(axis=2) < 4)
  x_BD = rng.integers(-1, 2, size=(B, D)).astype(float)
  params = sae.Params(w_enc_SFD, w_dec_SFD, b_enc_SF, np.zeros((2, D)))
  return params, x_BD


@dataclasses.dataclass(frozen=True)
class Expected:
  indices_BK: np.ndarray
  values_BK: np.ndarray
  square_error: float
  fvu: np.float32
  grads: sae.Params  # of decoder rows: without what is along them


@functools.cache
def _definition(member):
  """A member's step, densely."""
  params, x_BD = _problem()
  w_enc_FD, w_dec_FD, b_enc_F = (
    a[member] for a in (params.w_enc_FD, params.w_dec_FD, params.b_enc_F)
  )
  pre_BF = x_BD @ w_enc_FD.T + b_enc_F
  order_BF = np.argsort(-pre_BF, axis=1, kind="stable")
  indices_BK = order_BF[:, :K]
  ranked_BF = np.take_along_axis(pre_BF, order_BF, axis=1)
  assert (ranked_BF[:, K - 1] == ranked_BF[:, K]).all()  # the ties
  assert (ranked_BF[:, K] > 0).all()
  values_BF = np.zeros((B, F))
  np.put_along_axis(values_BF, indices_BK, ranked_BF[:, :K], axis=1)

  error_BD = values_BF @ w_dec_FD - x_BD
  grad_BD = 2 / (B * VARIANCE) * error_BD
  dots_BF = np.where(values_BF > 0, grad_BD @ w_dec_FD.T, 0)
  grad_dec_FD = values_BF.T @ grad_BD
  along_F1 = (grad_dec_FD * w_dec_FD).sum(1, keepdims=True)
  grad_b_F = dots_BF.sum(0)
  grads = sae.Params(
    w_enc_FD=dots_BF.T @ x_BD,
    w_dec_FD=grad_dec_FD - along_F1 * w_dec_FD,
    b_enc_F=grad_b_F,
    b_dec_D=grad_BD.sum(0) - grad_b_F @ w_enc_FD,
  )
  square_error = (error_BD**2).sum()
  spread = ((x_BD - x_BD.mean(0)) ** 2).sum()
  # In eighths squared, a sum of B · D squares: none of its parts is rounded.
  assert square_error * 64 < 2**24
  return Expected(
    indices_BK,
    ranked_BF[:, :K],
    square_error,
    np.float32(square_error) / np.float32(spread),
    grads,
  )


def _abstract(on, config):
  optimizer = optimizer_lib.make_optimizer(
    OPTIMIZER, latents=config.latents, steps=9
  )
  if on.shape["sae"] == 1:
    return state_lib.abstract_state(config, optimizer, D, on)
  return stack.abstract_state(config, optimizer, D, on, 2)


def _state(on, which):
  """Before the first step; `which`: a member's number, or a slice for both."""
  abstract = _abstract(on, CONFIG)
  state = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), abstract)
  params, _ = _problem()
  state = dataclasses.replace(
    state,
    params=jax.tree.map(lambda a: a[which].astype(np.float32), params),
    inputs=jax.tree.map(np.ones_like, state.inputs),
    total_variance=np.full_like(state.total_variance, VARIANCE),
  )
  return jax.device_put(state, jax.tree.map(lambda a: a.sharding, abstract))


@functools.cache
def _program(shape, config):
  on = _mesh(shape)
  if on.shape["sae"] == 1:
    step = step_lib.make_train_step(config, OPTIMIZER, on, d_model=D, steps=9)
  else:
    step = stacked.make_stacked_step(
      [config] * 2, [OPTIMIZER] * 2, on, d_model=D, steps=9
    )
  rows = jax.ShapeDtypeStruct((B, D), jnp.bfloat16)
  return step.lower(_abstract(on, config), rows).compile()


def _outcomes(shape):
  """State and scalars of both members after a step."""
  on = _mesh(shape)
  rows = jax.NamedSharding(on, jax.P("data", None))
  x_BD = jax.device_put(_problem()[1].astype("bfloat16"), rows)
  if on.shape["sae"] == 1:
    done = [
      _program(shape, CONFIG)(_state(on, member), x_BD) for member in range(2)
    ]
    return jax.tree.map(np.asarray, done)
  both = jax.tree.map(
    np.asarray, _program(shape, CONFIG)(_state(on, slice(2)), x_BD)
  )
  return [jax.tree.map(lambda a, i=i: a[i], both) for i in range(2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_mesh_does_to_the_bit_what_is_defined(shape):
  for member, (state, scalars) in enumerate(_outcomes(shape)):
    expected = _definition(member)
    silent_F = np.full(F, B)
    silent_F[expected.indices_BK] = 0
    np.testing.assert_array_equal(state.tokens_since_fired_F, silent_F)
    assert scalars["train/l0"] == K
    assert scalars["train/loss"] == expected.square_error / (B * VARIANCE)
    assert scalars["train/fvu"] == expected.fvu
    # The winners of a crowded shard are more than it offers.
    assert scalars["train/redone"] == (member == 1 and shape[2] > 1)
    _, adam, *_ = state.opt_state
    square = 0.0
    for name in ("w_enc_FD", "w_dec_FD", "b_enc_F", "b_dec_D"):
      wanted = getattr(expected.grads, name)
      assert (wanted.astype(np.float32) == wanted).all(), name
      # Of the logarithm of the loss.
      scaled = 1 / scalars["train/loss"] * wanted.astype(np.float32)
      mu = np.float32(1 - OPTIMIZER.b1) * scaled
      np.testing.assert_array_equal(getattr(adam.mu, name), mu, name)
      square += (wanted**2).sum()
    assert square > 0


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 8), (2, 2, 2)], ids=str)
def test_every_mesh_selects_the_same_latents(shape):
  on = _mesh(shape)
  spec = objective.loss_spec(CONFIG, on, D)
  by_latent = jax.P("sae", "latent")
  params_specs = sae.Params(by_latent, by_latent, by_latent, jax.P("sae"))

  def select(params_S, x_BD):
    found = [
      selection.select(jax.tree.map(lambda a, i=i: a[i], params_S), x_BD, spec)
      for i in range(params_S.b_dec_D.shape[0])
    ]
    first = jax.lax.axis_index("latent") * (F // on.shape["latent"])
    return (
      jnp.stack([f.values_BK for f in found]),
      jnp.stack([f.indices_BK for f in found]) + first,
    )

  params_S, x_BD = jax.tree.map(lambda a: jnp.asarray(a, "float32"), _problem())
  values_SBC, indices_SBC = jax.jit(
    jax.shard_map(
      select,
      mesh=on,
      in_specs=(params_specs, jax.P("data")),
      out_specs=jax.P("sae", "data", "latent"),
      check_vma=False,
    )
  )(params_S, x_BD)
  for member in range(2):
    expected = _definition(member)
    wins_BC = np.asarray(values_SBC[member]) > 0
    assert (wins_BC.sum(1) == K).all()
    found_BK = np.asarray(indices_SBC[member])[wins_BC].reshape(B, K)
    np.testing.assert_array_equal(
      np.sort(found_BK, axis=1), np.sort(expected.indices_BK, axis=1)
    )
    if shape[2] == 1:
      np.testing.assert_array_equal(found_BK, expected.indices_BK)
      np.testing.assert_array_equal(values_SBC[member], expected.values_BK)


@pytest.fixture
def reader(monkeypatch):
  """Of compiled programs: the modules `hlo` and `facts`."""
  monkeypatch.syspath_prepend(_BENCHMARKS)
  return importlib.import_module("hlo"), importlib.import_module("facts")


def _groups(text):
  """Devices that exchange with one another, from `{{0,1},{2,3}}` or an iota."""
  if text.startswith("{{"):
    return [
      [int(i) for i in group.split(",")]
      for group in re.findall(r"\{([\d,]+)\}", text)
    ]
  iota = re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
  assert iota, text
  sizes, dims, order = iota.groups()
  dims = [int(n) for n in dims.split(",")]
  ids = np.arange(np.prod(dims)).reshape(dims)
  if order:
    ids = ids.transpose([int(n) for n in order.split(",")])
  return ids.reshape([int(n) for n in sizes.split(",")]).tolist()


# 260 latents of a shard: with up to 256 AuxK has one size only, which XLA takes
# out of the loop that is to skip it.
WITH_AUXK = dataclasses.replace(
  CONFIG, latents=520, aux_coefficient=1 / 32, aux_k=5
)


@pytest.mark.parametrize(
  ("shape", "config"),
  [
    *(pytest.param(shape, CONFIG, id=str(shape)) for shape in SHAPES),
    pytest.param((2, 2, 2), WITH_AUXK, id="AuxK", marks=pytest.mark.slow),
  ],
)
def test_only_counts_reconstructions_and_gradients_travel(
  shape, config, reader
):
  hlo, facts = reader
  of_sae, data, latent = shape
  rows, latents = B // data, config.latents // latent
  by_latent = {rows * D, rows, 15 * rows, rows * latent} if latent > 1 else {}
  by_data = {latents * D, latents} if data > 1 else {}
  few = {1, 2, D}  # 2: a scalar of all members
  dense = {n * f for n in (rows, D) for f in (latents, config.latents)}
  assert not {*by_latent, *few} & {*dense, rows * K * D}

  sent = collections.Counter()
  for c in hlo.Program(_program(shape, config).as_text()).collectives():
    sizes = {array.elements for array in c.arrays}
    if c.kind == "all-gather":
      assert sizes <= {2, rows * latent if latent > 1 else 2}, c
    else:
      assert c.kind == "all-reduce"
      assert sizes <= {*by_latent, *by_data, *few}, c
    if max(sizes) > 2:
      for group in _groups(c.groups):  # of one member
        assert len({i // (data * latent) for i in group}) == 1, c
    # `auxk:1/auxk:0`: the loop that runs once or never, one of AuxK's sizes.
    label = "/".join(facts.label(c.visit.branches).split("/")[:2])
    sent[label] += c.bytes * c.visit.times

  # As `sae.losses` says; the step's own ten scalars of all members.
  small = 4 * (4 * D + 16) + 4 * 10 * of_sae
  usual = 4 * rows * (D + 122 + latent) * (latent > 1)
  usual += 4 * latents * (2 * D + 2) * (data > 1)
  assert 0.9 * usual <= sent.pop("", 0) <= usual + small
  counts = 4 * rows * (122 + latent)
  auxk = 4 * rows * (D + 33 + latent)
  for label, size in sent.items():
    most = counts if label == "selection:1" else auxk
    assert 0.9 * most <= size <= most, label
  sizes = 2 if config is WITH_AUXK else 0
  assert len(sent) == (1 + sizes if latent > 1 else 0)
