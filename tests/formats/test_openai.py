# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""OpenAI's state dicts against the formulae of their model, in float64."""

import collections

import coded
import numpy as np
import pytest

from sae_jax import errors, sae
from sae_jax.formats import openai

torch = pytest.importorskip("torch")

_B, _D, _F, _K = 16, 8, 32, 5


def _state(kind, seed=0):
  generator = torch.Generator().manual_seed(seed)

  def normal(*shape):
    return torch.randn(*shape, generator=generator)

  state = collections.OrderedDict(
    {
      "pre_bias": normal(_D),
      "latent_bias": 0.3 * normal(_F),
      "stats_last_nonzero": torch.zeros(_F, dtype=torch.long),
      "latents_activation_frequency": torch.ones(_F),
      "latents_mean_square": torch.zeros(_F),
      "encoder.weight": normal(_F, _D) / _D**0.5,
      "decoder.weight": normal(_D, _F) / _F**0.5,
      "activation": kind,
    }
  )
  if kind == "TopK":
    state["activation_state_dict"] = {"k": _K, "postact_fn": "ReLU"}
  else:
    state["activation_state_dict"] = collections.OrderedDict()
  return state


def _formula(state, x_BD):
  """`Autoencoder.forward`: its activations and reconstructions."""
  s = {
    n: v.double().numpy()
    for n, v in state.items()
    if n.endswith(("weight", "bias"))
  }
  x_BD = x_BD.astype(np.float64)
  top = state["activation"] == "TopK"
  if top:
    mean_B1 = x_BD.mean(1, keepdims=True)
    deviation_B1 = x_BD.std(1, keepdims=True, ddof=1)
    x_BD = (x_BD - mean_B1) / (deviation_B1 + 1e-5)
  pre_BF = (x_BD - s["pre_bias"]) @ s["encoder.weight"].T + s["latent_bias"]
  acts_BF = np.maximum(pre_BF, 0)
  if top:
    kept = np.argsort(-pre_BF, axis=1)[:, :_K]
    mask_BF = np.zeros_like(pre_BF)
    np.put_along_axis(mask_BF, kept, 1, axis=1)
    acts_BF = acts_BF * mask_BF
  out_BD = acts_BF @ s["decoder.weight"].T + s["pre_bias"]
  return acts_BF, out_BD * deviation_B1 + mean_B1 if top else out_BD


def _rows(deviation=1.0):
  rng = np.random.default_rng(1)
  return (deviation * rng.normal(size=(_B, _D)) + 2).astype(np.float32)


@pytest.mark.parametrize("kind", ["TopK", "ReLU"])
def test_both_kinds_are_their_formula(tmp_path, kind):
  state = _state(kind)
  torch.save(state, tmp_path / "8.pt")
  assert openai.matches(tmp_path / "8.pt")
  assert openai.matches(tmp_path)
  dictionary = openai.load(tmp_path / "8.pt")
  assert dictionary.layer_norm == (kind == "TopK")
  coded.assert_same(coded.both(dictionary, _rows()), _formula(state, _rows()))


def test_the_epsilon_is_in_the_division_alone(tmp_path):
  """At deviations of 1e-3 an epsilon of 1e-5 is 1 %; 2^-24 · 2 / 1e-3 is not.

  The mean of 2 is the same for all, so deviations lose that much to rounding.
  """
  state = _state("TopK")
  torch.save(state, tmp_path / "8.pt")
  x_BD = _rows(1e-3)
  acts_BF, out_BD = coded.both(openai.load(tmp_path), x_BD)
  expected_acts_BF, expected_out_BD = _formula(state, x_BD)
  np.testing.assert_allclose(acts_BF, expected_acts_BF, rtol=0, atol=2e-3)
  np.testing.assert_allclose(out_BD, expected_out_BD, rtol=0, atol=2e-6)
  wrong_BD = (expected_out_BD - 2) * 1.01 + 2
  assert np.abs(wrong_BD - expected_out_BD).max() > 1e-5


@pytest.mark.parametrize("kind", ["TopK", "ReLU"])
def test_what_is_saved_torch_opens_and_the_formula_reads(tmp_path, kind):
  torch.save(_state(kind), tmp_path / "8.pt")
  dictionary = openai.load(tmp_path / "8.pt")
  openai.save(dictionary, tmp_path / "saved")
  saved = torch.load(tmp_path / "saved" / openai.FILE, weights_only=True)
  original = _state(kind)
  assert set(saved) == set(original)
  for name, value in original.items():
    if torch.is_tensor(value):
      assert saved[name].dtype == value.dtype
      assert torch.equal(saved[name], value)
    else:
      assert saved[name] == value


def test_what_cannot_be_read_or_written_is_named(tmp_path):
  state = _state("TopK")
  state["activation_state_dict"]["postact_fn"] = "Identity"
  torch.save(state, tmp_path / "8.pt")
  with pytest.raises(errors.InputError, match="postact_fn='Identity'"):
    openai.load(tmp_path)
  torch.save(_state("TopK") | {"activation": "Tanh"}, tmp_path / "8.pt")
  with pytest.raises(errors.InputError, match="activation='Tanh'"):
    openai.load(tmp_path)
  torch.save({"encoder.weight": torch.zeros(3)}, tmp_path / "8.pt")
  assert not openai.matches(tmp_path)
  torch.save(_state("ReLU"), tmp_path / "8.pt")
  dictionary = openai.load(tmp_path)
  plain = sae.make_sae(dictionary.params, _K)
  with pytest.raises(errors.InputError, match="this topk dictionary has none"):
    openai.save(plain, tmp_path / "saved")
