# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the latents that changed mean: one card for each that a method named.

Reads the parts of a diff, its evidence and further text; the cards are JSON
values for `cards.json`. Nothing here decides what changed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sae_jax import endpoint as endpoint_lib
from sae_jax import formats, sae
from sae_jax.diff import card_views, chosen, table
from sae_jax.diff import config as config_lib
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import (
  compare,
  contexts,
  labels,
  logit_lens,
  neighbours,
  trials,
)
from sae_jax.sae import crosscoder

# Parts that are of all tuned arms, or of a second dictionary.
_NO_ARM = ("joint", "partner")
# The text as the dictionaries of one arm read it.
_VIEWS = {
  "delta": card_views.of_differences,
  "crosscoder": card_views.of_both,
}
_REPLIES = "replies"  # folder of the endpoint's answers, in the work directory


@dataclasses.dataclass(frozen=True)
class _Subject:
  """A dictionary, the cards of its latents, and the texts to show them on."""

  dictionary: sae.Sae
  cards: list[dict[str, Any]]
  views: list[compare.View]

  @property
  def latents(self) -> list[int]:
    return [card["latent"] for card in self.cards]


def check(config: config_lib.DiffConfig, hook: str, d_model: int) -> None:
  """Finds what cards would fail on at the end, before anything is run.

  Args:
    config: of the diff.
    hook: of the evidence.
    d_model: of the dictionary.

  Raises:
    errors.InputError: the stores of a view do not fit, or the endpoint for
      labels does not answer.
  """
  if not config.cards.latents:
    return
  card_views.check(config, hook, d_model)
  if config.cards.labels is not None:
    endpoint_lib.Endpoint(config.cards.labels.endpoint).check()


def inputs(config: config_lib.DiffConfig) -> dict[str, str]:
  """Hashes of what cards read beside the diff's own text."""
  return card_views.identities(config) if config.cards.latents else {}


def collect(
  problem: problem_lib.Problem, parts: Sequence[table.Part]
) -> dict[str, Any]:
  """Makes the cards.

  Args:
    problem: the diff.
    parts: all of its parts.

  Returns:
    {"cards": […], "notes": [what could not be shown, and why]}. A card has
    "dictionary", "latent", "arm" (of a dictionary of its own), "why" (see
    `chosen.Chosen`), "rows" ({"METHOD/ARM": the table's values}), "quantiles"
    ({model: {"0.5": activation, …, "1": the largest}}, of the activations > 0
    on the diff's own text), "statistics" ({view: {model: {"fires", "density",
    "mean", "max"}}}), "contexts" ({view: […]}, see `compare.collect`),
    "logit_lens" (see `logit_lens.read`; None without the base model),
    "neighbours" ([[latent, cosine], …]), and "label" (see `labels.label`; None
    where none was asked for).
  """
  wanted = problem.config.cards
  arms = {arm.name for arm in problem.tuned()} | set(_NO_ARM)
  found = chosen.choose(parts, arms, wanted.latents)
  ranks = {part.name: table.ranks(part.columns["score"]) for part in parts}
  cards = [_card(card, parts, ranks) for card in found]
  notes: list[str] = []
  if not cards:
    return {"cards": [], "notes": notes}
  tokenizer = card_views.tokenizer(problem, notes)
  subjects = _subjects(problem, cards, parts, notes)
  for subject in subjects:
    _add_contexts(problem, subject, tokenizer)
    _add_directions(problem, subject)
  if wanted.labels is not None:
    drawn = [_draw(problem, subject, tokenizer) for subject in subjects]
    _add_labels(problem, subjects, drawn)
  return {"cards": cards, "notes": notes}


def _card(
  found: chosen.Chosen,
  parts: Sequence[table.Part],
  ranks: Mapping[str, dict[str, np.ndarray]],
) -> dict[str, Any]:
  """A card with what the table says."""
  return {
    "dictionary": found.dictionary,
    "latent": found.latent,
    "arm": found.arm,
    "why": list(found.why),
    "rows": {
      part.name: _row(ranks[part.name] | part.columns, found.latent)
      for part in parts
      if chosen.owner(part) == (found.dictionary, found.arm)
    },
    "quantiles": {},
    "statistics": {},
    "contexts": {},
    "logit_lens": None,
    "neighbours": [],
    "label": None,
  }


def _row(columns: Mapping[str, np.ndarray], latent: int) -> dict[str, Any]:
  values = {n: np.asarray(x_F[latent]).item() for n, x_F in columns.items()}
  return {
    name: value
    for name, value in values.items()
    if name != "latent"
    if not isinstance(value, float) or np.isfinite(value)
  }


def _subjects(
  problem: problem_lib.Problem,
  cards: list[dict[str, Any]],
  parts: Sequence[table.Part],
  notes: list[str],
) -> list[_Subject]:
  """The cards by the dictionary that they are of."""
  own = [card for card in cards if card["dictionary"] == "sae"]
  subjects = []
  if own:
    views = card_views.of_models(problem, notes)
    subjects.append(_Subject(problem.dictionary, own, views))
  for part in parts:
    of_arm = [
      c for c in cards if (c["dictionary"], c["arm"]) == chosen.owner(part)
    ]
    if part.dictionary in _VIEWS and of_arm:
      subjects.append(
        _Subject(
          formats.load_sae(part.summary["run"]),
          of_arm,
          [_VIEWS[part.dictionary](problem, part.arm)],
        )
      )
  return subjects


def _add_contexts(
  problem: problem_lib.Problem,
  subject: _Subject,
  tokenizer: contexts.TokenStrings,
) -> None:
  shown = compare.collect(
    subject.dictionary,
    subject.views,
    subject.latents,
    tokenizer,
    mesh=problem.mesh,
    config=_contexts_config(problem),
  )
  for name, view in shown.items():
    for card, latent in zip(subject.cards, view["latents"], strict=True):
      card["contexts"][name] = latent["examples"]
      card["statistics"][name] = {
        model: {k: v for k, v in found.items() if k != "quantiles"}
        for model, found in latent["models"].items()
      }
  first = shown[subject.views[0].name]["latents"]
  for card, latent in zip(subject.cards, first, strict=True):
    card["quantiles"] = {
      name: {f"{q:g}": value for q, value in found["quantiles"]}
      | {"1": contexts.short(found["max"])}
      for name, found in latent["models"].items()
      if found["quantiles"]
    }


def _contexts_config(problem: problem_lib.Problem) -> contexts.ContextsConfig:
  config = problem.config.cards
  return contexts.ContextsConfig(
    top=config.top,
    before=config.before,
    after=config.after,
    rows=config.rows,
    batch_rows=problem.config.batch_rows,
    seed=problem.config.statistics.seed,
  )


def _add_directions(problem: problem_lib.Problem, subject: _Subject) -> None:
  """What the decoder rows write, and the latents beside them."""
  config = problem.config.cards
  near = neighbours.nearest(
    subject.dictionary, subject.latents, config.neighbours, mesh=problem.mesh
  )
  for card, pairs in zip(subject.cards, near, strict=True):
    card["neighbours"] = [[i, contexts.short(cos)] for i, cos in pairs]
  if not problem.models.source("base"):
    return
  rows_ND = crosscoder.largest_blocks(
    np.asarray(subject.dictionary.params.w_dec_FD[np.array(subject.latents)]),
    subject.dictionary.sources,
  )
  words = logit_lens.read(rows_ND, problem.model("base"), config.words)
  for card, found in zip(subject.cards, words, strict=True):
    card["logit_lens"] = {
      kind: [[token, contexts.short(value)] for token, value in pairs]
      for kind, pairs in found.items()
    }


def _draw(
  problem: problem_lib.Problem,
  subject: _Subject,
  tokenizer: contexts.TokenStrings,
) -> list[trials.Trials]:
  """Contexts for labels: of the config's first view, else the diff's own."""
  wanted = problem.config.cards.labels
  assert wanted is not None
  view = subject.views[:2][-1]
  return trials.draw(
    subject.dictionary,
    view.stores,
    view.hook,
    subject.latents,
    tokenizer,
    shown=wanted.shown,
    held_out=wanted.held_out,
    keep=view.keep,
    mesh=problem.mesh,
    config=_contexts_config(problem),
  )


def _add_labels(
  problem: problem_lib.Problem,
  subjects: list[_Subject],
  drawn: list[list[trials.Trials]],
) -> None:
  wanted = problem.config.cards.labels
  assert wanted is not None
  endpoint = endpoint_lib.Endpoint(wanted.endpoint, problem.work / _REPLIES)
  progress = problem.progress(sum(map(len, drawn)), "labels")
  found = labels.label(
    endpoint, [t for some in drawn for t in some], progress=progress.update
  )
  progress.close()
  cards = [(card, s) for s in subjects for card in s.cards]
  for (card, subject), label in zip(cards, found, strict=True):
    card["label"] = {**label, "view": subject.views[:2][-1].name}
