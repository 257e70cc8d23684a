# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a crosscoder's latents and two models' rows have to do with each other.

Reads the joined rows of one name of the evidence. Sums are float32 on the
devices for a few batches, then float64; an unfinished pass is kept in
`problem.work`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sae_jax import errors, ops, sae
from sae_jax.diff import dictionary_pass
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import on_mesh

_FOLD = 8  # batches between two additions to the host's float64 sums
_SUMS = 3 + 2 * 2 * 2  # per latent: of f; by target, block and model


@dataclasses.dataclass(frozen=True)
class Sums:
  """Sums over rows in scope; M = 2 models, and as many decoder blocks S.

  Attributes:
    fires_F: rows on which the latent is active.
    value_F: its activations f; square_F: f².
    along_x_SMF: f times the product of its decoder block S and the activation
      of model M without the decoder's bias; along_r_SMF: and the reconstruction
      without it.
    square_MG: squared norms of the model's activations, by group.
    error_MG: squared errors of its reconstruction.
  """

  fires_F: np.ndarray
  value_F: np.ndarray
  square_F: np.ndarray
  along_x_SMF: np.ndarray
  along_r_SMF: np.ndarray
  square_MG: np.ndarray
  error_MG: np.ndarray


def measure(problem: problem_lib.Problem, name: str) -> Sums:
  """One pass over the joined rows called `name`.

  Args:
    problem: its dictionary is a crosscoder of two sources, base and tuned.
    name: of the evidence.

  Raises:
    errors.InputError: a row or an activation is not finite.
  """
  return dictionary_pass.run(
    problem,
    name,
    problem.work / f"scaling.{name}.npz",
    _nothing(problem.evidence.groups, problem.dictionary.latents),
    local=_local,
    per_latent=(_SUMS,),
    fold=_FOLD,
    add_rows=functools.partial(
      _add_rows, source=problem.evidence.store(name).path
    ),
    add_latents=_add_latents,
  )


def _nothing(groups: int, latents: int) -> Sums:
  sizes = {"F": (latents,), "SMF": (2, 2, latents), "MG": (2, groups)}
  return Sums(
    **{
      f.name: np.zeros(sizes[f.name.rpartition("_")[2]])
      for f in dataclasses.fields(Sums)
    }
  )


def _add_rows(
  found: Sums, by_row_4B: jax.Array, groups: jax.Array, *, source: str
) -> None:
  values_4B = np.asarray(by_row_4B, np.float64)
  group_B = np.asarray(groups)
  inside_B = group_B >= 0
  if not np.isfinite(values_4B[:, inside_B]).all():
    raise errors.InputError(
      f"{source}: what the crosscoder makes of its rows is not finite; run"
      " `sae-jax verify` on the stores, or, where a row may have more active"
      " latents than the crosscoder's k, give it a larger one"
    )
  for m in range(2):
    np.add.at(found.square_MG[m], group_B[inside_B], values_4B[m, inside_B])
    np.add.at(found.error_MG[m], group_B[inside_B], values_4B[2 + m, inside_B])


def _add_latents(found: Sums, sums_NF: np.ndarray) -> None:
  fires_F, value_F, square_F, *along = sums_NF
  found.fires_F[:] += fires_F
  found.value_F[:] += value_F
  found.square_F[:] += square_F
  found.along_x_SMF[:] += np.reshape(along[:4], (2, 2, -1))
  found.along_r_SMF[:] += np.reshape(along[4:], (2, 2, -1))


def _local(sums_LNF, shard: sae.Sae, x_BD, group_B):
  inside_B1 = group_B[:, None] >= 0
  values_BK, indices_BK = on_mesh.active(shard, x_BD)
  values_BK = jnp.where(inside_B1, values_BK, 0)
  x_BD = jnp.where(inside_B1, x_BD.astype(jnp.float32), 0)
  w_dec_FD = shard.params.w_dec_FD
  made_BD = lax.psum(
    ops.sparse_decode(values_BK, indices_BK, w_dec_FD), "latent"
  )
  pure_BD = jnp.where(inside_B1, x_BD - shard.params.b_dec_D[None, :], 0)
  along = []
  for target_BD in (pure_BD, made_BD):
    for block_Fd in _halves(w_dec_FD):
      # The products of active latents' blocks with a vector are the gradient
      # of the decoder's output with respect to their values.
      def decode(values_BK, block_Fd=block_Fd):
        return ops.sparse_decode(values_BK, indices_BK, block_Fd)

      _, pull = jax.vjp(decode, values_BK)
      along += [values_BK * pull(y_Bd)[0] for y_Bd in _halves(target_BD)]
  active_BK = (values_BK > 0).astype(jnp.float32)
  terms_NBK = jnp.stack([active_BK, values_BK, values_BK**2, *along])
  sums_LNF = sums_LNF.at[0, :, indices_BK].add(jnp.moveaxis(terms_NBK, 0, 2))
  squares = [
    jnp.sum(y_Bd**2, axis=1)
    for y_BD in (x_BD, made_BD - pure_BD)
    for y_Bd in _halves(y_BD)
  ]
  return sums_LNF, jnp.stack(squares)


def _halves(x_ND):
  return jnp.split(x_ND, 2, axis=1)
