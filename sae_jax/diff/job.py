# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The diff from its inputs to its files, part by part.

Captures activations where models are given, runs the methods, joins what they
found. Every store and part appears whole, so a diff that was killed goes on
with what is missing.
"""

import hashlib
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import artifacts, errors, formats, lm, metrics, sae, store
from sae_jax import mesh as mesh_lib
from sae_jax.diff import (
  attribution,
  capture,
  cards,
  crosscoder,
  delta,
  frozen,
  lens,
  linear,
  match,
  results,
  stagewise,
  table,
  tags,
)
from sae_jax.diff import config as config_lib
from sae_jax.diff import evidence as evidence_lib
from sae_jax.diff import problem as problem_lib
from sae_jax.judge import prompts as prompts_lib
from sae_jax.lm import hooks as hooks_lib
from sae_jax.lm import load as load_lib

_METHODS = {
  "frozen": frozen,
  "attribution": attribution,
  "delta": delta,
  "crosscoder": crosscoder,
  "stagewise": stagewise,
  "match": match,
  "lens": lens,
  "linear": linear,
}


def run(
  config: config_lib.DiffConfig, dictionary: sae.Sae, output: artifacts.Output
) -> dict[str, Any]:
  """Writes latents.parquet, summary.json, directions.npz and cards.json.

  Raises:
    errors.InputError: models, stores, prompts and dictionary do not fit.
  """
  directory = output.path / "parts"
  wanted = [
    name for method in config.methods for name in _METHODS[method].names(config)
  ]
  problem = open_problem(config, dictionary, output.path)
  done = frozenset(name for name in wanted if table.has_part(directory, *name))
  for method in config.methods:
    for part in _METHODS[method].run(problem, done):
      table.write_part(directory, tags.tagged(part))
  found = [name for name in wanted if table.has_part(directory, *name)]
  result = results.write(problem, output, directory, found)
  shutil.rmtree(problem.work)
  return result


def open_problem(
  config: config_lib.DiffConfig, dictionary: sae.Sae, path: pathlib.Path
) -> problem_lib.Problem:
  """Makes ready what the methods need; the models run here if there are any."""
  mesh = mesh_lib.make(config.mesh)
  hook = _hook(config, dictionary)
  cards.check(config, hook, dictionary.d_model)
  work = path / "work"
  work.mkdir(exist_ok=True)
  if config.live:
    evidence, prompts = _captured(config, hook, path / "stores", mesh)
  else:
    evidence, prompts = _given(config, hook, mesh)
  if evidence.d_model != dictionary.d_model:
    raise errors.InputError(
      f"{config.sae} takes activations of width {dictionary.d_model}, but"
      f" {evidence.hook} has {evidence.d_model}; give an SAE of this hook"
    )
  return problem_lib.Problem(
    config=config,
    evidence=evidence,
    dictionary=dictionary,
    mesh=mesh,
    work=work,
    prompts=prompts,
    models=problem_lib.Models(config, mesh),
  )


def load_dictionary(config: config_lib.DiffConfig) -> sae.Sae:
  return formats.load_sae(config.sae)


def inputs(
  config: config_lib.DiffConfig, dictionary: sae.Sae
) -> dict[str, str]:
  """Hashes of what a diff reads; the models' are in the captured stores."""
  found = {"sae": _fingerprint(dictionary)}
  if config.prompts is not None:
    found["prompts"] = artifacts.hash_input("prompts.path", config.prompts.path)
  if config.base_store:
    found["base"] = store.open_store(config.base_store).identity
    for arm in config.arms:
      found[f"arm {arm.name}"] = store.open_store(arm.store).identity
  others = {f"delta {i}": path for i, path in enumerate(config.delta)}
  for i, path in enumerate(config.crosscoder):
    others[f"crosscoder {i}"] = path
  if config.match:
    others["match"] = config.match
  if config.stagewise is not None:
    for name, path in config.stagewise.paths.items():
      others[f"stagewise {name}"] = path
  for name, path in others.items():
    found[name] = _fingerprint(formats.load_sae(path))
  return found | cards.inputs(config)


def _hook(config: config_lib.DiffConfig, dictionary: sae.Sae) -> str:
  name = config.hook or dictionary.metadata.get("hook_name")
  if not name:
    raise errors.InputError(
      f"{config.sae} does not say which hook it is for; give --config.hook"
    )
  return hooks_lib.parse(name).canonical


def _fingerprint(dictionary: sae.Sae) -> str:
  digest = hashlib.sha256(f"{dictionary.activation} {dictionary.k}".encode())
  for array in jax.tree.leaves(dictionary.params):
    digest.update(np.ascontiguousarray(np.asarray(array)).data)
  return digest.hexdigest()


def _captured(
  config: config_lib.DiffConfig,
  hook: str,
  directory: pathlib.Path,
  mesh: jax.sharding.Mesh,
) -> tuple[evidence_lib.Evidence, prompts_lib.Prompts]:
  """Runs what has not been run yet, one model at a time."""
  assert config.prompts is not None
  directory.mkdir(exist_ok=True)
  base = _load(config, config.base, hook, mesh)
  prompts = prompts_lib.load(config.prompts, base.tokenizer)
  sequences = prompts.sequences(config.scope)
  longest = max(len(s.tokens) for s in sequences)
  limit = base.config.learned_positions
  if limit and longest > limit:
    raise errors.InputError(
      f"{prompts.path}: a sequence has {longest} tokens, but {config.base} has"
      f" a table of {limit} positions; shorten it"
    )
  names = ["base", *(arm.name for arm in config.arms)]
  if config.null_arm:
    names.append("null")
  for name in names:
    path = directory / name
    left = name == "null"
    size = config.batch_size // 2 + 1 if left else config.batch_size
    source = config.base if name in ("base", "null") else config.arm(name).model
    if _is_captured(path, source, name):
      continue
    model = base
    if source != config.base:
      model = _load(config, source, hook, mesh)
      _check_tokens(config, prompts, model, name)
    show = jax.process_index() == 0
    unit = f"sequences of {name}"
    with metrics.Progress(len(sequences), unit, show=show) as bar:
      capture.capture(
        model, sequences, hook, path, batch_size=size, left=left, progress=bar
      )
  evidence = evidence_lib.from_prompts(
    {name: store.open_store(directory / name) for name in names},
    hook,
    prompts,
    sequences,
    scope=config.scope,
    skip=config.skip_positions,
    groups=config.groups,
    batch_rows=config.batch_rows,
    mesh=mesh,
  )
  return evidence, prompts


def _given(
  config: config_lib.DiffConfig, hook: str, mesh: jax.sharding.Mesh
) -> tuple[evidence_lib.Evidence, prompts_lib.Prompts | None]:
  stores = {"base": store.open_store(config.base_store)}
  stores |= {arm.name: store.open_store(arm.store) for arm in config.arms}
  evidence = evidence_lib.from_stores(
    stores,
    hook,
    skip=config.skip_positions,
    groups=config.groups,
    batch_rows=config.batch_rows,
    mesh=mesh,
  )
  prompts = None
  if config.prompts is not None and config.base:
    # Only for the methods that run models; the evidence is the stores'.
    tokenizer = _load(config, config.base, hook, mesh).tokenizer
    prompts = prompts_lib.load(config.prompts, tokenizer)
  return evidence, prompts


def _load(
  config: config_lib.DiffConfig, source: str, hook: str, mesh: jax.sharding.Mesh
) -> lm.LanguageModel:
  """A model as far as the hook."""
  try:
    return lm.load_lm(
      source,
      mesh=mesh,
      dtype=jnp.dtype(config.dtype),
      layers=hooks_lib.parse(hook).layer + 1,
    )
  except errors.InputError as error:
    raise errors.InputError(f"{error} (loading what {hook} needs)") from error


def _check_tokens(
  config: config_lib.DiffConfig,
  prompts: prompts_lib.Prompts,
  model: lm.LanguageModel,
  name: str,
) -> None:
  """The arm's own tokenizer has to give the same tokens."""
  assert config.prompts is not None
  own = prompts_lib.load(config.prompts, model.tokenizer)
  for ours, theirs in zip(prompts.prompts, own.prompts, strict=True):
    if ours != theirs:
      raise errors.InputError(
        f"arm {name!r}: the tokenizer of {model.source} makes other tokens of"
        f" prompt {ours.id!r} than that of {config.base}; compare models that"
        " share tokenizer and chat template"
      )


def _is_captured(path: pathlib.Path, source: str, name: str) -> bool:
  """Whether a whole capture is there, which has to be of the same weights."""
  if not (path / "manifest.json").is_file():
    return False
  known = store.open_store(path).manifest.weights_hash
  if known != load_lib.weights_hash(source):
    raise errors.InputError(
      f"{path} was captured from other weights of {name!r} than {source} has"
      " now; restore them, or choose another --out"
    )
  return True
