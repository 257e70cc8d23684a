# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""SAELens's layout, against the real sae_lens in both directions."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from sae_jax import artifacts, errors, formats, sae
from sae_jax.formats import saelens

torch = pytest.importorskip("torch")

D, F, K, B = 24, 96, 5, 64


def _dictionary(seed=0, metadata=None):
  rng = np.random.default_rng(seed)
  w_dec_FD = rng.normal(size=(F, D)).astype(np.float32)
  w_dec_FD /= np.linalg.norm(w_dec_FD, axis=1, keepdims=True)
  return sae.make_sae(
    sae.Params(
      w_enc_FD=jnp.asarray(w_dec_FD + 0.1 * rng.normal(size=(F, D)), "float32"),
      w_dec_FD=jnp.asarray(w_dec_FD),
      b_enc_F=jnp.asarray(0.1 * rng.normal(size=F), "float32"),
      b_dec_D=jnp.asarray(rng.normal(size=D), "float32"),
    ),
    K,
    metadata,
  )


def _rows(seed=1):
  return np.random.default_rng(seed).normal(size=(B, D)).astype(np.float32)


def _ours(dictionary, x_BD):
  values_BK, indices_BK = sae.encode(dictionary, jnp.asarray(x_BD))
  dense_BF = sae.to_dense(values_BK, indices_BK, dictionary.latents)
  return np.asarray(dense_BF), np.asarray(
    sae.decode(dictionary, values_BK, indices_BK)
  )


def _theirs(model, x_BD):
  with torch.no_grad():
    acts_BF = model.encode(torch.from_numpy(x_BD))
    return acts_BF.numpy(), model.decode(acts_BF).numpy()


def _assert_same(ours, theirs):
  # Sums of D (encoder) and of K (decoder) terms of size ~1 in float32 differ by
  # about sqrt(24)·6e-8·|x·w| ~ 1e-6; the contract is 1e-5.
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_sae_lens_loads_ours(tmp_path, sae_lens):
  metadata = {
    "model_name": "gpt2",
    "hook_name": "blocks.3.hook_resid_post",
    "context_size": 128,
    "prepend_bos": False,
  }
  dictionary = _dictionary(metadata=metadata)
  formats.save_sae(dictionary, tmp_path / "sae")
  model = sae_lens.SAE.load_from_disk(tmp_path / "sae")

  assert model.cfg.architecture() == "topk"
  assert model.cfg.metadata.hook_name == "blocks.3.hook_resid_post"
  assert model.cfg.metadata.context_size == 128
  x_BD = _rows()
  _assert_same(_ours(dictionary, x_BD), _theirs(model, x_BD))


def test_round_trip_is_exact(tmp_path):
  dictionary = _dictionary(metadata={"hook_name": "blocks.1.hook_resid_pre"})
  formats.save_sae(dictionary, tmp_path)
  loaded = formats.load_sae(tmp_path)

  assert loaded.k == K
  assert loaded.metadata["hook_name"] == "blocks.1.hook_resid_pre"
  for name in ("w_enc_FD", "w_dec_FD", "b_enc_F", "b_dec_D"):
    np.testing.assert_array_equal(
      getattr(loaded.params, name), getattr(dictionary.params, name)
    )
  formats.save_sae(loaded, tmp_path / "again")
  assert (tmp_path / "again" / "cfg.json").read_bytes() == (
    tmp_path / "cfg.json"
  ).read_bytes()


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("apply_b_dec", [False, True])
def test_we_load_theirs(tmp_path, sae_lens, rescale, apply_b_dec):
  config = sae_lens.TopKSAEConfig(
    d_in=D,
    d_sae=F,
    k=K,
    rescale_acts_by_decoder_norm=rescale,
    apply_b_dec_to_input=apply_b_dec,
  )
  model = sae_lens.SAE.from_dict(config.to_dict())
  torch.manual_seed(0)
  with torch.no_grad():
    for p in model.parameters():
      p.copy_(torch.randn_like(p) * 0.5)
  model.save_model(tmp_path)

  x_BD = _rows()
  _assert_same(_ours(formats.load_sae(tmp_path), x_BD), _theirs(model, x_BD))


def test_a_run_directory_stands_for_its_sae(tmp_path):
  formats.save_sae(_dictionary(), tmp_path / "sae")
  assert formats.load_sae(tmp_path).latents == F


def _edit(path, **changes):
  config = json.loads((path / "cfg.json").read_text())
  for name, value in changes.items():
    target = config["metadata"] if name == "sae_lens_version" else config
    target[name] = value
  (path / "cfg.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"architecture": "jumprelu"}, "architecture='jumprelu'"),
    ({"normalize_activations": "layer_norm"}, "normalize_activations"),
    ({"reshape_activations": "hook_z"}, "reshape_activations='hook_z'"),
    ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor"),
    ({"sae_lens_version": "5.10.7"}, "5.10.7"),
    ({"sae_lens_version": None}, "no version given"),
    ({"k": F + 1}, f"k={F + 1}"),
    ({"k": 2.5}, "k=2.5"),
    ({"d_sae": F + 1}, "W_enc has shape"),
  ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, changes, named):
  formats.save_sae(_dictionary(), tmp_path)
  _edit(tmp_path, **changes)
  with pytest.raises(errors.InputError, match=named.replace("'", ".")):
    formats.load_sae(tmp_path)


def test_damaged_weights_are_refused(tmp_path):
  formats.save_sae(_dictionary(), tmp_path)
  weights = tmp_path / saelens.WEIGHTS
  whole = weights.read_bytes()

  weights.write_bytes(whole[:-8])
  with pytest.raises(errors.InputError, match="not a complete safetensors"):
    formats.load_sae(tmp_path)

  tensors = safetensors.numpy.load(whole)
  bad = {**tensors, "b_enc": np.full(F, np.nan, np.float32)}
  weights.write_bytes(safetensors.numpy.save(bad))
  with pytest.raises(errors.InputError, match="b_enc holds NaN"):
    formats.load_sae(tmp_path)

  more = {**tensors, "threshold": np.zeros(F, np.float32)}
  weights.write_bytes(safetensors.numpy.save(more))
  with pytest.raises(errors.InputError, match="threshold"):
    formats.load_sae(tmp_path)


def test_an_interrupted_save_leaves_nothing_that_loads(tmp_path, monkeypatch):
  formats.save_sae(_dictionary(), tmp_path)

  def fail(path, value):
    raise OSError("no space left on device")

  # New weights are in place, the configuration that belongs to them is not.
  monkeypatch.setattr(artifacts, "write_json_atomic", fail)
  with pytest.raises(OSError, match="no space"):
    formats.save_sae(_dictionary(1), tmp_path)
  with pytest.raises(errors.InputError, match="holds no dictionary"):
    formats.load_sae(tmp_path)


def test_nan_weights_are_not_saved(tmp_path):
  dictionary = _dictionary()
  broken = sae.make_sae(
    sae.Params(
      w_enc_FD=dictionary.params.w_enc_FD,
      w_dec_FD=dictionary.params.w_dec_FD.at[0, 0].set(jnp.nan),
      b_enc_F=dictionary.params.b_enc_F,
      b_dec_D=dictionary.params.b_dec_D,
    ),
    K,
  )
  with pytest.raises(errors.InputError, match="W_dec holds NaN"):
    formats.save_sae(broken, tmp_path)


def test_unknown_formats_and_places_are_named(tmp_path):
  with pytest.raises(errors.InputError, match=r"'gguf'.*saelens"):
    formats.save_sae(_dictionary(), tmp_path, format="gguf")
  with pytest.raises(errors.InputError, match="no such directory"):
    formats.load_sae(tmp_path / "absent")
  (tmp_path / "ae.pt").touch()
  with pytest.raises(errors.InputError, match=r"it holds ae\.pt"):
    formats.load_sae(tmp_path)


def test_weights_in_another_memory_order_are_saved_as_they_are(tmp_path):
  dictionary = _dictionary()
  turned = dataclasses.replace(
    dictionary.params,
    w_dec_FD=np.asfortranarray(dictionary.params.w_dec_FD),
  )
  formats.save_sae(dataclasses.replace(dictionary, params=turned), tmp_path)
  np.testing.assert_array_equal(
    formats.load_sae(tmp_path).params.w_dec_FD, dictionary.params.w_dec_FD
  )


def test_decoder_rows_are_read_one_by_one_as_unit_directions(tmp_path):
  dictionary = _dictionary(metadata={"hook_name": "blocks.3.hook_resid_post"})
  scaled = dataclasses.replace(
    dictionary.params, w_dec_FD=3 * dictionary.params.w_dec_FD
  )
  formats.save_sae(dataclasses.replace(dictionary, params=scaled), tmp_path)
  decoder = formats.open_decoder(tmp_path)
  assert (decoder.latents, decoder.d_model) == (F, D)
  assert decoder.metadata["hook_name"] == "blocks.3.hook_resid_post"
  np.testing.assert_allclose(  # one rounding of each entry
    decoder.units([7, 0, 7]),
    dictionary.params.w_dec_FD[np.array([7, 0, 7])],
    rtol=4 * np.finfo("f4").eps,
  )
  with pytest.raises(
    errors.InputError, match=f"no latent {F}; .* 0 to {F - 1}"
  ):
    decoder.units([F])
  silent = dataclasses.replace(scaled, w_dec_FD=scaled.w_dec_FD.at[4].set(0.0))
  formats.save_sae(dataclasses.replace(dictionary, params=silent), tmp_path)
  with pytest.raises(errors.InputError, match=r"latent 4 .* length 0\.0"):
    formats.open_decoder(tmp_path).units([3, 4])
