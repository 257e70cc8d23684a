# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the controls of a diff found: null, shuffled and benign arms."""

from typing import Any, NamedTuple

from sae_jax.report import page
from sae_jax.report.diff_entry import Diff, Part


class Shuffled(NamedTuple):
  """What the rule finds with the labels of the groups shuffled."""

  mean: float  # latents per shuffle
  times: int
  rate: float | None  # mean / what it finds without shuffling


def shuffled(diff: Diff, part: Part) -> Shuffled | None:
  return None


def section(diff: Diff) -> page.Section:
  controls: dict[str, Any] = (diff.summary or {}).get("controls") or {}
  return page.Section(
    id=f"{diff.prefix}controls",
    title="Controls",
    blocks=[page.fold_json("controls", controls)],
  )
