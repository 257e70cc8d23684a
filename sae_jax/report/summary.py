# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The headline figures of dictionaries, and the language model's losses."""

from collections.abc import Sequence
from typing import Any

from sae_jax.report import grid, page, plots, say
from sae_jax.report.entries import Entry, evaluated

# What a reader should know about each number of an evaluation.
_MEANINGS = (
  ("eval/fvu", "fraction of variance unexplained, Σ‖x−x̂‖² / Σ‖x−mean‖²"),
  ("eval/explained_variance", "1 − FVU"),
  ("eval/cosine", "mean cosine of a row and its reconstruction"),
  ("eval/norm_ratio", "mean of ‖x̂‖ / ‖x‖; below 1 is shrinkage"),
  ("eval/mse", "mean squared error per dimension"),
  ("eval/l0", "mean number of active latents per row"),
  ("eval/dead_frac", "share of latents that never fired on the held-out rows"),
  ("eval/ce_clean", "cross-entropy of the language model, nats per token"),
  ("eval/ce_spliced", "the same, reading reconstructions at the hook"),
  ("eval/ce_mean", "the same, reading the mean activation"),
  ("eval/ce_zero", "the same, reading zeros"),
  (
    "eval/loss_recovered",
    "(CE zero − CE spliced) / (CE zero − CE clean)",
  ),
  ("eval/kl", "KL(clean ‖ spliced) of the next token, nats"),
)


def section(shown: Sequence[Entry]) -> page.Section:
  blocks: list[page.Block] = []
  if len(shown) == 1:
    blocks.append(page.tiles(_tiles(shown[0])))
  else:
    blocks += _beside(shown)
  for entry in shown:
    if entry.evaluation is None:
      blocks.append(
        page.missing(
          f"{entry.name} has not been evaluated: the figures above come from"
          " its last training step. This makes what is missing:",
          "sae-jax evaluate --config=configs/FILE.py"
          f" --config.run={entry.path} --out={entry.path}/eval",
        )
      )
    if entry.metrics and entry.manifest is None:
      blocks.append(
        page.missing(
          f"{entry.name} is not finished: it has no manifest.json yet. Start"
          " the same command again to resume it."
        )
      )
  blocks += _evaluations(shown)
  return page.Section(id="summary", title="Summary", blocks=blocks)


def _beside(shown: Sequence[Entry]) -> list[page.Block]:
  """The same figures as a table, a row for each dictionary."""
  columns = [_tiles(entry) for entry in shown]
  return [
    page.text(
      "FVU, L0 and dead latents are of the held-out rows of the evaluation;"
      " without one, of the last training step."
    ),
    grid.block(
      [
        grid.Head("dictionary", wide=True),
        *(grid.Head(tile.label, number=True) for tile in columns[0]),
      ],
      [
        grid.Row(
          [
            grid.Cell(entry.name),
            *(grid.Cell(tile.value, sort=tile.raw) for tile in row),
          ]
        )
        for entry, row in zip(shown, columns, strict=True)
      ],
    ),
  ]


def _tiles(entry: Entry) -> list[page.Tile]:
  found = entry.evaluation.metrics if entry.evaluation else {}
  rows = f"{found['rows']:,} held-out rows" if "rows" in found else ""

  def either(name: str) -> tuple[float | None, str]:
    if f"eval/{name}" in found:
      return found[f"eval/{name}"], rows
    return _last(entry, f"train/{name}"), "last training step"

  (fvu, fvu_note), (l0, l0_note) = either("fvu"), either("l0")
  dead, dead_note = either("dead_frac")
  wall = (entry.manifest or {}).get("wall_s") if entry.metrics else None
  tokens = _tokens(entry)
  return [
    page.Tile("FVU", say.number(fvu), fvu_note, fvu),
    page.Tile("L0", say.number(l0), l0_note, l0),
    page.Tile("Dead latents", say.percent(dead), dead_note, dead),
    page.Tile(
      "Loss recovered",
      say.number(found.get("eval/loss_recovered"), 4),
      _recovered_note(found),
      found.get("eval/loss_recovered"),
    ),
    page.Tile("Training tokens", say.count(tokens), _steps(entry), tokens),
    page.Tile("Wall time", say.duration(wall), _rate(entry), wall),
  ]


def _recovered_note(found: dict[str, Any]) -> str:
  limits = found.get("eval/loss_recovered_95")
  if not limits:
    return "" if "eval/ce_clean" in found else "not measured"
  low, high = limits
  return (
    f"95 % interval {low:.4f} to {high:.4f}, {found['lm_contexts']:,} contexts"
  )


def _tokens(entry: Entry) -> int | None:
  """Tokens trained on: of the whole run, or up to its last metrics."""
  if entry.manifest and "tokens" in entry.manifest["result"]:
    return entry.manifest["result"]["tokens"]
  batch = _find((entry.config or {}).get("config"), "batch_size")
  if not entry.metrics or batch is None:
    return None
  return (entry.metrics[-1]["step"] + 1) * batch


def _find(value: Any, name: str) -> Any:
  """The first field of that name in a nested config."""
  if not isinstance(value, dict):
    return None
  if name in value:
    return value[name]
  for item in value.values():
    if (found := _find(item, name)) is not None:
      return found
  return None


def _steps(entry: Entry) -> str:
  if not entry.metrics:
    return ""
  steps = entry.metrics[-1]["step"] + 1
  if entry.manifest:
    steps = entry.manifest["result"].get("steps", steps)
  return f"{steps:,} steps"


def _rate(entry: Entry) -> str:
  rate = _last(entry, "perf/tokens_per_s")
  return "" if rate is None else f"{say.count(rate)} tokens/s at the end"


def _last(entry: Entry, name: str) -> float | None:
  return next((m[name] for m in reversed(entry.metrics) if name in m), None)


def _evaluations(shown: Sequence[Entry]) -> list[page.Block]:
  found = [(e.name, card.metrics) for e, card in evaluated(shown)]
  if not found:
    return []
  several = len(shown) > 1
  with_lm = [(name, card) for name, card in found if "eval/ce_clean" in card]
  blocks = [page.heading("On held-out text")]
  if with_lm:
    figures = [_losses(card, name if several else "") for name, card in with_lm]
    blocks.append(page.figures(figures, wide=True))
  for name, card in with_lm:
    blocks.append(
      page.text(
        (f"{name}: " if several else "")
        + f"Language-model losses over {card['lm_tokens']:,} predictions in"
        f" {card['lm_contexts']:,} held-out contexts; activations"
        f" {card['lm_positions']}. That is"
        f" {say.percent(card['lm_replaced_frac'])} of the positions."
      )
    )
  rows = []
  for metric, meaning in _MEANINGS:
    values = [card.get(metric) for _, card in found]
    if any(value is not None for value in values):
      rows.append([metric, *(say.number(v, 4) for v in values), meaning])
  heads = [name for name, _ in found] if len(found) > 1 else [""]
  blocks.append(page.table(rows, head=["", *heads, ""]))
  return blocks


def _losses(card: dict[str, Any], name: str) -> page.Figure:
  """The four losses on one scale: how far from clean, how far from zero."""
  arms = ("clean", "spliced", "mean", "zero")
  values = [card[f"eval/ce_{arm}"] for arm in arms]
  return page.Figure(
    title="What the language model loses" + (f": {name}" if name else ""),
    caption="cross-entropy in nats per token, by what it reads at the hook",
    height=130,
    spec={
      "data": [
        {
          "type": "scatter",
          "mode": "markers+text",
          "x": values,
          "y": [0] * 4,
          "text": [f"{a} {v:.3f}" for a, v in zip(arms, values, strict=True)],
          # Clean and spliced may lie close: one label below, one above.
          "textposition": [
            "bottom center",
            "top center",
            "bottom center",
            "top center",
          ],
          "textfont": {"color": "var(--ink)", "size": 12},
          "cliponaxis": False,
          "hoverinfo": "skip",
          "marker": {
            "size": 11,
            "color": [plots.colour(i) for i in (2, 0, 4, 1)],
          },
        }
      ],
      "layout": plots.layout(
        x={
          "showline": False,
          "showgrid": True,
          "ticks": "",
          "rangemode": "normal",
        },
        y={"visible": False, "range": [-1, 1], "fixedrange": True},
      )
      | {"margin": {"l": 50, "r": 50, "t": 6, "b": 26}},
    },
  )
