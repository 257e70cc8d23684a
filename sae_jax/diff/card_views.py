# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The texts on which cards show latents, and the models that read them.

The diff's own text comes first, counted where the evidence counts; then the
views of the config.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from sae_jax import errors, store
from sae_jax.diff import cards_config
from sae_jax.diff import config as config_lib
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import compare, contexts
from sae_jax.lm import tokenizer as tokenizer_lib


class _Numbers:
  """Stands in for a tokenizer that is not known."""

  def token_strings(self, ids: Sequence[int]) -> list[str]:
    return [f"<{int(i)}>" for i in ids]


def check(config: config_lib.DiffConfig, hook: str, d_model: int) -> None:
  """Opens the stores of all views.

  Raises:
    errors.InputError: one is missing, unpaired, bounded, of another hook or
      width, or said to be of an arm that there is not.
  """
  for view in config.cards.views:
    for source in _open(view, config, hook).values():
      if source.d_model(hook) != d_model:
        raise errors.InputError(
          f"cards.views {view.name!r}: {source.path} has activations of width"
          f" {source.d_model(hook)} at {hook}, but the SAE takes {d_model}"
        )


def identities(config: config_lib.DiffConfig) -> dict[str, str]:
  """A hash per store of the views."""
  return {
    f"view {view.name} {name}": store.open_store(path).identity
    for view in config.cards.views
    for name, path in {"base": view.base, **view.stores}.items()
  }


def of_models(
  problem: problem_lib.Problem, notes: list[str]
) -> list[compare.View]:
  """All texts, read by the base and every arm.

  An arm without a store in a view is run live; one without a model either is
  left out, which `notes` then says.
  """
  evidence, config = problem.evidence, problem.config
  arms = [arm.name for arm in config.arms]
  views = [_own(problem, {n: evidence.store(n) for n in ("base", *arms)})]
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


def of_differences(problem: problem_lib.Problem, arm: str) -> compare.View:
  """The diff's own text as the differences of an arm, and of its control."""
  control = problem.control_of(problem.arm(arm))
  names = [arm, *([control.name] if control else [])]
  base = problem.evidence.store("base")
  return _own(
    problem,
    {n: store.difference(problem.evidence.store(n), base) for n in names},
  )


def of_both(problem: problem_lib.Problem, arm: str) -> compare.View:
  """The diff's own text as a crosscoder of the base and an arm reads it."""
  stores = [problem.evidence.store(name) for name in ("base", arm)]
  return _own(problem, {arm: store.joined(stores)})


def tokenizer(
  problem: problem_lib.Problem, notes: list[str]
) -> contexts.TokenStrings:
  """The base model's; where only stores are given, that of the base's store.

  Where that is not to be had, tokens are shown as their ids, and `notes` says
  why.
  """
  if problem.models.source("base"):
    return problem.model("base").tokenizer
  manifest = problem.evidence.store("base").manifest
  reason = "the store names no model"
  if manifest.model:
    try:
      found = tokenizer_lib.load(manifest.model)
    except errors.InputError as error:
      reason = str(error)
    else:
      if manifest.tokenizer_hash in ("", found.hash):
        return found
      reason = f"the tokenizer of {manifest.model} has changed since"
  notes.append(
    "Tokens are shown as their ids, as the tokenizer of"
    f" {problem.config.base_store} is not known ({reason}); give base, the"
    " model."
  )
  return _Numbers()


def _own(
  problem: problem_lib.Problem, stores: Mapping[str, store.Store]
) -> compare.View:
  evidence = problem.evidence

  def in_scope(rows_R2: np.ndarray) -> np.ndarray:
    return evidence.groups_of(rows_R2) >= 0

  return compare.View(
    name=evidence.kind, hook=evidence.hook, stores=stores, keep=in_scope
  )


def _open(
  view: cards_config.ViewConfig, config: config_lib.DiffConfig, hook: str
) -> dict[str, store.Store]:
  """model -> store, in the order of the arms."""
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
  compare.check_paired(view.name, stores)
  return stores
