# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One dictionary of the base, frozen, applied to every model on the same rows.

The method of Wang et al. (2025, arXiv 2506.19823): latents ranked by how much
their mean activation rose or fell. Where an arm has a matched control, tuned −
control is ranked instead, because most of a plain difference is what any
fine-tuning does.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np

from sae_jax.diff import config as config_lib
from sae_jax.diff import (
  decoder,
  gradient_weighted,
  latent_means,
  statistics,
  table,
)
from sae_jax.diff import problem as problem_lib

METHOD = "frozen"
PLAIN = "frozen_plain"  # tuned − base whatever controls there are
GRADIENT = "frozen_gradient"
JOINT = "joint"
BASE, NULL = "base", "null"


def names(config: config_lib.DiffConfig) -> list[tuple[str, str]]:
  """The parts that `run` yields; of (GRADIENT, …) only what prompts allow."""
  tuned = config.tuned()
  found = [(METHOD, arm.name) for arm in tuned]
  if len(config.joined()) > 1:
    found.append((METHOD, JOINT))
  found += [(PLAIN, a.name) for a in tuned if config.control_of(a) is not None]
  found += [(PLAIN, arm.name) for arm in config.arms if arm not in tuned]
  if config.live and config.null_arm:
    found.append((PLAIN, NULL))
  if config.base and config.prompts is not None:
    found += [(GRADIENT, arm.name) for arm in tuned]
  return found


def run(
  problem: problem_lib.Problem, skip: frozenset[tuple[str, str]] = frozenset()
) -> Iterator[table.Part]:
  """Means of all models, and what differs between them.

  Raises:
    errors.InputError: an activation is not finite, or the latents do not split
      over the mesh.
  """
  wanted = [name for name in names(problem.config) if name not in skip]
  if not problem.pairs():
    wanted = [name for name in wanted if name[0] != GRADIENT]
  if not wanted:
    return
  frozen = Frozen(problem)
  for method, arm in wanted:
    if arm == JOINT:
      yield frozen.joint()
    elif method == GRADIENT:
      yield frozen.weighted(arm)
    else:
      yield frozen.part(method, arm)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Which differences of an arm are looked at, and which one is ranked."""

  arm: str
  control: str  # "": none
  scored: str  # "contrast" or "delta"

  @property
  def against(self) -> str:
    return self.control if self.scored == "contrast" else BASE


class Frozen:
  """What all parts share: means of the models, norms, numerical noise."""

  def __init__(self, problem: problem_lib.Problem):
    self._problem = problem
    self._means = latent_means.Means(problem)
    self._n_G = np.asarray(problem.evidence.group_rows_G, np.float64)
    self._dictionary = decoder.place(problem)
    w_enc_FD = self._dictionary.params.w_enc_FD
    self._norms = {
      "encoder_norm": np.asarray(jnp.linalg.norm(w_enc_FD, axis=1)),
      "decoder_norm": decoder.lengths(self._dictionary, problem.mesh),
    }
    self._null: statistics.Measured | None = None
    self._noise_F: np.ndarray | None = None
    if NULL in problem.evidence.names:
      # What the rule finds in mere rounding; and how far rounding reaches,
      # within which an estimate of the other arms says nothing.
      self._null = self._measure([self._means.difference(NULL, BASE)])
      null = self._null.columns
      self._noise_F = np.maximum(
        np.abs(null["ci_low"]), np.abs(null["ci_high"])
      )

  def part(self, method: str, name: str) -> table.Part:
    """One arm (or the base run again) by contrast or by plain difference."""
    which = self._comparison(method, name)
    if name == NULL and self._null is not None:
      measured = self._null
    else:
      difference = self._means.difference(name, which.against)
      measured = self._measure([difference], self._noise_F)
    return self._assemble(method, name, [which], measured)

  def joint(self) -> table.Part:
    """All tuned arms, which are a sample of the same fine-tuning."""
    joined = self._problem.config.joined()
    each = [self._comparison(METHOD, arm.name) for arm in joined]
    measured = self._measure(
      [self._means.difference(which.arm, which.against) for which in each],
      self._noise_F,
    )
    return self._assemble(METHOD, JOINT, each, measured)

  def weighted(self, name: str) -> table.Part:
    """Score × what a unit of the latent does to the base model's margin."""
    which = self._comparison(METHOD, name)
    difference = self._means.difference(name, which.against)
    weighted = gradient_weighted.Weighted(self._problem, difference, self._n_G)
    noise_F = self._noise_F
    if noise_F is not None:
      noise_F = noise_F * np.abs(weighted.gradient_F)
    measured = self._measure([weighted.block], noise_F)
    part = self._assemble(GRADIENT, name, [which], measured)
    summary = part.summary | {"margin_gradient_of": BASE}
    columns = part.columns | {"gradient": weighted.gradient_F}
    return dataclasses.replace(
      part,
      columns=columns,
      summary=summary,
      directions={"gradient": weighted.gradient_D.astype(np.float32)},
    )

  def _comparison(self, method: str, name: str) -> Comparison:
    control = None
    if name != NULL:
      control = self._problem.control_of(self._problem.arm(name))
    scored = "contrast" if control and method == METHOD else "delta"
    return Comparison(name, control.name if control else "", scored)

  def _measure(
    self,
    blocks: Sequence[statistics.Block],
    noise_F: np.ndarray | None = None,
  ) -> statistics.Measured:
    return statistics.measure(
      blocks,
      self._n_G,
      self._problem.dictionary.latents,
      self._problem.config.statistics,
      noise_F=noise_F,
    )

  def _assemble(
    self,
    method: str,
    name: str,
    each: Sequence[Comparison],
    measured: statistics.Measured,
  ) -> table.Part:
    """Measured columns beside the means, rates, norms and cosines."""
    columns = measured.columns | self._norms | self._means_of(each)
    directions = [
      self._means.direction(which.arm, which.against) for which in each
    ]
    columns["cos_mean_difference"] = decoder.cosines(
      self._dictionary, np.mean(directions, axis=0), self._problem.mesh
    )
    controls = {which.control for which in each}
    subtracted = {w.control for w in each if w.scored == "contrast"}
    return table.Part(
      method=method,
      arm=name,
      control=", ".join(sorted(subtracted)),
      columns=columns,
      summary=measured.summary
      | {
        "scored": sorted({which.scored for which in each}),
        "controls": sorted(controls - {""}),
        "stability": _top_stability(
          measured.columns, self._problem.config.statistics.top
        ),
        "noise": _quantiles(self._noise_F),
        "never_active": self._never_active(columns),
        "warnings": measured.summary["warnings"] + self._warnings(each),
      },
    )

  def _means_of(self, each: Sequence[Comparison]) -> dict[str, np.ndarray]:
    """Means and rates of the base, the arms and their controls (averaged)."""
    models = {"base": [BASE], "tuned": [which.arm for which in each]}
    if all(which.control for which in each):
      models["control"] = [which.control for which in each]
    found = {}
    for role, arms in models.items():
      found[f"mean_{role}"] = np.mean(
        [self._means.mean(arm) for arm in arms], axis=0
      )
      if not self._means.linear:
        found[f"fires_{role}"] = np.mean(
          [self._means.fires(arm) for arm in arms], axis=0
        )
    found["delta"] = found["mean_tuned"] - found["mean_base"]
    if "control" in models:
      found["delta_control"] = found["mean_control"] - found["mean_base"]
      found["contrast"] = found["mean_tuned"] - found["mean_control"]
    return found

  def _never_active(self, columns: dict[str, np.ndarray]) -> int | None:
    rates = [v for k, v in columns.items() if k.startswith("fires_")]
    return int(np.sum(np.max(rates, axis=0) == 0)) if rates else None

  def _warnings(self, each: Sequence[Comparison]) -> list[str]:
    alone = sorted(w.arm for w in each if not w.control and w.arm != NULL)
    compared = {arm.name for arm in self._problem.tuned()}
    tuned = [name for name in alone if name in compared]
    if not tuned:
      return []
    return [
      f"{', '.join(tuned)}: no matched control, so this is the plain difference"
      " to the base, most of which any fine-tuning may cause"
    ]


def _top_stability(
  columns: dict[str, np.ndarray], top: int
) -> dict[str, float | None]:
  """How often the latents that lead stay among the leading ones."""
  score_F, stability_F = columns["score"], columns["stability"]
  found: dict[str, float | None] = {}
  for name, key_F in (("risen", score_F), ("fallen", -score_F)):
    best = np.argsort(-key_F, kind="stable")[:top]
    best = best[key_F[best] > 0]
    found[name] = float(stability_F[best].mean()) if len(best) else None
  return found


def _quantiles(noise_F: np.ndarray | None) -> dict[str, float] | None:
  if noise_F is None or not np.isfinite(noise_F).all():
    return None  # a single group shows no spread
  return {"median": float(np.median(noise_F)), "largest": float(noise_F.max())}
