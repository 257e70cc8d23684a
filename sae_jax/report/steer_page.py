# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a screen: what latents do when they are added or taken away."""

from sae_jax.report import (
  diff_words,
  origin,
  page,
  say,
  scores,
  steer_cards,
  steer_curves,
  steer_samples,
  steer_scatter,
  steer_table,
  steer_verdict,
  steer_words,
)
from sae_jax.report.findings import Finding


def title(finding: Finding) -> str:
  if finding.summary is None:
    return finding.name
  return f"What the latents do in {steer_words.tuned(finding)}"


def lead(finding: Finding) -> str:
  """What was tried, on what, in one line."""
  found = finding.found
  if not found:
    return str(finding.path)
  counts = [
    diff_words.plural(number, noun)
    for noun in ("latent", "bundle", "direction")
    if (number := len(steer_words.kind(finding, noun)))
  ]
  base, tuned = steer_words.base(finding), steer_words.tuned(finding)
  words = f"Steered: {_and(counts)} added to {base} and"
  words += f" {steer_words.removed(finding)} {tuned} at {found.get('hook')}, in"
  words += (
    f" {diff_words.plural(len(found.get('strengths') or ()), 'strength')}"
  )
  prompts = found.get("prompts") or {}
  words += f", on {diff_words.plural(prompts.get('n') or 0, 'pair')}"
  words += " of responses"
  return words


def _and(words: list[str]) -> str:
  if len(words) < 2:
    return "".join(words) or "nothing"
  return f"{', '.join(words[:-1])} and {words[-1]}"


def story(finding: Finding) -> str:
  """What was found, in one sentence, for a page about several jobs."""
  if finding.summary is None:
    return "not finished yet."
  return " ".join(
    f"{line['arm'][:1].upper()}{line['arm'][1:]}: {line['text']}"
    for line in steer_verdict.lines(finding)[:2]
  )


def sections(finding: Finding) -> list[page.Section]:
  shown = [steer_verdict.section(finding)]
  if finding.summary is not None:
    shown += [
      steer_curves.section(finding),
      steer_scatter.section(finding),
      steer_table.section(finding),
      steer_samples.section(finding),
      steer_cards.section(finding),
    ]
  return [*shown, _origin(finding)]


def _origin(finding: Finding) -> page.Section:
  found = finding.found
  rows = [
    ["base", str(found.get("base", ""))],
    ["tuned", str(found.get("tuned", ""))],
    ["control", str(found.get("control") or "none")],
    ["dictionary", str(found.get("sae", ""))],
    ["hook", str(found.get("hook", ""))],
    ["pairs", str((found.get("prompts") or {}).get("path", ""))],
    ["judge", steer_words.judge(found.get("judge"))],
  ]
  control = (found.get("unsteered") or {}).get("control_shift")
  if control:
    rows.append(["shift of the control", scores.with_bounds(control)])
  if cost := found.get("cost"):
    rows.append(["interventions", f"{cost['interventions']:,}"])
    rows.append(["time of the screen", say.duration(cost["seconds"])])
    if cost.get("per_intervention") is not None:
      each = say.number(1000 * cost["per_intervention"])
      rows.append(["per intervention", f"{each} ms"])
  return origin.section(finding, rows if found else [])
