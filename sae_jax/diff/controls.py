# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the same rule finds where nothing, or nothing of interest, changed.

Reads finished parts only. See `summary` for the JSON values.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_jax.diff import frozen, table
from sae_jax.diff import problem as problem_lib


def summary(
  problem: problem_lib.Problem, parts: Sequence[table.Part]
) -> dict[str, Any]:
  """The controls of a diff.

  Returns:
    rule: {"q", "confidence", "numerical_noise"}: what `changed` means.
    shuffled: "METHOD/ARM" -> {"shuffles", "mean_discoveries",
      "share_with_any", "significant", "false_discovery_rate"}: latents per
      shuffle whose q passes when the two sides of every group are exchanged at
      random, without the demands on interval and noise, so rather too many;
      the rate is their mean over what passes unshuffled, null if nothing does.
    null: arm ("null": the base run again in another arrangement; or an arm of
      role null) -> {"changed", "significant", "tested",
      "false_discovery_rate": changed / tested, "largest": largest |score|,
      "top": latents that changed, at most 10}.
    benign: tuned arm with a control -> {"control", "plain": changed by plain
      difference, "control_changed", "shared": latents of `plain` that the
      control changed in the same direction, "false_discovery_rate": shared /
      plain, "contrast": changed by contrast, "contrast_shared",
      "contrast_false_discovery_rate"}.
    stability: "METHOD/ARM" -> {"top", "risen", "fallen"}: mean share of
      resamples in which the leading latents stay among the top so many.
    warnings: texts.
  """
  by_name = {(part.method, part.arm): part for part in parts}
  statistics = problem.config.statistics
  null = _null(problem, by_name)
  return {
    "rule": {
      "q": statistics.q,
      "confidence": statistics.confidence,
      "numerical_noise": frozen.NULL in problem.evidence.names,
    },
    "shuffled": {
      part.name: part.summary["shuffled"]
      | {"significant": part.summary["significant"]}
      for part in parts
      if "shuffled" in part.summary
    },
    "null": null,
    "benign": _benign(problem, by_name),
    "stability": {
      part.name: {"top": statistics.top} | part.summary["stability"]
      for part in parts
      if "stability" in part.summary
    },
    "warnings": _warnings(problem, parts, null),
  }


def _null(
  problem: problem_lib.Problem, parts: dict[tuple[str, str], table.Part]
) -> dict[str, Any]:
  names = [frozen.NULL]
  names += [arm.name for arm in problem.config.arms if arm.role == "null"]
  found = {}
  for name in names:
    part = parts.get((frozen.PLAIN, name))
    if part is None:
      continue
    score_F, changed_F = part.columns["score"], part.columns["changed"]
    changed, tested = int(changed_F.sum()), part.summary["tested"]
    order_F = np.argsort(-np.abs(score_F), kind="stable")
    found[name] = {
      "changed": changed,
      "significant": part.summary["significant"],
      "tested": tested,
      "false_discovery_rate": changed / tested if tested else 0.0,
      "largest": float(np.abs(score_F).max()),
      "top": [int(i) for i in order_F if changed_F[i]][:10],
    }
  return found


def _benign(
  problem: problem_lib.Problem, parts: dict[tuple[str, str], table.Part]
) -> dict[str, Any]:
  found = {}
  for arm in problem.tuned():
    control = problem.control_of(arm)
    plain = parts.get((frozen.PLAIN, arm.name))
    contrast = parts.get((frozen.METHOD, arm.name))
    if control is None:
      continue
    benign = parts.get((frozen.PLAIN, control.name))
    if plain is None or contrast is None or benign is None:
      continue
    shared = int(_shared(plain, benign).sum())
    contrast_shared = int(_shared(contrast, benign).sum())
    changed = int(plain.columns["changed"].sum())
    contrast_changed = int(contrast.columns["changed"].sum())
    found[arm.name] = {
      "control": control.name,
      "plain": changed,
      "control_changed": int(benign.columns["changed"].sum()),
      "shared": shared,
      "false_discovery_rate": shared / changed if changed else None,
      "contrast": contrast_changed,
      "contrast_shared": contrast_shared,
      "contrast_false_discovery_rate": contrast_shared / contrast_changed
      if contrast_changed
      else None,
    }
  return found


def _shared(one: table.Part, other: table.Part) -> np.ndarray:
  """Latents that both changed, in the same direction."""
  same_F = np.sign(one.columns["score"]) == np.sign(other.columns["score"])
  return one.columns["changed"] & other.columns["changed"] & same_F


def _warnings(
  problem: problem_lib.Problem,
  parts: Sequence[table.Part],
  null: dict[str, Any],
) -> list[str]:
  found = [
    f"null arm {name!r}: {row['changed']} of {row['tested']} latents pass the"
    " rule although nothing of interest changed; trust no difference that is"
    " not clearly larger"
    for name, row in null.items()
    if row["changed"]
  ]
  if not null and any(part.method == frozen.METHOD for part in parts):
    found.append(
      "no null arm: nothing shows what the rule finds in equal models; add an"
      " arm of role null, or compare live models with null_arm=True"
    )
  for part in parts:
    shuffled = part.summary.get("shuffled", {})
    rate = shuffled.get("false_discovery_rate")
    if rate is not None and rate > 2 * problem.config.statistics.q:
      found.append(
        f"{part.name}: with shuffled labels the rule still finds"
        f" {shuffled['mean_discoveries']:.3g} latents on average, {rate:.0%} of"
        " what it finds"
      )
  return found
