# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Cards of changed latents: what they read, write and did in every arm."""

from collections.abc import Sequence
from typing import Any

from sae_jax.report import (
  diff_tables,
  diff_words,
  latents,
  page,
  say,
  steer_cards,
)
from sae_jax.report.diff_entry import Diff

_OPEN, _TOP = 4, 8  # strongest contexts per view: unfolded, and in all
_REASONS = 4  # rankings named above a card


def section(diff: Diff) -> page.Section:
  cards = list(diff.card_of.values())
  blocks: list[page.Block] = []
  if cards:
    blocks += [
      page.text(
        f"{diff_words.plural(len(cards), 'latent')} that the methods rank"
        " first. Every context stands once per model, all on one shading"
        " scale; point at a token to read its activation."
      ),
      {"kind": "diff_cards", "cards": [_card(diff, card) for card in cards]},
    ]
    if not any(card["label"] for card in cards):
      blocks.append(
        page.missing(
          "The latents have no labels: set config.cards.labels to an endpoint"
          " of a chat model to get and test them."
        )
      )
  else:
    blocks.append(
      page.missing(
        "There are no cards of latents. The diff job makes them where"
        " config.cards.latents is above 0; further text to show them on is"
        " given by config.cards.views.",
        "sae-jax diff --config=FILE.py --config.cards.latents=24"
        f" --out={diff.path}-cards",
      )
    )
  blocks += [page.missing(note) for note in (diff.cards or {}).get("notes", ())]
  return page.Section(
    id=f"{diff.prefix}cards", title="Latent cards", blocks=blocks
  )


def _card(diff: Diff, card: dict[str, Any]) -> dict[str, Any]:
  lens = card["logit_lens"] or {}
  return {
    "id": diff.anchor(card["dictionary"], card["latent"]),
    "latent": card["latent"],
    "dictionary": card["dictionary"],
    "why": _reasons(card["why"]),
    "steered": _steered(diff, card),
    "label": _label(card["label"]),
    "lens": [
      {"name": name, "words": diff_words.words(lens[key], len(lens[key]))}
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
      for latent, cos in card["neighbours"]
    ],
    "rows": [_row(diff, *item) for item in card["rows"].items()],
    "models": _models(card),
    "views": [
      _view(name, contexts) for name, contexts in card["contexts"].items()
    ],
  }


def _steered(diff: Diff, card: dict[str, Any]) -> list[dict[str, Any]]:
  """What every screen of the diff found of the latent."""
  if card["dictionary"] != "sae":
    return []
  return [
    steer_cards.steered(screen, screen.by_latent[card["latent"]])
    for screen in diff.screens
    if card["latent"] in screen.by_latent
  ]


def _reasons(found: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
  """The ranking it was chosen for, then those whose test it passes."""
  passed = [why for why in found[1:] if why["changed"] is not False]
  shown = [_why(why) for why in (*found[:1], *passed[: _REASONS - 1])]
  if more := len(found) - len(shown):
    shown.append({"text": f"and {more} more rankings", "direction": "more"})
  return shown


def _why(why: dict[str, Any]) -> dict[str, str]:
  words = f"{diff_words.method(why['method']).title},"
  words += f" {diff_words.arm(why['arm'])}: {why['direction']}"
  words += f" #{why['rank']:,}"
  if why["changed"] is False:
    words += " (not changed by the rule)"
  return {"text": words, "direction": why["direction"]}


def _label(label: dict[str, Any] | None) -> dict[str, str] | None:
  if label is None:
    return None
  if not label["text"]:
    return {"text": "", "note": f"No label: {label['failure']}."}
  scores = [
    f"{name} {say.number(label[name], 2)}"
    for name in ("detection", "fuzzing")
    if label[name] is not None
  ]
  note = f"label by {label['model']}"
  if scores:
    note += f"; tested: {', '.join(scores)} (0.5 is chance)"
  return {"text": label["text"], "note": note}


def _row(diff: Diff, name: str, row: dict[str, Any]) -> dict[str, Any]:
  method, _, arm = name.partition("/")
  bounds = ""
  if "ci_low" in row and "ci_high" in row:
    bounds = (
      f"{diff_words.signed(row['ci_low'], 2)} to"
      f" {diff_words.signed(row['ci_high'], 2)}"
    )
  changed = row.get("changed")
  return {
    "method": diff_words.method(method).title,
    "arm": diff_words.arm(arm),
    "rank": f"{row['rank']:,}",
    "score": diff_words.signed(row.get("score")),
    "bounds": bounds,
    "q": say.number(row.get("q"), 2),
    "changed": say.MISSING if changed is None else "yes" if changed else "no",
  }


def _models(card: dict[str, Any]) -> dict[str, Any] | None:
  """How often and how strongly it fires in every model, on the diff's text."""
  if not card["statistics"]:
    return None
  view, models = next(iter(card["statistics"].items()))
  found = card["quantiles"]
  heads = list(dict.fromkeys(q for name in found for q in found[name]))
  return {
    "title": f"On the diff's {view}",
    "heads": ["fires on", "mean when on", *map(_quantile, heads)],
    "rows": [
      [
        name,
        say.percent(values["density"]),
        say.number(values["mean"]),
        *(say.number(found.get(name, {}).get(head)) for head in heads),
      ]
      for name, values in models.items()
    ],
  }


def _quantile(text: str) -> str:
  share = float(text)
  return "largest" if share == 1 else f"{100 * share:g} %"


def _view(name: str, contexts: Sequence[dict[str, Any]]) -> dict[str, Any]:
  highest = max(
    (
      value
      for context in contexts
      for values in context["activations"].values()
      for value in values
      if value is not None
    ),
    default=0.0,
  )
  top = [c for c in contexts if c["kind"] == "top"]
  rest = [c for c in contexts if c["kind"] != "top"]
  more = f", the strongest {_TOP} of {len(top)}" if len(top) > _TOP else ""
  return {
    "name": f"Contexts: {name}{more}",
    "open": [_context(c, highest) for c in top[:_OPEN]],
    "folds": [
      {"title": title, "contexts": [_context(c, highest) for c in some]}
      for title, some in (
        (f"{len(top[_OPEN:_TOP])} more", top[_OPEN:_TOP]),
        (f"{len(rest)} from across its range", rest),
      )
      if some
    ],
  }


def _context(context: dict[str, Any], highest: float) -> dict[str, Any]:
  at = context["position"] - context["start"]
  where = f"document {context['document']}, position {context['position']}"
  if context["kind"] == "top":
    where += f"; strongest in {', '.join(context['by'])}"
  else:
    where += f"; quantile {context['quantile']:g}"
  return {
    "title": where,
    "cut_before": context["start"] > 0,
    "cut_after": context["start"] + len(context["tokens"]) < context["of"],
    "models": [
      {
        "name": name,
        "value": say.number(values[at]),
        "tokens": latents.tokens(context["tokens"], values, highest, at),
      }
      for name, values in context["activations"].items()
    ],
  }
