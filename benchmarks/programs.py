# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The programs that `aot.py` compiles: the training step, and each op alone.

Runs in a process that `aot.py` starts, after XLA_FLAGS were set.
"""

import pathlib
import time
from typing import Any

import child
import facts
import hlo
import targets  # before jax: it sets what libtpu reads

import jax  # isort: skip
import jax.numpy as jnp  # isort: skip

from sae_jax import sae
from sae_jax.ops import dispatch
from sae_jax.ops.pair_grads import api as pair_grads_api
from sae_jax.ops.sparse_decode import api as sparse_decode_api
from sae_jax.ops.sphere_adam import api as sphere_adam_api
from sae_jax.ops.topk_encode import api as topk_encode_api
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib

_STEPS = 10_000  # nominal length of the run; only schedules see it


def compile_and_read(
  case: dict[str, Any], directory: pathlib.Path
) -> list[dict[str, Any]]:
  """Compiles a case of `aot.py` and says what each of its programs does.

  Args:
    case: topology, mesh sizes, shapes, ops (None: the step), implementation.
    directory: where XLA_FLAGS has the compiler put its dumps.
  """
  reason = targets.missing(case["platform"])
  if reason:
    raise SystemExit(reason)
  described = targets.devices(case["platform"], case["topology"])
  device = described.devices[0]
  mesh = targets.mesh(described, case["data"], case["latent"])
  problem = facts.Problem(
    **{
      name: case[name]
      for name in ("batch", "d_model", "latents", "k", "data", "latent")
    }
  )
  implementation = case["implementation"] or dispatch.for_platform(
    device.platform
  )
  results = []
  for op in case["ops"] or (None,):
    started = time.process_time()
    with dispatch.compiled_kernels(device):
      if op is None:
        lowered = _lower_step(problem, mesh, implementation, case["no_auxk"])
      else:
        lowered = _lower_op(op, problem, mesh, implementation)
      compiled = lowered.compile()
    seconds = time.process_time() - started
    program = hlo.Program(
      child.newest_dump(directory, "after_optimizations.txt")
    )
    assignment = child.newest_dump(directory, "buffer-assignment.txt")
    results.append(
      {
        "case": case,
        "op": op,
        "device": device.device_kind,
        "implementation": implementation,
        "compile_s": seconds,
        "memory": facts.memory(compiled),
        "temporaries": facts.temporaries(assignment, program),
      }
      | facts.of_program(program, problem)
    )
  return results


def _lower_step(problem, mesh, implementation, no_auxk) -> jax.stages.Lowered:
  config = sae.SaeConfig(
    latents=problem.latents,
    k=problem.k,
    **({"aux_coefficient": 0.0} if no_auxk else {}),
  )
  optimizer_config = optimizer_lib.OptimizerConfig()
  optimizer = optimizer_lib.make_optimizer(
    optimizer_config, latents=problem.latents, steps=_STEPS
  )
  state = state_lib.abstract_state(config, optimizer, problem.d_model, mesh)
  rows = jax.ShapeDtypeStruct(
    (problem.batch, problem.d_model),
    jnp.bfloat16,
    sharding=jax.NamedSharding(mesh, jax.P("data", None)),
  )
  train_step = step_lib.make_train_step(
    config,
    optimizer_config,
    mesh,
    d_model=problem.d_model,
    steps=_STEPS,
    implementation=implementation,
  )
  return train_step.lower(state, rows)


def _lower_op(op, problem, mesh, implementation) -> jax.stages.Lowered:
  """One op on one device, with bfloat16 products as in training."""
  b, d, f, k = problem.batch, problem.d_model, problem.latents, problem.k
  how = {"implementation": implementation}
  replicated = jax.NamedSharding(mesh, jax.P())

  def array(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=replicated)

  values, indices = array(jnp.float32, b, k), array(jnp.int32, b, k)
  rows, matrix = array(jnp.float32, b, d), array(jnp.float32, f, d)
  number, count = array(jnp.float32), array(jnp.int32)
  ops = {
    "topk_encode": (
      lambda x, w, bias: topk_encode_api.topk_candidates(x, w, bias, k, **how),
      (
        array(jnp.bfloat16, b, d),
        array(jnp.bfloat16, f, d),
        array(jnp.float32, f),
      ),
    ),
    "sparse_decode": (
      lambda *arrays: sparse_decode_api.sparse_decode(*arrays, **how),
      (values, indices, matrix),
    ),
    "row_dots": (
      lambda *arrays: sparse_decode_api.row_dots(*arrays, **how),
      (rows, indices, matrix),
    ),
    "pair_grads": (
      lambda *arrays: pair_grads_api.pair_grads(*arrays, f, **how),
      (values, indices, rows),
    ),
    "sphere_adam": (
      lambda *arrays: sphere_adam_api.sphere_adam(*arrays, **how),
      (matrix, matrix, matrix, matrix, number, count),
    ),
  }
  if op not in ops:
    raise SystemExit(f"there is no op {op!r} to compile; choose from {[*ops]}")
  run, arrays = ops[op]
  # Parameters and moments are updated in place, as in the step.
  donated = (0, 2, 3) if op == "sphere_adam" else ()
  return jax.jit(run, out_shardings=replicated, donate_argnums=donated).lower(
    *arrays
  )
