# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Ranked latents with their intervals; the arms beside one another."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sae_jax.report import diff_entry, diff_words, page, say
from sae_jax.report.diff_entry import Diff, Part

_SHOWN, _FOLDED = 10, 10  # latents per direction, and as many folded away
_SIDE_BY_SIDE = 8  # of each arm and direction in the table of all arms


class _Column(NamedTuple):
  """A column after the score; it is left out where nothing is known."""

  needs: str  # the column of the table that must be known
  head: str
  cell: Any  # row -> text


def _means(row: dict[str, Any]) -> str:
  base, tuned = say.number(row["mean_base"]), say.number(row["mean_tuned"])
  return f"{base} → {tuned}"


def _fires(row: dict[str, Any]) -> str:
  base, tuned = say.percent(row["fires_base"]), say.percent(row["fires_tuned"])
  return f"{base} → {tuned}"


_COLUMNS = (
  _Column("mean_tuned", "base → arm", _means),
  _Column("mean_control", "control", lambda r: say.number(r["mean_control"])),
  _Column("fires_tuned", "fires on", _fires),
  _Column("delta_norm", "Δnorm", lambda r: say.number(r["delta_norm"])),
  _Column("cos_models", "cosine", lambda r: _cos(r["cos_models"])),
  _Column("nu_r", "ν_r", lambda r: say.number(r["nu_r"], 2)),
  _Column("nu_e", "ν_ε", lambda r: say.number(r["nu_e"], 2)),
  _Column("gradient", "gradient", lambda r: diff_words.signed(r["gradient"])),
  _Column("cos_data_first", "data first", lambda r: _cos(r["cos_data_first"])),
  _Column(
    "cos_model_second", "then model", lambda r: _cos(r["cos_model_second"])
  ),
  _Column(
    "cos_model_first", "model first", lambda r: _cos(r["cos_model_first"])
  ),
  _Column("cos_data_second", "then data", lambda r: _cos(r["cos_data_second"])),
  _Column("partner_cos", "best partner", lambda r: _partner(r)),
  _Column("effect", "effect", lambda r: diff_words.signed(r["effect"], 2)),
  _Column("q", "q", lambda r: say.number(r["q"], 2)),
  _Column("stability", "stable", lambda r: say.percent(r["stability"])),
  _Column("tags", "notes", lambda r: _notes(r["tags"])),
)
_NEEDED = (
  *("score", "rank_up", "rank_down", "ci_low", "ci_high", "changed"),
  *("mean_base", "fires_base", "partner", "mutual"),
  *(column.needs for column in _COLUMNS),
)


def _known(values: np.ndarray) -> bool:
  if values.dtype == object:
    return any(map(_notes, values))
  return bool(np.isfinite(values).any())


def _notes(tags: str) -> str:
  """What the table does not show already."""
  words = [tag for tag in tags.split(",") if tag not in ("risen", "fallen")]
  return ", ".join(words)


def _cos(value: float) -> str:
  return say.MISSING if np.isnan(value) else f"{value:.3f}".replace("-", "−")


def _partner(row: dict[str, Any]) -> str:
  mutual = ", mutual" if row["mutual"] else ""
  return f"{row['partner']} ({_cos(row['partner_cos'])}{mutual})"


def ranked(diff: Diff, part: Part) -> list[page.Block]:
  """The latents that rose most and those that fell most."""
  found = diff.columns(part, _NEEDED)
  method = diff_words.method(part.method)
  tops = [("risen", "rank_up", 1)]
  if method.signed:
    tops.append(("fallen", "rank_down", -1))
  latents = {name: _top(found, key, sign) for name, key, sign in tops}
  shown = np.concatenate(list(latents.values()))
  if not len(shown):
    return [page.text("No latent has a score other than zero.")]
  columns = [c for c in _COLUMNS if _known(found[c.needs][shown])]
  scale = _Scale(found, shown)
  block = {
    "kind": "ranked",
    "score": method.score,
    "interval": _interval(diff, found, shown),
    "heads": [column.head for column in columns],
  }
  groups = [
    {
      "title": name.capitalize() if method.signed else "Highest",
      "direction": name,
      "rows": [
        _row(diff, part, found, int(n), place, scale, columns)
        for place, n in enumerate(some, 1)
      ],
    }
    for name, some in latents.items()
  ]

  def cut(start: int, stop: int) -> page.Block:
    some = [g | {"rows": g["rows"][start:stop]} for g in groups]
    return block | {"groups": [g for g in some if g["rows"]]}

  rest = cut(_SHOWN, _SHOWN + _FOLDED)
  blocks: list[page.Block] = [cut(0, _SHOWN)]
  if rest["groups"]:
    title = f"Ranks {_SHOWN + 1} to {_SHOWN + _FOLDED}"
    blocks.append({"kind": "fold", "title": title, "blocks": [rest]})
  return blocks


def _interval(
  diff: Diff, found: dict[str, np.ndarray], shown: np.ndarray
) -> str:
  """Heading of the bars; without intervals they show the score alone."""
  if diff.summary is None or not np.isfinite(found["ci_low"][shown]).any():
    return ""
  return f"{100 * diff.summary['statistics']['confidence']:g} % interval"


def _top(found: dict[str, np.ndarray], key: str, sign: int) -> np.ndarray:
  """Latents by rank; one that moved the other way is in no top."""
  order = np.argsort(found[key], kind="stable")[: _SHOWN + _FOLDED]
  return order[sign * found["score"][order] > 0]


class _Scale:
  """Places intervals of all rows on one axis from 0 to 100."""

  def __init__(self, found: dict[str, np.ndarray], latents: np.ndarray):
    ends = np.concatenate(
      [found[name][latents] for name in ("score", "ci_low", "ci_high")] + [[0]]
    )
    self.low, self.high = float(np.nanmin(ends)), float(np.nanmax(ends))

  def place(self, value: float) -> float:
    return round(2 + 96 * (value - self.low) / (self.high - self.low), 1)

  def interval(self, row: dict[str, Any]) -> dict[str, float]:
    ends = [row["ci_low"], row["ci_high"]]
    low, high = (row["score"], row["score"]) if np.isnan(ends).any() else ends
    return {
      "low": self.place(low),
      "high": self.place(high),
      "at": self.place(row["score"]),
      "zero": self.place(0),
    }


def _row(
  diff: Diff,
  part: Part,
  found: dict[str, np.ndarray],
  latent: int,
  place: int,
  scale: _Scale,
  columns: Sequence[_Column],
) -> dict[str, Any]:
  row = {
    name: values[latent : latent + 1].tolist()[0]
    for name, values in found.items()
  }
  bounds = ""
  if not np.isnan(row["ci_low"]):
    bounds = (
      f"{diff_words.signed(row['ci_low'], 2)} to"
      f" {diff_words.signed(row['ci_high'], 2)}"
    )
  return {
    "place": place,
    **reference(diff, part.dictionary, latent),
    "changed": row["changed"],
    "score": diff_words.signed(row["score"]),
    "bounds": bounds,
    "interval": scale.interval(row),
    "cells": [column.cell(row) for column in columns],
  }


def reference(diff: Diff, dictionary: str, latent: int) -> dict[str, Any]:
  """A latent by number, with what it reads as and where its card is."""
  card = diff.card_of.get((dictionary, latent))
  return {
    "latent": latent,
    "reading": diff_words.reading(card),
    "href": f"#{diff.anchor(dictionary, latent)}" if card else "",
    "verdict": diff.verdict(dictionary, latent),
  }


def arms(diff: Diff) -> list[page.Block]:
  """How every arm moved the latents that moved most in any tuned arm."""
  columns = _arm_columns(diff)
  claims = [p for p in diff.claims if p.dictionary == "sae"]
  if len(columns) < 2 or not claims:
    return []
  latents = _extremes(diff, claims)
  base_F = _base(diff, columns)
  if base_F is None or not len(latents):
    return []
  return [
    {
      "kind": "arms",
      "arms": [
        {
          "name": "base again" if a.name == diff_entry.NULL else a.name,
          "role": a.role,
        }
        for a, _ in columns
      ],
      "rows": [
        {
          **reference(diff, "sae", int(n)),
          "base": say.number(float(base_F[n])),
          "cells": _shaded([float(values[n]) for _, values in columns]),
        }
        for n in latents
      ],
    }
  ]


def _arm_columns(
  diff: Diff,
) -> list[tuple[diff_entry.Arm, np.ndarray]]:
  """Every arm with its plain difference from the base, [F]."""
  null = diff_entry.Arm(name=diff_entry.NULL, role="null", control="", model="")
  columns = []
  for arm in (*diff.arms, null):
    part = diff.plain(arm.name)
    if part is not None:
      columns.append((arm, diff.columns(part, ["delta"])["delta"]))
  return columns


def _base(
  diff: Diff, columns: Sequence[tuple[diff_entry.Arm, np.ndarray]]
) -> np.ndarray | None:
  part = diff.plain(columns[0][0].name)
  return diff.columns(part, ["mean_base"])["mean_base"] if part else None


def _extremes(diff: Diff, claims: Sequence[Part]) -> np.ndarray:
  """The first of every claim, by largest score: what rose, then what fell.

  Those that changed; where none did, those with the largest scores.
  """
  best: dict[int, float] = {}
  spare: dict[int, float] = {}
  for part in claims:
    found = diff.columns(part, ["score", "rank_up", "rank_down", "changed"])
    for key, sign in (("rank_up", 1), ("rank_down", -1)):
      order = np.argsort(found[key], kind="stable")[:_SIDE_BY_SIDE]
      for latent in order[sign * found["score"][order] > 0].tolist():
        score = float(found["score"][latent])
        into = best if found["changed"][latent] else spare
        into[latent] = max(into.get(latent, 0.0), score, key=abs)
  best = best or spare
  return np.array(sorted(best, key=lambda n: -best[n]), np.int64)


def _shaded(values: Sequence[float]) -> list[dict[str, str]]:
  """Cells of a row, shaded by their share of the row's largest change."""
  largest = max((abs(v) for v in values if not np.isnan(v)), default=0.0)
  # As many decimals as give the largest three digits: columns compare.
  decimals = 0 if largest == 0 else max(0, 2 - math.floor(math.log10(largest)))
  return [_cell(value, largest, decimals) for value in values]


def _cell(value: float, largest: float, decimals: int) -> dict[str, str]:
  if np.isnan(value):
    return {"text": say.MISSING, "sign": "up", "shade": "0"}
  text = f"{value:+.{decimals}f}".replace("-", "−")
  if not text.strip("+−0."):
    text = "0"
  return {
    "text": text,
    "sign": "up" if value > 0 else "down",
    "shade": f"{abs(value) / largest:.2f}" if largest else "0",
  }
