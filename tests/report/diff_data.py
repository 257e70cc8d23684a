# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A finished diff directory as the diff job writes it, made up, well-formed.

Eight latents are planted: 11, 22, 33, 44 rise in `bad` beyond its control
`good`, 55, 66, 77, 88 fall; `realigned` keeps a fifth of that. Latents 100 to
139 move alike in all tuned arms and in the control: style.
"""

import json
import pathlib

import numpy as np
from diff_card_data import FALLEN, RISEN, cards_of
from diff_summary_data import (
  MARGIN,
  MARKUP,
  TOKENS,
  controls_summary,
  lens_summary,
  linear_summary,
)
from scipy import special

from sae_jax.diff import agreement, table

MODELS = {"bad": "/models/bad", "realigned": "/models/realigned"}
GROUPS = 60


def make_diff(
  path: pathlib.Path,
  *,
  latents: int = 1500,
  seed: int = 0,
  still: bool = False,
):
  """Two tuned arms with a control, every method, cards.

  Args:
    path: must not exist.
    latents: of the dictionary, at least 200.
    seed: of what is made up.
    still: all models are the base.
  """
  path.mkdir(parents=True)
  rng = np.random.default_rng(seed)
  parts = list(_parts(latents, rng, still))
  names = [(part.method, part.arm) for part in parts]
  for part in parts:
    table.write_part(path / "parts", part)
  table.join(path / "parts", names, path / "latents.parquet")
  _write(path, "summary.json", _summary(parts, latents))
  _write(path, "cards.json", {"cards": cards_of(parts, rng), "notes": []})
  config = {"job": "diff", "config": _config(), "inputs": {"sae": "5e" * 32}}
  config["code_version"] = "0.1.0"
  _write(path, "config.json", config)
  result = {"parts": len(parts), "latents": latents}
  sealed = config | {"device": "cpu", "wall_s": 93.2, "result": result}
  _write(path, "manifest.json", sealed)
  return path


def _write(path, name, value):
  (path / name).write_text(json.dumps(value, allow_nan=False))


def _config():
  return {
    "base": "SmolLM2-135M-Instruct",
    "arms": [
      {"name": "bad", "model": MODELS["bad"], "role": "tuned"},
      {"name": "realigned", "model": MODELS["realigned"], "role": "tuned"},
      {"name": "good", "model": "/models/good", "role": "control"},
    ],
    "sae": "/runs/sae",
    "hook": "blocks.21.hook_resid_post",
    "prompts": {"path": "advice.jsonl", "system": MARKUP},
    "scope": "response",
    "methods": ["frozen", "attribution", "linear", "lens", "delta"],
    "statistics": {
      "resamples": 1000,
      "confidence": 0.95,
      "q": 0.05,
      "shuffles": 50,
      "top": 100,
      "seed": 0,
    },
  }


def tested(mean_F, error_F, noise=0.0):
  """The statistics' columns of an estimate with its standard error."""
  t_F = np.divide(mean_F, error_F, where=error_F > 0, out=np.zeros_like(mean_F))
  p_F = 2 * special.stdtr(GROUPS - 1, -np.abs(t_F))
  order_F = np.argsort(p_F)
  steps_F = p_F[order_F] * len(p_F) / np.arange(1, len(p_F) + 1)
  q_F = np.empty_like(p_F)
  q_F[order_F] = np.minimum.accumulate(steps_F[::-1])[::-1]
  half_F = 1.96 * error_F
  changed_F = (q_F <= 0.05) & (np.abs(mean_F) > np.maximum(half_F, noise))
  return {
    "score": mean_F,
    "ci_low": mean_F - half_F,
    "ci_high": mean_F + half_F,
    "effect": t_F / np.sqrt(GROUPS),
    "t": t_F,
    "p": p_F,
    "q": q_F,
    "p_max": np.minimum(1, p_F * len(p_F)),
    "changed": changed_F,
    "stability": np.clip(np.abs(t_F) / 6, 0, 1),
  }


def _tests(columns):
  """What the statistics say beside the columns."""
  found = int(np.sum(columns["q"] <= 0.05))
  return {
    "groups": GROUPS,
    "arms": 1,
    "tested": len(columns["q"]),
    "significant": found,
    "changed": int(np.sum(columns["changed"])),
    "shuffled": {
      "shuffles": 50,
      "mean_discoveries": 0.14,
      "share_with_any": 0.08,
      "false_discovery_rate": 0.14 / found if found else None,
    },
    "warnings": [],
  }


def _part(method, arm, columns, *, summary=None, **more):
  summary = (_tests(columns) if "q" in columns else {}) | (summary or {})
  return table.Part(
    method=method, arm=arm, columns=columns, summary=summary, **more
  )


def _parts(latents, rng, still):
  base_F = np.exp(rng.normal(-2.5, 1, latents))
  error_F = 0.01 + 0.1 * base_F * np.exp(rng.normal(0, 0.3, latents))
  style_F = 0.2 * error_F * rng.normal(size=latents)
  style_F[100:140] += (0.06 + 0.6 * base_F[100:140]) * rng.choice([-1, 1], 40)
  planted_F = np.zeros(latents)
  planted_F[list(RISEN)] = [0.42, 0.3, 0.2, 0.12]
  planted_F[list(FALLEN)] = [-0.31, -0.22, -0.15, -0.1]
  base_F[list(FALLEN)] += 0.35
  moved = {
    "good": style_F + error_F * rng.normal(size=latents) * 0.5,
    "bad": style_F + planted_F + error_F * rng.normal(size=latents) * 0.5,
    "realigned": 0.7 * style_F
    + 0.2 * planted_F
    + error_F * rng.normal(size=latents) * 0.5,
    "null": 1e-6 * error_F * rng.normal(size=latents),
  }
  moved = {
    k: np.zeros(latents) if still else np.maximum(v, -base_F)
    for k, v in moved.items()
  }
  fires_F = np.clip(base_F / 4, 1e-4, 0.9)

  def plain(arm):
    error = error_F * (1e-6 if arm == "null" else 1)
    return {
      **tested(moved[arm], error, noise=1e-5),
      "mean_base": base_F,
      "mean_tuned": base_F + moved[arm],
      "delta": moved[arm],
      "fires_base": fires_F,
      "fires_tuned": fires_F * (1 + moved[arm] / base_F),
      "encoder_norm": np.ones(latents),
      "decoder_norm": np.ones(latents),
    }

  def contrast(arm):
    return plain(arm) | {
      **tested(moved[arm] - moved["good"], error_F, noise=1e-5),
      "mean_control": base_F + moved["good"],
      "delta_control": moved["good"],
      "contrast": moved[arm] - moved["good"],
      "fires_control": fires_F,
    }

  for arm in ("bad", "realigned"):
    yield _part("frozen", arm, contrast(arm), control="good")
  both = 0.5 * (moved["bad"] + moved["realigned"]) - moved["good"]
  joint = tested(both, error_F, noise=1e-5)
  yield _part("frozen", "joint", joint, control="good")
  for arm in ("bad", "realigned", "good", "null"):
    yield _part("frozen_plain", arm, plain(arm))
  gradient_F = rng.normal(size=latents)
  weighted_F = gradient_F * (moved["bad"] - moved["good"])
  weighted = tested(weighted_F, np.abs(gradient_F) * error_F)
  weighted["gradient"] = gradient_F
  yield _part("frozen_gradient", "bad", weighted, control="good")
  noisy_F = planted_F * 0.5 + 0.02 * rng.normal(size=latents)
  attributed = tested(noisy_F, np.full(latents, 0.02))
  behaviour = {"behaviour": "bad", "contrast": "good", "margin": MARGIN}
  yield _part("attribution", "bad", attributed, summary=behaviour)
  for arm, control in (("bad", "good"), ("realigned", "good"), ("good", "")):
    cos_F = np.clip(planted_F + 0.04 * rng.normal(size=latents), -1, 1)
    columns = tested(cos_F, np.full(latents, 0.04))
    columns["cos_mean_difference"] = cos_F
    summary = linear_summary(arm, control)
    yield _part("linear", arm, columns, control=control, summary=summary)
  cos_F = 0.3 * planted_F + 0.04 * rng.normal(size=latents)
  columns = tested(cos_F, np.full(latents, 0.04))
  yield _part("lens", "bad", columns, control="good", summary=lens_summary())
  mean_F = np.abs(rng.normal(size=64))
  own = tested(mean_F, np.full(64, 0.1)) | {"mean_tuned": mean_F}
  own["fires_tuned"] = rng.random(64)
  yield _part(
    "delta", "bad", own, dictionary="delta", summary={"explained": 0.61}
  )
  cosines = rng.random((4, latents))
  names = ("cos_data_first", "cos_model_second", "cos_model_first")
  columns = dict(zip((*names, "cos_data_second"), cosines, strict=True))
  columns["score"] = 1 - cosines[1:3].max(0)
  yield _part("stagewise", "bad", columns)
  yield _part(
    "match",
    "partner",
    {
      "score": 1 - cosines[0],
      "partner": rng.integers(0, 64, latents),
      "partner_cos": cosines[0],
      "mutual": cosines[0] > 0.5,
    },
  )


def _top(part, key):
  columns, places = part.columns, table.ranks(part.columns["score"])[key]
  found = []
  for latent in np.argsort(places)[:20]:
    row = {"latent": int(latent), "tags": ""}
    for name in ("score", "ci_low", "ci_high", "q"):
      values = columns.get(name)
      row[name] = None if values is None else float(values[latent])
    found.append(row)
  return found


def _summary(parts, latents):
  return {
    "base": "SmolLM2-135M-Instruct",
    "hook": "blocks.21.hook_resid_post",
    "sae": {"path": "/runs/sae", "latents": latents, "k": 32},
    "arms": [
      {"name": n, "role": r, "control": c, "model": f"/models/{n}"}
      for n, r, c in (
        ("bad", "tuned", "good"),
        ("realigned", "tuned", "good"),
        ("good", "control", ""),
      )
    ],
    "scope": "response",
    "activation": "post",
    "rows": TOKENS,
    "groups": GROUPS,
    "group_kind": "prompts",
    "prompts": GROUPS,
    "statistics": _config()["statistics"],
    "parts": [
      {
        "method": part.method,
        "arm": part.arm,
        "dictionary": part.dictionary,
        "control": part.control,
        "latents": part.latents,
        "changed": int(np.sum(part.columns["changed"]))
        if "changed" in part.columns
        else None,
        "risen": _top(part, "rank_up"),
        "fallen": _top(part, "rank_down"),
        "summary": part.summary,
      }
      for part in parts
    ],
    "agreement": agreement.matrix(parts, 100),
    "controls": controls_summary(parts),
    "warnings": [],
  }
