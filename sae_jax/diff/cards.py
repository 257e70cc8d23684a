# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the latents that changed mean: one card for each that a method named.

Reads the parts of a diff, its evidence and further text; the cards are JSON
values for `cards.json`. Nothing here decides what changed.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from sae_jax import endpoint as endpoint_lib
from sae_jax import errors, store
from sae_jax.diff import cards_config, chosen, table
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
from sae_jax.lm import tokenizer as tokenizer_lib

# Parts that are of all tuned arms, or of another dictionary.
_NO_ARM = ("joint", "partner")


class _Numbers:
  """Stands in for a tokenizer that is not known."""

  def token_strings(self, ids: Sequence[int]) -> list[str]:
    return [f"<{int(i)}>" for i in ids]


def check(config: config_lib.DiffConfig, hook: str, d_model: int) -> None:
  """Finds what cards would fail on at the end, before anything is run.

  Args:
    config: of the diff.
    hook: of the evidence.
    d_model: of the dictionary.

  Raises:
    errors.InputError: a view's store is missing, unpaired or of another hook or
      width, names an unknown arm, or the endpoint for labels does not answer.
  """
  if not config.cards.latents:
    return
  for view in config.cards.views:
    for source in _open(view, config, hook).values():
      if source.d_model(hook) != d_model:
        raise errors.InputError(
          f"cards.views {view.name!r}: {source.path} has activations of width"
          f" {source.d_model(hook)} at {hook}, but the SAE takes {d_model}"
        )
  if config.cards.labels is not None and jax.process_index() == 0:
    endpoint_lib.Endpoint(config.cards.labels.endpoint).check()


def collect(
  problem: problem_lib.Problem, parts: Sequence[table.Part]
) -> dict[str, Any]:
  """Makes the cards.

  Args:
    problem: the diff.
    parts: all of its parts.

  Returns:
    {"cards": […], "notes": [what could not be shown, and why]}. A card has
    "dictionary", "latent", "why" (see `chosen.Chosen`), "rows" ({"METHOD/ARM":
    the table's values}), "quantiles" ({model: {"0.5": activation, …, "1":
    largest}} of the activations > 0 on the diff's own text), "statistics"
    ({view: {model: {"fires", "density", "mean", "max"}}}), "contexts" ({view:
    […]}, see `compare.collect`), "logit_lens" (see `logit_lens.read`; None
    without the base model), "neighbours" ([[latent, cosine], …]), "label" (see
    `labels.label`; None where none was asked for).
  """
  config = problem.config.cards
  names = {arm.name for arm in problem.tuned()} | set(_NO_ARM)
  # A dictionary of another place has no contexts here, see `_bare`.
  found = chosen.choose(parts, names, config.latents)
  cards = [_bare(card, parts) for card in found]
  own = [card for card in cards if card["dictionary"] == "sae"]
  if not own:
    return {"cards": cards, "notes": []}
  notes: list[str] = []
  latents = [card["latent"] for card in own]
  tokenizer = _tokenizer(problem, notes)
  views = _views(problem, notes)
  shown = compare.collect(
    problem.dictionary,
    views,
    latents,
    tokenizer,
    mesh=problem.mesh,
    config=_contexts_config(problem),
  )
  for name, view in shown.items():
    for card, latent in zip(own, view["latents"], strict=True):
      card["contexts"][name] = latent["examples"]
      card["statistics"][name] = {
        model: {k: v for k, v in values.items() if k != "quantiles"}
        for model, values in latent["models"].items()
      }
  for card, latent in zip(own, shown[views[0].name]["latents"], strict=True):
    card["quantiles"] = _quantiles(latent["models"])
  _add_directions(problem, own)
  _add_labels(problem, own, views, tokenizer)
  return {"cards": cards, "notes": notes}


def _bare(card: chosen.Chosen, parts: Sequence[table.Part]) -> dict[str, Any]:
  """A card with what the table says."""
  return {
    "dictionary": card.dictionary,
    "latent": card.latent,
    "why": list(card.why),
    "rows": {
      part.name: _row(part, card.latent)
      for part in parts
      if part.dictionary == card.dictionary and card.latent < part.latents
    },
    "quantiles": {},
    "statistics": {},
    "contexts": {},
    "logit_lens": None,
    "neighbours": [],
    "label": None,
  }


def _row(part: table.Part, latent: int) -> dict[str, Any]:
  columns = table.ranks(part.columns["score"]) | part.columns
  values = {
    name: np.asarray(x_F[latent]).item() for name, x_F in columns.items()
  }
  return {
    name: value
    for name, value in values.items()
    if not isinstance(value, float) or np.isfinite(value)
  }


def _quantiles(models: dict[str, Any]) -> dict[str, dict[str, float]]:
  return {
    name: {f"{q:g}": value for q, value in found["quantiles"]}
    | {"1": contexts.short(found["max"])}
    for name, found in models.items()
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


def _tokenizer(
  problem: problem_lib.Problem, notes: list[str]
) -> contexts.TokenStrings:
  """The base model's; that of its store's model where only stores are given."""
  if problem.models.source("base"):
    return problem.model("base").tokenizer
  manifest = problem.evidence.store("base").manifest
  reason = "its manifest names no model"
  if manifest.model:
    try:
      found = tokenizer_lib.load(manifest.model)
    except errors.InputError as error:
      reason = str(error)
    else:
      if manifest.tokenizer_hash in ("", found.hash):
        return found
      reason = f"the tokenizer of {manifest.model} is another one now"
  notes.append(
    f"Tokens are shown as their ids, as the tokenizer of"
    f" {problem.config.base_store} is not known ({reason}); give base, the"
    " model."
  )
  return _Numbers()


def _views(
  problem: problem_lib.Problem, notes: list[str]
) -> list[compare.View]:
  """The diff's own text first, then those of the config."""
  evidence, config = problem.evidence, problem.config
  arms = [arm.name for arm in config.arms]
  views = [
    compare.View(
      name=evidence.kind,
      hook=evidence.hook,
      stores={name: evidence.store(name) for name in ("base", *arms)},
      keep=lambda rows_R2: evidence.groups_of(rows_R2) >= 0,
    )
  ]
  for view in config.cards.views:
    stores = _open(view, config, evidence.hook)
    missing = [name for name in arms if name not in stores]
    live = [name for name in missing if problem.models.source(name)]
    if left_out := [name for name in missing if name not in live]:
      notes.append(
        f"View {view.name} does not show {', '.join(left_out)}: there is"
        " neither a store nor a model."
      )
    views.append(
      compare.View(
        name=view.name,
        hook=evidence.hook,
        stores=stores,
        live={name: functools.partial(problem.model, name) for name in live},
      )
    )
  return views


def _open(
  view: cards_config.ViewConfig, config: config_lib.DiffConfig, hook: str
) -> dict[str, store.Store]:
  """model -> store, in the order of the arms; checked as far as it goes."""
  arms = [arm.name for arm in config.arms]
  for name in view.stores:
    if name not in arms:
      raise errors.InputError(
        f"cards.views {view.name!r}: it has a store for {name!r}, but the arms"
        f" are {', '.join(arms)}"
      )
  paths = {"base": view.base} | {
    name: view.stores[name] for name in arms if name in view.stores
  }
  stores = {name: store.open_store(path) for name, path in paths.items()}
  for source in stores.values():
    source.hook(hook)
    if source.bounded:
      raise errors.InputError(
        f"cards.views {view.name!r}: {source.path} is a bounded store, which"
        " can be read once; give a whole one"
      )
  compare.View(name=view.name, hook=hook, stores=stores)  # are they paired?
  return stores


def _add_directions(
  problem: problem_lib.Problem, cards: list[dict[str, Any]]
) -> None:
  """What the decoder rows write, and the latents beside them."""
  config, latents = problem.config.cards, [card["latent"] for card in cards]
  near = neighbours.nearest(
    problem.dictionary, latents, config.neighbours, mesh=problem.mesh
  )
  for card, pairs in zip(cards, near, strict=True):
    card["neighbours"] = [[i, contexts.short(cos)] for i, cos in pairs]
  if problem.models.source("base"):
    rows_ND = np.asarray(problem.dictionary.params.w_dec_FD[np.array(latents)])
    words = logit_lens.read(rows_ND, problem.model("base"), config.words)
    for card, found in zip(cards, words, strict=True):
      card["logit_lens"] = {
        kind: [[token, contexts.short(value)] for token, value in pairs]
        for kind, pairs in found.items()
      }


def _add_labels(
  problem: problem_lib.Problem,
  cards: list[dict[str, Any]],
  views: list[compare.View],
  tokenizer: contexts.TokenStrings,
) -> None:
  """Labels from the first view of the config, else from the diff's own text."""
  wanted = problem.config.cards.labels
  if wanted is None:
    return
  view = views[1] if len(views) > 1 else views[0]
  drawn = trials.draw(
    problem.dictionary,
    view.stores,
    view.hook,
    [card["latent"] for card in cards],
    tokenizer,
    shown=wanted.shown,
    held_out=wanted.held_out,
    keep=view.keep,
    mesh=problem.mesh,
    config=_contexts_config(problem),
  )
  if jax.process_index():
    return  # one process asks, and writes
  endpoint = endpoint_lib.Endpoint(wanted.endpoint, problem.work / "replies")
  progress = problem.progress(len(cards), "labels")
  found = labels.label(endpoint, drawn, progress=progress.update)
  progress.close()
  for card, label in zip(cards, found, strict=True):
    card["label"] = {**label, "view": view.name}
