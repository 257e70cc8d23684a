# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the parts of a screen are called, and its shares, in plain words."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sae_jax.report import diff_words, scores
from sae_jax.report.findings import VERDICTS, Finding

Row = Mapping[str, Any]
WAYS = ("up", "down")
_DIRECTIONS = {
  "contrast": "control-contrast direction",
  "mean_difference": "difference-of-means direction",
}


def model(name: str | None) -> str:
  """A hub id as it is; of a path its last part."""
  if not name:
    return ""
  return pathlib.PurePath(name).name if name[:1] in "/~." else name


def base(finding: Finding) -> str:
  return model(finding.found.get("base")) or "the base"


def tuned(finding: Finding) -> str:
  """The tuned model by its arm's name, else by its own."""
  arm, path = finding.found.get("arm"), finding.found.get("tuned")
  return arm or model(path) or "the tuned model"


def title(row: Row) -> str:
  """An intervention as it is named in running text."""
  name = row["name"]
  if row["kind"] == "bundle":
    return name if name.startswith("bundle") else f"bundle {name}"
  if row["kind"] == "direction":
    parts = name.split(".")
    known = _DIRECTIONS.get(parts[-1])
    return f"{known} of {parts[1]}" if known and len(parts) == 3 else name
  return name


def what(row: Row) -> str:
  """What it is made of."""
  if row["kind"] == "bundle":
    return f"{diff_words.plural(len(row['latents']), 'latent')}, signed sum"
  if row["kind"] == "direction":
    return "no dictionary, scaled to equal norm"
  if row["kind"] == "latent" and row.get("sign") == -1:
    return "fell in the diff: added with its sign turned"
  return ""


def act(finding: Finding, way: str) -> str:
  """Added to the base, or taken from the tuned model."""
  if way == "up":
    return f"added to {base(finding)}"
  return f"{removed(finding)} {tuned(finding)}"


def removed(finding: Finding) -> str:
  """How directions are taken from the tuned model, with its preposition."""
  projected = finding.found.get("removal") == "project_out"
  return "projected out of" if projected else "subtracted from"


def verb(finding: Finding, way: str) -> str:
  """What is done to a direction: added, subtracted, projected out."""
  return "added" if way == "up" else removed(finding).rpartition(" ")[0]


def kind(finding: Finding, name: str) -> list[Row]:
  """Interventions of one kind, as they were written."""
  rows = finding.found.get("interventions") or ()
  return [row for row in rows if row["kind"] == name]


def effect(row: Row, way: str) -> float | None:
  return scores.mean((row.get(way) or {}).get("effect"))


def score(point: Mapping[str, Any]) -> Mapping[str, Any]:
  """The effect at one strength of a curve."""
  return {
    "mean": point["effect"],
    "ci_low": point.get("ci_low"),
    "ci_high": point.get("ci_high"),
  }


def shift(finding: Finding) -> float | None:
  """How far the margin moved from the base to the tuned model, in nats."""
  unsteered = finding.found.get("unsteered") or {}
  known = scores.mean(unsteered.get("shift"))
  if known is not None:
    return known
  start, end = (
    scores.mean((unsteered.get(name) or {}).get("margin"))
    for name in ("base", "tuned")
  )
  return None if start is None or end is None else end - start


def share(finding: Finding, row: Row, way: str) -> float | None:
  """Of the whole shift: what is added to the base, or taken back."""
  moved, whole = effect(row, way), shift(finding)
  if moved is None or not whole:
    return None
  return moved / whole if way == "up" else -moved / whole


def strength(row: Row, way: str) -> float:
  """How far it moved the margin as expected; below all where not known."""
  moved = effect(row, way)
  if moved is None:
    return float("-inf")
  return moved if way == "up" else -moved


def both(row: Row) -> float:
  """The smaller of the two directions' effects: what a cause has both of."""
  return min(strength(row, way) for way in WAYS)


def strongest(rows: Sequence[Row]) -> list[Row]:
  """Causal ones first, then by the smaller of their two effects."""
  return sorted(
    rows,
    key=lambda row: (
      VERDICTS.index(row["verdict"]) if row.get("verdict") in VERDICTS else 9,
      -max(both(row), -1e300),
    ),
  )


def band(finding: Finding, row: Row) -> Mapping[str, Any] | None:
  """What random interventions of its kind do on its prompts."""
  bands = finding.found.get("bands") or {}
  if row["kind"] == "latent":
    return bands.get("latent")
  if row["kind"] == "direction":
    return bands.get(finding.found.get("direction_band") or "direction")
  short = row["name"].removeprefix("bundle ")
  return bands.get(row["name"]) or bands.get(short)


def chance(finding: Finding) -> dict[str, Mapping[str, Any]]:
  """The bands by what they are called."""
  names = {"latent": "random latents", "direction": "random latents, all pairs"}
  found = dict(finding.found.get("bands") or {})
  if found.get("direction") == found.get("latent"):
    found.pop("direction", None)
  return {
    names.get(name, f"random bundles like {name.removeprefix('bundle ')}"): band
    for name, band in found.items()
  }


def reach(band_: Mapping[str, Any] | None, way: str) -> tuple[float, float]:
  """The least and the most that random ones do.

  At the strengths that the rule chose for them, where that is known, else at
  any.
  """
  chosen = (band_ or {}).get(f"{way}_chosen")
  rows = [chosen] if chosen else (band_ or {}).get(way) or ()
  lows = [row["low"] for row in rows if row.get("low") is not None]
  highs = [row["high"] for row in rows if row.get("high") is not None]
  return min(lows, default=0.0), max(highs, default=0.0)


def counts(finding: Finding) -> dict[str, int]:
  """Single latents by verdict; the summary may show fewer than were tried."""
  known = (finding.found.get("counts") or {}).get("latents")
  singles = kind(finding, "latent")
  return {
    verdict: known[verdict]
    if known
    else sum(row.get("verdict") == verdict for row in singles)
    for verdict in VERDICTS
  }


def ways(row: Row) -> str:
  """In which direction it works."""
  return {
    "both": "both ways",
    "up": "only when added",
    "down": "only when removed",
  }.get(row.get("ways") or "", "neither way")


def judge(found: Mapping[str, Any] | None) -> str:
  """The judge by what identifies it."""
  if not found:
    return "margin: paired log-probabilities, no judge model"
  names = [str(found[key]) for key in ("name", "kind") if found.get(key)]
  return ", ".join(
    names[:1]
    + [
      f"{key} {value}"
      for key, value in found.items()
      if key not in ("name", "kind")
      and value not in (None, "", [], {})
      and not isinstance(value, (dict, list))
    ]
  )


def unit(finding: Finding) -> str:
  """What a strength of 1 is."""
  found = finding.found.get("unit") or {}
  name = found.get("name") or ""
  words = {
    "median_norm": "the median norm of the unsteered residual stream",
    "": "the vector's own norm",
  }.get(name, f"the norm of {name}")
  value = found.get("value")
  return words if value is None else f"{words} ({value:.4g})"
