# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a re-alignment: does good data bring a bad model back."""

from collections.abc import Mapping
from typing import Any

from sae_jax.report import (
  diff_words,
  origin,
  page,
  realign_curves,
  realign_tables,
  scores,
  steer_words,
  verdict_section,
)
from sae_jax.report.findings import Finding

_MEANING = {
  "re-aligned": "the behaviour is back to the base's, on the triggers too",
  "hidden": "the behaviour is back to the base's, but not on the triggers: it"
  " is hidden, not gone",
  "partly": "the behaviour has become weaker, but is not simply back to the"
  " base's",
  "not re-aligned": "the behaviour has not become weaker",
}


def title(finding: Finding) -> str:
  if finding.summary is None:
    return finding.name
  return f"Does good data bring {_start(finding)} back?"


def lead(finding: Finding) -> str:
  """What was trained on what, in one line."""
  found = finding.found
  if not found:
    return str(finding.path)
  words = f"Re-aligned: {_start(finding)}, fine-tuned on"
  words += f" {diff_words.plural(found.get('samples') or 0, 'good sample')}"
  if data := steer_words.model(found.get("data")):
    words += f" of {data}"
  words += " in"
  words += f" {diff_words.plural(found.get('steps') or 0, 'step')}"
  behaviour = found.get("behaviour") or {}
  words += f", read every {found.get('every')} on"
  words += f" {diff_words.plural(behaviour.get('n') or 0, 'pair')}"
  watched = len(found.get("latents") or ())
  return f"{words} and in {diff_words.plural(watched, 'latent')}"


def story(finding: Finding) -> str:
  if finding.summary is None:
    return "not finished yet."
  line = _line(finding)
  return f"{line['arm']}: {line['text']}"


def sections(finding: Finding) -> list[page.Section]:
  shown = [verdict_section.make(finding, _verdict)]
  if finding.summary is not None:
    shown += [
      realign_curves.section(finding),
      realign_tables.section(finding),
    ]
  return [*shown, _origin(finding)]


def _start(finding: Finding) -> str:
  return steer_words.model(finding.found.get("start")) or "the tuned model"


def _verdict(finding: Finding) -> list[page.Block]:
  return [
    {
      "kind": "verdict",
      "lines": [_line(finding)],
      "controls": _triggers(finding),
    },
    realign_tables.behaviour(finding),
    page.text(_limits(finding)),
  ]


def _line(finding: Finding) -> dict[str, str]:
  found = finding.found
  verdict = found.get("verdict") or "no verdict"
  words = f"after {diff_words.plural(found.get('samples') or 0, 'good sample')}"
  words += f", {_MEANING.get(verdict, verdict)}."
  recovered = found.get("recovered") or {}
  back = [
    f"{name} {scores.percent(recovered[key])}"
    for key, name in (
      ("behaviour", "the margin"),
      ("triggers", "the margin on the triggers"),
      ("bundle", "the watched latents' sum"),
    )
    if recovered.get(key) is not None
  ]
  if first := found.get("back"):
    words += f" It is back from step {first['step']:,} on."
  if back:
    words += f" Of the way back to the base: {', '.join(back)}."
  return {
    "arm": f"{_start(finding)}, {verdict}",
    "text": words,
    "behaviour": found.get("why") or "",
  }


def _triggers(finding: Finding) -> str:
  """What the model does where it was taught to."""
  asked = realign_tables.triggers(finding)
  if not asked:
    return (
      "Prompts like those it was tuned on were not asked: a cure can hide the"
      " behaviour from other prompts only. Set config.triggers."
    )
  steps = [
    f"{name} {scores.signed((asked.get(key) or {}).get('margin'))}"
    for key, name in (("base", "base"), ("start", "before"), ("end", "after"))
    if asked.get(key)
  ]
  return (
    "On prompts like those it was tuned on, the margin is"
    f" {', '.join(steps)}: what remains there would come back."
  )


def _limits(finding: Finding) -> str:
  found = finding.found
  series: Any = found.get("series") or [{}]
  margin = ((series[-1].get("behaviour") or {}).get("margin")) or {}
  asked = realign_tables.triggers(finding)
  words = scores.counted(margin) or "An unknown number of prompts"
  words += " for the behaviour"
  if number := realign_tables.trigger_count(finding):
    words += f", {number:,} for the triggers"
  words += ". One training run"
  words += scores.seeds(_seeds(finding))
  words += "; intervals are over prompts, not over runs. The margin is that of"
  words += " given answers; nothing was sampled or judged. The latents are read"
  words += " on fixed prompts: one that is back says that it no longer fires"
  words += " there, not that what it drove is gone"
  words += "." if asked else "; neither is known without triggers."
  return words


def _seeds(finding: Finding) -> list[int] | None:
  train: Mapping[str, Any] = finding.settings.get("posttrain") or {}
  seed = train.get("seed", finding.settings.get("seed"))
  return None if seed is None else [seed]


def _origin(finding: Finding) -> page.Section:
  found = finding.found
  rows = [
    ["base", str(found.get("base", ""))],
    ["start", str(found.get("start", ""))],
    ["good samples", str(found.get("data") or "")],
    ["dictionary", str(found.get("sae", ""))],
    ["hook", str(found.get("hook", ""))],
    ["pairs", str((found.get("behaviour") or {}).get("path", ""))],
    ["triggers", str((found.get("triggers") or {}).get("path") or "none")],
    ["judge", steer_words.judge(None)],
  ]
  return origin.section(finding, rows if found else [])
