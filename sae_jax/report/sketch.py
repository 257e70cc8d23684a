# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Small curves for cards: shapes that a template draws as SVG.

A page can have a hundred cards; as many plotly figures would take seconds.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT = 280, 112
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
  """A value with its interval, and what the reader sees pointing at it."""

  x: float
  y: float
  low: float
  high: float
  words: str


def curve(
  points: Sequence[Point],
  band: Sequence[tuple[float, float, float]] = (),
  *,
  chosen: float | None = None,
) -> dict[str, Any] | None:
  """Values at evenly spaced steps, from nothing at all on.

  Args:
    points: by x.
    band: (x, low, high) of what chance does, at some of the same x.
    chosen: x of the point that stands out.

  Returns:
    Coordinates in a box of WIDTH × HEIGHT; None without points.
  """
  if not points:
    return None
  steps = sorted({p.x for p in points})
  ends = [0.0] + [v for p in points for v in (p.low, p.high, p.y)]
  ends += [v for _, low, high in band for v in (low, high)]
  low, high = min(ends), max(ends)
  if high == low:
    low, high = low - 1, high + 1

  def x_of(value: float) -> float:
    place = (steps.index(value) + 1) / len(steps)
    return round(_LEFT + place * (WIDTH - _LEFT - _RIGHT - 6), 1)

  def y_of(value: float) -> float:
    share = (value - low) / (high - low)
    return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)

  inside = [b for b in band if b[0] in steps]
  edge = [(_LEFT, y_of(0)), *((x_of(x), y_of(top)) for x, _, top in inside)]
  edge += [(x_of(x), y_of(bottom)) for x, bottom, _ in reversed(inside)]
  line = [(_LEFT, y_of(0)), *((x_of(p.x), y_of(p.y)) for p in points)]
  furthest = low if abs(low) > abs(high) else high
  return {
    "width": WIDTH,
    "height": HEIGHT,
    "left": _LEFT,
    "right": WIDTH - _RIGHT,
    "zero": y_of(0),
    "band": _path(edge) if inside else "",
    "line": _path(line),
    "dots": [
      {
        "x": x_of(p.x),
        "y": y_of(p.y),
        "low": y_of(p.low),
        "high": y_of(p.high),
        "words": p.words,
        "chosen": p.x == chosen,
      }
      for p in points
    ],
    "ticks": [{"x": x_of(x), "text": f"{x:g}"} for x in steps],
    "far": {"y": y_of(furthest), "text": f"{furthest:+.2g}".replace("-", "−")},
  }


def _path(points: Sequence[tuple[float, float]]) -> str:
  return " ".join(f"{x},{y}" for x, y in points)
