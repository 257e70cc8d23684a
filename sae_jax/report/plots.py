# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Plotly figures in the page's own look.

A colour is the name of a CSS variable, `var(--c0)`; the page puts in the
reader's light or dark value when it draws.
"""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

COLOURS = 5  # --c0 … --c4 of page.css
RISEN, FALLEN = "var(--c1)", "var(--c0)"  # everywhere on a diff's page
_CLEAR = "rgba(0,0,0,0)"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# More points than twice a curve's width in pixels only slow the page down.
_MAX_POINTS = 1500


def colour(i: int) -> str:
  return f"var(--c{i % COLOURS})"


def layout(
  *,
  x: dict[str, Any],
  y: dict[str, Any],
  legend: bool = False,
  **more: Any,
) -> dict[str, Any]:
  """A quiet frame: no box, light grid, the page's type."""
  axis = {
    "gridcolor": "var(--grid)",
    "linecolor": "var(--rule)",
    "tickcolor": "var(--rule)",
    "zeroline": False,
  }
  return {
    # Fixed: automatic margins redraw, and warn when they do so too often.
    "margin": {
      "l": 68 if "title" in y else 48,
      "r": 22,
      "t": 30 if legend else 10,
      "b": 42 if "title" in x else 28,
    },
    "paper_bgcolor": _CLEAR,
    "plot_bgcolor": _CLEAR,
    "font": {
      "family": "system-ui, -apple-system, 'Segoe UI', sans-serif",
      "size": 11.5,
      "color": "var(--soft)",
    },
    "hoverlabel": {
      "bgcolor": "var(--panel)",
      "bordercolor": "var(--rule)",
      "font": {"color": "var(--ink)"},
    },
    "showlegend": legend,
    "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
    "xaxis": axis | {"showgrid": False, "showline": True} | x,
    "yaxis": axis | y,
    **more,
  }


def log_axis() -> dict[str, Any]:
  """A log axis labelled 0.1, 0.2, 0.5, 1, …, as people write numbers."""
  values = [a * 10.0**e for e in range(-9, 10) for a in (1, 2, 5)]
  return {
    "type": "log",
    "tickvals": values,
    "ticktext": [f"{v:g}" for v in values],
  }


def log_ticks(low: float, high: float, unit: str = "") -> dict[str, Any]:
  """A log axis from `low` to `high`, with few enough labels to read.

  Args:
    low: above 0.
    high: above `low`.
    unit: "%": labels are in percent.
  """
  low_e, high_e = math.floor(math.log10(low)), math.ceil(math.log10(high))
  steps = (1, 2, 5) if high_e - low_e <= 2 else (1,)
  values = [a * 10.0**e for e in range(low_e, high_e + 1) for a in steps]
  scale, after = (100, " %") if unit == "%" else (1, "")
  return {
    "type": "log",
    "tickvals": values,
    "ticktext": [f"{scale * v:g}{after}" for v in values],
  }


def title(words: str) -> dict[str, Any]:
  return {"text": words, "standoff": 6}


def thin(
  x: Sequence[float],
  y: Sequence[float | None],
  most: int = _MAX_POINTS,
) -> tuple[list[float], list[float | None]]:
  """At most 1,500 points: means of equal stretches; a gap stays a gap."""
  if len(x) <= most:
    return list(x), list(y)
  size = math.ceil(len(x) / most)
  xs, ys = [], []
  for i in range(0, len(x), size):
    values = [v for v in y[i : i + size] if v is not None]
    xs.append(x[min(i + size // 2, len(x) - 1)])
    ys.append(math.fsum(values) / len(values) if values else None)
  return xs, ys


def short(values: Iterable[float]) -> list[float]:
  """Four digits: more than a screen has pixels for."""
  return [float(f"{float(value):.4g}") for value in values]


def shorten(text: str, most: int) -> str:
  """The text, or its beginning and an ellipsis."""
  return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def power_of_ten(exponent: int) -> str:
  return "10" + str(exponent).translate(_SUPERSCRIPT)


def share_label(exponent: int) -> str:
  """10^exponent as a share: 100 %, 1 %, 0.01 %, then 10⁻⁵."""
  if exponent < -5:
    return power_of_ten(exponent)
  digits = max(0, -exponent - 2)
  return f"{10.0 ** (exponent + 2):.{digits}f} %"


def level(y: float, colour: str = "var(--soft)") -> dict[str, Any]:
  """A dotted line across the plot at a height."""
  return {
    "type": "line",
    "xref": "paper",
    "x0": 0,
    "x1": 1,
    "y0": y,
    "y1": y,
    "line": {"color": colour, "width": 1.2, "dash": "dot"},
  }


def escaped(first: str, *lines: str) -> str:
  """Hover text of several lines; plotly reads it as markup."""
  texts = [html.escape(text, quote=False) for text in (first, *lines) if text]
  return "<br>".join([f"<b>{texts[0]}</b>", *texts[1:]])


def error_bars(
  ends: Iterable[tuple[float, float, float]], colour: str, thickness: float = 1
) -> dict[str, Any]:
  """Intervals around points, each as (value, low, high)."""
  known = list(ends)
  return {
    "type": "data",
    "symmetric": False,
    "array": short(high - value for value, _, high in known),
    "arrayminus": short(value - low for value, low, _ in known),
    "thickness": thickness,
    "width": 0,
    "color": colour,
  }
