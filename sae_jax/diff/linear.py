# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a diff shows without an SAE: the baselines every latent stands beside.

Difference in means (less the matched control's), principal components of the
paired differences, and the divergence of the models' predictions.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from sae_jax import sae
from sae_jax.diff import config as config_lib
from sae_jax.diff import decoder, kl, pca, sums, table
from sae_jax.diff import problem as problem_lib

METHOD = "linear"

_HALVES = 100  # random splits
_DIRECTIONS = 8  # principal components that are kept


def names(config: config_lib.DiffConfig) -> list[tuple[str, str]]:
  """The parts that `run` yields: one per arm, of any role."""
  return [(METHOD, arm.name) for arm in config.arms]


def run(
  problem: problem_lib.Problem, skip: frozenset[tuple[str, str]] = frozenset()
) -> Iterator[table.Part]:
  """Linear baselines of every arm."""
  dictionary = decoder.place(problem)
  for arm in problem.config.arms:
    if (METHOD, arm.name) not in skip:
      yield part(problem, dictionary, arm)


def part(
  problem: problem_lib.Problem, dictionary: sae.Sae, arm: config_lib.Arm
) -> table.Part:
  """One arm; latents by the cosine of their decoder row with the contrast.

  The contrast is (arm − base) − (control − base) where the arm has a control,
  else arm − base.

  Args:
    problem: evidence of the arm, the base, and the control if there is one.
    dictionary: on the mesh.
    arm: of any role.
  """
  control = problem.control_of(arm)
  other = control.name if control else "base"
  n_G = problem.evidence.group_rows_G
  base_GD = sums.activation_sums(problem, "base")
  arm_GD = sums.activation_sums(problem, arm.name)
  other_GD = sums.activation_sums(problem, other)
  contrast_GD = arm_GD - other_GD
  mean_D = _mean(contrast_GD, n_G)
  difference_D = _mean(arm_GD - base_GD, n_G)
  measured = decoder.aligned(problem, dictionary, contrast_GD, n_G)
  found = pca.components(problem, arm.name, other, mean_D)
  directions = {"mean_difference": difference_D}
  if control:
    directions["contrast"] = mean_D
  for i, vector_D in enumerate(found.vectors_CD[:_DIRECTIONS]):
    directions[f"pc_{i}"] = vector_D
  divergence, warnings = _kl(problem, arm.name)
  summary = measured.summary | {
    "compared": f"{arm.name} - {other}",
    "chance_cosine": decoder.chance(
      dictionary.latents, dictionary.d_model, problem.config.statistics.q
    ),
    "lengths": _lengths(problem, difference_D, mean_D, other, found),
    "split_half": _split_half(contrast_GD, n_G, problem.config.statistics.seed),
    "pca": _pca(found, mean_D),
    "kl": divergence,
    "warnings": [*measured.summary["warnings"], *warnings],
  }
  if control:
    control_D = _mean(other_GD - base_GD, n_G)
    summary["cos_control"] = _cosine(difference_D, control_D)
    summary["cos_contrast"] = _cosine(difference_D, mean_D)
  return table.Part(
    method=METHOD,
    arm=arm.name,
    control=control.name if control else "",
    columns=measured.columns
    | {
      "decoder_norm": decoder.lengths(dictionary, problem.mesh),
      "cos_mean_difference": decoder.cosines(
        dictionary, difference_D, problem.mesh
      ),
    },
    summary=summary,
    directions={k: v.astype(np.float32) for k, v in directions.items()},
  )


def _mean(sums_GD: np.ndarray, n_G: np.ndarray) -> np.ndarray:
  return sums_GD.sum(0) / n_G.sum()


def _lengths(
  problem, difference_D, contrast_D, other: str, found: pca.Components
) -> dict[str, float]:
  """Norms; `…_relative` are in units of the base's median row norm."""
  evidence = problem.evidence
  stats = evidence.store("base").stats(evidence.hook)
  median = stats.norm_quantiles[0.5]
  lengths = {"mean_difference": float(np.linalg.norm(difference_D))}
  if other != "base":
    lengths["contrast"] = float(np.linalg.norm(contrast_D))
  square = found.total + float(contrast_D @ contrast_D)
  lengths["row_difference_rms"] = float(np.sqrt(square))
  if "null" in evidence.names:
    null_GD = sums.activation_sums(problem, "null")
    null_GD = null_GD - sums.activation_sums(problem, "base")
    null_D = _mean(null_GD, evidence.group_rows_G)
    lengths["null"] = float(np.linalg.norm(null_D))
  relative = {f"{k}_relative": v / median for k, v in lengths.items()}
  return {"row_median": median, **lengths, **(relative if median else {})}


def _split_half(
  sums_GD: np.ndarray, n_G: np.ndarray, seed: int
) -> dict[str, float | int | None]:
  """Cosine of the mean differences of two random halves of the groups."""
  kept_G = n_G > 0
  sums_GD, n_G = sums_GD[kept_G], n_G[kept_G]
  groups = len(n_G)
  if groups < 2:
    return {"splits": 0, "mean": None, "low": None, "high": None}
  rng = np.random.default_rng(seed)
  first_HG = np.zeros((_HALVES, groups))
  for row_G in first_HG:
    row_G[rng.permutation(groups)[: groups // 2]] = 1
  halves = [
    (pick_HG @ sums_GD) / (pick_HG @ n_G)[:, None]
    for pick_HG in (first_HG, 1 - first_HG)
  ]
  cosine_H = [_cosine(a, b) for a, b in zip(*halves, strict=True)]
  low, high = np.quantile(cosine_H, [0.05, 0.95])
  return {
    "splits": _HALVES,
    "mean": float(np.mean(cosine_H)),
    "low": float(low),
    "high": float(high),
  }


def _cosine(a_D: np.ndarray, b_D: np.ndarray) -> float:
  size = np.linalg.norm(a_D) * np.linalg.norm(b_D)
  return float(a_D @ b_D / size) if size else 0.0


def _pca(found: pca.Components, mean_D: np.ndarray) -> dict[str, Any]:
  total = found.total or 1.0
  share_C = found.variance_C / total
  square = float(mean_D @ mean_D)
  whole = found.total + square
  return {
    "variance": found.total,
    "explained": [float(share) for share in share_C],
    "participation_ratio": found.participation,
    # Of the mean square of the paired differences: a constant offset's share.
    "mean_share": square / whole if whole else 0.0,
    "cos_mean": [_cosine(v_D, mean_D) for v_D in found.vectors_CD],
  }


def _kl(
  problem: problem_lib.Problem, name: str
) -> tuple[dict[str, Any] | None, list[str]]:
  """KL divergence and warnings; None where it cannot be had."""
  if problem.prompts is None:
    return None, []
  if not all(problem.models.source(n) for n in ("base", name)):
    return None, []
  words = {n: problem.model(n).config.vocab_size for n in ("base", name)}
  if len(set(words.values())) > 1:
    return None, [
      f"no KL divergence: the models have {words['base']} and {words[name]}"
      " words"
    ]
  return kl.measure(problem, name), []
