# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The reader of compiled programs, on programs with a known answer."""

import functools
import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest

_FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def hlo(monkeypatch):
  monkeypatch.syspath_prepend(_FOLDER)
  return importlib.import_module("hlo")


@pytest.fixture
def facts(monkeypatch):
  monkeypatch.syspath_prepend(_FOLDER)
  return importlib.import_module("facts")


def _text(f, *arrays):
  return jax.jit(f).lower(*arrays).compile().as_text()


def test_products_count_as_often_as_their_loops_run(hlo):
  # Inner: 3 times a [2, 8] @ [8, 8]; outer: 5 times that and a [2, 8] @ [8, 4].
  w_DD, w_DF = jnp.ones((8, 8)), jnp.ones((8, 4))

  def inner(x_BD, _):
    return jnp.tanh(x_BD @ w_DD), None

  def outer(x_BD, _):
    x_BD, _ = jax.lax.scan(inner, x_BD, None, length=3)
    return x_BD, jnp.tanh(x_BD @ w_DF)

  program = hlo.Program(
    _text(
      lambda x: jax.lax.scan(outer, x, None, length=5),
      jnp.ones((2, 8)),
    )
  )
  counted = sorted((flops, v.times) for flops, v in program.products())
  assert counted == [(2 * 2 * 8 * 4, 5), (2 * 2 * 8 * 8, 15)]
  assert all(visit.bounded for _, visit in program.products())


def test_a_loop_of_unknown_length_is_said_to_be_one(hlo, facts):
  def grow(x_BB):
    return jax.lax.while_loop(lambda x: x[0, 0] < 100, lambda x: x @ x, x_BB)

  program = hlo.Program(_text(grow, jnp.full((4, 4), 1.1)))
  ((flops, visit),) = program.products()
  assert (flops, visit.times, visit.bounded) == (2 * 4**3, 1, False)
  assert facts.label(visit.branches) == "test_hlo:1"


def test_branches_are_kept_apart(hlo, facts):
  x_BD = jnp.ones((2, 8))
  products = [jnp.ones((8, 4)), jnp.ones((8, 16)), jnp.ones((8, 32))]

  def switch(i, x_BD):
    branches = [
      functools.partial(lambda w, x: jnp.tanh(x @ w).sum(), w) for w in products
    ]
    return jax.lax.switch(i, branches, x_BD)

  program = hlo.Program(_text(switch, 1, x_BD))
  found = {v.branches[-1].index: flops for flops, v in program.products()}
  assert found == {i: 2 * 2 * w.size for i, w in enumerate(products)}
  labels = {facts.label(v.branches) for _, v in program.products()}
  assert labels == {"test_hlo:0", "test_hlo:1", "test_hlo:2"}


def test_a_predicate_that_is_false_takes_branch_zero(hlo):
  program = hlo.Program(
    _text(
      lambda p, x: jax.lax.cond(
        p, lambda: jnp.tanh(x @ x), lambda: jnp.tanh(x[:, :2] @ x[:2])
      ),
      True,
      jnp.ones((4, 4)),
    )
  )
  found = {v.branches[-1].index: flops for flops, v in program.products()}
  assert found == {0: 2 * 4 * 2 * 4, 1: 2 * 4 * 4 * 4}


def test_exchanges_and_what_they_send(hlo):
  mesh = jax.make_mesh(
    (2, 4), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2
  )

  def shard(x_BD):
    total_BD = jax.lax.psum(x_BD, "b")
    everything_BD = jax.lax.all_gather(x_BD, "a", tiled=True)
    turned_BD = jax.lax.ppermute(x_BD, "b", [(i, i - 1) for i in range(1, 4)])
    return total_BD, everything_BD, turned_BD

  by_both = jax.P(("a", "b"))
  f = jax.shard_map(
    shard,
    mesh=mesh,
    in_specs=by_both,
    out_specs=(jax.P("a"), jax.P("b"), by_both),
    check_vma=False,
  )
  program = hlo.Program(_text(f, jnp.ones((8, 16))))
  found = {
    c.kind: (c.arrays[0].shape, c.group, c.bytes, c.wire_bytes)
    for c in program.collectives()
  }
  assert found == {
    "all-reduce": ((1, 16), 4, 64, 96),  # 2 · 64 · 3/4
    "all-gather": ((2, 16), 2, 128, 64),  # 128 · 1/2
    "collective-permute": ((1, 16), 1, 64, 64),
  }


@pytest.mark.parametrize(
  ("groups", "size"),
  [
    ("{{0,1,2,3},{4,5,6,7}}", 4),
    ("[2,8]<=[16]", 8),
    ("[4,4]<=[4,4]T(1,0)", 4),
    # As libtpu 0.0.52 prints what XLA itself has partitioned.
    ("mesh['axis_0'=4] {'axis_0'}", 4),
    ("mesh['a'=4,'b'=8] {'b'}", 8),
    ("mesh['a'=4,'b'=8] {'a','b':(2)4}", 16),
  ],
)
def test_groups_are_read_in_every_spelling(hlo, groups, size):
  text = f"""HloModule m

ENTRY %main (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  ROOT %r = f32[8]{{0}} all-reduce(%x), replica_groups={groups}, to_apply=%sum
}}
"""
  (found,) = hlo.Program(text).collectives()
  assert found.group == size


def test_groups_that_cannot_be_read_are_no_silent_one(hlo):
  text = """HloModule m

ENTRY %main (x: f32[8]) -> f32[8] {
  ROOT %r = f32[8]{0} all-reduce(%x), replica_groups=new, to_apply=%sum
}
"""
  with pytest.raises(ValueError, match="cannot read the groups"):
    hlo.Program(text).collectives()


# As libtpu prints: tiles, memory spaces, products as convolutions, a fused
# reduce-scatter that is spelt as an all-reduce.
_TPU = """HloModule jit_f, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %add = f32[]{:T(128)} add(%a, %b)
}

%all-reduce-scatter.1 (p: f32[64,128]) -> f32[16,128] {
  %p = f32[64,128]{1,0:T(8,128)} parameter(0)
  %ar = f32[64,128]{1,0:T(8,128)} all-reduce(%p), \
replica_groups=[1,4]<=[4], to_apply=%sum
  ROOT %cut = f32[16,128]{1,0:T(8,128)} slice(%ar), slice={[0:16], [0:128]}
}

ENTRY %main (x: bf16[64,32], w: bf16[128,32], y: f32[3,64,32]) -> f32[16,128] {
  %x = bf16[64,32]{1,0:T(8,128)(2,1)} parameter(0)
  %w = bf16[128,32]{1,0:T(8,128)(2,1)} parameter(1)
  %y = f32[3,64,32]{2,1,0:T(8,128)} parameter(2)
  %thin = f32[64,1]{1,0:T(8,128)S(1)} custom-call(%x), \
custom_call_target="tpu_custom_call", \
backend_config={"custom_call_config":{"cost_estimate":{\
"flops":"4096","bytes_accessed":"512"}}}
  %dot = f32[64,128]{1,0:T(8,128)} convolution(%x, %w), dim_labels=bf_oi->bf
  %batched = f32[3,64,64]{2,1,0:T(8,128)} convolution(%y, %y), \
window={size=3 stride=2 pad=0_0 lhs_dilate=3}, dim_labels=0bf_0oi->0bf
  ROOT %rs = f32[16,128]{1,0:T(8,128)} fusion(%dot), \
kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_reads_what_the_tpu_compiler_prints(hlo):
  program = hlo.Program(_TPU)
  made = program.computations["main"]
  assert made["x"].arrays[0].bytes == 64 * 128 * 2  # the lanes are padded
  assert made["thin"].arrays[0].bytes == 64 * 128 * 4
  assert made["thin"].arrays[0].space == 1
  flops = {v.instruction.name: count for count, v in program.products()}
  assert flops["dot"] == 2 * 64 * 128 * 32
  # One place of the window of 3 meets an element per output: a batched product.
  assert flops["batched"] == 3 * 2 * 64 * 64 * 32
  (kernel,) = program.kernels()
  assert (kernel.name, kernel.flops, kernel.bytes) == ("thin", 4096, 512)
  (exchange,) = program.collectives()
  assert exchange.kind == "reduce-scatter"
  assert exchange.wire_bytes == 64 * 128 * 4 * 3 // 4


def test_dense_arrays_are_recognised_in_any_shape(facts, hlo):
  problem = facts.Problem(96, 40, 2048, 8, data=2, latent=4)

  def found(*shape):
    made = importlib.import_module("hlo_text").Array("f32", shape, 0, shape)
    return problem.forbidden(made)

  assert found(48, 512) == "[B, F]"  # of a shard
  assert found(2048, 96) == "[B, F]"
  assert found(6, 8, 512) == "[B, F]"  # in chunks of rows
  assert found(48, 8, 40) == "[B, K, D]"
  assert found(384, 40) == "[B, K, D]"
  assert found(16, 512) is None  # a chunk of rows
  assert found(48, 40) is None and found(512, 40) is None


def test_weights_are_no_dense_activations_where_b_is_d(facts):
  problem = facts.Problem(64, 64, 512, 4)
  array = importlib.import_module("hlo_text").Array
  assert problem.forbidden(array("f32", (512, 64), 0, (512, 64))) is None
  assert problem.forbidden(array("f32", (64, 512), 0, (64, 512))) == "[B, F]"
