# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Crosscoders' files against the formulae of their models, in float64."""

import json

import coded
import numpy as np
import pytest
import safetensors.numpy

from sae_jax import errors, sae
from sae_jax.formats import crosscoders, kissane

torch = pytest.importorskip("torch")

_B, _M, _D, _F = 16, 2, 4, 32
_CROSSCODER, _SAE, _MIXED, _NONE, _DECOUPLED = 1, 2, 3, 4, 5


def _state(kind=_CROSSCODER, threshold=0.5, normalized=True, seed=0):
  """A BatchTopKCrossCoder; without a threshold, a CrossCoder."""
  rng = np.random.default_rng(seed)
  state = {
    "encoder.weight": rng.normal(size=(_M, _D, _F)) / 3,
    "encoder.bias": 0.3 * rng.normal(size=_F),
    "decoder.weight": rng.normal(size=(_M, _F, _D)) / 6,
    "decoder.bias": rng.normal(size=(_M, _D)),
    "activation_mean": np.full((_M, _D), np.nan),
    "activation_std": np.full((_M, _D), np.nan),
    "activation_global_scale": np.ones(_M),
    "target_rms": np.asarray(2.0),
  }
  if normalized:
    std_MD = rng.uniform(0.5, 2, size=(_M, _D)) * [[1], [3]]
    total_M = np.square(std_MD).sum(1)
    state |= {
      "activation_mean": rng.normal(size=(_M, _D)),
      "activation_std": std_MD,
      "activation_global_scale": 2.0 / np.sqrt(total_M + 1e-8),
    }
  tensors = {n: torch.tensor(a, dtype=torch.float32) for n, a in state.items()}
  tensors["code_normalization_id"] = torch.tensor(kind)
  if threshold is not None:
    tensors["k"] = torch.tensor(5, dtype=torch.int32)
    tensors["threshold"] = torch.tensor(threshold)
  return tensors


def _formula(state, x_BD, mixture=(1.0, 0.1)):
  """`encode` and `decode(encode)`, of sources side by side."""
  s = {n: np.asarray(t, np.float64) for n, t in state.items()}
  x_BMD = x_BD.astype(np.float64).reshape(_B, _M, _D)
  has_normalizer = not np.isnan(s["activation_mean"]).any()
  scale_M1 = s["activation_global_scale"][:, None]
  if has_normalizer:
    x_BMD = (x_BMD - s["activation_mean"]) * scale_M1
  f_BF = np.einsum("bmd,mdf->bf", x_BMD, s["encoder.weight"])
  f_BF = np.maximum(f_BF + s["encoder.bias"], 0)
  if "threshold" in s:
    w_dec_MFD = s["decoder.weight"]
    whole_F = np.sqrt(np.square(w_dec_MFD).sum((0, 2)))
    sum_F = np.linalg.norm(w_dec_MFD, axis=2).sum(0)
    norm_F = {
      _CROSSCODER: sum_F,
      _SAE: whole_F,
      _MIXED: mixture[0] * whole_F + mixture[1] * sum_F,
      _NONE: np.ones(_F),
    }[int(s["code_normalization_id"])]
    f_BF = f_BF * (f_BF * norm_F > s["threshold"])
  out_BMD = np.einsum("bf,mfd->bmd", f_BF, s["decoder.weight"])
  out_BMD = out_BMD + s["decoder.bias"]
  if has_normalizer:
    out_BMD = out_BMD / (scale_M1 + 1e-8) + s["activation_mean"]
  return f_BF, out_BMD.reshape(_B, _M * _D)


def _rows():
  rng = np.random.default_rng(1)
  return rng.normal(size=(_B, _M * _D)).astype(np.float32)


@pytest.mark.parametrize("kind", [_CROSSCODER, _SAE, _MIXED, _NONE])
def test_batch_topk_with_each_code_normalization(tmp_path, kind):
  state = _state(kind)
  torch.save(state, tmp_path / "model_final.pt")
  assert crosscoders.matches(tmp_path)
  dictionary = crosscoders.load(tmp_path)
  assert (dictionary.activation, dictionary.sources) == ("jumprelu", _M)
  expected = _formula(state, _rows())
  coded.assert_same(coded.both(dictionary, _rows()), expected)
  without_BF, _ = _formula(state | {"threshold": torch.tensor(0)}, _rows())
  assert ((without_BF > 0) & (expected[0] == 0)).any()
  np.testing.assert_allclose(
    dictionary.metadata["sae_jax_source_scales"],
    state["activation_global_scale"],
  )


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("threshold", [None, -1.0])
def test_relu_and_a_threshold_that_was_never_set(
  tmp_path, normalized, threshold
):
  """A decoupled code makes no difference without a threshold."""
  kind = _DECOUPLED if threshold is None else _CROSSCODER
  state = _state(kind, threshold, normalized)
  # As torch.compile leaves it.
  torch.save(
    {f"_orig_mod.{n}": t for n, t in state.items()}, tmp_path / "ae.pt"
  )
  dictionary = crosscoders.load(tmp_path / "ae.pt")
  assert dictionary.activation == "relu"
  coded.assert_same(coded.both(dictionary, _rows()), _formula(state, _rows()))


def test_the_hubs_layout_with_an_encoder_of_some_sources(tmp_path):
  state = _state(_MIXED)
  whole = dict(state)
  whole["encoder.weight"] = state["encoder.weight"].clone()
  whole["encoder.weight"][0] = 0
  state["encoder.weight"] = state["encoder.weight"][1:]
  arrays = {n: t.contiguous().numpy() for n, t in state.items()}
  safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
  with pytest.raises(errors.InputError, match="reads 1 of 2 sources"):
    crosscoders.load(tmp_path)
  config = {"encoder_layers": [1], "code_normalization_alpha_cc": 0.7}
  (tmp_path / "config.json").write_text(json.dumps(config))
  coded.assert_same(
    coded.both(crosscoders.load(tmp_path), _rows()),
    _formula(whole, _rows(), mixture=(1.0, 0.7)),
  )


def test_a_latent_that_decodes_to_nothing_is_never_active(tmp_path):
  state = _state(_SAE, threshold=0.0)
  state["decoder.weight"][:, 3] = 0
  torch.save(state, tmp_path / "ae.pt")
  dictionary = crosscoders.load(tmp_path)
  acts_BF, _ = coded.both(dictionary, _rows())
  assert not acts_BF[:, 3].any()
  coded.assert_same(coded.both(dictionary, _rows()), _formula(state, _rows()))


def test_masks_of_single_sources_are_refused(tmp_path):
  state = _state(_DECOUPLED)
  state["threshold"] = torch.tensor([0.5, 0.5])
  torch.save(state, tmp_path / "ae.pt")
  with pytest.raises(errors.InputError, match="decoupled"):
    crosscoders.load(tmp_path)


def _kissane(seed=0):
  rng = np.random.default_rng(seed)
  return {
    "W_enc": rng.normal(size=(_M, _D, _F)) / 3,
    "W_dec": rng.normal(size=(_F, _M, _D)) / 6,
    "b_enc": 0.3 * rng.normal(size=_F),
    "b_dec": rng.normal(size=(_M, _D)),
  }


def test_kissanes_for_rows_that_were_scaled(tmp_path):
  w = _kissane()
  state = {n: torch.tensor(a, dtype=torch.float32) for n, a in w.items()}
  torch.save(state, tmp_path / "cc_weights.pt")
  config = {
    "model_name": "gemma-2-2b",
    "hook_point": "blocks.14.hook_resid_pre",
  }
  (tmp_path / "cfg.json").write_text(json.dumps(config))
  dictionary = crosscoders.load(tmp_path)
  assert dictionary.metadata["hook_name"] == config["hook_point"]
  factor_M1 = np.array([[0.28], [0.24]])
  x_BMD = _rows().astype(np.float64).reshape(_B, _M, _D)
  z_BMD = x_BMD * factor_M1
  acts_BF = np.einsum("bmd,mdf->bf", z_BMD, w["W_enc"]) + w["b_enc"]
  acts_BF = np.maximum(acts_BF, 0)
  out_BMD = np.einsum("bf,fmd->bmd", acts_BF, w["W_dec"]) + w["b_dec"]
  coded.assert_same(
    coded.both(dictionary, z_BMD.reshape(_B, -1).astype(np.float32)),
    (acts_BF, out_BMD.reshape(_B, -1)),
  )
  raw = kissane.scaled(dictionary, [0.28, 0.24])
  # Divided by 0.24, values and their roundings are four times as large.
  coded.assert_same(
    coded.both(raw, _rows()),
    (acts_BF, (out_BMD / factor_M1).reshape(_B, -1)),
    atol=4e-5,
  )
  with pytest.raises(errors.InputError, match="2 sources need 2 factors"):
    kissane.scaled(dictionary, [1.0])


@pytest.mark.parametrize("thresholds", [None, "one", "many"])
def test_what_is_saved_follows_their_formula(tmp_path, thresholds):
  rng = np.random.default_rng(3)
  threshold_F = {
    None: None,
    "one": np.full(_F, 0.25, np.float32),
    "many": rng.uniform(0.1, 0.5, _F).astype(np.float32),
  }[thresholds]
  params = sae.Params(
    w_enc_FD=rng.normal(size=(_F, _M * _D)).astype(np.float32) / 3,
    w_dec_FD=rng.normal(size=(_F, _M * _D)).astype(np.float32) / 6,
    b_enc_F=0.3 * rng.normal(size=_F).astype(np.float32),
    b_dec_D=rng.normal(size=_M * _D).astype(np.float32),
    threshold_F=threshold_F,
  )
  kind = "relu" if thresholds is None else "jumprelu"
  dictionary = sae.make_sae(params, 5, activation=kind, sources=_M)
  crosscoders.save(dictionary, tmp_path)
  state = torch.load(tmp_path / crosscoders.FILE, weights_only=True)
  assert set(state) == set(_state(threshold=None if kind == "relu" else 0.5))
  for name, value in _state().items():
    if name in state:
      assert (state[name].shape, state[name].dtype) == (
        value.shape,
        value.dtype,
      )
  acts_BF, out_BD = coded.both(dictionary, _rows())
  theirs_BF, their_out_BD = _formula(state, _rows())
  gain_F = 1 if threshold_F is None else np.median(threshold_F) / threshold_F
  coded.assert_same((acts_BF * gain_F, out_BD), (theirs_BF, their_out_BD))
  coded.assert_same(
    coded.both(crosscoders.load(tmp_path), _rows()),
    (theirs_BF, their_out_BD),
  )


def test_what_the_format_lacks_is_refused_by_name(tmp_path):
  rng = np.random.default_rng(4)
  arrays = {
    "w_enc_FD": rng.normal(size=(_F, _D)).astype(np.float32),
    "w_dec_FD": rng.normal(size=(_F, _D)).astype(np.float32),
    "b_enc_F": np.zeros(_F, np.float32),
    "b_dec_D": np.zeros(_D, np.float32),
  }
  with pytest.raises(errors.InputError, match="no topk"):
    crosscoders.save(sae.make_sae(sae.Params(**arrays), 5), tmp_path)
  threshold_F = np.linspace(-1, 1, _F, dtype=np.float32)
  params = sae.Params(**arrays, threshold_F=threshold_F)
  with pytest.raises(errors.InputError, match="one threshold for all latents"):
    crosscoders.save(sae.make_sae(params, 5, activation="jumprelu"), tmp_path)


def test_other_files_are_not_theirs(tmp_path):
  assert not crosscoders.matches(tmp_path)
  # AutoEncoderNew of dictionary_learning has the same names, and two axes.
  state = {n: t for n, t in _state().items() if "coder" in n}
  state |= {n: state[n][0] for n in ("encoder.weight", "decoder.weight")}
  torch.save(state, tmp_path / "ae.pt")
  assert not crosscoders.matches(tmp_path)
  bad = _state()
  bad["decoder.bias"] = torch.zeros(3)
  torch.save(bad, tmp_path / "ae.pt")
  with pytest.raises(errors.InputError, match=r"decoder.bias has the shape"):
    crosscoders.load(tmp_path)
