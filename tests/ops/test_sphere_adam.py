# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""sphere_adam against float64 numpy, with an error bound for every element."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, ops
from sae_jax.ops import tpu_chips
from sae_jax.ops.sphere_adam import cpu, pallas_tpu

MANY_BLOCKS = (75, 5120)  # and rows left over, on the CPU and on TPUs
CASES = [
  ("reference", (13, 7)),
  ("xla", (13, 7)),
  ("cpu", (13, 7)),
  ("cpu", MANY_BLOCKS),
  ("pallas_tpu", (13, 7)),  # rows that are not whole registers
  ("pallas_tpu", (13, 128)),
  ("pallas_tpu", MANY_BLOCKS),
]
KERNELS = ["cpu", "pallas_tpu"]
EPS = 2**-23
B1, B2, ADAM_EPS, RATE = 0.9, 0.999, 1e-8, 1e-2


def _arrays(rows, d_model, *, first, unit_rows, seed=0):
  """Float32 row, gradient, mu, nu: a zero gradient row, tiny and huge ones."""
  rng = np.random.default_rng(seed)
  row_FD = rng.normal(size=(rows, d_model))
  if unit_rows:
    row_FD /= np.linalg.norm(row_FD, axis=1, keepdims=True)
    row_FD[4] *= 1e-6  # comes back to the sphere
  grad_FD = 1e-3 * rng.normal(size=(rows, d_model))
  grad_FD[1] = 0
  grad_FD[2] *= 1e-9  # far below eps
  grad_FD[3] *= 1e9
  size_F1 = np.abs(grad_FD).max(1, keepdims=True)
  mu_FD = 0.1 * size_F1 * rng.normal(size=(rows, d_model))
  nu_FD = 0.1 * (size_F1 * rng.random((rows, d_model))) ** 2
  if first:
    mu_FD, nu_FD = 0 * mu_FD, 0 * nu_FD
  return [a.astype(np.float32) for a in (row_FD, grad_FD, mu_FD, nu_FD)]


def _expected(row, grad, mu, nu, count, unit_rows):
  """Row, mu, nu in float64, and a bound of the float32 error of each.

  `e` is the error so far of what it follows. A float32 sum of n products is
  within n · eps · Σ|a||b|; every other operation adds eps times its result.
  """
  # Float32 bias corrections, as 1 − 0.999 loses four digits there.
  c1, c2 = (float(1 - b ** jnp.int32(count)) for b in (B1, B2))
  row, grad, mu, nu = (a.astype(np.float64) for a in (row, grad, mu, nu))
  n = row.shape[1] + 6
  e = np.zeros_like(grad)
  if unit_rows:
    square = (row**2).sum(1, keepdims=True)
    along = (grad * row).sum(1, keepdims=True) / square
    size = np.abs(grad * row).sum(1, keepdims=True) / square
    grad = grad - along * row
    e = 2 * n * EPS * size * np.abs(row) + EPS * np.abs(grad)
  e_mu = (1 - B1) * (e + 3 * EPS * np.abs(grad)) + 2 * EPS * np.abs(B1 * mu)
  e_nu = (1 - B2) * (2 * np.abs(grad) * e + e**2)
  mu, nu = (1 - B1) * grad + B1 * mu, (1 - B2) * grad**2 + B2 * nu
  e_mu, e_nu = e_mu + EPS * np.abs(mu), e_nu + 4 * EPS * nu
  root = np.sqrt(nu / c2) + ADAM_EPS
  # sqrt(a + b) − sqrt(a) is less than b / sqrt(a + b).
  e = e_nu / np.sqrt(np.maximum(nu + e_nu, 1e-60) * c2) + 5 * EPS * root
  step = RATE * mu / c1 / root
  e = RATE * e_mu / c1 / root + np.abs(step) * (e / root + 8 * EPS)
  row = row - step
  e = 2 * e + EPS * np.abs(row)
  if unit_rows:
    norm = np.linalg.norm(row, axis=1, keepdims=True)
    drift = (np.abs(row) * e).sum(1, keepdims=True) / norm**2
    row, e = row / norm, e / norm
    e = 2 * (e + np.abs(row) * drift) + n * EPS * np.abs(row)
  tiny = 2.0**-126  # below it, float32 counts in steps or not at all
  return (row, mu, nu), (e + tiny, e_mu + tiny, e_nu + tiny)


@functools.partial(jax.jit, static_argnames=("unit_rows", "implementation"))
def _run(row, grad, mu, nu, rate, count, scale=1.0, square=0.0, **how):
  constants = {"b1": B1, "b2": B2, "eps": ADAM_EPS}
  return ops.sphere_adam(
    row, grad, mu, nu, rate, count, scale, square, **constants, **how
  )


@pytest.mark.parametrize("unit_rows", [False, True])
@pytest.mark.parametrize(("implementation", "shape"), CASES)
def test_a_step_is_right(implementation, shape, unit_rows):
  for count in (1, 9):
    old = _arrays(*shape, first=count == 1, unit_rows=unit_rows)
    square = (old[1].astype(np.float64) ** 2).sum()
    scale = 8.0 if count == 9 else 1.0  # a power of two rounds nothing
    moved = _run(
      *old,
      RATE,
      count,
      scale,
      square,
      unit_rows=unit_rows,
      implementation=implementation,
    )
    row, grad, *moments = old
    expected, bounds = _expected(row, scale * grad, *moments, count, unit_rows)
    found = (moved.row_FD, moved.mu_FD, moved.nu_FD)
    for name, f, e, bound in zip(
      ("row", "mu", "nu"), found, expected, bounds, strict=True
    ):
      assert f.dtype == jnp.float32
      ratio = np.abs(np.asarray(f, np.float64) - e) / bound
      assert ratio.max() <= 1, (name, count, ratio.max())
    # Terms of one sign, added in any order: sqrt(n) · eps.
    np.testing.assert_allclose(
      moved.grad_square, 2 * square, rtol=np.sqrt(old[1].size) * EPS
    )


def test_the_shapes_have_blocks_and_rows_left_over():
  rows, d_model = MANY_BLOCKS
  blocks = [
    cpu.block_rows(rows, 4 * d_model),
    *(pallas_tpu.block_rows(c, rows, d_model)[0] for c in tpu_chips.CHIPS),
  ]
  assert all(rows > size and rows % size for size in blocks)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("implementation", KERNELS)
def test_what_is_not_finite_stays_in_its_row_and_shows(implementation, bad):
  old = _arrays(13, 128, first=False, unit_rows=True)
  how = {"unit_rows": True, "implementation": implementation}
  clean = _run(*old, RATE, 3, **how)
  old[1][5, 2] = bad
  moved = _run(*old, RATE, 3, **how)
  assert np.isnan(moved.row_FD[5]).all()
  assert not np.isfinite(moved.nu_FD[5]).any()
  assert not np.isfinite(moved.grad_square)
  others = np.arange(13) != 5
  for name in ("row_FD", "mu_FD", "nu_FD"):
    np.testing.assert_array_equal(
      getattr(moved, name)[others], getattr(clean, name)[others]
    )


def test_a_rate_that_is_not_finite_shows():
  old = _arrays(13, 128, first=False, unit_rows=True)
  moved = _run(*old, np.nan, 3, unit_rows=True, implementation="cpu")
  assert np.isnan(moved.row_FD).all()


@pytest.mark.parametrize("implementation", KERNELS)
def test_stacked_steps_are_separate_steps(implementation):
  stack = [
    _arrays(13, 128, first=False, unit_rows=True, seed=s) for s in range(3)
  ]
  rates = np.array([1e-2, 1e-3, 0], np.float32)
  run = functools.partial(_run, unit_rows=True, implementation=implementation)
  together = jax.vmap(run, in_axes=(0, 0, 0, 0, 0, None))(
    *map(np.stack, zip(*stack, strict=True)), rates, 3
  )
  for i, (old, rate) in enumerate(zip(stack, rates, strict=True)):
    alone = run(*old, rate, 3)
    for name in ("row_FD", "mu_FD", "nu_FD"):
      found, expected = getattr(together, name)[i], getattr(alone, name)
      # Other orders of D = 128 terms: n · eps.
      np.testing.assert_allclose(
        found, expected, rtol=0, atol=128 * EPS * np.abs(expected).max()
      )


@pytest.fixture
def optimised():
  """Compiles as users do, also in the fast subset."""
  before = jax.config.read("jax_disable_most_optimizations")
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.parametrize(("rows", "unit_rows"), [(4096, True), (4099, False)])
def test_the_cpu_works_in_place(optimised, unit_rows, rows):
  def run(row_FD, mu_FD, nu_FD, grad_FD, rate, count, x_F):
    # As in a training step, something else reads the rows.
    square = jnp.sum((x_F @ row_FD) ** 2)
    return ops.sphere_adam(
      *(row_FD, grad_FD, mu_FD, nu_FD, rate, count, 1.0, square),
      unit_rows=unit_rows,
      implementation="cpu",
    )

  matrix = jax.ShapeDtypeStruct((rows, 256), jnp.float32)
  scalar, x_F = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((), (rows,)))
  count = jax.ShapeDtypeStruct((), jnp.int32)
  compiled = (
    jax.jit(run, donate_argnums=(0, 1, 2))
    .lower(*[matrix] * 4, scalar, count, x_F)
    .compile()
  )
  memory = compiled.memory_analysis()
  assert memory.alias_size_in_bytes >= 3 * rows * 256 * 4
  # A few blocks; a copy of one matrix is 4 MiB.
  assert memory.temp_size_in_bytes < 1 << 20


def test_what_does_not_fit_is_named():
  old = _arrays(13, 7, first=True, unit_rows=True)
  with pytest.raises(errors.InputError, match=r"grad float32\[13, 6\]"):
    ops.sphere_adam(old[0], old[1][:, :6], *old[2:], RATE, 1)
  with pytest.raises(errors.InputError, match=r"mu float16"):
    ops.sphere_adam(*old[:2], old[2].astype(np.float16), old[3], RATE, 1)
  with pytest.raises(errors.InputError, match="implementation='fast'"):
    ops.sphere_adam(*old, RATE, 1, implementation="fast")
