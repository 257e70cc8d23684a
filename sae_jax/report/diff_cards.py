# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Cards of changed latents: what they read, write and did in every arm."""

from collections.abc import Sequence
from typing import Any

from sae_jax.report import diff_tables, diff_words, latents, page, say
from sae_jax.report.diff_entry import Diff


def section(diff: Diff) -> page.Section:
  cards = list(diff.card_of.values())
  if cards:
    blocks = [
      page.text(
        f"{diff_words.plural(len(cards), 'latent')} that a method ranked"
        " first. Every context is shown once per model, with the same shading"
        " scale for all models of a card; point at a token to read its"
        " activation."
      ),
      {"kind": "diff_cards", "cards": [_card(diff, card) for card in cards]},
    ]
  else:
    blocks = [
      page.missing(
        "There are no cards of latents. They are made by the diff job where"
        " config.cards.latents is above 0; contexts on other text need"
        " config.cards.views.",
        f"sae-jax diff --config=FILE.py --config.cards.latents=24"
        f" --out={diff.path}-cards",
      )
    ]
  return page.Section(
    id=f"{diff.prefix}cards", title="Latent cards", blocks=blocks
  )


def _card(diff: Diff, card: dict[str, Any]) -> dict[str, Any]:
  lens = card.get("logit_lens") or {}
  highest = _highest(card)
  return {
    "id": diff.anchor(card["dictionary"], card["latent"]),
    "latent": card["latent"],
    "dictionary": card["dictionary"],
    "why": [_why(diff, why) for why in card["why"]],
    "label": _label(card.get("label")),
    "lens": [
      {
        "name": name,
        "words": diff_words.words(lens[key], len(lens[key])),
      }
      for key, name in (
        ("promoted", "writes"),
        ("suppressed", "suppresses"),
        ("nearest", "nearest tokens"),
      )
      if lens.get(key)
    ],
    "neighbours": [
      {
        **diff_tables.reference(diff, card["dictionary"], latent),
        "cos": f"{cos:.2f}".replace("-", "−"),
      }
      for latent, cos in card.get("neighbours") or ()
    ],
    "rows": _rows(diff, card.get("rows") or {}),
    "quantiles": _quantiles(card.get("quantiles") or {}),
    "views": [
      {
        "name": name,
        "contexts": [_context(c, highest) for c in contexts],
      }
      for name, contexts in (card.get("contexts") or {}).items()
    ],
  }


def _why(diff: Diff, why: dict[str, Any]) -> dict[str, str]:
  method = diff_words.method(why["method"]).title
  return {
    "text": f"{method}, {diff_words.arm(why['arm'])}:"
    f" {why['direction']} #{why['rank']:,}",
    "direction": why["direction"],
  }


def _label(label: dict[str, Any] | None) -> dict[str, Any] | None:
  if not label:
    return None
  scores = [
    f"{name} {say.number(value)}"
    for name, value in label.items()
    if isinstance(value, float)
  ]
  return {"text": label["text"], "scores": ", ".join(scores)}


def _highest(card: dict[str, Any]) -> float:
  return max(
    (
      value
      for contexts in (card.get("contexts") or {}).values()
      for context in contexts
      for values in context["activations"].values()
      for value in values
      if value is not None
    ),
    default=0.0,
  )


def _rows(diff: Diff, rows: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
  shown = []
  for name, row in rows.items():
    method, _, arm = name.partition("/")
    bounds = ""
    if row.get("ci_low") is not None and row.get("ci_high") is not None:
      bounds = (
        f"{diff_words.signed(row['ci_low'], 2)} to"
        f" {diff_words.signed(row['ci_high'], 2)}"
      )
    shown.append(
      {
        "method": diff_words.method(method).title,
        "arm": diff_words.arm(arm),
        "rank": f"{row['rank']:,}" if row.get("rank") else say.MISSING,
        "score": diff_words.signed(row.get("score")),
        "bounds": bounds,
        "q": say.number(row.get("q"), 2),
        "changed": bool(row.get("changed")),
      }
    )
  return shown


def _quantiles(found: dict[str, dict[str, float]]) -> dict[str, Any] | None:
  if not found:
    return None
  heads = list(dict.fromkeys(q for values in found.values() for q in values))
  return {
    "heads": [_quantile(head) for head in heads],
    "rows": [
      [name, *(say.number(values.get(head)) for head in heads)]
      for name, values in found.items()
    ],
  }


def _quantile(text: str) -> str:
  share = float(text)
  return "maximum" if share == 1 else f"{100 * share:g} %"


def _context(context: dict[str, Any], highest: float) -> dict[str, Any]:
  at = context["position"] - context["start"]
  return {
    "title": f"document {context['document']}, position {context['position']}",
    "kind": context.get("kind", ""),
    "models": [
      {
        "name": name,
        "value": say.number(_at(values, at)),
        "tokens": latents.tokens(context["tokens"], values, highest, at),
      }
      for name, values in context["activations"].items()
    ],
  }


def _at(values: Sequence[float | None], at: int) -> float | None:
  return values[at] if 0 <= at < len(values) else None
