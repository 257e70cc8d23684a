# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Interventions on the residual stream: add, project out, clamp.

N interventions are kept as arrays with a leading axis N, so that each row of a
batch may undergo another one. Padding is never touched, and everything is
computed in f32 and rounded once, to the stream's dtype.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors, lm, sae
from sae_jax import mesh as mesh_lib
from sae_jax.interpret import on_mesh
from sae_jax.intervene import changes

Where = Literal["all", "prompt", "response"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Part:
  """One kind of change at one hook, in N versions.

  `fn(h_BTD, mask_BT, scope, *rows_B, *shared)` is what `lm.Edit` calls.
  """

  hook: str = dataclasses.field(metadata={"static": True})
  fn: Callable[..., jax.Array] = dataclasses.field(metadata={"static": True})
  width: int = dataclasses.field(metadata={"static": True})  # D
  rows: tuple[Any, ...]  # arrays [N, …]
  shared: tuple[changes.Placed, ...] = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Interventions:
  """N interventions; each undergoes all parts, in order."""

  parts: tuple[Part, ...]
  n: int = dataclasses.field(metadata={"static": True})
  where: Where = dataclasses.field(default="all", metadata={"static": True})

  @property
  def hooks(self) -> tuple[str, ...]:
    """The hooks of all parts, in the order in which a pass reaches them."""
    found = {lm.parse_hook(part.hook) for part in self.parts}
    return tuple(h.canonical for h in sorted(found, key=lambda h: h.order))

  def take(self, index_M: Sequence[int] | np.ndarray) -> "Interventions":
    """Some of them, in that order; one may come more than once."""
    index_M = np.arange(self.n)[np.asarray(index_M)]
    parts = tuple(
      dataclasses.replace(part, rows=tuple(x[index_M] for x in part.rows))
      for part in self.parts
    )
    return Interventions(parts, len(index_M), self.where)

  def on(self, model: lm.LanguageModel) -> "Interventions":
    """The same with its dictionaries on the mesh of a model.

    Raises:
      errors.InputError: a hook or width that the model does not have, or a
        dictionary whose latents cannot be split evenly.
    """
    mesh = model.mesh
    for part in self.parts:
      lm.parse_hook(part.hook, model.config.num_layers)
      if part.width != model.config.d_model:
        raise errors.InputError(
          f"interventions of width {part.width} at {part.hook!r}, but"
          f" {model.source} is {model.config.d_model} wide; take vectors of a"
          " dictionary or diff of this model"
        )

    def move(placed: changes.Placed) -> changes.Placed:
      if placed.mesh == mesh:
        return placed
      return changes.Placed(on_mesh.place(placed.dictionary, mesh), mesh)

    parts = tuple(
      dataclasses.replace(part, shared=tuple(map(move, part.shared)))
      for part in self.parts
    )
    return dataclasses.replace(self, parts=parts)

  def lm_edits(
    self,
    row_to_intervention_B: np.ndarray | jax.Array,
    prompt_end_B: np.ndarray | jax.Array | None = None,
  ) -> tuple[lm.Edit, ...]:
    """The edits of a batch in which every row undergoes its intervention.

    Args:
      row_to_intervention_B: int, of each row.
      prompt_end_B: for texts that are there: the slot of each row's first
        response token (padding is on the right). None: for generation.
    """
    row_B = jnp.asarray(row_to_intervention_B, jnp.int32)
    end_B = None if prompt_end_B is None else jnp.asarray(prompt_end_B)
    scope = changes.Scope(
      jnp.asarray(self.where != "response"),
      jnp.asarray(self.where != "prompt"),
      end_B,
    )
    return tuple(
      lm.Edit(
        part.hook,
        part.fn,
        (scope, *(jnp.asarray(x)[row_B] for x in part.rows), *part.shared),
      )
      for part in self.parts
    )


def none(n: int) -> Interventions:
  """N times nothing: the unsteered model."""
  if n < 1:
    raise errors.InputError(f"{n} interventions: give at least 1")
  return Interventions((), n)


def add(
  hook: str, vectors_ND: np.ndarray, where: Where = "all"
) -> Interventions:
  """h + v: steering.

  Args:
    hook: where; the stream (`resid_…`), or what a block adds to it.
    vectors_ND: in the model's own scale.
    where: which tokens.

  Raises:
    errors.InputError: a wrong hook or shape, or numbers that are not finite.
  """
  vectors_ND = _floats("vectors_ND", vectors_ND, 2)
  return _make(hook, where, changes.add, vectors_ND.shape[-1], (vectors_ND,))


def project_out(
  hook: str,
  bases_NRD: np.ndarray,
  where: Where = "all",
  fractions_N: np.ndarray | None = None,
) -> Interventions:
  """h minus its part in a subspace: h − f Σ_r (h · q_r) q_r.

  Args:
    hook: where.
    bases_NRD: vectors that span each subspace, of any lengths and angles; q is
      made orthonormal from them. Zero rows and linearly dependent ones add
      nothing, so that subspaces of several ranks fit in one array.
    where: which tokens.
    fractions_N: f, how much of that part is taken away; None: all of it.

  Raises:
    errors.InputError: a wrong hook or shape, or numbers that are not finite.
  """
  bases_NRD = _floats("bases_NRD", bases_NRD, 3)
  if fractions_N is None:
    fractions_N = np.ones(len(bases_NRD))
  fractions_N = _floats("fractions_N", fractions_N, 1)
  if len(fractions_N) != len(bases_NRD):
    raise errors.InputError(
      f"{len(fractions_N)} fractions for {len(bases_NRD)} subspaces: give one"
      " for each"
    )
  _, size_NR, q_NRD = np.linalg.svd(
    bases_NRD.astype(np.float64), full_matrices=False
  )
  # As np.linalg.matrix_rank, but in the precision that the vectors came in.
  least_N1 = size_NR[:, :1] * max(bases_NRD.shape[1:]) * np.finfo("f4").eps
  q_NRD = np.where((size_NR > least_N1)[..., None], q_NRD, 0)
  rows = (q_NRD.astype(np.float32), fractions_N)
  return _make(hook, where, changes.project_out, q_NRD.shape[-1], rows)


def clamp(
  hook: str,
  dictionary: sae.Sae,
  latents_NL: np.ndarray,
  values_NL: np.ndarray,
  where: Where = "all",
) -> Interventions:
  """h + Σ_l (c_l − a_l) d_l: latents l are held at the values c.

  a_l is the latent's activation among the top k of this very h (0 if it is not
  among them), d_l its decoder row. What the dictionary does not reconstruct
  stays as it is. The value 0 switches a latent off.

  Args:
    hook: where; the one that the dictionary was trained on.
    dictionary: takes raw activations.
    latents_NL: int; −1 fills up rows with fewer latents.
    values_NL: activations to hold them at.
    where: which tokens.

  Raises:
    errors.InputError: a wrong hook or shape, no such latent, one that comes
      twice in a row, or numbers that are not finite.
  """
  values_NL = _floats("values_NL", values_NL, 2)
  latents_NL = np.asarray(latents_NL)
  if latents_NL.shape != values_NL.shape:
    raise errors.InputError(
      f"latents_NL of shape {latents_NL.shape} and values_NL of shape"
      f" {values_NL.shape}: they have to be the same"
    )
  if not np.issubdtype(latents_NL.dtype, np.integer):
    raise errors.InputError(
      f"latents_NL are of dtype {latents_NL.dtype}; give integers"
    )
  outside = latents_NL[(latents_NL < -1) | (latents_NL >= dictionary.latents)]
  if outside.size:
    raise errors.InputError(
      f"latent {outside[0]} does not exist; this dictionary has 0 to"
      f" {dictionary.latents - 1} (and -1 stands for none)"
    )
  sorted_NL = np.sort(latents_NL, axis=1)
  twice = (sorted_NL[:, 1:] == sorted_NL[:, :-1]) & (sorted_NL[:, 1:] >= 0)
  if twice.any():
    row, at = np.argwhere(twice)[0]
    raise errors.InputError(
      f"intervention {row} clamps latent {sorted_NL[row, at]} twice"
    )
  chosen, where_chosen = np.unique(latents_NL, return_inverse=True)
  rows_XD = np.asarray(dictionary.params.w_dec_FD[np.maximum(chosen, 0)])
  d_NLD = rows_XD.astype(np.float32)[where_chosen.reshape(latents_NL.shape)]
  d_NLD = np.where((latents_NL >= 0)[..., None], d_NLD, 0)
  one = mesh_lib.single()
  return _make(
    hook,
    where,
    changes.clamp,
    dictionary.d_model,
    (latents_NL.astype(np.int32), values_NL, d_NLD),
    (changes.Placed(on_mesh.place(dictionary, one), one),),
  )


def combine(*interventions: Interventions) -> Interventions:
  """Several changes at once: intervention i undergoes the i-th of each.

  Raises:
    errors.InputError: different numbers of interventions, or different tokens.
  """
  sizes = sorted({some.n for some in interventions})
  if len(sizes) != 1:
    raise errors.InputError(
      f"sets of {', '.join(map(str, sizes)) or 'no'} interventions; combine one"
      " or more sets of equal size"
    )
  wheres = sorted({some.where for some in interventions if some.parts})
  if len(wheres) > 1:
    raise errors.InputError(
      f"interventions on {' and '.join(wheres)} tokens; combine such with the"
      " same where="
    )
  parts = tuple(part for some in interventions for part in some.parts)
  where = wheres[0] if wheres else interventions[0].where
  return Interventions(parts, sizes[0], where)


def _make(hook, where, fn, width, rows, shared=()) -> Interventions:
  if where not in get_args(Where):
    raise errors.InputError(
      f"where={where!r}: choose one of {', '.join(get_args(Where))}"
    )
  part = Part(lm.parse_hook(hook).canonical, fn, width, rows, shared)
  return Interventions((part,), len(rows[0]), where)


def _floats(name: str, x: np.ndarray, rank: int) -> np.ndarray:
  x = np.asarray(x, np.float32)
  if x.ndim != rank or not x.size:
    raise errors.InputError(
      f"{name} is of shape {x.shape}: give {rank} axes, none of them empty"
    )
  bad = np.argwhere(~np.isfinite(x))
  if len(bad):
    raise errors.InputError(f"{name}: intervention {bad[0][0]} is not finite")
  return x
