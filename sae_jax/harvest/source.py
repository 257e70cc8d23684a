# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a harvest reads: batches of tokens, and activations for them."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from sae_jax import errors, lm, store
from sae_jax import mesh as mesh_lib
from sae_jax.harvest import config as config_lib
from sae_jax.harvest import lanes, paired, rows
from sae_jax.lm import hooks as hooks_lib
from sae_jax.lm import text as text_lib
from sae_jax.lm import tokenizer as tokenizer_lib


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
    base: the store whose tokens and rows these are; None: the text decides.
  """

  activations: rows.Activations
  open_batches: lanes.OpenBatches
  special: dict[int, str]
  provenance: Provenance
  base: store.Store | None = None


def open_source(
  config: config_lib.HarvestConfig, base: store.Store | None = None
) -> Source:
  """Loads the model up to the deepest hook, and finds the text.

  Args:
    config: of the harvest.
    base: the store that `config.tokens_of` names (see `paired.resolve`).

  Raises:
    errors.InputError: the model reads other tokens than the base's, or see
      `lm.load_lm`, `lm.text` and `lm.hooks`.
  """
  hooks = [hooks_lib.parse(name) for name in config.hooks]
  names = tuple(hook.canonical for hook in hooks)
  if len(set(names)) < len(names):
    raise errors.InputError(f"hooks={config.hooks}: one of them is there twice")
  fingerprint = text_lib.fingerprint(config.text) if config.text else ""
  model = _load(config, max(hooks))
  tokenizer = model.tokenizer

  def activations(tokens_BT, mask_BT):
    return lm.activations(model, tokens_BT, names, mask_BT)

  if base is not None:
    _check_tokenizer(config, model, base)
    text = _text_of(base)
    open_batches = paired.Tokens(base).batches
  else:
    assert config.text is not None
    text = _text(config.text, fingerprint, tokenizer)
    open_batches = functools.partial(_batches, config, tokenizer)
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
      **text,
    ),
    base=base,
  )


def _batches(
  config: config_lib.HarvestConfig,
  tokenizer: tokenizer_lib.Tokenizer,
  lane: int,
  first_batch: int,
) -> rows.Batches:
  assert config.text is not None
  return text_lib.batches(
    config.text,
    tokenizer,
    config.batch_size,
    lane=lane,
    lanes=config.lanes,
    start_batch=first_batch,
  )


def _text(
  config: text_lib.TextConfig,
  fingerprint: str,
  tokenizer: tokenizer_lib.Tokenizer,
) -> dict[str, Any]:
  """Provenance of the text."""
  first = next(text_lib.documents(config, tokenizer), None)
  return {
    "prepends_bos": tokenizer.wants_bos,
    "chat_template": first is not None and first.chat,
    "text_source": ", ".join(config.paths),
    "text_fingerprint": fingerprint,
  }


def _text_of(base: store.Store) -> dict[str, Any]:
  """Provenance of a store's text; its fingerprint is of tokens and rows."""
  manifest = base.manifest
  return {
    "prepends_bos": manifest.prepends_bos,
    "chat_template": manifest.chat_template,
    "text_source": manifest.text_source,
    "text_fingerprint": manifest.pairing_hash,
  }


def _check_tokenizer(
  config: config_lib.HarvestConfig, model: lm.LanguageModel, base: store.Store
) -> None:
  known, found = base.manifest.tokenizer_hash, model.tokenizer.hash
  if known and known != found:
    raise errors.InputError(
      f"tokens_of={base.path} holds tokens of {base.manifest.model}'s"
      f" tokenizer ({known[:12]}), but {config.model} has another"
      f" ({found[:12]}); tokens of one may mean something else to the other. If"
      " only the chat templates differ, put the first's tokenizer files into"
      " the second's directory"
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
