# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Two dictionaries that were trained apart: which latents have a partner.

Decoder rows are compared by cosine, a block of rows against all of the other
dictionary at a time on the devices that hold it; [F, F] is never made, but for
the exact assignment of small dictionaries.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from sae_jax import errors, formats, sae
from sae_jax.diff import assignment, table
from sae_jax.diff import config as config_lib
from sae_jax.diff import problem as problem_lib

METHOD, PARTNER = "match", "partner"

# 4,096² cosines are 128 MiB in float64, assigned in seconds.
EXACT_LATENTS = 4096
_NULL_ROWS = 4096  # rotated rows that the chance band is of
_CHANCE = 0.99  # quantile of the best cosines with a rotated dictionary
_LISTED = 100  # latents of the other dictionary in the summary
# Paulo & Belrose (2025, arXiv 2501.16615) call latents shared from 0.7 on.
_THRESHOLDS = (0.5, 0.7, 0.9)


@dataclasses.dataclass(frozen=True)
class Matching:
  """How two dictionaries correspond.

  Attributes:
    ours: nearest of the other for each of our latents; theirs: the reverse.
    partner_F: one-to-one partner, -1 where there is none.
    partner_cos_F: cosine with it, NaN where there is none.
    mutual_F: whether a latent and its nearest are each other's nearest.
    exact: whether the assignment has the largest sum of cosines there is.
  """

  ours: assignment.Nearest
  theirs: assignment.Nearest
  partner_F: np.ndarray
  partner_cos_F: np.ndarray
  mutual_F: np.ndarray
  exact: bool


def names(config: config_lib.DiffConfig) -> list[tuple[str, str]]:
  """The one part that `run` yields."""
  del config
  return [(METHOD, PARTNER)]


def run(
  problem: problem_lib.Problem, skip: frozenset[tuple[str, str]] = frozenset()
) -> Iterator[table.Part]:
  """Matches the diff's dictionary with the one that `config.match` names.

  The score is 1 − the best cosine. A latent has `changed` if its best cosine is
  within what a randomly rotated copy of the other dictionary reaches in 99 % of
  latents: it has no partner. The summary lists the latents of the other
  dictionary that have none here.

  Raises:
    errors.InputError: the two are of different widths.
  """
  if (METHOD, PARTNER) in skip:
    return
  other = formats.load_sae(problem.config.match)
  ours = problem.dictionary
  if ours.d_model != other.d_model:
    raise errors.InputError(
      f"match={problem.config.match} takes activations of width"
      f" {other.d_model}, but sae={problem.config.sae} of {ours.d_model}; match"
      " dictionaries of one hook"
    )
  calls = assignment.calls(ours.latents) + assignment.calls(other.latents)
  bar = problem.progress(calls, "blocks of rows matched")
  found = match(ours, other, problem.mesh, progress=bar.update)
  bar.close()
  seed = problem.config.statistics.seed
  bands = (
    chance(ours, other, problem.mesh, seed),
    chance(other, ours, problem.mesh, seed),
  )
  yield _part(problem, other, found, bands)


def match(
  ours: sae.Sae,
  other: sae.Sae,
  mesh: jax.sharding.Mesh,
  *,
  exact_latents: int = EXACT_LATENTS,
  progress=lambda done: None,
) -> Matching:
  """Nearest both ways, and an assignment of one to one.

  The assignment is exact up to `exact_latents`. Beyond, the pairs among each
  latent's 16 nearest, both ways, are taken by falling cosine while both are
  free: what is left over then has no partner.
  """
  a_FD, b_GD = (np.asarray(s.params.w_dec_FD) for s in (ours, other))
  mine = assignment.nearest(a_FD, b_GD, mesh, progress=progress)
  calls = assignment.calls(len(a_FD))
  theirs = assignment.nearest(
    b_GD, a_FD, mesh, progress=lambda done: progress(calls + done)
  )
  exact = max(len(a_FD), len(b_GD)) <= exact_latents
  if exact:
    partner_F, cos_F = assignment.exact(a_FD, b_GD)
  else:
    partner_F, cos_F = assignment.greedy(mine, theirs)
  first_F = mine.ids_FC[:, 0]
  mutual_F = theirs.ids_FC[first_F, 0] == np.arange(len(a_FD))
  return Matching(mine, theirs, partner_F, cos_F, mutual_F, exact)


def chance(
  ours: sae.Sae, other: sae.Sae, mesh: jax.sharding.Mesh, seed: int
) -> float:
  """The best cosine that 99 % of our latents would stay below if the other
  dictionary were turned at random, as a whole (its own geometry is kept)."""
  rows_FD = np.asarray(ours.params.w_dec_FD, np.float64)
  rng = np.random.default_rng(seed)
  if len(rows_FD) > _NULL_ROWS:
    chosen_N = np.sort(rng.permutation(len(rows_FD))[:_NULL_ROWS])
    rows_FD = rows_FD[chosen_N]
  d_model = rows_FD.shape[1]
  q_DD, r_DD = np.linalg.qr(rng.standard_normal((d_model, d_model)))
  turned_FD = rows_FD @ (q_DD * np.sign(np.diag(r_DD))[None, :])  # Haar
  other_GD = np.asarray(other.params.w_dec_FD)
  found = assignment.nearest(turned_FD, other_GD, mesh, count=1)
  return float(np.quantile(found.cos_FC[:, 0], _CHANCE))


def _part(
  problem: problem_lib.Problem,
  other: sae.Sae,
  found: Matching,
  bands: tuple[float, float],
) -> table.Part:
  best_F = found.ours.cos_FC[:, 0]
  alone_F = best_F <= bands[0]
  theirs = found.theirs.cos_FC[:, 0]
  alone_N = np.flatnonzero(theirs <= bands[1])
  listed_N = alone_N[np.argsort(theirs[alone_N], kind="stable")][:_LISTED]
  how = (
    "exact: the largest sum of cosines"
    if found.exact
    else f"greedy among the {found.ours.cos_FC.shape[1]} nearest of each latent"
  )
  norms_F = np.linalg.norm(problem.dictionary.params.w_dec_FD, axis=1)
  return table.Part(
    method=METHOD,
    arm=PARTNER,
    columns={
      "score": 1 - best_F,
      "changed": alone_F,
      "partner": found.partner_F,
      "partner_cos": found.partner_cos_F,
      "mutual": found.mutual_F,
      "decoder_norm": norms_F,
    },
    summary={
      "other": problem.config.match,
      "other_latents": other.latents,
      "assignment": how,
      "assigned": int((found.partner_F >= 0).sum()),
      "mutual": int(found.mutual_F.sum()),
      "best_cosine": _quantiles(best_F),
      "best_cosine_of_other": _quantiles(theirs),
      "shared": {
        str(t): int((np.nan_to_num(found.partner_cos_F) >= t).sum())
        for t in _THRESHOLDS
      },
      "chance_cosine": bands[0],
      "without_partner": int(alone_F.sum()),
      "other_chance_cosine": bands[1],
      "other_without_partner": len(alone_N),
      "other_without_partner_first": [
        {"latent": int(i), "best_cosine": float(theirs[i])} for i in listed_N
      ],
      "warnings": _warnings(problem, other),
    },
  )


def _warnings(problem: problem_lib.Problem, other: sae.Sae) -> list[str]:
  hooks = [s.metadata.get("hook_name") for s in (problem.dictionary, other)]
  if all(hooks) and hooks[0] != hooks[1]:
    return [
      f"the dictionaries are of different hooks, {hooks[0]} and {hooks[1]}:"
      " their decoder rows need not mean the same"
    ]
  return []


def _quantiles(values_F: np.ndarray) -> dict[str, Any]:
  return {
    "mean": float(values_F.mean()),
    "quantiles": {
      str(p): float(np.quantile(values_F, p)) for p in (0.01, 0.1, 0.5, 0.9)
    },
  }
