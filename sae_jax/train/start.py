# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The start of a run: do config and store fit, and the first state."""

import dataclasses
from collections.abc import Iterable, Iterator

import jax
import numpy as np
import optax

from sae_jax import artifacts, errors, formats, sae, store
from sae_jax.sae import crosscoder
from sae_jax.train import config as config_lib
from sae_jax.train import normalize
from sae_jax.train import state as state_lib

# What Gao et al. (2024, App. A.1) take the geometric median of, in their code.
_SAMPLE_ROWS = 32_768


def open_source(config: config_lib.TrainConfig) -> store.Store:
  """The store that is trained on: one, two's difference, or sources joined.

  Raises:
    errors.InputError: see `store.open_store`, `store.difference` and
      `store.joined`.
  """
  source = store.open_store(config.store)
  if config.minus:
    return store.difference(source, store.open_store(config.minus))
  if not (config.paired or config.hooks):
    return source
  stores = [source, *map(store.open_store, config.paired)]
  hooks = [config.hook, *config.hooks] if config.hooks else []
  return store.joined(stores, hooks)


def resolved(
  config: config_lib.TrainConfig, source: store.Store
) -> config_lib.TrainConfig:
  """The config with the number of sources that the rows are made of.

  Raises:
    errors.InputError: it says another one, or the crosscoder's latents cannot
      be divided up as it says.
  """
  hook, count = source.hook(config.hook), 1
  if isinstance(source, store.Joined):
    count = len(source.sources(hook))
  if config.sae.sources not in (1, count):
    raise errors.InputError(
      f"sae.sources={config.sae.sources}, but {source.path} has {count} at"
      f" {hook}; leave sae.sources out"
    )
  found = dataclasses.replace(config.sae, sources=count)
  partition = crosscoder.partition_of(found)
  crosscoder.check(partition, found.latents, source.d_model(hook))
  return dataclasses.replace(config, sae=found)


def inputs(
  config: config_lib.TrainConfig, source: store.Store
) -> dict[str, str]:
  """Hashes of what the run reads, by the config field that names it."""
  if not config.init_from:
    return source.identities
  return source.identities | {"init_from": formats.hash_sae(config.init_from)}


def identity(config: config_lib.TrainConfig, source: store.Store) -> str:
  """A hash of all that enters the run's numbers, and may not change."""
  fixed = {
    name: value
    for name, value in dataclasses.asdict(config).items()
    if name not in config_lib.MAY_CHANGE and name != "checkpoints"
  }
  return artifacts.hash_json([fixed, inputs(config, source)])


def check(
  config: config_lib.TrainConfig, source: store.Store, chunks: range
) -> None:
  """Refuses what would only fail, or wait for ever, later in the run."""
  if not len(chunks):
    raise errors.InputError(
      f"store {source.path} has no rows to train on; harvest more text"
    )
  window = source.window
  if not source.bounded:
    return
  needed = config.steps * config.stream.batch_size
  if needed > source.rows:
    raise errors.InputError(
      f"steps={config.steps} of {config.stream.batch_size} rows need {needed}"
      f" rows, but the bounded store {source.path} passes {source.rows} by, "
      "each once"
    )
  block = window // 2 * source.write_rows
  if config.checkpoint_every * config.stream.batch_size > block:
    raise errors.InputError(
      f"checkpoint_every={config.checkpoint_every} steps of"
      f" {config.stream.batch_size} rows are more than half the window of the"
      f" bounded store {source.path} ({block} rows): chunks are released by"
      " checkpoints, so harvest and training would wait for each other; lower"
      " checkpoint_every"
    )


def new_states(
  config: config_lib.TrainConfig,
  source: store.Store,
  hook: str,
  chunks: range,
  adam: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
  seeds: Iterable[int],
  target: str = "",
) -> Iterator[state_lib.TrainState]:
  """States before the first step, from a hook's rows and statistics.

  Of transcoders `target` is the hook that they decode to. One for every seed,
  made when it is asked for; the rows are looked at once.

  Raises:
    errors.InputError: the rows, or the dictionary to start from, are unusable.
  """
  yield from state_lib.init_states(
    config.sae,
    adam,
    rows(config, source, hook, chunks),
    target=rows(config, source, target, chunks) if target else None,
    seeds=seeds,
    mesh=mesh,
    dictionary=initial(
      config,
      source.d_model(hook),
      source.d_model(target) if target else source.d_model(hook),
    ),
  )


def rows(
  config: config_lib.TrainConfig, source: store.Store, hook: str, chunks: range
) -> normalize.Rows:
  """A sample of a hook's rows, and how they are treated.

  Raises:
    errors.InputError: they are unusable.
  """
  count = -(-_SAMPLE_ROWS // source.read_rows)
  if source.bounded:  # later chunks come only after the first were trained on
    block = source.window // 2 * source.write_rows // source.read_rows
    ids = np.arange(min(count, block, len(chunks)))
    source.wait_chunks(hook, ids.tolist())
  else:
    ids = np.unique(np.linspace(chunks[0], chunks[-1], count).astype(int))
  sample_ND = np.concatenate(source.read_chunks(hook, ids.tolist()))
  sample_ND = sample_ND[:_SAMPLE_ROWS].astype(np.float32)
  moments = _moments(source, hook, sample_ND)
  if config.minus and not moments.mean_square_norm:
    raise errors.InputError(
      f"{source.path}: {hook} is the same in both at every row looked at"
      f" ({len(sample_ND)}), so there is no difference to train on; give the"
      " stores of two different models"
    )
  return normalize.treat(
    config.normalize, sample_ND, moments, sources=config.sae.sources
  )


def initial(
  config: config_lib.TrainConfig, d_model: int, d_out: int
) -> sae.Sae | None:
  """The dictionary of `config.init_from`; None where it names none.

  Raises:
    errors.InputError: there is none, or it is of another shape.
  """
  if not config.init_from:
    return None
  found = formats.map_sae(config.init_from)
  for name, ours, theirs in (
    ("sae.latents", config.sae.latents, found.latents),
    ("the hook's width", d_model, found.d_model),
    ("the width of what is decoded to", d_out, found.d_out),
  ):
    if ours != theirs:
      raise errors.InputError(
        f"init_from={config.init_from}: this dictionary has {found.latents}"
        f" latents of width {found.d_model} to {found.d_out}, but {name} is"
        f" {ours}; they must be equal, because latent i stays latent i"
      )
  partition = crosscoder.partition_of(config.sae)
  if not crosscoder.keeps_to(found.params, partition):
    raise errors.InputError(
      f"init_from={config.init_from}: its latents are not divided up as"
      f" sae.shared_latents={partition.shared} and"
      f" sae.exclusive_latents={partition.exclusive} say; give what it was"
      " trained with, or leave all latents free"
    )
  return found


def _moments(
  source: store.Store, hook: str, sample_ND: np.ndarray
) -> normalize.Moments:
  """Of the store's rows, or of those of a sample.

  A bounded store has its statistics when it ends; of a difference they cost
  reading both stores whole.
  """
  if source.bounded or isinstance(source, store.Difference):
    return normalize.measure(sample_ND)
  stats = source.stats(hook)
  return normalize.Moments(
    mean_D=stats.mean_D,
    variance_D=stats.variance_D,
    mean_square_norm=stats.mean_square_norm,
  )
