# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax evaluate`: a run, its held-out rows and its LM in; metrics out."""

import dataclasses
import pathlib
import sys
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import artifacts, errors, formats, lm, metrics, store
from sae_jax import config as config_lib
from sae_jax import evaluate as evaluate_lib
from sae_jax import mesh as mesh_lib
from sae_jax.interpret import contexts as contexts_lib
from sae_jax.train import config as train_config
from sae_jax.train import start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """What to evaluate, on what."""

  run: str  # a finished train job; OUT/sae/I: dictionary I of a sweep
  store: str = ""  # empty: the run's own, its held-out rows only
  minus: str = ""  # with `store`, for a run on differences: what is subtracted
  paired: tuple[str, ...] = ()  # with `store`, for a crosscoder of models
  model: str = ""  # empty: the one that the store was harvested from
  dtype: Literal["bfloat16", "float32"] = "float32"
  evaluate: evaluate_lib.EvaluateConfig = dataclasses.field(
    default_factory=evaluate_lib.EvaluateConfig
  )
  contexts: contexts_lib.ContextsConfig = dataclasses.field(
    default_factory=contexts_lib.ContextsConfig
  )
  mesh: mesh_lib.MeshConfig = dataclasses.field(
    default_factory=mesh_lib.MeshConfig
  )


def run(config: Config, out: str) -> dict[str, Any]:
  """Writes metrics.json, density.npz and contexts.json into `out`."""
  trained, place = _trained(config)
  source = _source(config, trained)
  hook = source.hook(trained.hook)
  target = source.hook(trained.target) if trained.target else ""
  chunks = _chunks(config, trained, source)
  with artifacts.open_output(
    out,
    job="evaluate",
    config=config_lib.to_dict(config),
    inputs={"sae": formats.hash_sae(place), **source.identities},
    may_change=("mesh", "store", "minus", "paired", "model"),
  ) as output:
    if output.finished is not None:
      print(f"{output.path} is already evaluated", file=sys.stderr)
      return output.finished["result"]
    mesh = mesh_lib.make(config.mesh)
    dictionary = formats.load_sae(place)
    # The LM's loss is with activations of one model replaced by their
    # reconstruction; a dictionary of differences reconstructs none, and a
    # crosscoder none that follows from the model's own activations alone.
    whole = bool(config.evaluate.contexts) and not (
      trained.minus or trained.paired or trained.hooks
    )
    model = _model(config, source, mesh, whole=whole)
    progress = metrics.Progress(
      config.evaluate.contexts if whole else 0, "contexts"
    )
    found = evaluate_lib.evaluate(
      dictionary,
      source,
      hook,
      chunks,
      mesh=mesh,
      target=target,
      model=model if whole else None,
      config=config.evaluate,
      progress=progress.update,
    )
    progress.close()
    found.write(output.path)
    shown = contexts_lib.collect(
      dictionary,
      source,
      hook,
      range(source.num_chunks),
      contexts_lib.choose(
        np.asarray(found.arrays["fires_F"]), config.contexts.latents
      ),
      model.tokenizer,
      mesh=mesh,
      config=config.contexts,
    )
    output.write_json("contexts.json", shown)
    result = {
      "eval": str(output.path),
      **{k: v for k, v in found.metrics.items() if k.startswith("eval/")},
    }
    output.finish(result, device=jax.devices()[0].device_kind)
  return result


def _source(config: Config, trained: train_config.TrainConfig) -> store.Store:
  """The rows of the run's kind: of a store, of two's difference, or joined."""
  for name in ("minus", "paired"):
    if getattr(config, name) and not config.store:
      raise errors.InputError(
        f"config.{name}={getattr(config, name)} says what belongs to"
        " config.store, which is empty: give both, or neither for the run's own"
      )
  if config.store and bool(trained.minus) != bool(config.minus):
    raise errors.InputError(
      f"config.run={config.run} was trained on"
      f" {'differences of two stores' if trained.minus else 'one store'}, but"
      f" config.store={config.store} comes with config.minus={config.minus!r};"
      f" {'give' if trained.minus else 'leave out'} --config.minus"
    )
  if len(config.paired) != len(trained.paired) and config.store:
    raise errors.InputError(
      f"config.run={config.run} was trained on {len(trained.paired)} stores"
      f" besides the first, but config.paired={config.paired}; give as many"
    )
  if config.store:
    trained = dataclasses.replace(
      trained, store=config.store, minus=config.minus, paired=config.paired
    )
  return start.open_source(trained)


def _trained(config: Config) -> tuple[train_config.TrainConfig, pathlib.Path]:
  """The run that the dictionary is of, as if alone in it; where it lies."""
  path = pathlib.Path(config.run).expanduser().resolve()
  # The run itself, or that of RUN/sae or RUN/sae/I.
  read = (
    (p, artifacts.read_json(p / "config.json"))
    for p in (path, *path.parents[:2])
  )
  run, recorded = next(
    ((p, value) for p, value in read if value and value["job"] == "train"),
    (path, None),
  )
  if recorded is None:
    raise errors.InputError(
      f"config.run={config.run} is no train run; give the --out of sae-jax"
      " train, or OUT/sae/I for dictionary I of a sweep"
    )
  if artifacts.read_json(run / "manifest.json") is None:
    raise errors.InputError(
      f"config.run={config.run} is unfinished; run its sae-jax train command"
      " again to the end"
    )
  trained = config_lib.from_dict(train_config.TrainConfig, recorded["config"])
  members = train_config.members(trained)
  if not members and path in (run, run / "sae"):
    return trained, run / "sae"
  places = {run / "sae" / str(i): one for i, one in enumerate(members)}
  if path not in places:
    held = f"{len(members)} dictionaries" if members else "one dictionary"
    named = [str(place) for place in places] or [str(run)]
    raise errors.InputError(
      f"config.run={config.run}: {run} trained {held}; give"
      f" --config.run={' to '.join(dict.fromkeys([named[0], named[-1]]))}"
    )
  return places[path], path


def _chunks(
  config: Config, trained: train_config.TrainConfig, source: store.Store
) -> range:
  if config.store:
    return range(source.num_chunks)
  if not trained.held_out_rows:
    raise errors.InputError(
      f"{config.run} held no rows out (held_out_rows=0), so every row of its"
      " store was trained on; give --config.store=STORE of other text"
    )
  return source.holdout(trained.held_out_rows)[1]


def _model(
  config: Config, source: store.Store, mesh: jax.sharding.Mesh, *, whole: bool
) -> lm.LanguageModel:
  name = config.model or source.manifest.model
  if not name:
    raise errors.InputError(
      f"store {source.path} names no language model; give --config.model"
    )
  layers = None if whole else 1  # 1: only for the tokenizer
  model = lm.load_lm(
    name, mesh=mesh, dtype=jnp.dtype(config.dtype), layers=layers
  )
  known = source.manifest.weights_hash
  if known and known != model.weights_hash:
    raise errors.InputError(
      f"model {name} is not the one that {source.path} was harvested from"
      f" (weights {model.weights_hash[:12]}, the store's are {known[:12]});"
      f" give --config.model for {source.manifest.model}"
    )
  return model
