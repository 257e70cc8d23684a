# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Where latents fire in several models that read the same text, side by side.

Contexts are searched in every model's store. A model without one is run on the
shown contexts alone, from the start of their documents.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from sae_jax import errors, lm, sae, store
from sae_jax.interpret import best, contexts, live, on_mesh, scan, search

_SAMPLE = 512  # activations per latent and model behind its quantiles
_QUANTILES = (0.1, 0.5, 0.9, 0.99)
_NO_KEYS = np.empty(0, np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
  """One body of text and the models that read it.

  Attributes:
    name: for people.
    hook: the place of the dictionary.
    stores: model -> its store, all paired; at least one.
    live: model -> a function that loads it; run on the shown contexts.
    keep: which rows count, see `search.Place`.
  """

  name: str
  hook: str
  stores: Mapping[str, store.Store]
  live: Mapping[str, Callable[[], lm.LanguageModel]] = dataclasses.field(
    default_factory=dict
  )
  keep: Callable[[np.ndarray], np.ndarray] | None = None

  def __post_init__(self):
    if not self.stores:
      raise errors.InputError(f"view {self.name!r} has no store to search")
    check_paired(self.name, self.stores)


def check_paired(name: str, stores: Mapping[str, store.Store]) -> None:
  """Raises errors.InputError for the first store that is not like the first."""
  (first, source), *others = stores.items()
  for model, other in others:
    if not store.paired(source, other):
      raise errors.InputError(
        f"view {name!r}: {other.path} ({model}) is not paired with"
        f" {source.path} ({first}): their rows are not of the same tokens;"
        f" harvest it with --config.tokens_of={source.path}"
      )


@dataclasses.dataclass
class _Example:
  slot: int
  kind: str  # "top" or "quantile"
  quantile: float | None
  by: list[str]  # the models in which it was found
  hit: np.void  # of best.HIT, in the one where it is strongest


def collect(
  dictionary: sae.Sae,
  views: Sequence[View],
  latents: Sequence[int],
  tokenizer: contexts.TokenStrings,
  *,
  mesh: jax.sharding.Mesh,
  config: contexts.ContextsConfig | None = None,
) -> dict[str, Any]:
  """The strongest contexts of each model, with every model's activations.

  Args:
    dictionary: the SAE, applied to every model as it is.
    views: bodies of text.
    latents: which to show.
    tokenizer: of the models, which share it.
    mesh: where rows are encoded.
    config: how much to show; `top` counts per model.

  Returns:
    JSON values: view -> {"hook", "rows", "latents": [{"latent", "models":
    {model: {"fires", "density", "mean", "max", "quantiles": [[q, value], …]}},
    "examples": […]}]}. `models` has those with a store; quantiles are of the
    activations > 0. An example has "kind" ("top" or "quantile"), "quantile",
    "by" (the models in which it was found), "value" (the largest of them),
    "document", "position", "start", "of", "tokens", and "activations": {model:
    [number, or None where the store kept no row]}. No document's neighbourhood
    is shown twice.

  Raises:
    errors.InputError: no such latent, or a live model that does not fit.
  """
  config = config or contexts.ContextsConfig()
  latents_S = np.array(list(latents), np.int64)
  contexts.check_latents(latents_S, dictionary.latents)
  placed = on_mesh.place(dictionary, mesh)
  return {
    view.name: _view(placed, view, latents_S, tokenizer, mesh, config)
    for view in views
  }


def _view(placed, view: View, latents_S, tokenizer, mesh, config):
  searches = {
    name: search.Search(
      placed,
      search.Place(
        source,
        source.hook(view.hook),
        contexts.last_chunks(source, range(source.num_chunks), config.rows),
        config.batch_rows,
        mesh,
        view.keep,
      ),
      latents_S,
    )
    for name, source in view.stores.items()
  }
  found = {
    name: following.find(config.top, _SAMPLE, config.seed)
    for name, following in searches.items()
  }
  source = next(iter(view.stores.values()))
  examples = [
    example
    for slot in range(len(latents_S))
    for example in _pick(slot, found, config)
  ]
  documents = {
    number: source.document(number)
    for number in sorted({int(e.hit["document"]) for e in examples})
  }
  keys_M = np.unique(
    np.concatenate([_NO_KEYS, *(_keys(e, documents, config) for e in examples)])
  )
  values = {name: s.read(keys_M) for name, s in searches.items()}
  following = next(iter(searches.values()))
  for name, load in view.live.items():
    values[name] = live.read(
      load(), view.hook, keys_M, documents, following, mesh=mesh
    )
  shown = [_render(e, documents, values, tokenizer, config) for e in examples]
  return {
    "hook": view.hook,
    "rows": next(iter(found.values()))[2].rows,
    "latents": [
      {
        "latent": int(latent),
        "models": {
          name: {
            **statistics.of(slot),
            "quantiles": _quantiles(sample.of(slot)["value"]),
          }
          for name, (_, sample, statistics) in found.items()
        },
        "examples": [
          text
          for e, text in zip(examples, shown, strict=True)
          if e.slot == slot
        ],
      }
      for slot, latent in enumerate(latents_S)
    ],
  }


def _pick(
  slot: int,
  found: Mapping[str, tuple[best.Best, best.Best, search.Statistics]],
  config: contexts.ContextsConfig,
) -> list[_Example]:
  """The strongest of every model, strongest first, then some by quantile."""
  order = list(found)
  hits = [(name, hit) for name in order for hit in found[name][0].of(slot)]
  hits.sort(key=lambda pair: -float(pair[1]["value"]))  # ties: first model
  top: list[_Example] = []
  for name, hit in hits:
    near = [e for e in top if _shows(e.hit, hit, config)]
    if not near:
      top.append(_Example(slot, "top", None, [name], hit))
    elif name not in near[0].by:
      near[0].by.append(name)
  for example in top:
    example.by.sort(key=order.index)
  # Of the first model, or of the one where the latent fires most if it never
  # fires there.
  fires = {name: s.of(slot)["fires"] for name, (_, _, s) in found.items()}
  name = next(iter(found))
  if not fires[name]:
    name = max(fires, key=lambda n: fires[n])
  seen = {int(e.hit["document"]) for e in top}
  sample = found[name][1].of(slot)
  return top + [
    _Example(slot, "quantile", quantile, [name], hit)
    for quantile, hit in contexts.at_quantiles(sample, config.quantiles, seen)
  ]


def _shows(hit: np.void, other: np.void, config) -> bool:
  """Whether a context around `hit` has `other` in it."""
  offset = int(other["position"]) - int(hit["position"])
  same = hit["document"] == other["document"]
  return bool(same) and -config.before <= offset <= config.after


def _bounds(example: _Example, documents, config) -> tuple[int, int]:
  length = len(documents[int(example.hit["document"])])
  return contexts.bounds(int(example.hit["position"]), length, config)


def _keys(example: _Example, documents, config) -> np.ndarray:
  start, stop = _bounds(example, documents, config)
  return scan.key(example.hit["document"], np.arange(start, stop))


def _render(
  example: _Example,
  documents: Mapping[int, np.ndarray],
  values: Mapping[str, dict[tuple[int, int], float]],
  tokenizer: contexts.TokenStrings,
  config: contexts.ContextsConfig,
) -> dict[str, Any]:
  start, stop = _bounds(example, documents, config)
  document = int(example.hit["document"])
  keys = _keys(example, documents, config).tolist()
  # What the first model's store has no row of is shown for no model.
  rows = next(iter(values.values()))
  return {
    "kind": example.kind,
    "quantile": example.quantile,
    "by": example.by,
    "value": contexts.short(example.hit["value"]),
    "document": document,
    "position": int(example.hit["position"]),
    "start": start,
    "of": len(documents[document]),
    "tokens": tokenizer.token_strings(documents[document][start:stop].tolist()),
    "activations": {
      name: [
        contexts.short(found.get((example.slot, key), 0.0))
        if (-1, key) in rows
        else None
        for key in keys
      ]
      for name, found in values.items()
    },
  }


def _quantiles(values_N: np.ndarray) -> list[list[float]]:
  if not len(values_N):
    return []
  found = np.quantile(values_N, _QUANTILES)
  return [
    [q, contexts.short(value)]
    for q, value in zip(_QUANTILES, found, strict=True)
  ]
