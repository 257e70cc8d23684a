# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One dictionary over both models: whose are its latents?

A crosscoder is trained on paired stores, base first (`paired` in a train
config). A latent whose decoder block for one model is (nearly) zero is that
model's own, if Latent Scaling says so too: sparsity alone makes such blocks as
well (Lindsey et al. 2024; Minder et al. 2025, arXiv:2504.02922). Here it reads
the diff's own evidence.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from sae_jax import formats, sae, store
from sae_jax.diff import config as config_lib
from sae_jax.diff import (
  crosscoder_origin,
  delta_fit,
  latent_scaling,
  paired_sums,
  patching,
  sums,
  table,
)
from sae_jax.diff import problem as problem_lib

METHOD = "crosscoder"
_MODELS = ("base", "tuned")
# Suffix of the columns -> what a latent is fitted to.
_TARGETS = {"": "activation", "_r": "reconstruction", "_e": "error"}
_DIRECTIONS = 8  # decoder blocks that are kept
_RANDOM = 3  # random sets of latents that patching is judged against
_SIGN = (
  "delta_norm = (1 + (‖d_tuned‖ − ‖d_base‖) / max) / 2: 0 is base only, 1 is"
  " tuned only. Rows of both models are scaled to one mean square norm first."
  " nu = β of the other model / β of the latent's own side; small is exclusive."
)
_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


def names(config: config_lib.DiffConfig) -> list[tuple[str, str]]:
  """The parts that `run` yields: one per tuned arm.

  Raises:
    errors.InputError: there is not one crosscoder per tuned arm.
  """
  return [(METHOD, arm.name) for arm, _ in config.of_tuned("crosscoder")]


def run(
  problem: problem_lib.Problem, skip: frozenset[tuple[str, str]] = frozenset()
) -> Iterator[table.Part]:
  """Relative decoder norms of each arm's crosscoder, and what backs them.

  The score is (2 Δnorm − 1) · (1 − max(ν_r, ν_ε)), the latter within [0, 1]:
  1 for a latent of the tuned model alone, −1 for one of the base alone, 0 for
  one that both have or that never fires. `changed` are those that pass
  `latent_scaling.exclusive`.

  Raises:
    errors.InputError: a dictionary that is no crosscoder of base and arm.
  """
  for arm, path in problem.config.of_tuned("crosscoder"):
    if (METHOD, arm.name) not in skip:
      yield part(problem, arm, path)


def part(
  problem: problem_lib.Problem, arm: config_lib.Arm, path: str
) -> table.Part:
  """One arm with the crosscoder in `path`."""
  crosscoder = formats.load_sae(path)
  same_rows = crosscoder_origin.check(problem, arm, path, crosscoder)
  view = _joined(problem, arm, crosscoder)
  found = paired_sums.measure(view, arm.name)
  rows = problem.evidence.rows
  w_dec_FD = np.asarray(crosscoder.params.w_dec_FD)
  b_dec_D = np.asarray(crosscoder.params.b_dec_D)
  scaled = latent_scaling.scaling(found, w_dec_FD, b_dec_D, rows)
  means_MD = _means(problem, arm)
  columns = _columns(scaled, found, rows)
  columns["cos_mean_difference"] = _cosines(scaled, w_dec_FD, means_MD)
  best = np.argsort(-columns["score"], kind="stable")[:_DIRECTIONS]
  return table.Part(
    method=METHOD,
    arm=arm.name,
    dictionary=METHOD,
    columns=columns,
    summary={
      "run": path,
      "latents": crosscoder.latents,
      "activation": crosscoder.activation,
      "models": ["base", arm.name],
      "trained_on_these_rows": same_rows,
      "sign": _SIGN,
      **_counts(columns),
      "l0": float(found.fires_F.sum() / rows),
      "never_active": int(np.sum(found.fires_F == 0)),
      "variance_explained": _explained(problem, arm, found, means_MD),
      "patching": _patching(
        problem,
        arm,
        crosscoder,
        columns,
        np.sqrt(found.square_F / rows) * scaled.apart_F,
      ),
      "warnings": crosscoder_origin.warnings(arm, crosscoder, same_rows),
    },
    directions={
      f"latent_{latent}": _block(w_dec_FD[latent], latent_scaling.TUNED)
      for latent in best
      if columns["changed"][latent] and columns["score"][latent] > 0
    },
  )


def _columns(
  scaled: latent_scaling.Scaling, found: paired_sums.Sums, rows: int
) -> dict[str, np.ndarray]:
  nu_F, nu_r_F, nu_e_F = map(
    scaled.nu, ("activation", "reconstruction", "error")
  )
  delta_norm_F = scaled.delta_norm_F
  fires_F = found.fires_F / rows
  beyond_F = 1 - np.clip(np.maximum(nu_r_F, nu_e_F), 0, 1)
  columns = {
    "score": np.nan_to_num((2 * delta_norm_F - 1) * beyond_F, nan=0.0),
    "changed": latent_scaling.exclusive(
      delta_norm_F, nu_r_F, nu_e_F, found.fires_F
    ),
    "fires_base": fires_F,  # it reads both models at once
    "fires_tuned": fires_F,
    "delta_norm": delta_norm_F,
    "cos_models": scaled.cos_F,
    "nu": nu_F,
    "nu_r": nu_r_F,
    "nu_e": nu_e_F,
    "contribution": np.sqrt(found.square_F / rows) * scaled.norm_MF.max(0),
  }
  for m, model in enumerate(_MODELS):
    columns[f"norm_{model}"] = scaled.norm_MF[m]
    for suffix, target in _TARGETS.items():
      columns[f"beta{suffix}_{model}"] = scaled.beta_MF[target][m]
  return columns


def _cosines(
  scaled: latent_scaling.Scaling, w_dec_FD: np.ndarray, means_MD: np.ndarray
) -> np.ndarray:
  """Of each latent's own block with the mean difference, tuned − base."""
  mean_D = means_MD[1] - means_MD[0]
  dot_FM = latent_scaling.products(w_dec_FD, mean_D)
  norm_FMM = latent_scaling.products(w_dec_FD)
  size_FM = np.sqrt(np.diagonal(norm_FMM, axis1=1, axis2=2))
  size_FM = size_FM * np.linalg.norm(mean_D)
  cos_FM = np.divide(
    dot_FM, size_FM, out=np.zeros_like(dot_FM), where=size_FM > 0
  )
  return cos_FM[np.arange(len(cos_FM)), scaled.side_F]


def _counts(columns: dict[str, np.ndarray]) -> dict[str, Any]:
  """How many latents are whose, by norms alone and with Latent Scaling."""
  delta_F, changed_F = columns["delta_norm"], columns["changed"]
  alive_F = columns["fires_tuned"] > 0
  tuned_F = delta_F > 0.5
  alone_F = latent_scaling.by_norm(delta_F) & alive_F
  shared_F = latent_scaling.shared(delta_F) & alive_F
  cos_N = columns["cos_models"][shared_F]
  return {
    "rule": {
      "delta_norm": latent_scaling.EXCLUSIVE,
      "nu_r": latent_scaling.NU_R,
      "nu_e": latent_scaling.NU_E,
      "fires": latent_scaling.LEAST_FIRES,
    },
    "by_norm": {
      "base_only": int(np.sum(alone_F & ~tuned_F)),
      "shared": int(shared_F.sum()),
      "tuned_only": int(np.sum(alone_F & tuned_F)),
      "between": int(np.sum(alive_F & ~alone_F & ~shared_F)),
    },
    "base_only": int(np.sum(changed_F & ~tuned_F)),
    "tuned_only": int(np.sum(changed_F & tuned_F)),
    "delta_norm": _quantiles(delta_F[alive_F]),
    "cos_shared": _quantiles(cos_N),
  }


def _explained(
  problem: problem_lib.Problem,
  arm: config_lib.Arm,
  found: paired_sums.Sums,
  means_MD: np.ndarray,
) -> dict[str, dict[str, float | None]]:
  """Share of each model's variance, with an interval over groups."""
  n_G = np.asarray(problem.evidence.group_rows_G, np.float64)
  kept_G = n_G > 0
  shares = {}
  for m, name in enumerate(("base", arm.name)):
    mean_D, sums_GD = means_MD[m], sums.activation_sums(problem, name)
    spread_G = found.square_MG[m] - 2 * sums_GD @ mean_D
    spread_G += n_G * (mean_D @ mean_D)
    shares[name] = delta_fit.share(
      found.error_MG[m][kept_G], spread_G[kept_G], problem.config.statistics
    )
  return shares


def _means(problem: problem_lib.Problem, arm: config_lib.Arm) -> np.ndarray:
  """Mean activations of base and arm, float64 [2, D]."""
  rows = problem.evidence.rows
  return np.stack(
    [
      sums.activation_sums(problem, name).sum(0) / rows
      for name in ("base", arm.name)
    ]
  )


def _patching(
  problem: problem_lib.Problem,
  arm: config_lib.Arm,
  crosscoder: sae.Sae,
  columns: dict[str, np.ndarray],
  change_F: np.ndarray,
) -> dict[str, Any]:
  """KL recovered by latents of four kinds.

  `all` that are active; `tuned_only`, if there are any; `most_changed`, the
  first `statistics.top` by `change_F`, the root mean square of what a latent
  adds to the difference of the models; and `random_0` …, as many as those of
  the set before, drawn from the others.
  """
  if why := patching.unavailable(problem, arm.name):
    return {"available": False, "why": why}
  statistics = problem.config.statistics
  alive_F = columns["fires_tuned"] > 0
  order_F = np.argsort(-change_F, kind="stable")[: statistics.top]
  sets = {"all": alive_F, "most_changed": _among(order_F, alive_F)}
  own_F = columns["changed"] & (columns["delta_norm"] > 0.5)
  if own_F.any():
    sets["tuned_only"] = own_F
  last_F = list(sets.values())[-1]
  others_N = np.flatnonzero(alive_F & ~last_F)
  rng = np.random.default_rng(statistics.seed)
  for i in range(_RANDOM):
    some_N = rng.permutation(others_N)[: last_F.sum()]
    sets[f"random_{i}"] = _among(some_N, alive_F)
  found = patching.measure(problem, arm.name, crosscoder, sets)
  return {"available": True, **found}


def _among(latents_N: np.ndarray, alive_F: np.ndarray) -> np.ndarray:
  chosen_F = np.zeros_like(alive_F)
  chosen_F[latents_N] = True
  return chosen_F & alive_F


def _joined(
  problem: problem_lib.Problem, arm: config_lib.Arm, crosscoder: sae.Sae
) -> problem_lib.Problem:
  """The problem whose one model is the base's and the arm's rows joined."""
  base = problem.evidence.store("base")
  both = store.joined([base, problem.evidence.store(arm.name)])
  work = problem.work / f"{METHOD}.{arm.name}"
  work.mkdir(exist_ok=True)
  return dataclasses.replace(
    problem,
    evidence=problem.evidence.replaced({"base": base, arm.name: both}),
    dictionary=crosscoder,
    work=work,
  )


def _block(row_D: np.ndarray, model: int) -> np.ndarray:
  return np.split(row_D, 2)[model]


def _quantiles(values_N: np.ndarray) -> dict[str, float]:
  if not len(values_N):
    return {}
  return {str(p): float(np.quantile(values_N, p)) for p in _QUANTILES}
