# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Formats that `load_sae` tells apart by what a directory holds."""

import json

import coded
import numpy as np
import pytest
import safetensors.numpy

from sae_jax import formats, sae

_B, _D, _F, _K = 16, 8, 32, 5


def _dictionary(activation, **changes):
  rng = np.random.default_rng(0)
  w_dec_FD = rng.normal(size=(_F, _D))
  arrays = {
    "w_enc_FD": rng.normal(size=(_F, _D)) / 3,
    "w_dec_FD": w_dec_FD / np.linalg.norm(w_dec_FD, axis=1, keepdims=True),
    "b_enc_F": 0.3 * rng.normal(size=_F),
    "b_dec_D": rng.normal(size=_D),
  }
  if activation == "jumprelu":
    arrays["threshold_F"] = np.full(_F, 0.25)
  params = sae.Params(**{n: np.float32(a) for n, a in arrays.items()})
  return sae.make_sae(params, _K, activation=activation, **changes)


@pytest.mark.parametrize(
  ("form", "dictionary"),
  [
    ("gemma_scope", _dictionary("jumprelu")),
    ("openai", _dictionary("topk", layer_norm=True)),
    ("llamascopium", _dictionary("topk", centred=False)),
    ("crosscoder_learning", _dictionary("jumprelu", sources=2)),
  ],
)
def test_what_is_saved_is_found_and_the_same(tmp_path, form, dictionary):
  formats.save_sae(dictionary, tmp_path / "d", format=form)
  loaded = formats.load_sae(tmp_path / "d")
  assert loaded.activation == dictionary.activation
  assert loaded.sources == dictionary.sources
  assert loaded.metadata["decoder_norms"] == [1, 1, 1]
  x_BD = np.random.default_rng(1).normal(size=(_B, _D)).astype(np.float32)
  coded.assert_same(coded.both(loaded, x_BD), coded.both(dictionary, x_BD))
  # And on to our own layout, which says it all.
  formats.save_sae(loaded, tmp_path / "ours")
  again = formats.load_sae(tmp_path / "ours")
  coded.assert_same(coded.both(again, x_BD), coded.both(loaded, x_BD), atol=0)


def test_weights_in_a_folder_are_part_of_the_identity(tmp_path):
  hashes = []
  for value in (1, 2):
    place = tmp_path / str(value)
    (place / "checkpoints").mkdir(parents=True)
    tensors = {
      "encoder.weight": np.full((_F, _D), value, np.float32),
      "encoder.bias": np.zeros(_F, np.float32),
      "decoder.weight": np.ones((_D, _F), np.float32),
      "decoder.bias": np.zeros(_D, np.float32),
    }
    file = place / "checkpoints" / "final.safetensors"
    safetensors.numpy.save_file(tensors, file)
    config = {"d_model": _D, "act_fn": "relu", "norm_activation": "inference"}
    (place / "hyperparams.json").write_text(json.dumps(config))
    hashes.append(formats.hash_sae(place))
  assert hashes[0] != hashes[1]
