# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What dictionaries share a colour by, and the key that says which is which.

A group is told by its colour and by its symbol, so that neither an eye that
sees few colours nor a print in grey mixes them up.
"""

import dataclasses
from collections.abc import Sequence

from sae_jax.report import page, plots

_SHADES = 8  # --s0 … --s7 of sweep.css, from one end to the other
_SYMBOLS = {  # plotly's name → the same in a box of 12 by 12
  "circle": "M6 1.4a4.6 4.6 0 1 0 .01 0z",
  "square": "M2 2h8v8H2z",
  "diamond": "M6 .6 11.4 6 6 11.4.6 6z",
  "triangle-up": "M6 1l5.2 9.5H.8z",
  "triangle-down": "M6 11 .8 1.5h10.4z",
  "cross": "M4.2 1h3.6v3.2H11v3.6H7.8V11H4.2V7.8H1V4.2h3.2z",
}
_DASHES = {"solid": "", "dot": "2 2.5"}  # plotly's name → stroke-dasharray
DIVERGED = "x"  # the symbol of a dictionary that did not get to the end


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
  """Dictionaries that are drawn alike."""

  id: str
  text: str
  colour: str
  symbol: str = "circle"
  dash: str = "solid"  # of curves


def ordered(prefix: str, texts: Sequence[str]) -> list[Group]:
  """Groups that have an order, which their colours show.

  Beyond as many as there are shades, neighbours share one: curves are then
  told apart by their dashes too.
  """
  last = max(len(texts) - 1, 1)
  return [
    Group(
      id=f"{prefix}g{i}",
      text=text,
      colour=f"var(--s{round(i * (_SHADES - 1) / last)})",
      symbol=list(_SYMBOLS)[i % len(_SYMBOLS)],
      dash=list(_DASHES)[i % 2 if len(texts) > _SHADES else 0],
    )
    for i, text in enumerate(texts)
  ]


def apart(prefix: str, texts: Sequence[str]) -> list[Group]:
  """Groups in the colours that curves laid over each other have."""
  return [
    Group(
      id=f"{prefix}g{i}",
      text=text,
      colour=plots.colour(i),
      symbol=list(_SYMBOLS)[i % len(_SYMBOLS)],
    )
    for i, text in enumerate(texts)
  ]


def key(
  title: str, shown: Sequence[Group], *, diverged: bool, front: bool = False
) -> page.Block:
  """Says what is drawn how; the reader hides and shows groups with it."""
  return {
    "kind": "key",
    "title": title,
    "items": [
      {
        "group": group.id,
        "text": group.text,
        "colour": group.colour,
        "path": _SYMBOLS[group.symbol],
        "dash": _DASHES[group.dash],
      }
      for group in shown
    ],
    "diverged": diverged,
    "front": front,
  }
