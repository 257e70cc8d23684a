# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A look at rows that are never trained on, during training.

A fixed, small set of held-out rows stays on the devices; the numbers are for
the training curve. The evaluation job measures all held-out rows.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sae_jax import sae, store
from sae_jax.sae import at_threshold, init, treatment
from sae_jax.train import config as config_lib
from sae_jax.train import objective
from sae_jax.train import state as state_lib

_BATCHES = 4

Look = Callable[[state_lib.Trained], dict[str, jax.Array]]


def rows(
  config: config_lib.TrainConfig,
  source: store.Store,
  hook: str,
  chunks: range,
  mesh: jax.sharding.Mesh,
) -> jax.Array | None:
  """x_NBD on the devices, raw: N batches of a hook's held-out rows.

  None where there are none, or fewer than data shards.
  """
  batch, data = config.stream.batch_size, mesh.shape["data"]
  if not len(chunks):
    return None
  needed = -(-_BATCHES * batch // source.read_rows)
  rows_ND = np.concatenate(source.read_chunks(hook, list(chunks[:needed])))
  batch = min(batch, len(rows_ND) // data * data)
  if not batch:
    return None
  count = min(_BATCHES, len(rows_ND) // batch)
  rows_NBD = rows_ND[: count * batch].reshape(count, batch, -1)
  sharding = jax.NamedSharding(mesh, jax.P(None, "data", None))
  return jax.make_array_from_callback(
    rows_NBD.shape, sharding, lambda index: rows_NBD[index]
  )


def make_look(
  config: sae.SaeConfig,
  x_NBD: jax.Array | None,
  mesh: jax.sharding.Mesh,
  target_NBE: jax.Array | None = None,
) -> Look:
  """Returns `look(trained) -> {"eval/fvu", "eval/l0"}` on `rows`.

  `eval/fvu` is the mean over batches of Σ‖ŷ − y‖² / Σ‖y − ȳ‖² with a
  transcoder's targets y, and else y = x; of a crosscoder `eval/fvu_M` is that
  of its source M. Without rows the look is {}.
  """
  if x_NBD is None:
    return lambda part: {}
  d_out = None if target_NBE is None else target_NBE.shape[2]
  measure = _sharded_measure(config, mesh, x_NBD.shape[2], d_out)

  @functools.partial(jax.jit, out_shardings=jax.NamedSharding(mesh, jax.P()))
  def look(part, rows):
    def one(rows):
      x_BD, target_BE = rows
      x_BD = treatment.apply(part.inputs, x_BD)
      if target_BE is not None:
        target_BE = treatment.apply(part.outputs, target_BE)
      return measure(part.params, x_BD, target_BE, part.threshold)

    found = lax.map(one, rows)
    return {name: jnp.mean(each_N) for name, each_N in found.items()}

  return lambda part: look(part, (x_NBD, target_NBE))


def _sharded_measure(config, mesh, d_model, d_out) -> Callable[..., Any]:
  """`(params, x_BD, target_BE, threshold) -> scalars`, on the mesh, no AuxK.

  Of BatchTopK by its threshold, as the dictionary is used afterwards.
  """
  config = dataclasses.replace(config, aux_coefficient=0.0, recall_target=None)
  spec: Any = objective.loss_spec(config, mesh, d_model, centred=d_out is None)
  loss_and_grads = objective.loss_and_grads(config)

  def measure(params, x_BD, target_BE, threshold):
    report: Any
    if threshold is None:
      nothing_dead_F = jnp.zeros((params.latents,), bool)
      _, report, _ = loss_and_grads(
        params,
        x_BD,
        nothing_dead_F,
        jnp.float32(1),
        spec,
        target_BE=target_BE,
      )
    else:
      report = at_threshold.measure(params, x_BD, target_BE, threshold, spec)
    found = {"eval/fvu": report.fvu, "eval/l0": report.l0}
    for source in range(config.sources if config.sources > 1 else 0):
      found[f"eval/fvu_{source}"] = report.fvu_M[source]
    return found

  params = state_lib.abstract_params(config, d_model, d_out)
  by_params = jax.tree.map(lambda s: s.spec, init.params_sharding(mesh, params))
  by_row = jax.P("data", None)
  return jax.shard_map(
    measure,
    mesh=mesh,
    in_specs=(by_params, by_row, by_row, jax.P()),
    out_specs=jax.P(),
    check_vma=False,
  )
