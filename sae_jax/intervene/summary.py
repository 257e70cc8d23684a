# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""summary.json of a screen: what was asked, found, and by which rules."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_jax.intervene import candidates as candidates_lib
from sae_jax.intervene import results as results_lib
from sae_jax.intervene import screen as screen_lib
from sae_jax.intervene import verdict


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
      results_lib.intervention(results, result, config.strengths)
      for result in verdicts.shown
    ],
    "counts": {
      "latents": verdicts.counts,
      "random_called_causal": verdicts.random_causal,
    },
    "bands": {
      name: random.json(config.strengths)
      for name, random in results.random.items()
    },
    "generation": generated,
    "rules": verdict.rules(config.damage, config.statistics, config.random),
    "warnings": [*warnings, *_warnings(results, shift)],
    "cost": screen_lib.cost(screen),
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
