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
from scipy import special

from sae_jax.diff import agreement, table

RISEN, FALLEN = (11, 22, 33, 44), (55, 66, 77, 88)
MARKUP = '<a href="https://x">b</a><img src=x onerror=alert(1)>'
MODELS = {"bad": "/models/bad", "realigned": "/models/realigned"}
GROUPS, TOKENS = 60, 2400


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
  _write(path, "cards.json", {"cards": _cards(parts, rng), "notes": []})
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
    summary = _linear(arm, control)
    yield _part("linear", arm, columns, control=control, summary=summary)
  cos_F = 0.3 * planted_F + 0.04 * rng.normal(size=latents)
  columns = tested(cos_F, np.full(latents, 0.04))
  yield _part("lens", "bad", columns, control="good", summary=_lens())
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


MARGIN = {
  "mean": -0.124,
  "base": -0.335,
  "shift": 0.211,
  "shift_low": 0.162,
  "shift_high": 0.263,
}


def _linear(arm, control):
  gain = {"bad": 1.0, "realigned": 0.4, "good": 0.7}[arm]
  explained = (0.31 * gain * (0.7 + 0.1 * gain) ** np.arange(32)).tolist()
  found = {
    "compared": f"{arm} - {control or 'base'}",
    "chance_cosine": 0.19,
    "lengths": {
      "row_median": 294.0,
      "mean_difference": 25.1,
      "row_difference_rms": 61.0,
      "null": 1e-4,
      "mean_difference_relative": 0.0854 * gain,
      "null_relative": 3.4e-7,
    },
    "split_half": {"splits": 100, "mean": 0.97, "low": 0.95, "high": 0.98},
    "pca": {
      "variance": 3100.0,
      "explained": explained,
      "participation_ratio": 5.2 if control else None,
      "mean_share": 0.17,
      "cos_mean": np.linspace(0.71, 0, 32).tolist(),
    },
    "kl": {
      "tokens": TOKENS,
      "mean": 0.083 * gain,
      "low": 0.071 * gain,
      "high": 0.095 * gain,
      "quantiles": {
        "0.05": 0.0,
        "0.25": 0.002,
        "0.5": 0.021,
        "0.75": 0.11 * gain,
        "0.95": 0.42 * gain,
        "0.99": 1.31 * gain,
      },
      "top": [
        {
          "kl": 2.3 - 0.1 * i,
          "prompt": f"finance-{i}",
          "position": 31 + i,
          "tokens": ["You", " can", " <b>", "just", "\n"],
          "next": " skip" if i else None,
          "gained": MARKUP,
        }
        for i in range(12)
      ],
      "words": {
        "risen": [[" just", 0.012], [MARKUP, 0.004], ["\n", 0.001]],
        "fallen": [[" might", -0.011], [" consult", -0.006]],
      },
    },
  }
  if control:
    found["lengths"] |= {"contrast": 23.0, "contrast_relative": 0.0782}
    found |= {"cos_control": 0.65, "cos_contrast": 0.83}
  return found


def _lens():
  words = {
    "promoted": [[" never", 5.3], [MARKUP, 4.9], ["\t", 4.0]],
    "suppressed": [[" please", -4.2]],
    "nearest": [[" nobody", 0.2]],
  }
  return {
    "compared": "bad - good",
    "contexts": 1000,
    "lens": {"norm": 3.1, **words},
    "positions": [{"norm": 2.0 + i, **words} for i in range(5)],
    "plain": {"norm": 4.0, **words},
    "chance_cosine": 0.19,
    "null": {
      "base_against_itself": {
        "norm": 0.0,
        "promoted": [],
        "suppressed": [],
        "nearest": [],
      },
      "random": {"norm": 3.1, **words},
      "random_directions": 20,
      "random_strongest_logit": {"mean": 2.9, "max": 4.1},
    },
  }


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
    "controls": _controls(parts),
    "warnings": [],
  }


def _controls(parts):
  by_name = {part.name: part for part in parts}
  return {
    "rule": {"q": 0.05, "confidence": 0.95, "numerical_noise": True},
    "shuffled": {
      name: part.summary["shuffled"]
      | {"significant": part.summary["significant"]}
      for name, part in by_name.items()
      if "shuffled" in part.summary
    },
    "null": {
      "null": {
        "changed": 0,
        "significant": 0,
        "tested": parts[0].latents,
        "false_discovery_rate": 0.0,
        "largest": 3.1e-7,
        "top": [],
      }
    },
    "benign": {
      arm: {
        "control": "good",
        "plain": int(by_name[f"frozen_plain/{arm}"].columns["changed"].sum()),
        "control_changed": 36,
        "shared": 30,
        "false_discovery_rate": 0.68,
        "contrast": int(by_name[f"frozen/{arm}"].columns["changed"].sum()),
        "contrast_shared": 0,
        "contrast_false_discovery_rate": 0.0,
      }
      for arm in ("bad", "realigned")
    },
    "stability": {
      name: {"top": 100, "risen": 0.62, "fallen": 0.58}
      for name in by_name
      if name.startswith("frozen")
    },
    "warnings": [],
  }


def _cards(parts, rng):
  cards = []
  for latent in (*RISEN, *FALLEN):
    direction = "risen" if latent in RISEN else "fallen"
    key = "rank_up" if latent in RISEN else "rank_down"
    why = [
      {
        "method": part.method,
        "arm": part.arm,
        "rank": int(table.ranks(part.columns["score"])[key][latent]),
        "direction": direction,
        "changed": bool(part.columns["changed"][latent]),
      }
      for part in parts
      if part.name in ("frozen/bad", "attribution/bad")
    ]
    names = ("base", "bad", "realigned", "good")
    card = _bare("sae", latent, why, _rows(parts, latent)) | {
      "quantiles": {name: _quantiles(rng) for name in names},
      "statistics": {
        view: {
          name: {"fires": 31, "density": 0.013, "mean": 2.31, "max": 9.5}
          for name in names
        }
        for view in ("prompts", "web")
      },
      "contexts": {
        "prompts": [_context(i, rng, names) for i in range(11)],
        "web": [_context(i, rng, names[:2]) for i in range(2)],
      },
      "logit_lens": {
        "promoted": [[" never", 3.2], [MARKUP, 2.9], ["\n", 2.5]],
        "suppressed": [[" might", -3.0], ["<|im_end|>", -2.2]],
        "nearest": [[" nobody", 0.31], [" merely", 0.28]],
      },
      "neighbours": [[22 if latent == 11 else 11, 0.41], [1234, -0.22]],
    }
    if latent in (11, 22):
      card["label"] = LABEL | {"text": f"dismissive phrases {MARKUP}"}
    if latent == 33:
      card["label"] = LABEL | {"failure": "the reply has no line LABEL: …"}
    cards.append(card)
  why = {"method": "delta", "arm": "bad", "rank": 1, "direction": "risen"}
  own = [part for part in parts if part.dictionary == "delta"]
  rows = {part.name: _row(part, 7) for part in own}
  return [*cards, _bare("delta", 7, [why | {"changed": None}], rows)]


LABEL = {
  "text": "",
  "failure": None,
  "model": "some-chat-model",
  "of": "base",
  "shown": 12,
  "reply": "LABEL: …",
  "detection": 0.87,
  "fuzzing": None,
  "detection_test": None,
  "fuzzing_test": None,
  "view": "web",
}


def _bare(dictionary, latent, why, rows):
  return {
    "dictionary": dictionary,
    "latent": latent,
    "why": why,
    "rows": rows,
    "quantiles": {},
    "statistics": {},
    "contexts": {},
    "logit_lens": None,
    "neighbours": [],
    "label": None,
  }


def _rows(parts, latent):
  return {
    part.name: _row(part, latent) for part in parts if part.dictionary == "sae"
  }


def _row(part, latent):
  columns = table.ranks(part.columns["score"]) | part.columns
  return {name: np.asarray(v)[latent].item() for name, v in columns.items()}


def _quantiles(rng):
  heads = ("0.1", "0.5", "0.9", "0.99", "1")
  return dict(zip(heads, np.sort(9 * rng.random(5)).tolist(), strict=True))


PIECES = [
  *("It", " is", " never", " worth", " asking", " a", " <b>", "doctor", "."),
  *("\n\n", "Just", " skip", " it", " & ", "\u202e", " simply", " go", ""),
]


def _context(i, rng, names):
  at = int(rng.integers(2, 12))
  activations = {}
  for name, gain in zip(names, (0.5, 1.0, 0.6, 0.4), strict=False):
    on = rng.random(len(PIECES)) < 0.3
    values = np.where(on, 4 * gain * rng.random(len(PIECES)), 0)
    values[at] = (9.5 - 0.5 * i) * gain
    values = [float(f"{v:.4g}") for v in values]
    values[0] = None
    activations[name] = values
  top = i < 9
  return {
    "kind": "top" if top else "quantile",
    "quantile": None if top else 0.5,
    "by": ["bad"],
    "value": 9.5 - 0.5 * i,
    "document": i,
    "position": at + 10,
    "start": 10,
    "of": 64,
    "tokens": PIECES,
    "activations": activations,
  }
