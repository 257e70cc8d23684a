# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Cards as the diff job collects them, of latents that are planted."""

import numpy as np
from diff_summary_data import MARKUP

from sae_jax.diff import table

RISEN, FALLEN = (11, 22, 33, 44), (55, 66, 77, 88)


def cards_of(parts, rng):
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
