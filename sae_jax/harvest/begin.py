# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Begins a store, or makes sure that the one begun is the one meant."""

import dataclasses
from typing import Any

from sae_jax import artifacts, errors, store, version
from sae_jax import config as config_lib
from sae_jax.harvest import config as harvest_config
from sae_jax.harvest import rows as rows_lib
from sae_jax.harvest import source as source_lib
from sae_jax.store import draining, layout, location

# Hashes say what is in them.
_MAY_MOVE = ("model", "text.path", "text_source", "tokens_of")
_CONFIRM = "restore the old value to go on, or choose another --out"


def finished(place: location.Location) -> store.Manifest | None:
  data = place.read(layout.MANIFEST)
  if data is None:
    return None
  return layout.parse_manifest(data, f"{place.path}/{layout.MANIFEST}")


def open_writer(
  config: harvest_config.HarvestConfig,
  source: source_lib.Source,
  place: location.Location,
  lead: bool,
  stall_seconds: float,
) -> store.StoreWriter | None:
  """Goes on with the store, or lets the lead begin it.

  None if (not lead) the lead has finished it meanwhile.
  """
  if not lead:
    draining.until(
      lambda: place.read(layout.START) is not None or bool(finished(place)),
      place,
      "process 0 to begin the store",
      stall_seconds=stall_seconds,
      process=0,
    )
    if finished(place):
      return None
  found = store.StoreWriter.resume(place.path, lead=lead)
  if found is not None:
    check_same(place, found.manifest, config, source)
    return found
  strange = [n for n in place.names("") if not n.startswith(("progress/", "."))]
  if strange and not all(name.endswith("/zarr.json") for name in strange):
    raise errors.InputError(
      f"--out={place.path} holds {strange[0]!r} but no unfinished store; choose"
      " an empty or new directory"
    )
  return store.StoreWriter(place.path, _begin(config, source))


def _begin(
  config: harvest_config.HarvestConfig, source: source_lib.Source
) -> store.Manifest:
  """The manifest that a harvest starts with; runs a batch for its sizes."""
  drops = config.drop_special and source.base is None
  special = source.special if drops else {}
  batches = source.open_batches(0, 0)
  look = rows_lib.first_look(source.activations, batches, special)
  if not look.widths:
    raise errors.InputError(
      f"{source.provenance.text_source}: every token is dropped (they are"
      " all special tokens, or not finite); give other text, or set"
      " drop_special=False"
    )
  multiple = config.outlier_norm_multiple if source.base is None else 0
  return store.Manifest(
    hooks=look.widths,
    rows=config.rows,
    requested_rows=config.rows,
    read_rows=config.read_rows,
    write_rows=config.write_rows,
    **_token_layout(config, source),
    batch_size=config.batch_size,
    lanes=config.lanes,
    window=config.window,
    seed=config.seed,
    filters={
      "drop_special": drops,
      "largest_norms": {
        hook: norm * multiple for hook, norm in look.median_norms.items()
      }
      if multiple
      else {},
    },
    config=_config_dict(config),
    code_version=version.__version__,
    model=source.provenance.model,
    weights_hash=source.provenance.weights_hash,
    tokenizer_hash=source.provenance.tokenizer_hash,
    prepends_bos=source.provenance.prepends_bos,
    chat_template=source.provenance.chat_template,
    text_source=source.provenance.text_source,
    text_fingerprint=source.provenance.text_fingerprint,
  )


def _token_layout(
  config: harvest_config.HarvestConfig, source: source_lib.Source
) -> dict[str, Any]:
  """How tokens are cut; a paired store numbers documents as the other does."""
  if source.base is not None:
    manifest = source.base.manifest
    return {
      "context_length": manifest.context_length,
      "group_batches": manifest.group_batches,
    }
  assert config.text is not None
  length = config.text.context_length
  # About one chunk of tokens for one of activations.
  batches = max(1, config.write_rows // (config.batch_size * length))
  return {"context_length": length, "group_batches": batches}


def _config_dict(config: harvest_config.HarvestConfig) -> dict[str, Any]:
  """The fields that the bytes depend on."""
  value = config_lib.to_dict(config)
  del value["mesh"]
  return value


def check_same(
  place: location.Location,
  found: store.Manifest,
  config: harvest_config.HarvestConfig,
  source: source_lib.Source,
) -> None:
  """Refuses to go on with other settings, another model or another text."""
  now = _config_dict(config)
  for name, before, value in artifacts.differences(found.config, now):
    if name in _MAY_MOVE:
      continue
    raise errors.InputError(
      f"--out={place.path} was harvested with {name} = {before!r}, now it is"
      f" {value!r}; {_CONFIRM}"
    )
  for name, value in dataclasses.asdict(source.provenance).items():
    before = getattr(found, name)
    if before != value and name not in _MAY_MOVE:
      raise errors.InputError(
        f"--out={place.path} was harvested with {name} = {before!r}, now it is"
        f" {value!r}: the model or the text has changed; {_CONFIRM}"
      )
