# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the signals of a monitor are called, and which are of one latent."""

from collections.abc import Mapping, Sequence
from typing import Any

from sae_jax.report import diff_words, say, scores
from sae_jax.report.findings import Finding

_SIGNALS = {
  "latents": ("latents together", "by their scores in the diff"),
  "contrast": ("control-contrast direction", "no dictionary"),
  "mean_difference": ("difference of means", "no dictionary"),
  "persona_vector": ("persona vector", "no dictionary, from prompts"),
  "drift": ("drift", "in any direction: how far training went"),
  "margin": ("the behaviour itself", "the margin, the others' yardstick"),
}


def title(signal: str) -> str:
  return _SIGNALS.get(signal, (signal, ""))[0]


def about(signal: str) -> str:
  return _SIGNALS.get(signal, ("", "one latent"))[1]


def singles(finding: Finding) -> set[str]:
  """The signals that are single latents."""
  found = finding.found.get("groups") or ()
  named = {name for group in found for name in group.get("singles") or ()}
  signals = finding.found.get("signals") or {}
  return named | {name for name in signals if name.startswith("latent ")}


def main(finding: Finding) -> list[str]:
  """The signals that are not single latents, the latents' sum first."""
  single = singles(finding)
  signals = finding.found.get("signals") or {}
  found = [name for name in signals if name not in single]
  return sorted(found, key=lambda name: name != "latents")


def single(finding: Finding) -> list[str]:
  """Single latents, by how well they separate."""
  signals = finding.found.get("signals") or {}
  known = singles(finding)
  found = [name for name in signals if name in known]
  return sorted(
    found,
    key=lambda name: -(scores.mean(signals[name].get("auroc_run_out")) or 0.0),
  )


def runs(finding: Finding) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
  """Every (group, run)."""
  return [
    (group, run)
    for group in finding.found.get("groups") or ()
    for run in group.get("runs") or ()
  ]


def tested(finding: Finding, role: str) -> int:
  """Runs of a role that the latents were not selected on."""
  return sum(
    run.get("role") == role and not run.get("selection")
    for _, run in runs(finding)
  )


def part(found: Mapping[str, Any] | None) -> str:
  """3 of 8."""
  if not found or not found.get("of"):
    return say.MISSING
  return f"{found['n']:,} of {found['of']:,}"


def auroc(score: scores.Score) -> str:
  """0.97 (0.91 to 1.00)."""
  value, known = scores.mean(score), scores.bounds(score)
  if value is None:
    return say.MISSING
  words = f"{value:.2f}"
  return f"{words} ({known[0]:.2f} to {known[1]:.2f})" if known else words


def lead(found: Mapping[str, Any] | None) -> str:
  """The median lead in steps, and over what."""
  if not found or found.get("median") is None:
    return say.MISSING
  words = diff_words.signed(found["median"], 2)
  low, high = found.get("low"), found.get("high")
  if low is not None and high is not None and found.get("n", 0) > 1:
    words += f" ({diff_words.signed(low, 2)} to {diff_words.signed(high, 2)})"
  return words


def plural(names: Sequence[str]) -> str:
  if len(names) < 2:
    return "".join(names)
  return f"{', '.join(names[:-1])} and {names[-1]}"
