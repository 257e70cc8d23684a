# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a diff shows without a dictionary: every claim stands beside it."""

from collections.abc import Sequence
from typing import Any

from sae_jax.report import diff_words, latents, page, plots, say
from sae_jax.report.diff_entry import Diff, Part

_WORDS = 8  # words per list


def section(diff: Diff) -> page.Section:
  linear = [part for part in diff.parts if part.method == "linear"]
  lens = [part for part in diff.parts if part.method == "lens"]
  blocks = _linear(diff, linear) if linear else [_absent("linear")]
  if lens:
    blocks += _lens(diff, lens)
  return page.Section(
    id=f"{diff.prefix}baselines", title="Linear baselines", blocks=blocks
  )


def _absent(method: str) -> page.Block:
  return page.missing(
    "There is no baseline without a dictionary beside the claims. Add"
    f" “{method}” to the methods of the config and run into a new --out.",
  )


def _linear(diff: Diff, parts: Sequence[Part]) -> list[page.Block]:
  blocks: list[page.Block] = [
    page.text(
      "Difference of mean activations, without any dictionary. Lengths are in"
      " units of the base's median row; the split-half cosine compares two"
      " random halves of the groups; “constant” is the share of the mean square"
      " difference that one fixed vector makes up."
    ),
    page.table([_row(diff, part) for part in parts], head=_HEAD, numbers=True),
  ]
  figures = [_spectrum(diff, parts)]
  measured = [part for part in parts if part.summary["kl"]]
  if measured:
    figures.append(_divergence(diff, measured))
  blocks.append(page.figures(figures, wide=True))
  if not measured:
    blocks.append(
      page.missing(
        "How far predictions moved (KL) needs the models and prompts; this diff"
        " was given stores alone."
      )
    )
  blocks += [_predictions(diff, part) for part in measured]
  return blocks


_HEAD = (
  *("", "length", "beyond control", "base again", "cosine with control's"),
  *("split-half cosine", "constant", "KL, nats per token"),
)


def _row(diff: Diff, part: Part) -> list[str]:
  found = part.summary
  lengths, split, kl = found["lengths"], found["split_half"], found["kl"]
  return [
    part.arm,
    say.percent(lengths.get("mean_difference_relative")),
    say.percent(lengths.get("contrast_relative")),
    say.percent(lengths.get("null_relative")),
    _cosine(found.get("cos_control")),
    f"{_cosine(split['mean'])}{_limits(split, _cosine)}",
    say.percent(found["pca"]["mean_share"]),
    f"{say.number(kl['mean'])}{_limits(kl, say.number)}" if kl else say.MISSING,
  ]


def _cosine(value: float | None) -> str:
  if value is None:
    return say.MISSING
  return f"{value:.2f}".replace("-", "−")


def _limits(found: dict[str, Any], words: Any) -> str:
  if found.get("low") is None:
    return ""
  return f" ({words(found['low'])} to {words(found['high'])})"


def _spectrum(diff: Diff, parts: Sequence[Part]) -> page.Figure:
  """Shares of variance by principal component, one line per arm."""
  data = []
  for i, part in enumerate(parts):
    share = part.summary["pca"]["explained"]
    cosine = part.summary["pca"]["cos_mean"]
    data.append(
      _line(
        i,
        part.arm,
        list(range(1, len(share) + 1)),
        share,
        [
          f"{part.arm}, component {n}: {say.percent(value)} of the variance;"
          f" cosine with the mean {_cosine(cos)}"
          for n, (value, cos) in enumerate(zip(share, cosine, strict=True), 1)
        ],
      )
    )
  ratios = [
    f"{part.arm} {say.number(ratio)}"
    for part in parts
    if (ratio := part.summary["pca"]["participation_ratio"]) is not None
  ]
  caption = "share of the variance of paired differences, log scale"
  if ratios:
    caption += f"; participation ratio {', '.join(ratios)}"
  return page.Figure(
    title="Principal components",
    caption=caption,
    height=260,
    spec={
      "data": data,
      "layout": plots.layout(
        x={"title": plots.title("component")},
        y=plots.log_ticks(*_range(data), "%"),
        legend=len(data) > 1,
      ),
    },
  )


def _divergence(diff: Diff, parts: Sequence[Part]) -> page.Figure:
  """Quantiles over tokens of KL(arm ‖ base), one line per arm."""
  data = []
  for i, part in enumerate(parts):
    quantiles = part.summary["kl"]["quantiles"]
    heads = [f"{100 * float(q):g} %" for q in quantiles]
    values = list(quantiles.values())
    data.append(
      _line(
        i,
        part.arm,
        heads,
        values,
        [
          f"{part.arm}: {head} of tokens are below {say.number(value)} nats"
          for head, value in zip(heads, values, strict=True)
        ],
      )
    )
  tokens = parts[0].summary["kl"]["tokens"]
  return page.Figure(
    title="How far predictions moved",
    caption=f"quantiles of KL(arm ‖ base) over {tokens:,} tokens, nats, log"
    " scale",
    height=260,
    spec={
      "data": data,
      "layout": plots.layout(
        x={"title": plots.title("quantile"), "type": "category"},
        y=plots.log_ticks(*_range(data)),
        legend=len(data) > 1,
      ),
    },
  )


_DECADES = 5  # of a log axis; what is smaller is drawn at its lower end


def _range(data: Sequence[dict[str, Any]]) -> tuple[float, float]:
  """Of the lines' values, which are raised to the axis' lower end."""
  high = max((v for line in data for v in line["y"]), default=0.0) or 1.0
  low = max(
    min((v for line in data for v in line["y"]), default=0.0),
    high / 10**_DECADES,
  )
  for line in data:
    line["y"] = [max(v, low) for v in line["y"]]
  return low, high


def _line(
  i: int, name: str, x: Sequence[Any], y: Sequence[float], text: Sequence[str]
) -> dict[str, Any]:
  return {
    "type": "scatter",
    "mode": "lines+markers",
    "name": name,
    "x": list(x),
    "y": plots.short(y),
    "text": list(text),
    "hovertemplate": "%{text}<extra></extra>",
    "cliponaxis": False,
    "line": {"color": plots.colour(i), "width": 1.6},
    "marker": {"color": plots.colour(i), "size": 5},
  }


def _predictions(diff: Diff, part: Part) -> page.Block:
  """Which words gained and lost, and where predictions differ most."""
  kl = part.summary["kl"]
  rows = [
    {
      "name": name,
      "note": "",
      "words": diff_words.words(kl["words"][key], _WORDS),
    }
    for key, name in (("risen", "likelier words"), ("fallen", "less likely"))
  ]
  return {
    "kind": "fold",
    "title": f"{part.arm}: words that gained and lost, and the tokens where"
    " predictions differ most",
    "blocks": [
      {"kind": "words", "title": "", "note": "", "rows": rows},
      {
        "kind": "moved",
        "rows": [
          {
            "kl": say.number(top["kl"]),
            "prompt": top["prompt"],
            "tokens": [latents.visible(t) for t in top["tokens"]],
            "next": diff_words.visible(top["next"] or ""),
            "gained": diff_words.visible(top["gained"]),
          }
          for top in kl["top"][:10]
        ],
      },
    ],
  }


def _lens(diff: Diff, parts: Sequence[Part]) -> list[page.Block]:
  blocks: list[page.Block] = [
    page.heading("Activation-difference lens"),
    page.text(
      "Mean difference on the first tokens of unrelated text, read through"
      " the head of the base model: what a model is inclined to say before it"
      " is asked. Words count only as far as they are stronger than those of"
      " random directions of the same length."
    ),
  ]
  for part in parts:
    found, null = part.summary, part.summary["null"]
    rows = [_words("mean", found["lens"])]
    rows += [
      _words(f"token {i + 1}", one) for i, one in enumerate(found["positions"])
    ]
    rows.append(_words("base against itself", null["base_against_itself"]))
    rows.append(_words("a random direction", null["random"]))
    blocks.append(
      {
        "kind": "words",
        "title": f"{found['compared'].replace(' - ', ' − ')}, mean over"
        f" {found['contexts']:,} contexts",
        "note": _strongest(found["lens"], null),
        "rows": rows,
      }
    )
  return blocks


def _strongest(lens: dict[str, Any], null: dict[str, Any]) -> str:
  """Whether the words say more than those of random directions."""
  limit = null["random_strongest_logit"]["max"]
  if not lens["promoted"] or limit is None:
    return ""
  strongest = lens["promoted"][0][1]
  beyond = "stronger than" if strongest > limit else "no stronger than"
  return (
    f"{beyond} chance: strongest word {say.number(strongest)}, of"
    f" {null['random_directions']} random directions {say.number(limit)}"
  )


def _words(name: str, read: dict[str, Any]) -> dict[str, Any]:
  return {
    "name": name,
    "note": f"length {say.number(read['norm'])}",
    "words": diff_words.words(read["promoted"], _WORDS),
  }
