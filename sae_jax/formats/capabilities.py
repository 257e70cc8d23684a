# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which kinds of dictionaries each format that is written can hold."""

from sae_jax import errors, sae

_KINDS = frozenset({"topk", "relu", "jumprelu", "gated"})
_TRANSCODER = "an output of another width than the input"
_SKIP = "a skip connection"
_LAYER_NORM = "a layer norm of the input"
_SOURCES = "several sources (a crosscoder)"
_HAVE = {
  "saelens": _KINDS | {_TRANSCODER, _SKIP, _LAYER_NORM, _SOURCES},
  "sparsify": frozenset({"topk", _SKIP}),
  "dictionary_learning": _KINDS,
  "gemma_scope": frozenset({"relu", "jumprelu", _TRANSCODER, _SKIP}),
  "openai": frozenset({"topk", "relu", _LAYER_NORM}),
  "llamascopium": frozenset({"topk", "relu", "jumprelu"}),
  "crosscoder_learning": frozenset({"relu", "jumprelu", _SOURCES}),
}


def refuse(dictionary: sae.Sae, format: str) -> None:
  """Raises errors.InputError for what `format` has no way to say."""
  for need in _needs(dictionary):
    if need in _HAVE[format]:
      continue
    others = [name for name, have in _HAVE.items() if need in have]
    what = f"{need} dictionaries" if need in _KINDS else need
    raise errors.InputError(
      f"format={format!r} has no {what.removeprefix('an ').removeprefix('a ')};"
      f" formats that have: {', '.join(others)}"
    )


def _needs(dictionary: sae.Sae) -> list[str]:
  needs = [dictionary.activation]
  if dictionary.d_out != dictionary.d_model:
    needs.append(_TRANSCODER)
  if dictionary.params.w_skip_DE is not None:
    needs.append(_SKIP)
  if dictionary.layer_norm:
    needs.append(_LAYER_NORM)
  if dictionary.sources > 1:
    needs.append(_SOURCES)
  return needs
