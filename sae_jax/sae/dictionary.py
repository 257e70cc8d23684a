# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The dictionary itself: its arrays, and what kind of dictionary they make.

`Params` are what training changes. `Sae` is a finished dictionary: it takes raw
(unscaled) activations, see `coding`.
"""

import collections.abc
import dataclasses
import json
import types
from typing import Any

import jax

from sae_jax import errors


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
  """Encoder and decoder, both row-major by latent.

  D is the width of what is encoded; a transcoder decodes to E, else E = D. Of a
  crosscoder D holds its sources side by side. The last four are None in
  dictionaries that have no use for them.
  """

  w_enc_FD: jax.Array
  w_dec_FD: jax.Array  # [F, E]
  b_enc_F: jax.Array  # of the gate, where there is one
  b_dec_D: jax.Array  # [E]
  threshold_F: jax.Array | None = None  # JumpReLU's
  log_gain_F: jax.Array | None = None  # gated: log of magnitude over gate rows
  b_mag_F: jax.Array | None = None  # gated: bias of the magnitudes
  w_skip_DE: jax.Array | None = None  # added to the output: x · w_skip

  @property
  def latents(self) -> int:
    return self.w_enc_FD.shape[0]

  @property
  def d_model(self) -> int:
    """The width of what is encoded."""
    return self.w_enc_FD.shape[1]

  @property
  def d_out(self) -> int:
    """The width of what is decoded."""
    return self.w_dec_FD.shape[1]


def partition_specs(params: Params | None = None) -> Params:
  """How arrays lie on a mesh: latents over `latent`, all else everywhere.

  Of the arrays that `params` has; None: a TopK dictionary's.
  """

  def spec(field):
    optional = field.default is not dataclasses.MISSING
    if optional and (params is None or getattr(params, field.name) is None):
      return None
    if field.name.endswith("_FD"):
      return jax.P("latent", None)
    return jax.P("latent") if field.name.endswith("_F") else jax.P()

  specs: dict[str, Any] = {
    field.name: spec(field) for field in dataclasses.fields(Params)
  }
  return Params(**specs)


_NOTHING: collections.abc.Mapping[str, Any] = types.MappingProxyType({})


class Metadata(collections.abc.Mapping):
  """Read-only, hashable JSON values: where a dictionary is from."""

  def __init__(self, values: collections.abc.Mapping[str, Any] = _NOTHING):
    self._json = json.dumps(dict(values), sort_keys=True)
    self._values = json.loads(self._json)

  def __getitem__(self, key):
    return self._values[key]

  def __iter__(self):
    return iter(self._values)

  def __len__(self):
    return len(self._values)

  def __hash__(self):
    return hash(self._json)

  def __eq__(self, other):
    return isinstance(other, Metadata) and self._json == other._json

  def __repr__(self):
    return f"Metadata({self._json})"


_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sae:
  """A trained dictionary for raw activations.

  `activation` says which latents are active, with pre = w_enc (x − b_dec) +
  b_enc, and what their values are:

      topk      the k largest of a row       relu(pre)
      relu      pre > 0                      pre
      jumprelu  pre > threshold              relu(pre)
      gated     pre > 0                      relu(e^log_gain · (pre − b_enc)
                                             + b_mag)

  BatchTopK and Matryoshka dictionaries are `jumprelu` once they are trained.
  Where a row has no fixed number of active latents, `k` is how many places it
  gets in programs that are compiled once, see `coding.encode`.

  `metadata` says where it is from (model, hook, context length, …) and uses
  SAELens's key names.
  """

  params: Params
  k: int = dataclasses.field(metadata=_STATIC)
  activation: str = dataclasses.field(default="topk", metadata=_STATIC)
  metadata: Metadata = dataclasses.field(default=Metadata(), metadata=_STATIC)
  # False: pre = w_enc x + b_enc (transcoders).
  centred: bool = dataclasses.field(default=True, metadata=_STATIC)
  # Rows are brought to mean 0 and deviation 1 first, and the output back.
  layer_norm: bool = dataclasses.field(default=False, metadata=_STATIC)
  # Of a crosscoder: how many D is made of.
  sources: int = dataclasses.field(default=1, metadata=_STATIC)

  @property
  def latents(self) -> int:
    return self.params.latents

  @property
  def d_model(self) -> int:
    return self.params.d_model

  @property
  def d_out(self) -> int:
    return self.params.d_out


# The arrays that each kind has besides the first four.
_EXTRA_ARRAYS = {
  "topk": (),
  "relu": (),
  "jumprelu": ("threshold_F",),
  "gated": ("log_gain_F", "b_mag_F"),
}
ACTIVATIONS = tuple(_EXTRA_ARRAYS)


def make_sae(
  params: Params,
  k: int,
  metadata: collections.abc.Mapping[str, Any] | None = None,
  *,
  activation: str = "topk",
  centred: bool = True,
  layer_norm: bool = False,
  sources: int = 1,
) -> Sae:
  """A dictionary from arrays that already take raw activations; see `Sae`.

  Raises:
    errors.InputError: the arrays are not those of this kind of dictionary, or
      their shapes disagree.
  """
  if activation not in ACTIVATIONS:
    raise errors.InputError(
      f"activation={activation!r}: choose one of {', '.join(ACTIVATIONS)}"
    )
  _check_arrays(params, activation)
  if centred and params.d_out != params.d_model:
    raise errors.InputError(
      f"a dictionary from width {params.d_model} to {params.d_out} cannot"
      " subtract b_dec from its input; give centred=False"
    )
  if sources < 1 or params.d_model % sources or params.d_out % sources:
    raise errors.InputError(
      f"sources={sources} does not divide the width {params.d_model}"
    )
  return Sae(
    params=params,
    k=k,
    activation=activation,
    metadata=Metadata(metadata or {}),
    centred=centred,
    layer_norm=layer_norm,
    sources=sources,
  )


def _check_arrays(params: Params, activation: str) -> None:
  for name in ("threshold_F", "log_gain_F", "b_mag_F"):
    wanted = name in _EXTRA_ARRAYS[activation]
    if wanted != (getattr(params, name) is not None):
      raise errors.InputError(
        f"a {activation} dictionary {'needs' if wanted else 'has no'} {name}"
      )
  sizes = {"F": params.latents, "D": params.d_model, "E": params.d_out}
  shapes = {"w_dec_FD": "FE", "b_dec_D": "E"}
  for field in dataclasses.fields(params):
    array = getattr(params, field.name)
    axes = shapes.get(field.name, field.name.rsplit("_", 1)[1])
    if array is not None and array.shape != tuple(sizes[a] for a in axes):
      raise errors.InputError(
        f"{field.name} has the shape {array.shape}; with {params.latents}"
        f" latents from width {params.d_model} to {params.d_out} it is"
        f" {tuple(sizes[a] for a in axes)}"
      )


def fold_scale(params: Params, scale: jax.Array) -> Params:
  """Parameters for raw x from those trained on `scale · x`.

  With `pre = w_enc (s x − b_dec) + b_enc = s (w_enc (x − b_dec/s) + b_enc/s)`,
  biases and thresholds are divided by s and the matrices stay, decoder norms
  included. Pre-activations are divided by s > 0: the same latents are active.
  """

  def fold(name):
    array = getattr(params, name)
    return None if array is None else array / scale

  names = ("b_enc_F", "b_dec_D", "threshold_F", "b_mag_F")
  folded: dict[str, Any] = {name: fold(name) for name in names}
  return dataclasses.replace(params, **folded)
