# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Effects on one axis: bundles, baselines of equal norm, latents, chance."""

from collections.abc import Mapping
from typing import Any

from sae_jax.report import grid, page, scores, steer_words
from sae_jax.report.findings import Finding
from sae_jax.report.steer_words import Row

_SINGLES = 3  # rows beside the baselines


def blocks(finding: Finding) -> list[page.Block]:
  """Bundles, directions, the best singles and random ones on one axis."""
  singles = steer_words.strongest(steer_words.kind(finding, "latent"))
  rows = [
    *steer_words.strongest(steer_words.kind(finding, "bundle")),
    *steer_words.kind(finding, "direction"),
    *singles[:_SINGLES],
  ]
  if not rows:
    return []
  axis = axes(finding, rows)
  bands = steer_words.chance(finding)
  return [
    page.heading("Beside baselines of equal norm, and chance"),
    grid.block(
      [
        grid.Head("", wide=True),
        grid.Head("verdict"),
        *heads(finding, "up"),
        *heads(finding, "down"),
      ],
      [_beside_row(finding, row, axis) for row in rows]
      + [_chance(finding, name, found, axis) for name, found in bands.items()],
    ),
  ]


def axes(finding: Finding, rows: list[Row]) -> dict[str, tuple[float, float]]:
  """One axis per direction, for all rows and what random ones do."""
  found = {}
  for way in steer_words.WAYS:
    ends = [0.0]
    for row in rows:
      effect = (row.get(way) or {}).get("effect")
      ends += scores.bounds(effect) or [scores.mean(effect) or 0.0]
    for band in (finding.found.get("bands") or {}).values():
      ends += steer_words.reach(band, way)
    found[way] = (min(ends), max(ends))
  return found


def heads(finding: Finding, way: str) -> list[grid.Head]:
  """Of one direction, in the order of `cells`."""
  group = steer_words.act(finding, way)
  return [
    grid.Head("margin", number=True, group=group),
    grid.Head("interval", bar=True, group=group),
    grid.Head("of shift", number=True, group=group),
    grid.Head("z", number=True, group=group),
  ]


def cells(
  finding: Finding,
  row: Row,
  way: str,
  axis: tuple[float, float],
) -> list[grid.Cell]:
  """Effect, its interval, share of the shift, z."""
  found = row.get(way) or {}
  effect, z = found.get("effect"), found.get("z")
  share = steer_words.share(finding, row, way)
  digits = scores.decimals(axis)
  return [
    grid.Cell(
      scores.fixed(scores.mean(effect), digits, sign=True),
      sort=scores.mean(effect),
      strong=True,
    ),
    grid.Cell(
      "",
      bar=scores.interval(effect, *axis),
      tone=way,
      tip=scores.with_bounds(effect),
    ),
    grid.Cell(scores.percent(share), sort=share),
    grid.Cell(scores.fixed(z, 1, sign=True), sort=z),
  ]


def _beside_row(
  finding: Finding, row: Row, axis: dict[str, tuple[float, float]]
) -> grid.Row:
  reference = _reference(finding, row)
  return grid.Row(
    [
      reference,
      grid.verdict(row.get("verdict")),
      *cells(finding, row, "up", axis["up"]),
      *cells(finding, row, "down", axis["down"]),
    ]
  )


def _reference(finding: Finding, row: Row) -> grid.Cell:
  note = steer_words.what(row)
  href = f"#{finding.prefix}{anchor(row)}"
  if row["kind"] == "latent":
    known = finding.reference(row["latents"][0])
    note, href = known["reading"] or note, known["href"] or href
  return grid.Cell(steer_words.title(row), href=href, note=note)


def anchor(row: Row) -> str:
  """Of its own card in the screen's part of the page."""
  letters = [c if c.isalnum() else "-" for c in row["name"]]
  return f"card-{''.join(letters)}"


def _chance(
  finding: Finding,
  name: str,
  found: Mapping[str, Any],
  axis: dict[str, tuple[float, float]],
) -> grid.Row:
  ends: list[grid.Cell] = []
  for way in steer_words.WAYS:
    low, high = steer_words.reach(found, way)
    whole = {"mean": (low + high) / 2, "ci_low": low, "ci_high": high}
    ends += [
      grid.Cell(""),
      grid.Cell(
        "",
        bar=scores.interval(whole, *axis[way]),
        tone="quiet",
        tip=scores.span(whole),
      ),
      grid.Cell(""),
      grid.Cell(""),
    ]
  return grid.Row(
    [
      grid.Cell(f"{found['n']:,} {name}", note="from the least to the most"),
      grid.Cell("chance"),
      *ends,
    ],
    quiet=True,
    last=True,
  )
