# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a screen tries: single latents, sums of them, and linear directions.

Each is one unit vector whose sign says which way the diff says it has moved:
added it should bring the behaviour about, subtracted it should take it away.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from sae_jax import errors
from sae_jax.interpret import diff_results
from sae_jax.intervene import config as config_lib

Kind = Literal["latent", "bundle", "direction"]
LATENT = "latent"  # the band of single latents


class Rows(Protocol):
  """Where directions of latents are from; see `formats.open_decoder`."""

  latents: int
  d_model: int

  def units(self, latents_N: np.ndarray, /) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
  """One direction.

  Attributes:
    latents: () of a direction that is not made of latents.
    weights: of each latent, signed.
    sign: of a single latent: of its score, or the one that is tried.
    band: the random ones that it is compared with, or that it is one of.
    is_random: whether it is one of them.
    score: of the diff, as `rank` and `changed`; None where there is none.
  """

  name: str
  kind: Kind
  latents: tuple[int, ...] = ()
  weights: tuple[float, ...] = ()
  sign: int = 1
  band: str = LATENT
  is_random: bool = False
  score: float | None = None
  rank: int | None = None
  changed: bool = False


@dataclasses.dataclass(frozen=True)
class Found:
  """All that is tried, and what random ones may be drawn from.

  Attributes:
    candidates: bundles, directions, then latents.
    vectors: name of a direction -> [D], of any length.
    latents: rank, score and changed of the screen's part; None without a diff.
    arm: of the diff; "" without one.
    warnings: what is not as it was asked for.
  """

  candidates: tuple[Candidate, ...]
  vectors: dict[str, np.ndarray]
  arm: str
  warnings: tuple[str, ...]


class Part:
  """Scores of all latents of one method and arm of a diff."""

  def __init__(self, diff: str, method: str, arm: str):
    columns = diff_results.columns(
      diff, ("score", "rank", "changed"), method=method, arm=arm
    )
    self.score_F = np.nan_to_num(columns["score"].astype(np.float64))
    self.rank_F = columns["rank"]
    self.changed_F = columns["changed"]

  def single(self, latent: int) -> Candidate:
    score = float(self.score_F[latent])
    return Candidate(
      name=f"latent {latent}",
      kind="latent",
      latents=(latent,),
      weights=(1.0 if score >= 0 else -1.0,),
      sign=1 if score >= 0 else -1,
      score=score,
      rank=int(self.rank_F[latent]),
      changed=bool(self.changed_F[latent]),
    )


def find(
  config: config_lib.SteerConfig, rows: Rows, firing_N: np.ndarray
) -> Found:
  """The candidates of a screen, without the random ones.

  Args:
    config: see there.
    rows: of the dictionary.
    firing_N: latents that are active on the prompts; for top=0.

  Raises:
    errors.InputError: latents or directions that are not there.
  """
  arm, part = "", None
  if config.diff:
    arm = config.arm or diff_results.only_arm(config.diff)
    part = Part(config.diff, config.method, arm)
    _check_size(config, rows, len(part.score_F))
  names, vectors, warnings = _directions(config, arm, rows.d_model)
  candidates = [
    *(_bundle(config, bundle, arm, rows) for bundle in bundles(config)),
    *(Candidate(name=name, kind="direction") for name in names),
    *_singles(config, part, rows, firing_N),
  ]
  if not candidates:
    raise errors.InputError(
      "there is nothing to try: no latents, bundles or directions; give top,"
      " latents, bundles or directions"
    )
  return Found(tuple(candidates), vectors, arm, tuple(warnings))


def bundles(
  config: config_lib.SteerConfig,
) -> tuple[config_lib.BundleConfig, ...]:
  if config.bundles is None:
    return (config_lib.BundleConfig(name="top10"),) if config.diff else ()
  return config.bundles


def units(
  candidates: Sequence[Candidate], rows: Rows, vectors: dict[str, np.ndarray]
) -> np.ndarray:
  """Their directions, [N, D] float32 of length 1, signs included.

  Raises:
    errors.InputError: one is of length 0.
  """
  wanted = sorted({latent for c in candidates for latent in c.latents})
  place = {latent: i for i, latent in enumerate(wanted)}
  rows_ND = rows.units(np.array(wanted, np.int64)).astype(np.float64)
  found = []
  for candidate in candidates:
    if candidate.kind == "direction":
      vector_D = candidate.sign * vectors[candidate.name].astype(np.float64)
    else:
      at = [place[latent] for latent in candidate.latents]
      vector_D = np.asarray(candidate.weights) @ rows_ND[at]
    length = np.linalg.norm(vector_D)
    if not (length > 0 and np.isfinite(length)):
      raise errors.InputError(
        f"{candidate.name}: a direction of length {length} cannot be steered"
        " along; leave it out"
      )
    found.append(vector_D / length)
  return np.stack(found).astype(np.float32)


def _bundle(
  config: config_lib.SteerConfig,
  bundle: config_lib.BundleConfig,
  arm: str,
  rows: Rows,
) -> Candidate:
  if not bundle.latents:
    ranked = diff_results.ranked(
      config.diff,
      method=bundle.method or config.method,
      arm=bundle.arm or arm,
      direction=bundle.direction,
      top=bundle.top,
    )
    latents, weights = ranked.latents_N.tolist(), ranked.scores_N.tolist()
    if bundle.weights:
      part = Part(config.diff, bundle.weights, bundle.arm or arm)
      weights = part.score_F[latents].tolist()
  else:
    latents, weights = list(bundle.latents), [1.0] * len(bundle.latents)
    _check_latents(f"bundle {bundle.name!r}", bundle.latents, rows)
    if config.diff:
      part = Part(
        config.diff,
        bundle.weights or bundle.method or config.method,
        bundle.arm or arm,
      )
      weights = part.score_F[latents].tolist()
  if not any(weights):
    raise errors.InputError(
      f"bundle {bundle.name!r}: none of its latents has a score in the diff"
      f" {config.diff}; name another method, arm or direction"
    )
  return Candidate(
    name=bundle.name,
    kind="bundle",
    latents=tuple(latents),
    weights=tuple(weights),
    band=bundle.band or bundle.name,
  )


def _singles(
  config: config_lib.SteerConfig,
  part: Part | None,
  rows: Rows,
  firing_N: np.ndarray,
) -> list[Candidate]:
  """Single latents, best first; without a score both signs are tried."""
  if config.latents:
    _check_latents("latents", config.latents, rows)
    chosen = list(config.latents)
  elif config.top:
    assert part is not None
    size_F = np.abs(part.score_F)
    order_N = np.argsort(-size_F, kind="stable")[: config.top]
    chosen = order_N[size_F[order_N] > 0].tolist()
  else:
    chosen = _all(part, firing_N)
  found = []
  for latent in chosen:
    if part is not None and part.score_F[latent]:
      found.append(part.single(latent))
      continue
    for sign, mark in ((1, "+"), (-1, "-")):
      found.append(
        Candidate(
          name=f"latent {latent} {mark}",
          kind="latent",
          latents=(latent,),
          weights=(float(sign),),
          sign=sign,
          changed=part is not None and bool(part.changed_F[latent]),
        )
      )
  return found


def _all(part: Part | None, firing_N: np.ndarray) -> list[int]:
  """Latents with a score by |score|, then others that fire, by number."""
  if part is None:
    return np.sort(firing_N).tolist()
  size_F = np.abs(part.score_F)
  order_F = np.argsort(-size_F, kind="stable")
  scored = order_F[size_F[order_F] > 0].tolist()
  return scored + np.setdiff1d(firing_N, scored).tolist()


def _directions(
  config: config_lib.SteerConfig, arm: str, d_model: int
) -> tuple[list[str], dict[str, np.ndarray], list[str]]:
  """Names of the baselines, all vectors of the diff that fit, warnings."""
  if not config.diff:
    return [], {}, []
  known = diff_results.directions(config.diff)
  names, warnings = list(config.directions or ()), []
  if config.directions is None:
    default = [
      f"linear.{arm}.{kind}" for kind in ("contrast", "mean_difference")
    ]
    names = [name for name in default if name in known]
    if not names:
      warnings.append(
        f"{config.diff} has no linear directions of {arm}: nothing shows what a"
        " plain mean difference would do; add 'linear' to the diff's methods"
      )
  wanted = [config.unit_direction] if config.unit_direction else []
  for name in names + wanted:
    if name not in known:
      raise errors.InputError(
        f"direction {name!r} is not in {config.diff}; there are"
        f" {', '.join(sorted(known)) or 'none'}"
      )
    if known[name].shape != (d_model,):
      raise errors.InputError(
        f"direction {name!r} of {config.diff} is of width"
        f" {known[name].shape[0]}, the SAE's is {d_model}; give the diff of"
        " this SAE"
      )
  return names, {n: known[n] for n in names + wanted}, warnings


def _check_size(config: config_lib.SteerConfig, rows: Rows, latents: int):
  if latents != rows.latents:
    raise errors.InputError(
      f"{config.diff} is about {latents} latents, but {config.sae} has"
      f" {rows.latents}; give the SAE that the diff was made with"
    )


def _check_latents(field: str, latents: tuple[int, ...], rows: Rows) -> None:
  outside = [i for i in latents if not 0 <= i < rows.latents]
  if outside:
    raise errors.InputError(
      f"{field}: there is no latent {outside[0]}; the SAE has 0 to"
      f" {rows.latents - 1}"
    )
