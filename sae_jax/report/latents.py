# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Cards of latents: their contexts with every token shaded by activation."""

import unicodedata
from collections.abc import Sequence
from typing import Any

from sae_jax.report import page, say
from sae_jax.report.entries import Entry, evaluated

_ARROWS = {"\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽"}


def section(entries: Sequence[Entry]) -> page.Section:
  """The sample of latents of every evaluated dictionary."""
  shown = [
    (entry.name, evaluation.contexts)
    for entry, evaluation in evaluated(entries)
    if evaluation.contexts
  ]
  if not shown:
    blocks = [
      page.missing(
        "The contexts in which latents fire are collected by the evaluation;"
        " there are none."
      )
    ]
  else:
    blocks = []
    for i, (name, contexts) in enumerate(shown):
      if len(shown) > 1:
        blocks.append(page.heading(name))
      blocks += _cards(contexts, f"r{i}-" if i else "")
  return page.Section(id="latents", title="Latents", blocks=blocks)


def _cards(contexts: dict[str, Any], prefix: str) -> list[page.Block]:
  return [
    page.text(
      f"{len(contexts['latents'])} latents, from the densest to the rarest,"
      f" with their strongest contexts among {contexts['rows']:,} rows (at most"
      " one per document). Shading is relative to the latent's own maximum;"
      " point at a token to read its activation."
    ),
    {
      "kind": "latents",
      "prefix": prefix,
      "latents": [card(latent) for latent in contexts["latents"]],
    },
  ]


def card(latent: dict[str, Any]) -> dict[str, Any]:
  """What the template shows of one latent of contexts.json."""
  highest = max(latent["histogram"], default=0)
  examples = [
    (e["kind"], _example(e, latent["max"])) for e in latent["examples"]
  ]
  return {
    "latent": latent["latent"],
    "reason": latent["reason"],
    "density": f"{say.percent(latent['density'])} of rows",
    "mean": say.number(latent["mean"]),
    "max": say.number(latent["max"]),
    "bars": [
      # A bin that holds anything is at least visible.
      round(max(10 * n / highest, 0.5), 2) if n else 0
      for n in latent["histogram"]
    ],
    "bars_max": say.number(latent["histogram_max"]),
    "top": [shown for kind, shown in examples if kind == "top"],
    "spread": [shown for kind, shown in examples if kind != "top"],
  }


def _example(example: dict[str, Any], highest: float) -> dict[str, Any]:
  at = example["position"] - example["start"]
  where = f"document {example['document']}, position {example['position']}"
  if example["kind"] != "top":
    where = f"quantile {example['quantile']:g} of its activations; {where}"
  return {
    "label": say.number(example["value"]),
    "title": where,
    "cut_before": example["start"] > 0,
    "cut_after": example["start"] + len(example["tokens"]) < example["of"],
    "tokens": tokens(example["tokens"], example["activations"], highest, at),
  }


def tokens(
  texts: Sequence[str],
  values: Sequence[float | None],
  highest: float,
  at: int,
) -> list[dict[str, Any]]:
  """Running text as the template shows it, shaded by share of `highest`."""
  return [
    _token(text, value, highest, i == at)
    for i, (text, value) in enumerate(zip(texts, values, strict=True))
  ]


def _token(
  text: str, value: float | None, highest: float, at: bool
) -> dict[str, Any]:
  share = 0.0 if not value or highest <= 0 else min(1.0, value / highest)
  # A shaded space would stay behind at the end of the line before.
  space = " " if text.startswith(" ") and text.strip(" ") else ""
  return {
    "space": space,
    "pieces": visible(text[len(space) :]),
    "value": say.number(value) if value else "",
    # The weakest activation is still a visible tint.
    "shade": f"{max(share, 0.06):.2f}".lstrip("0") if share else "",
    "out": value is None,
    "at": at,
  }


def visible(text: str) -> list[tuple[str, bool]]:
  """Splits a token into (text, whether it is a sign for something unseen).

  Line ends, tabs, control and direction-changing characters become signs; so
  do the spaces of a token that has nothing else, and an empty token.
  """
  if not text:
    return [("∅", True)]
  blank = not text.strip(" ")
  pieces: list[tuple[str, bool]] = []
  for char in text:
    sign = "·" if blank else _sign(char)
    is_sign = sign is not None
    if pieces and pieces[-1][1] == is_sign:
      pieces[-1] = (pieces[-1][0] + (sign or char), is_sign)
    else:
      pieces.append((sign or char, is_sign))
  return pieces


def _sign(char: str) -> str | None:
  if char in _ARROWS:
    return _ARROWS[char]
  category = unicodedata.category(char)
  if category == "Cc":
    return chr(0x2400 + ord(char)) if ord(char) < 32 else f"⟨{ord(char):02X}⟩"
  # Direction marks would reorder the text around them; lone surrogates and
  # private or unassigned code points have no glyph.
  direction = unicodedata.bidirectional(char) in {
    *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
  }
  if direction or category in ("Cs", "Co", "Cn", "Zl", "Zp"):
    return f"⟨{ord(char):04X}⟩"
  return None
