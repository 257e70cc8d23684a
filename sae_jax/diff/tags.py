# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Words for what a row of the table shows, to filter and to read by.

They follow from the row's own numbers and say no more than those: risen or
fallen (`changed`, by the sign of the score), silent (active in no model),
tuned-only and base-only (active in one of the two), like-control (the matched
control moved the same way, at least half as far), alone (no partner). A
crosscoder's latent is tuned-only or base-only if it has `changed`, by-norm-only
if its decoder norms alone say so, and shared if they are alike.
"""

import dataclasses

import numpy as np

from sae_jax.diff import latent_scaling, table

_HALF = 0.5


def tagged(part: table.Part) -> table.Part:
  """The part with its column `tags`, words joined by commas."""
  found = _found(part.columns)
  code_F = np.zeros(part.latents, np.int64)
  for bit, holds_F in enumerate(found.values()):
    code_F += holds_F.astype(np.int64) << bit
  codes, at_F = np.unique(code_F, return_inverse=True)
  words = [
    ",".join(word for bit, word in enumerate(found) if code >> bit & 1)
    for code in codes.tolist()
  ]
  tags_F = np.array(words, object)[at_F]
  return dataclasses.replace(part, columns=part.columns | {"tags": tags_F})


def _found(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """word -> bool [F]."""
  score_F = np.nan_to_num(np.asarray(columns["score"], np.float64))
  found = {}
  if "changed" in columns and "partner" not in columns:
    found["risen"] = columns["changed"] & (score_F > 0)
    found["fallen"] = columns["changed"] & (score_F < 0)
  if "fires_base" in columns and "fires_tuned" in columns:
    base_F = np.asarray(columns["fires_base"]) > 0
    tuned_F = np.asarray(columns["fires_tuned"]) > 0
    found["silent"] = ~base_F & ~tuned_F
    if "fires_control" in columns:
      found["silent"] &= np.asarray(columns["fires_control"]) == 0
    if "delta_norm" in columns:
      return found | _of_crosscoder(columns, found["silent"])
    found["tuned-only"] = tuned_F & ~base_F
    found["base-only"] = base_F & ~tuned_F
  if "delta" in columns and "delta_control" in columns:
    delta_F = np.asarray(columns["delta"], np.float64)
    control_F = np.asarray(columns["delta_control"], np.float64)
    alike_F = delta_F * control_F > 0
    far_F = np.abs(control_F) >= _HALF * np.abs(delta_F)
    found["like-control"] = alike_F & far_F
  if "partner" in columns:
    found["alone"] = np.asarray(columns["partner"]) < 0
  return found


def _of_crosscoder(
  columns: dict[str, np.ndarray], silent_F: np.ndarray
) -> dict[str, np.ndarray]:
  delta_F, changed_F = columns["delta_norm"], columns["changed"]
  alone_F = latent_scaling.by_norm(delta_F)
  return {
    "tuned-only": changed_F & (delta_F > 0.5),
    "base-only": changed_F & (delta_F < 0.5),
    "by-norm-only": alone_F & ~changed_F & ~silent_F,
    "shared": latent_scaling.shared(delta_F) & ~silent_F,
  }
