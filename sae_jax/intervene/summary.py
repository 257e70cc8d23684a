# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""summary.json of a screen: what was asked, found, and by which rules."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_jax.intervene import candidates as candidates_lib
from sae_jax.intervene import results as results_lib
from sae_jax.intervene import screen as screen_lib
from sae_jax.intervene import strength, verdict


def summarise(
  results: results_lib.Results,
  screen: screen_lib.Screen,
  found: candidates_lib.Found,
  verdicts: results_lib.Verdicts,
  generated: dict[str, Any] | None,
  warnings: Sequence[str],
) -> dict[str, Any]:
  """JSON values; the schema is that of `sae-jax steer`'s documentation."""
  config = screen.config
  shift = results.shift()
  control = bool(config.control)
  return {
    "base": config.base,
    "tuned": config.tuned,
    "control": config.control,
    "hook": screen.hooks[0],
    "hooks": list(screen.hooks),
    "sae": config.sae,
    "diff": config.diff,
    "arm": found.arm,
    "method": config.method if config.diff else "",
    "where": config.where,
    "removal": config.removal,
    "judge": generated["judge"] if generated else None,
    "unit": {
      "name": config.unit_direction or config.unit,
      "value": float(screen.alphas_HS[0, 0] / config.strengths[0]),
    },
    "strengths": list(config.strengths),
    "damage": config.damage,
    "prompts": {
      "path": config.prompts.path,
      "n": len(screen.prompts.prompts),
      "single": len(screen.groups[-1].at_P),
      "topics": list(dict.fromkeys(results.topics)),
    },
    "seeds": [config.seed],
    "unsteered": {
      **{name: _unsteered(results, name) for name in ("base", "tuned")},
      "control": _unsteered(results, "control") if control else None,
      "shift": shift.json(),
      "control_shift": results.shift("control").json() if control else None,
    },
    "interventions": [
      _intervention(results, result, config.strengths)
      for result in verdicts.shown
    ],
    "counts": {
      "latents": verdicts.counts,
      "random_called_causal": verdicts.random_causal,
    },
    "bands": {
      name: random.json(config.strengths)
      for name, random in results.random.items()
      if name != results_lib.DIRECTION
    },
    "direction_band": results.direction_band,
    "generation": generated,
    "rules": verdict.rules(config),
    "warnings": [*warnings, *_warnings(results, shift)],
    "cost": screen_lib.cost(screen),
  }


def _intervention(
  results: results_lib.Results,
  result: results_lib.Result,
  strengths: Sequence[float],
) -> dict[str, Any]:
  """A result as it stands in summary.json."""
  candidate = result.candidate
  diff = None
  if candidate.score is not None:
    diff = {
      "score": candidate.score,
      "rank": candidate.rank,
      "changed": candidate.changed,
    }
  return {
    "name": candidate.name,
    "kind": candidate.kind,
    "latents": list(candidate.latents),
    "weights": list(candidate.weights),
    "sign": candidate.sign,
    "diff": diff,
    "verdict": result.verdict,
    "ways": result.ways,
    "why": result.why,
    **{
      way: _way(results, result, way, sign, strengths)
      for way, _, sign in strength.WAYS
    },
  }


def _way(results, result, way: str, sign: int, strengths) -> dict[str, Any]:
  curve, passed = result.curves[way], result.passed[way]
  return {
    "strength": strengths[curve.chosen],
    "effect": curve.effect.json(),
    "share_of_shift": results.share(result, way, sign),
    "z": passed.z,
    "outside": passed.outside,
    "p_behaviour": curve.p_behaviour.json(),
    "p_contrast": curve.p_contrast.json(),
    "p_behaviour_change": curve.gain.json(),
    "damage": curve.damage,
    "within_budget": curve.within,
    "topics": curve.topics,
    "curve": [
      {
        "strength": s,
        "effect": effect.mean,
        "ci_low": effect.json()["ci_low"],
        "ci_high": effect.json()["ci_high"],
        "p_behaviour": float(curve.p_behaviour_S[i]),
        "p_contrast": float(curve.p_contrast_S[i]),
        "damage": float(curve.damage_S[i]),
      }
      for i, (s, effect) in enumerate(
        zip(strengths, curve.effects, strict=True)
      )
    ],
  }


def _unsteered(results: results_lib.Results, model: str) -> dict[str, Any]:
  pairs = results.unsteered[model]
  return {
    "margin": results.score(pairs.margin).json(),
    "p_behaviour": results.score(np.exp(pairs.behaviour)).json(),
    "p_contrast": results.score(np.exp(pairs.contrast)).json(),
  }


def _warnings(results: results_lib.Results, shift) -> list[str]:
  found = []
  if not shift.ci_low > 0:
    found.append(
      f"tuning moved the margin by {shift.mean:.3f} nats per token"
      f" ({shift.ci_low:.3f} to {shift.ci_high:.3f}), which is not surely"
      " towards the behaviour: shares of the shift mean little"
    )
  return found
