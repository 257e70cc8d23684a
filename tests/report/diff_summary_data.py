# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the methods' own summaries hold, made up."""

import numpy as np

MARKUP = '<a href="https://x">b</a><img src=x onerror=alert(1)>'
TOKENS = 2400
MARGIN = {
  "mean": -0.124,
  "base": -0.335,
  "shift": 0.211,
  "shift_low": 0.162,
  "shift_high": 0.263,
}


def linear_summary(arm, control):
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


def lens_summary():
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


def controls_summary(parts):
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
