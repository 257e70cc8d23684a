# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a monitor: when an alarm would have come, how often falsely."""

from sae_jax.report import (
  diff_words,
  monitor_curves,
  monitor_detector,
  monitor_doses,
  monitor_samples,
  monitor_tables,
  monitor_words,
  origin,
  page,
  scores,
  verdict_section,
)
from sae_jax.report.findings import Finding

_BASELINES = ("contrast", "mean_difference", "persona_vector", "drift")


def title(finding: Finding) -> str:
  if finding.summary is None:
    return finding.name
  return "When it shows, and when the alarm sounds"


def lead(finding: Finding) -> str:
  """What was watched, in one line."""
  if finding.summary is None:
    return str(finding.path)
  found = monitor_words.runs(finding)
  checkpoints = sum(len(run.get("checkpoints") or ()) for _, run in found)
  groups = finding.found.get("groups") or ()
  words = f"Monitored: {diff_words.plural(len(found), 'run')} with"
  words += f" {diff_words.plural(checkpoints, 'checkpoint')}, of"
  words += f" {diff_words.plural(len(groups), 'base model')}"
  hooks = list(dict.fromkeys(g["hook"] for g in groups if g.get("hook")))
  if hooks:
    words += f" at {monitor_words.plural(hooks[:3])}"
  screened = finding.found.get("screening")
  if screened:
    words += f"; {diff_words.plural(screened.get('samples') or 0, 'sample')}"
    words += " of a fine-tuning set screened"
  return words


def story(finding: Finding) -> str:
  if finding.summary is None:
    return "not finished yet."
  return f"{_first(finding)} {_compared(finding)}".strip()


def sections(finding: Finding) -> list[page.Section]:
  shown = [verdict_section.make(finding, _verdict)]
  if finding.summary is not None:
    shown += [
      monitor_tables.section(finding),
      monitor_curves.section(finding),
      monitor_doses.section(finding),
      monitor_detector.section(finding),
      monitor_samples.section(finding),
    ]
  return [*shown, _origin(finding)]


def _verdict(finding: Finding) -> list[page.Block]:
  return [
    {
      "kind": "verdict",
      "lines": _lines(finding),
      "controls": _controls(finding),
    },
    page.text(_limits(finding)),
  ]


def _lines(finding: Finding) -> list[dict[str, str]]:
  lines = [
    {
      "arm": "during training",
      "text": _first(finding),
      "behaviour": _compared(finding),
    }
  ]
  if words := _model_level(finding):
    lines.append({"arm": "a finished model", "text": words, "behaviour": ""})
  if words := _doses(finding):
    lines.append({"arm": "by dose", "text": words, "behaviour": ""})
  if words := monitor_samples.verdict(finding):
    lines.append({"arm": "training data", "text": words, "behaviour": ""})
  return lines


def _first(finding: Finding) -> str:
  """When the latents' alarm came, against the behaviour."""
  found = (finding.found.get("signals") or {}).get("latents")
  if not found:
    return "the latents' sum was not measured."
  lead, missed = found.get("lead") or {}, found.get("missed") or {}
  total = missed.get("of") or 0
  if not total:
    return "no run that may be tested came to show the behaviour."
  caught = total - missed["n"]
  words = f"the latents sound an alarm in {caught:,} of"
  words += f" {diff_words.plural(total, 'run')} that came to show the behaviour"
  median = lead.get("median")
  if median is not None:
    steps = diff_words.plural(round(abs(median)), "step")
    when = "before it" if median > 0 else "after it"
    words += (
      f", {steps} {when} at the median"
      if round(median)
      else ", together with it"
    )
    words += (
      f" ({lead.get('early', 0)} before, {lead.get('at_once', 0)} with,"
      f" {lead.get('late', 0)} after)"
    )
  return f"{words}."


def _compared(finding: Finding) -> str:
  """How well the latents tell bad checkpoints, beside linear baselines."""
  signals = finding.found.get("signals") or {}
  words = []
  for name in ("latents", *_BASELINES):
    if name in signals and signals[name].get("auroc_run_out"):
      score = monitor_words.auroc(signals[name]["auroc_run_out"])
      words.append(f"{monitor_words.title(name)} {score}")
  if not words:
    return ""
  return f"AUROC with every run left out: {'; '.join(words)}."


def _model_level(finding: Finding) -> str:
  found = finding.found.get("detector") or {}
  rows = {row["signal"]: row for row in found.get("rows") or ()}
  row = rows.get("latents")
  if not row or row.get("auroc") is None:
    return ""
  score = {
    "mean": row["auroc"],
    "ci_low": row.get("ci_low"),
    "ci_high": row.get("ci_high"),
  }
  words = "the latents tell misaligned last checkpoints from benign ones with"
  words += f" AUROC {monitor_words.auroc(score)}, over"
  words += f" {diff_words.plural(found.get('models') or 0, 'model')}"
  tpr, fpr = (scores.mean(row.get(name)) for name in ("tpr", "fpr"))
  if tpr is not None:
    words += f"; {scores.percent(tpr)} are caught"
    if fpr is not None:
      words += f", {scores.percent(fpr)} of the benign are accused"
  return f"{words}."


def _doses(finding: Finding) -> str:
  found = (finding.found.get("signals") or {}).get("latents") or {}
  dose = found.get("dose") or {}
  if not dose.get("of"):
    return ""
  return (
    "the latents put the doses of bad data in their order in"
    f" {monitor_words.part({'n': dose['ordered'], 'of': dose['of']})} series."
  )


def _controls(finding: Finding) -> str:
  found = (finding.found.get("signals") or {}).get("latents") or {}
  wanted = finding.found.get("false_alarm_rate")
  words = f"Asked for at most {scores.percent(wanted)} false alarms"
  if (rate := found.get("threshold_rate")) is not None:
    words += f"; {found.get('calibrated_on', 0):,} benign runs guarantee"
    words += f" {scores.percent(rate)}"
  words += ". Counted on held-out benign runs:"
  words += f" {monitor_words.part(found.get('false_alarms'))}"
  if (out := found.get("false_alarms_group_out") or {}).get("of"):
    words += "; with thresholds from other base models:"
    words += f" {monitor_words.part(out)}"
  return f"{words}."


def _limits(finding: Finding) -> str:
  suspect, benign = (
    monitor_words.tested(finding, role) for role in ("suspect", "benign")
  )
  selected = sum(
    bool(run.get("selection")) for _, run in monitor_words.runs(finding)
  )
  groups = finding.found.get("groups") or ()
  prompts = [group.get("prompts") for group in groups if group.get("prompts")]
  words = f"Tested on {diff_words.plural(suspect, 'suspect run')} and"
  words += f" {diff_words.plural(benign, 'benign run')}"
  if selected:
    words += f"; {diff_words.plural(selected, 'run')} on which the latents were"
    words += " selected are shown, never tested"
  if prompts:
    words += f". Read on {min(prompts):,}"
    words += f" to {max(prompts):,}" if min(prompts) < max(prompts) else ""
    words += " fixed prompts"
  words += ". Behaviour is the likelihood of given answers, no judge. A lead is"
  words += " as coarse as the checkpoints are apart; where an alarm comes with"
  words += " the behaviour it is concurrent, not early. Benign runs stand for"
  words += " other fine-tuning only as far as it resembles them."
  return words


def _origin(finding: Finding) -> page.Section:
  rows = []
  for group in finding.found.get("groups") or ():
    name = group.get("name", "")
    rows += [
      [f"{name}: base", str(group.get("base", ""))],
      [f"{name}: hook", str(group.get("hook", ""))],
      [f"{name}: dictionary", str(group.get("sae", ""))],
      [f"{name}: read at", str(group.get("scope", ""))],
      [
        f"{name}: latents",
        ", ".join(str(n) for n in group.get("latents") or ()),
      ],
    ]
  return origin.section(finding, rows)
