# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Gemma Scope's files against their formula, and against sae_lens's loaders."""

import dataclasses
import json

import coded
import numpy as np
import pytest
import safetensors.numpy

from sae_jax import errors, sae
from sae_jax.formats import gemma_scope

_B, _D, _F = 16, 8, 32
_RES = "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"
_SCOPE_2 = "transcoder/layer_7_width_16k_l0_small_affine"
_CONFIG = {
  "architecture": "jump_relu",
  "model_name": "gemma-v3-1b-pt",
  "hf_hook_point_in": "model.layers.7.pre_feedforward_layernorm.output",
  "hf_hook_point_out": "model.layers.7.post_feedforward_layernorm.output",
  "affine_connection": True,
}


def _arrays(seed=0, d_out=_D, skip=False):
  rng = np.random.default_rng(seed)
  arrays = {
    "w_enc": rng.normal(size=(_D, _F)) / np.sqrt(_D),
    "w_dec": rng.normal(size=(_F, d_out)) / np.sqrt(_F),
    "b_enc": 0.3 * rng.normal(size=_F),
    "b_dec": rng.normal(size=d_out),
    "threshold": rng.uniform(0, 0.8, size=_F),
  }
  if skip:
    # Not symmetric: a transposed one gives something else.
    arrays["affine_skip_connection"] = rng.normal(size=(_D, d_out))
  return {name: a.astype(np.float32) for name, a in arrays.items()}


def _rows(seed=1):
  return np.random.default_rng(seed).normal(size=(_B, _D)).astype(np.float32)


def _formula(arrays, x_BD):
  """Activations and outputs in float64."""
  a = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
  pre_BF = x_BD @ a["w_enc"] + a["b_enc"]
  acts_BF = np.maximum(pre_BF, 0) * (pre_BF > a["threshold"])
  out_BE = acts_BF @ a["w_dec"] + a["b_dec"]
  if "affine_skip_connection" in a:
    out_BE = out_BE + x_BD @ a["affine_skip_connection"]
  return acts_BF, out_BE


def _written(tmp_path, folder, arrays, config=None):
  place = tmp_path / folder
  place.mkdir(parents=True)
  if config is None:
    named = {n.replace("w_", "W_"): a for n, a in arrays.items()}
    np.savez(place / "params.npz", **named)
  else:
    safetensors.numpy.save_file(arrays, place / "params.safetensors")
    (place / "config.json").write_text(json.dumps(config))
  return place


def test_an_npz_is_its_formula_and_names_its_hook(tmp_path):
  arrays = _arrays()
  place = _written(tmp_path, _RES, arrays)
  assert gemma_scope.matches(place)
  dictionary = gemma_scope.load(place)
  assert dictionary.activation == "jumprelu"
  assert not dictionary.centred
  assert dictionary.metadata["model_name"] == "gemma-2-2b"
  assert dictionary.metadata["hook_name"] == "blocks.12.hook_resid_post"
  expected = _formula(arrays, _rows())
  # Some pre-activations lie between 0 and the threshold, so it matters.
  without_BF, _ = _formula(arrays | {"threshold": 0.0}, _rows())
  assert ((without_BF > 0) & (expected[0] == 0)).any()
  coded.assert_same(coded.both(dictionary, _rows()), expected)
  coded.assert_same(
    coded.both(gemma_scope.load(place / "params.npz"), _rows()), expected
  )


def test_a_skip_connection_is_not_transposed(tmp_path):
  arrays = _arrays(skip=True)
  dictionary = gemma_scope.load(_written(tmp_path, _SCOPE_2, arrays, _CONFIG))
  assert dictionary.metadata["hook_name_out"] == "blocks.7.hook_mlp_out"
  assert dictionary.metadata["hf_hook_name"] == _CONFIG["hf_hook_point_in"]
  coded.assert_same(coded.both(dictionary, _rows()), _formula(arrays, _rows()))


def _as_sae_lens_loads(sae_lens, config, state):
  norm = config["normalize_activations"] or "none"
  config = {**config, "normalize_activations": norm}
  model = sae_lens.SAE.from_dict(config)
  model.load_state_dict(state)
  return model


@pytest.mark.parametrize("scope", [1, 2])
def test_sae_lens_reads_the_same_from_the_same_files(
  tmp_path, sae_lens, monkeypatch, scope
):
  torch = pytest.importorskip("torch")
  from sae_lens.loading import pretrained_sae_loaders as loaders

  skip = scope == 2
  arrays = _arrays(seed=scope, skip=skip)
  folder = _SCOPE_2 if skip else _RES
  place = _written(tmp_path, folder, arrays, _CONFIG if skip else None)

  def fetched(repo_id, filename, subfolder="", **_):
    return str(tmp_path / "/".join(filter(None, (subfolder, filename))))

  monkeypatch.setattr(loaders, "hf_hub_download", fetched)
  monkeypatch.setattr(
    loaders,
    "get_safetensors_tensor_shapes",
    lambda *_: {name: list(a.shape) for name, a in arrays.items()},
  )
  sizes = {"d_in": _D, "d_sae": _F}
  if skip:
    load = loaders.gemma_3_sae_huggingface_loader
    loaded = load("google/gemma-scope-2-1b-pt", folder, "cpu")
  else:
    load = loaders.gemma_2_sae_huggingface_loader
    loaded = load("gemma-scope-2b-pt-res", folder, "cpu", False, sizes)
  config, state, _ = loaded
  model = _as_sae_lens_loads(sae_lens, config, state)
  dictionary = gemma_scope.load(place)
  x_BD = _rows()
  with torch.no_grad():
    x = torch.from_numpy(x_BD)
    theirs = model.encode(x).numpy(), model(x).numpy()
  coded.assert_same(coded.both(dictionary, x_BD), theirs)
  for name in ("hook_name", "hook_name_out"):
    assert dictionary.metadata.get(name) == config.get(name)


@pytest.mark.parametrize("centred", [False, True])
def test_what_is_saved_gives_the_same(tmp_path, centred):
  arrays = _arrays(seed=3)
  params = sae.Params(
    w_enc_FD=arrays["w_enc"].T,
    w_dec_FD=arrays["w_dec"],
    b_enc_F=arrays["b_enc"],
    b_dec_D=arrays["b_dec"],
    threshold_F=arrays["threshold"],
  )
  dictionary = sae.make_sae(
    params,
    9,
    {"hook_name": "blocks.3.hook_resid_post"},
    activation="jumprelu",
    centred=centred,
  )
  gemma_scope.save(dictionary, tmp_path)
  with np.load(tmp_path / "params.npz") as archive:
    saved = {name.lower(): archive[name] for name in archive.files}
    assert "W_enc" in archive.files
  coded.assert_same(coded.both(dictionary, _rows()), _formula(saved, _rows()))
  loaded = gemma_scope.load(tmp_path)
  assert loaded.k == 9
  assert loaded.metadata["hook_name"] == "blocks.3.hook_resid_post"
  coded.assert_same(
    coded.both(loaded, _rows()), coded.both(dictionary, _rows())
  )


def test_a_relu_skip_transcoder_goes_to_safetensors_and_back(tmp_path):
  arrays = _arrays(seed=4, d_out=6, skip=True)
  params = sae.Params(
    w_enc_FD=arrays["w_enc"].T,
    w_dec_FD=arrays["w_dec"],
    b_enc_F=arrays["b_enc"],
    b_dec_D=arrays["b_dec"],
    w_skip_DE=arrays["affine_skip_connection"],
  )
  dictionary = sae.make_sae(params, 9, activation="relu", centred=False)
  gemma_scope.save(dictionary, tmp_path)
  saved = safetensors.numpy.load_file(tmp_path / "params.safetensors")
  expected = _formula(arrays | {"threshold": 0.0}, _rows())
  coded.assert_same(_formula(saved, _rows()), expected)
  coded.assert_same(coded.both(gemma_scope.load(tmp_path), _rows()), expected)


def test_what_the_format_lacks_is_refused_by_name(tmp_path):
  arrays = _arrays()
  params = sae.Params(
    w_enc_FD=arrays["w_enc"].T,
    w_dec_FD=arrays["w_dec"],
    b_enc_F=arrays["b_enc"],
    b_dec_D=arrays["b_dec"],
  )
  with pytest.raises(errors.InputError, match="no topk"):
    gemma_scope.save(sae.make_sae(params, 4), tmp_path)
  bad = dataclasses.replace(params, b_enc_F=np.full(_F, np.nan, np.float32))
  with pytest.raises(errors.InputError, match="b_enc holds NaN"):
    gemma_scope.save(sae.make_sae(bad, 4, activation="relu"), tmp_path)


def test_what_cannot_be_read_is_refused(tmp_path):
  arrays = _arrays()
  assert not gemma_scope.matches(tmp_path)
  assert not gemma_scope.matches(tmp_path / "nothing")
  (tmp_path / "params.npz").write_bytes(b"PK\x03\x04 damaged")
  assert not gemma_scope.matches(tmp_path)
  layered = arrays | {"w_dec": np.zeros((_F, 3, _D), np.float32)}
  clt = tmp_path / "clt"
  clt.mkdir()
  safetensors.numpy.save_file(layered, clt / "params_layer_0.safetensors")
  with pytest.raises(errors.InputError, match="one layer of a cross-layer"):
    gemma_scope.load(clt)
  short = _written(tmp_path, "short", arrays | {"b_enc": np.zeros(3, "f4")})
  with pytest.raises(errors.InputError, match=r"b_enc has the shape \(3,\)"):
    gemma_scope.load(short)
  more = _written(tmp_path, "more", arrays | {"b_gate": np.zeros(_F, "f4")})
  with pytest.raises(errors.InputError, match="b_gate is not understood"):
    gemma_scope.load(more)


def test_folders_that_say_nothing_give_no_metadata(tmp_path):
  assert not dict(
    gemma_scope.load(_written(tmp_path, "mine", _arrays())).metadata
  )
