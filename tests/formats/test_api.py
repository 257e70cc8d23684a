# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Every format beside every other: who has what, and who takes whose."""

import dataclasses

import numpy as np
import pytest

from sae_jax import errors, formats
from sae_jax.formats import api

KINDS = {
  "topk": {},
  "topk, not centred": {"centred": False},
  "topk, layer norm": {"layer_norm": True},
  "relu": {"activation": "relu"},
  "relu, not centred": {"activation": "relu", "centred": False},
  "relu, several sources": {
    **{"activation": "relu", "centred": False, "sources": 2}
  },
  "jumprelu": {"activation": "jumprelu"},
  "jumprelu, not centred": {"activation": "jumprelu", "centred": False},
  "jumprelu, skip": {"activation": "jumprelu", "skip": True},
  "gated": {"activation": "gated"},
}
# What each is there for, at least.
HAVE = {
  "saelens": set(KINDS),
  "sparsify": {"topk", "topk, not centred"},
  "llamascopium": {"topk", "relu", "jumprelu"},
  "gemma_scope": {"jumprelu", "jumprelu, not centred", "jumprelu, skip"},
  "crosscoder_learning": {"relu, several sources"},
  "dictionary_learning": {
    *("topk", "topk, not centred", "relu", "relu, not centred"),
    *("jumprelu", "jumprelu, not centred", "gated"),
  },
  "openai": {"topk, layer norm", "relu"},
}


@pytest.mark.slow  # compiles ten kinds
@pytest.mark.parametrize("format", api.WRITTEN)
def test_what_is_saved_is_recognised_and_does_the_same(tmp_path, kinds, format):
  held = set()
  for i, (kind, made) in enumerate(KINDS.items()):
    place = tmp_path / str(i)
    dictionary = kinds.make(**made)
    try:
      formats.save_sae(dictionary, place, format=format)
    except errors.InputError as error:
      assert format in str(error) or "choose another format" in str(error)
      assert not place.exists(), kind
      continue
    held.add(kind)
    form, found = api.find(place)
    assert found and format == form.NAME
    claims = [f.NAME for f in api._FORMATS if f.matches(found)]
    assert claims == [format]
    back = formats.load_sae(place)
    for name in ("layer_norm", "sources", "latents", "d_model", "d_out"):
      assert getattr(back, name) == getattr(dictionary, name), kind
    x_BD = kinds.rows()
    after, before = kinds.ours(back, x_BD), kinds.ours(dictionary, x_BD)
    if format == "crosscoder_learning" and dictionary.activation == "jumprelu":
      # One threshold for all: latents are scaled, and their decoder rows back.
      np.testing.assert_array_equal(after[0] > 0, before[0] > 0)
      after = (before[0], after[1])
    kinds.same(after, before)
    np.testing.assert_allclose(
      formats.open_decoder(place).units([7]),
      dictionary.params.w_dec_FD[7:8],
      atol=1e-6,
    )
  assert held >= HAVE[format]


@pytest.mark.parametrize("format", api.WRITTEN)
def test_weights_that_are_not_finite_are_not_saved(tmp_path, kinds, format):
  kind = sorted(HAVE[format])[0]
  dictionary = kinds.make(**KINDS[kind])
  w_dec_FD = np.array(dictionary.params.w_dec_FD)
  w_dec_FD[3, 1] = np.nan
  params = dataclasses.replace(dictionary.params, w_dec_FD=w_dec_FD)
  broken = dataclasses.replace(dictionary, params=params)
  with pytest.raises(errors.InputError, match="NaN"):
    formats.save_sae(broken, tmp_path / "a", format=format)
  assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_what_is_not_a_number_is_found_by_its_place(tmp_path, kinds):
  dictionary = kinds.make()
  bias_F = np.array(dictionary.params.b_enc_F)
  bias_F[[9, 40]] = np.inf
  broken = dataclasses.replace(
    dictionary, params=dataclasses.replace(dictionary.params, b_enc_F=bias_F)
  )
  with pytest.raises(errors.InputError, match=r"b_enc holds .* in row 9"):
    api.check(broken, tmp_path)
  with pytest.raises(errors.InputError, match="k=97, but there are 96"):
    api.check(dataclasses.replace(dictionary, k=97), tmp_path)
