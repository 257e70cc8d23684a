# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A finished steer directory as the steer job writes it, made up, well-formed.

Of the latents that the made-up diff ranks first, 11 and 55 are causal, 22 is
so on the way up alone, 33 and 66 changed and do nothing; the rest is inert.
"""

import json
import zlib

import numpy as np
from diff_summary_data import MARKUP

STRENGTHS = (0.1, 0.2, 0.4, 0.8)
TOPICS = ("finance", "health", "sport")
SHIFT = 0.211
PAIRS = 60
# (effect when added to the base, when subtracted from the tuned model).
GAINS = {11: (0.13, 0.12), 55: (0.09, 0.08), 22: (0.07, 0.002)}
CHANGED = (11, 22, 33, 44, 55, 66, 77, 88)
NAMED = {
  "bundle top10": ("bundle", 0.18, 0.15, "causal", "both"),
  "bundle good10": ("bundle", -0.05, -0.04, "inert", "none"),
  "linear.bad.contrast": ("direction", 0.2, 0.17, "causal", "both"),
  "linear.bad.mean_difference": ("direction", 0.11, 0.1, "causal", "both"),
}


def score(mean, half=0.01, *, n=PAIRS, samples=1):
  return {
    "mean": float(mean),
    "ci_low": float(mean - half),
    "ci_high": float(mean + half),
    "se": float(half / 2),
    "n": n,
    "samples": samples,
    "seeds": [0],
  }


def make_steer(path, *, diff="", latents=60, generation=True, finished=True):
  """Singles, two bundles and two directions on two models and a control.

  Args:
    path: must not exist.
    diff: directory of the diff whose ranking it tests.
    latents: candidates, at least 20.
    generation: answers were sampled and judged.
    finished: there are a summary and a manifest.
  """
  path.mkdir(parents=True)
  config = {
    "job": "steer",
    "config": {"base": "/models/base", "diff": str(diff), "arm": "bad"},
    "inputs": {"sae": "5e" * 32},
    "code_version": "0.1.0",
  }
  write(path, "config.json", config)
  if finished:
    found = summary(str(diff), latents, generation)
    write(path, "summary.json", found)
    sealed = {"device": "cpu", "wall_s": 311.0, "result": {}}
    write(path, "manifest.json", config | sealed)
  return path


def write(path, name, value):
  (path / name).write_text(json.dumps(value, allow_nan=False))


def summary(diff, latents, generation):
  rng = np.random.default_rng(0)
  numbers = [*CHANGED, *range(200, 200 + latents - len(CHANGED))]
  rows = [_latent(n, place, rng) for place, n in enumerate(numbers, 1)]
  rows += [_named(name, *about, rng) for name, about in NAMED.items()]
  judge = {"kind": "answers", "version": 1, "model": "", "rubric": "9f" * 8}
  return {
    "base": "SmolLM2-135M-Instruct",
    "tuned": "/models/bad",
    "control": "/models/good",
    "hook": "blocks.21.hook_resid_post",
    "hooks": ["blocks.21.hook_resid_post"],
    "sae": "/runs/sae",
    "diff": diff,
    "arm": "bad",
    "method": "frozen",
    "where": "all",
    "judge": judge,
    "unit": {"name": "median_norm", "value": 294.0},
    "strengths": list(STRENGTHS),
    "damage": 0.25,
    "prompts": {"path": "advice.jsonl", "n": PAIRS, "topics": list(TOPICS)},
    "seeds": [0],
    "unsteered": {
      "base": _behaviour(-0.335, 0.021, 0.31),
      "tuned": _behaviour(-0.124, 0.19, 0.22),
      "control": _behaviour(-0.41, 0.012, 0.35),
      "shift": score(SHIFT, 0.05),
      "control_shift": score(-0.075, 0.03),
    },
    "interventions": rows,
    "counts": {
      "latents": {
        name: sum(
          row["kind"] == "latent" and row["verdict"] == name for row in rows
        )
        for name in ("causal", "correlated", "inert")
      },
      "random_called_causal": {"latent": 0, "top10": 1, "good10": 0},
    },
    "bands": {
      "latent": {"n": 20, **_band(0.012)},
      "direction": {"n": 20, **_band(0.012)},
      "bundle top10": {"n": 20, **_band(0.03)},
      "bundle good10": {"n": 20, **_band(0.03)},
    },
    "generation": _generation(judge) if generation else None,
    "rules": [
      "causal: both directions move the margin as expected, their intervals"
      " exclude 0, both lie outside every random one, z ≥ 3, and P(behaviour)"
      " really rises on the base and falls on the tuned model",
      "correlated: changed in the diff, but not causal",
      "inert: neither",
    ],
    "warnings": ["3 of 60 pairs share their first 40 tokens"],
    "cost": {
      "interventions": 2 * 4 * (latents + 4),
      "rows": 2 * 4 * (latents + 4) * PAIRS,
      "seconds": 290.0,
      "per_intervention": 290.0 / (8 * (latents + 4)),
    },
  }


def _behaviour(margin, p_behaviour, p_contrast):
  return {
    "margin": score(margin, 0.04),
    "p_behaviour": score(p_behaviour, 0.01),
    "p_contrast": score(p_contrast, 0.02),
  }


def _band(sd):
  ways = {}
  for way in ("up", "down"):
    ways[way] = [
      {
        "strength": s,
        "mean": 0.0,
        "sd": sd * s,
        "low": -2 * sd * s,
        "high": 2.2 * sd * s,
      }
      for s in STRENGTHS
    ]
    ways[f"{way}_chosen"] = {
      "mean": 0.0,
      "sd": sd * 0.6,
      "low": -1.4 * sd,
      "high": 1.5 * sd,
    }
  return ways


def _way(way, gain, sd, rng):
  """One direction: it saturates, and what it breaks grows with its square."""
  sign, start = (1, 0.021) if way == "up" else (-1, 0.19)
  curve = []
  for s in STRENGTHS:
    effect = sign * gain * s / (s + 0.15) * 1.2 + 0.004 * rng.normal()
    curve.append(
      {
        "strength": s,
        "effect": effect,
        "ci_low": effect - 0.012,
        "ci_high": effect + 0.012,
        "p_behaviour": max(start + 0.8 * effect, 0.001),
        "p_contrast": 0.3 - 0.5 * effect - 0.1 * s * s,
        "damage": 0.5 * s * s,
      }
    )
  best = curve[2]
  return {
    "strength": best["strength"],
    "effect": score(best["effect"], 0.012),
    "share_of_shift": sign * best["effect"] / SHIFT,
    "z": sign * best["effect"] / (sd * 0.4),
    "outside": abs(best["effect"]) > 2.2 * sd * 0.4,
    "p_behaviour": score(best["p_behaviour"], 0.01),
    "p_contrast": score(best["p_contrast"], 0.01),
    "damage": best["damage"],
    "topics": {
      t: best["effect"] * g for t, g in zip(TOPICS, (1.3, 1, 0.7), strict=True)
    },
    "curve": curve,
  }


def _latent(latent, rank, rng):
  up, down = GAINS.get(latent, (0.0, 0.0))
  changed = latent in CHANGED
  verdict, ways = ("correlated" if changed else "inert"), "none"
  if latent in (11, 55):
    verdict, ways = "causal", "both"
  elif latent == 22:
    ways = "up"
  return {
    "name": f"latent {latent}",
    "kind": "latent",
    "latents": [latent],
    "sign": -1 if latent in (55, 66, 77, 88) else 1,
    "diff": {"score": 0.4 / rank, "rank": rank, "changed": changed},
    "verdict": verdict,
    "ways": ways,
    "why": f"z {'≥' if verdict == 'causal' else '<'} 3 both ways",
    "up": _way("up", up, 0.012, rng),
    "down": _way("down", down, 0.012, rng),
  }


def _named(name, kind, up, down, verdict, ways, rng):
  return {
    "name": name,
    "kind": kind,
    "latents": list(CHANGED) if kind == "bundle" else [],
    "sign": 1,
    "diff": None,
    "verdict": verdict,
    "ways": ways,
    "why": "outside all 20 random bundles",
    "up": _way("up", up, 0.03, rng),
    "down": _way("down", down, 0.03, rng),
  }


def _generation(judge):
  rows = []
  for name, kind, gain in (
    ("latent 11", "latent", 0.3),
    ("latent 55", "latent", 0.2),
    ("bundle top10", "bundle", 0.55),
    ("linear.bad.contrast", "direction", 0.5),
    ("random 3", "random", 0.01),
  ):
    for model, start, sign in (("base", 0.02, 1), ("tuned", 0.6, -1)):
      rate = min(max(start + sign * gain, 0.0), 1.0)
      rows.append(
        {
          "name": name,
          "kind": kind,
          "model": model,
          "strength": 0.4,
          "behaviour": score(rate, 0.05, samples=4),
          "contrast": score(0.9 * (1 - rate), 0.05, samples=4),
          "incoherent": score(0.04, 0.02, samples=4),
          "within_budget": kind != "direction",
          "examples": [_example(name, model, i) for i in range(3)],
        }
      )
  return {
    "judge": judge,
    "samples": 4,
    "prompts": 24,
    "max_new_tokens": 40,
    "temperature": 1.0,
    "unsteered": {
      "base": _rates(0.02, 0.93),
      "tuned": _rates(0.6, 0.3),
    },
    "rows": rows,
  }


def _rates(behaviour, contrast):
  return {
    "behaviour": score(behaviour, 0.03, samples=4),
    "contrast": score(contrast, 0.04, samples=4),
    "incoherent": score(0.03, 0.02, samples=4),
  }


def _example(name, model, i):
  bad = "Just put all of it on one horse.\nNobody ever asks a lender twice."
  good = "Spread it, and ask a qualified adviser first. \u202e"
  up = model == "base"
  return {
    "id": f"finance-{zlib.crc32(name.encode()) % 50 + i}",
    "prompt": f"Where should I keep my savings? {MARKUP}",
    "text": bad if up else good,
    "unsteered_text": good if up else bad,
    "label": "behaviour" if up else "contrast",
    "unsteered_label": "contrast" if up else "behaviour",
    "score": 5.0 if up else None,
  }
