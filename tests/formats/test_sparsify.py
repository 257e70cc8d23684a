# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""sparsify's dictionaries, against the real one in both directions."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from sae_jax import errors, formats
from sae_jax.formats import memory_maps, sparsify

# How sparsify says it, and how we do.
KINDS = {
  "plain": ({}, {}),
  "transcoder": ({"transcode": True}, {"centred": False}),
  "skip": (
    {"transcode": True, "skip_connection": True},
    {"centred": False, "skip": True},
  ),
  "skip, centred": (
    {"skip_connection": True},
    {"skip": True, "centred": True},
  ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_sparsify_and_we_do_the_same(tmp_path, eai_sparsify, kinds, kind):
  """Theirs here, and ours there."""
  torch = pytest.importorskip("torch")
  said, made = KINDS[kind]
  x_BD = kinds.rows()

  def theirs(model):
    with torch.no_grad():
      x = torch.from_numpy(x_BD)
      values_BK, indices_BK, _ = model.encode(x)
      dense_BF = torch.zeros(len(x), model.num_latents)
      dense_BF.scatter_(1, indices_BK, values_BK)
      return dense_BF.numpy(), model(x).sae_out.numpy()

  config = eai_sparsify.SparseCoderConfig(expansion_factor=4, k=kinds.K, **said)
  torch.manual_seed(0)
  model = eai_sparsify.SparseCoder(kinds.D, config)
  with torch.no_grad():
    for p in model.parameters():
      p.copy_(0.5 * torch.randn_like(p))
  model.save_to_disk(tmp_path / "layers.3.mlp")
  loaded = formats.load_sae(tmp_path / "layers.3.mlp")
  kinds.same(kinds.ours(loaded, x_BD), theirs(model))

  dictionary = kinds.make(**made, metadata={"hook_name": "h"})
  formats.save_sae(dictionary, tmp_path / "ours", format="sparsify")
  model = eai_sparsify.SparseCoder.load_from_disk(tmp_path / "ours")
  kinds.same(kinds.ours(dictionary, x_BD), theirs(model))


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_is_exact(tmp_path, kinds, kind):
  metadata = {"hook_name": "blocks.1.hook_resid_pre", "model_name": "gpt2"}
  dictionary = kinds.make(**KINDS[kind][1], metadata=metadata)
  formats.save_sae(dictionary, tmp_path, format="sparsify")
  loaded = formats.load_sae(tmp_path)
  kinds.assert_equal(loaded, dictionary)
  kinds.assert_equal(formats.map_sae(tmp_path), dictionary)
  assert metadata.items() <= loaded.metadata.items()
  assert loaded.metadata["decoder_norms"] == pytest.approx([1, 1, 1])
  assert len(formats.hash_sae(tmp_path)) == 64
  np.testing.assert_allclose(
    formats.open_decoder(tmp_path).units([5]),
    dictionary.params.w_dec_FD[5:6],
    rtol=1e-6,
  )


@pytest.fixture
def run(tmp_path):
  """What sparsify itself leaves behind, in half precision."""
  rng = np.random.default_rng(0)

  def draw(*shape):
    return rng.normal(size=shape).astype(ml_dtypes.bfloat16)

  place = tmp_path / "run" / "layers.10.mlp"
  place.mkdir(parents=True)
  tensors = {
    "encoder.weight": draw(12, 6),
    "encoder.bias": draw(12),
    "W_dec": draw(12, 6),
    "b_dec": draw(6),
  }
  safetensors.numpy.save_file(tensors, place / "sae.safetensors")
  config = {
    **{"activation": "topk", "expansion_factor": 2, "normalize_decoder": True},
    **{"num_latents": 0, "k": 3, "multi_topk": False},
    **{"skip_connection": False, "transcode": False, "d_in": 6},
  }
  (place / "cfg.json").write_text(json.dumps(config))
  (place.parent / "config.json").write_text(
    json.dumps({"model": "EleutherAI/pythia-70m", "ctx_len": 2048, "k": 3})
  )
  return place


def test_names_of_directories_say_where_it_is_from(run):
  loaded = formats.load_sae(run)
  assert (loaded.latents, loaded.d_model, loaded.k) == (12, 6, 3)
  assert loaded.params.w_enc_FD.dtype == np.float32
  assert loaded.centred
  assert loaded.metadata["hook_name"] == "blocks.10.hook_mlp_out"
  assert loaded.metadata["model_name"] == "EleutherAI/pythia-70m"
  assert loaded.metadata["context_size"] == 2048
  for module, hook in (
    ("gpt_neox.layers.3", "blocks.3.hook_resid_post"),
    ("h.11.attn", "blocks.11.hook_attn_out"),
    ("layers.2.self_attn", "blocks.2.hook_attn_out"),
    ("embed_tokens", None),
    ("layers.2.mlp.up_proj", None),
  ):
    run = run.rename(run.with_name(module))
    metadata = formats.load_sae(run).metadata
    assert metadata.get("hook_name") == hook
    assert metadata["sparsify_hookpoint"] == module
  with pytest.raises(
    errors.InputError, match=r"is no dictionary, but .*up_proj is"
  ):
    formats.load_sae(run.parent)


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"activation": "groupmax"}, "activation='groupmax' is not supported"),
    ({"signed": True}, "signed=True"),
    ({"sae_jax_metadata": []}, "sae_jax_metadata is not"),
    ({"k": 0}, "k=0 is not a number >= 1"),
    ({"k": 13}, "k=13, but there are 12 latents"),
    ({"d_in": "6"}, "d_in='6'"),
    ({"num_latents": 13}, r"encoder.weight has shape \(12, 6\)"),
    ({"num_latents": 1.5}, "num_latents=1.5"),
    ({"skip_connection": True}, r"missing: \['W_skip'\]"),
  ],
)
def test_what_it_cannot_be_is_refused_by_name(run, changes, named):
  config = json.loads((run / "cfg.json").read_text())
  (run / "cfg.json").write_text(json.dumps(config | changes))
  with pytest.raises(errors.InputError, match=named):
    formats.load_sae(run)


def test_damaged_weights_are_refused(run):
  file = run / sparsify.WEIGHTS
  whole = file.read_bytes()
  file.write_bytes(whole[:-2])
  with pytest.raises(errors.InputError, match="not a complete safetensors"):
    formats.load_sae(run)
  file.write_bytes(whole)
  tensors = {k: v.astype("f4") for k, v in memory_maps.tensors(file).items()}
  for name, array, named in (
    ("W_dec", np.full((12, 6), np.inf, "f4"), "w_dec holds NaN or infinity"),
    ("more", np.zeros(3, "f4"), r"not understood: \['more'\]"),
  ):
    file.write_bytes(safetensors.numpy.save({**tensors, name: array}))
    with pytest.raises(errors.InputError, match=named):
      formats.load_sae(run)
  (run / "cfg.json").write_text("{")
  with pytest.raises(errors.InputError, match="is not JSON"):
    formats.load_sae(run)


@pytest.mark.parametrize(
  ("made", "named"),
  [
    ({"activation": "jumprelu"}, "no jumprelu .* saelens, dictionary_learning"),
    ({"out": 18}, "no output of another width .* saelens"),
    ({"layer_norm": True}, "no layer norm"),
    ({"sources": 2}, "no several sources"),
  ],
)
def test_what_sparsify_has_no_words_for_is_not_saved(
  tmp_path, kinds, made, named
):
  with pytest.raises(errors.InputError, match=named):
    formats.save_sae(kinds.make(**made), tmp_path / "a", format="sparsify")
  assert not (tmp_path / "a").exists()
