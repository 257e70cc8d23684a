# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a harvest reads: batches of tokens, and activations for them."""

import dataclasses

import jax
import jax.numpy as jnp

from sae_jax import errors, lm
from sae_jax import mesh as mesh_lib
from sae_jax.harvest import config as config_lib
from sae_jax.harvest import lanes, rows
from sae_jax.lm import hooks as hooks_lib
from sae_jax.lm import text as text_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
  """The manifest's fields on model, tokenizer and text."""

  model: str
  weights_hash: str
  tokenizer_hash: str
  prepends_bos: bool
  chat_template: bool
  text_source: str
  text_fingerprint: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """A language model on a text, or something that stands in for it.

  Attributes:
    activations: tokens_BT, mask_BT -> {canonical hook: x_BTD}.
    open_batches: (lane, first batch) -> that lane's batches from there on.
    special: token id -> reason why it could be left out.
    provenance: for the manifest; a harvest does not go on with another.
  """

  activations: rows.Activations
  open_batches: lanes.OpenBatches
  special: dict[int, str]
  provenance: Provenance


def open_source(config: config_lib.HarvestConfig) -> Source:
  """Loads the model up to the deepest hook, and finds the text.

  Raises:
    errors.InputError: see `lm.load_lm`, `lm.text` and `lm.hooks`.
  """
  hooks = [hooks_lib.parse(name) for name in config.hooks]
  names = tuple(hook.canonical for hook in hooks)
  if len(set(names)) < len(names):
    raise errors.InputError(f"hooks={config.hooks}: one of them is there twice")
  fingerprint = text_lib.fingerprint(config.text)
  model = _load(config, max(hooks))
  tokenizer = model.tokenizer
  first = next(text_lib.documents(config.text, tokenizer), None)

  def activations(tokens_BT, mask_BT):
    return lm.activations(model, tokens_BT, names, mask_BT)

  def open_batches(lane: int, first_batch: int):
    return text_lib.batches(
      config.text,
      tokenizer,
      config.batch_size,
      lane=lane,
      lanes=config.lanes,
      start_batch=first_batch,
    )

  return Source(
    activations=activations,
    open_batches=open_batches,
    special=rows.special_reasons(
      tokenizer.bos_id,
      tokenizer.eos_id,
      tokenizer.pad_id,
      tokenizer.special_ids,
    ),
    provenance=Provenance(
      model=config.model,
      weights_hash=model.weights_hash,
      tokenizer_hash=tokenizer.hash,
      prepends_bos=tokenizer.wants_bos,
      chat_template=first is not None and first.chat,
      text_source=", ".join(config.text.paths),
      text_fingerprint=fingerprint,
    ),
  )


def _load(
  config: config_lib.HarvestConfig, deepest: hooks_lib.Hook
) -> lm.LanguageModel:
  mesh = mesh_lib.make(config.mesh, jax.local_devices())
  try:
    return lm.load_lm(
      config.model,
      mesh=mesh,
      dtype=jnp.dtype(config.dtype),
      layers=deepest.layer + 1,
    )
  except errors.InputError as error:
    raise errors.InputError(
      f"{error} (loading what {deepest.canonical} needs)"
    ) from error
