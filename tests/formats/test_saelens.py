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

D, E, F, K = 24, 18, 96, 5


@pytest.fixture
def dictionary(kinds):
  return kinds.make()


def _theirs(model, x_BD):
  with torch.no_grad():
    x_BD = torch.from_numpy(x_BD)
    # Their decode leaves out skip connections; forward has them.
    return model.encode(x_BD).numpy(), model(x_BD).numpy()


# What SAELens calls it, and what makes it.
ARCHITECTURES = {
  "topk": {},
  "standard": {"activation": "relu"},
  "jumprelu": {"activation": "jumprelu"},
  "gated": {"activation": "gated"},
  "transcoder": {"activation": "relu", "out": E},
  "skip_transcoder": {"activation": "relu", "out": E, "skip": True},
  "jumprelu_transcoder": {"activation": "jumprelu", "out": E},
  "jumprelu_skip_transcoder": {
    **{"activation": "jumprelu", "out": E, "skip": True}
  },
}
# What SAELens has no name of its own for, but needs none.
PLAIN = (
  ("topk", {"centred": False}),
  ("gated", {"activation": "gated", "centred": False}),
  ("topk", {"layer_norm": True}),
  ("jumprelu", {"activation": "jumprelu", "sources": 2}),
)


# Their skipping kin have all that these have.
_SLOW = ("transcoder", "jumprelu_transcoder")


@pytest.mark.parametrize(
  "architecture",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name in _SLOW))
    for name in ARCHITECTURES
  ],
)
def test_sae_lens_and_we_do_the_same(tmp_path, sae_lens, kinds, architecture):
  """Ours there, and theirs here."""
  metadata = {
    "model_name": "gpt2",
    "hook_name": "blocks.3.hook_resid_post",
    "context_size": 128,
    "prepend_bos": False,
  }
  made = kinds.make(**ARCHITECTURES[architecture], metadata=metadata)
  formats.save_sae(made, tmp_path / "ours")
  model = sae_lens.SAE.load_from_disk(tmp_path / "ours")
  assert model.cfg.architecture() == architecture
  assert model.cfg.metadata.hook_name == "blocks.3.hook_resid_post"
  assert model.cfg.metadata.context_size == 128
  x_BD = kinds.rows()
  kinds.same(kinds.ours(made, x_BD), _theirs(model, x_BD))

  torch.manual_seed(0)
  with torch.no_grad():
    for name, p in model.named_parameters():
      p.copy_(torch.randn_like(p) * 0.2 + 0.3 * (name == "threshold"))
  model.save_model(tmp_path / "theirs")
  loaded = formats.load_sae(tmp_path / "theirs")
  kinds.same(kinds.ours(loaded, x_BD), _theirs(model, x_BD))


@pytest.mark.parametrize(("architecture", "made"), PLAIN)
def test_sae_lens_opens_what_is_unusual(
  tmp_path, sae_lens, kinds, architecture, made
):
  metadata = {"hook_name_out": "blocks.3.hook_mlp_out"}
  made = kinds.make(**made, metadata=metadata)
  formats.save_sae(made, tmp_path)
  model = sae_lens.SAE.load_from_disk(tmp_path)
  assert model.cfg.architecture() == architecture
  assert model.cfg.apply_b_dec_to_input == made.centred
  x_BD = kinds.rows()
  kinds.same(kinds.ours(made, x_BD), _theirs(model, x_BD))


@pytest.mark.parametrize(
  ("said", "made"),
  [
    ({}, {"activation": "relu"}),
    ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}}, {}),
    (
      {"architecture": "jumprelu", "apply_b_dec_to_input": False},
      {"activation": "jumprelu", "centred": False},
    ),
    ({"architecture": "gated"}, {"activation": "gated"}),
  ],
)
def test_a_config_of_before_version_6_is_read(
  tmp_path, sae_lens, kinds, said, made
):
  """As most published dictionaries are, such as those of gpt2-small."""
  formats.save_sae(kinds.make(**made), tmp_path)
  config = {
    **{"d_in": D, "d_sae": F, "dtype": "float32", "model_name": "gpt2"},
    **{"hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8},
    **{"context_size": 128, "normalize_activations": None},
    **{"sae_lens_version": "5.10.7", "lr": 4e-4, **said},
  }
  (tmp_path / "cfg.json").write_text(json.dumps(config))
  if not said:  # the oldest have a tensor more
    weights = tmp_path / saelens.WEIGHTS
    more = {"scaling_factor": np.ones(F, np.float32)}
    tensors = safetensors.numpy.load_file(weights) | more
    safetensors.numpy.save_file(tensors, weights)
  model = sae_lens.SAE.load_from_disk(tmp_path)
  loaded = formats.load_sae(tmp_path)
  x_BD = kinds.rows()
  kinds.same(kinds.ours(loaded, x_BD), _theirs(model, x_BD))
  assert loaded.metadata["hook_name"] == "blocks.8.hook_resid_pre"
  assert loaded.metadata["prepend_bos"] is True
  # Saved again it is one of today.
  formats.save_sae(loaded, tmp_path / "again")
  model = sae_lens.SAE.load_from_disk(tmp_path / "again")
  assert model.cfg.metadata.context_size == 128
  kinds.same(kinds.ours(loaded, x_BD), _theirs(model, x_BD))


def test_what_is_older_and_not_supported_is_named(tmp_path, dictionary):
  formats.save_sae(dictionary, tmp_path)
  for changes, named in (
    ({"activation_fn_str": "tanh-relu"}, "activation_fn='tanh-relu'"),
    ({"normalize_activations": True}, "expected_average_only_in"),
    ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor"),
  ):
    config = {"d_in": D, "d_sae": F, "architecture": "topk", "k": K, **changes}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(errors.InputError, match=named):
      formats.load_sae(tmp_path)
  weights = tmp_path / saelens.WEIGHTS
  more = {"scaling_factor": np.full(F, 2, np.float32)}
  safetensors.numpy.save_file(
    safetensors.numpy.load_file(weights) | more, weights
  )
  del config["finetuning_scaling_factor"]
  (tmp_path / "cfg.json").write_text(json.dumps(config))
  with pytest.raises(errors.InputError, match="scaling_factor is not 1"):
    formats.load_sae(tmp_path)


def test_norms_that_sae_lens_applies_are_folded(tmp_path, sae_lens, kinds):
  config = sae_lens.TopKSAEConfig(
    **{"d_in": D, "d_sae": F, "k": K, "dtype": "bfloat16"},
    rescale_acts_by_decoder_norm=True,
    reshape_activations="hook_z",
  )
  model = sae_lens.SAE.from_dict(config.to_dict())
  torch.manual_seed(0)
  with torch.no_grad():
    for p in model.parameters():
      p.copy_(torch.randn_like(p) * 0.5)
  model.save_model(tmp_path)
  model = sae_lens.SAE.load_from_disk(tmp_path, dtype="float32")
  model.turn_off_forward_pass_hook_z_reshaping()
  loaded = formats.load_sae(tmp_path)
  assert loaded.metadata["decoder_norms"] == pytest.approx([1, 1, 1])
  x_BD = kinds.rows()
  kinds.same(kinds.ours(loaded, x_BD), _theirs(model, x_BD))
  # Which heads the rows are made of is for SAELens's hooks to know.
  formats.save_sae(loaded, tmp_path / "again")
  text = (tmp_path / "again" / "cfg.json").read_text()
  assert json.loads(text)["reshape_activations"] == "hook_z"


def test_sae_lens_trains_a_batchtopk_and_we_load_it(tmp_path, sae_lens, kinds):
  config = sae_lens.MatryoshkaBatchTopKTrainingSAEConfig(
    **{"d_in": D, "d_sae": F, "k": K, "matryoshka_widths": [32, F]}
  )
  model = sae_lens.TrainingSAE.from_dict(config.to_dict())
  model.topk_threshold.fill_(0.4)
  model.W_enc.data *= 20  # they start very small
  model.save_inference_model(tmp_path)
  loaded = formats.load_sae(tmp_path)
  assert loaded.activation == "jumprelu"
  assert loaded.k == F  # of places: where it is not said, at most 1,024
  assert loaded.metadata["training_architecture"] == "matryoshka_batchtopk"
  x_BD = kinds.rows()
  there = sae_lens.SAE.load_from_disk(tmp_path)
  kinds.same(kinds.ours(loaded, x_BD), _theirs(there, x_BD))
  model.save_model(tmp_path)
  with pytest.raises(errors.InputError, match="save_inference_model"):
    formats.load_sae(tmp_path)


@pytest.mark.parametrize(
  ("architecture", "made"),
  [
    ("topk_transcoder", {"out": E}),
    ("topk_skip_transcoder", {"skip": True}),
    ("topk_skip_transcoder", {"skip": True, "centred": True}),
    ("gated_skip_transcoder", {"activation": "gated", "skip": True}),
    ("gated_transcoder", {"activation": "gated", "out": E}),
    ("topk", {"sources": 3}),
    ("standard", {"activation": "relu", "sources": 2, "centred": False}),
    ("topk", {"layer_norm": True}),
    *ARCHITECTURES.items(),
  ],
)
def test_every_kind_comes_back_exactly(tmp_path, kinds, architecture, made):
  metadata = {"hook_name": "blocks.1.hook_resid_pre"}
  dictionary = kinds.make(**made, metadata=metadata)
  formats.save_sae(dictionary, tmp_path)
  config = json.loads((tmp_path / "cfg.json").read_text())
  assert config["architecture"] == architecture
  loaded = formats.load_sae(tmp_path)
  kinds.assert_equal(loaded, dictionary)
  kinds.assert_equal(formats.map_sae(tmp_path), dictionary)
  assert loaded.metadata["hook_name"] == "blocks.1.hook_resid_pre"
  assert loaded.metadata["decoder_norms"] == pytest.approx([1, 1, 1])
  formats.save_sae(loaded, tmp_path / "again")
  for name in ("cfg.json", "sae_weights.safetensors"):
    again = (tmp_path / "again" / name).read_bytes()
    assert again == (tmp_path / name).read_bytes()


def test_a_transcoder_of_one_width_is_known_by_its_hooks(tmp_path, kinds):
  options = {"activation": "relu", "centred": False}
  for metadata, named in (
    ({"hook_name_out": "blocks.1.hook_mlp_out"}, "transcoder"),
    ({}, "standard"),
  ):
    formats.save_sae(kinds.make(**options, metadata=metadata), tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == named
    assert not formats.load_sae(tmp_path).centred


def test_a_run_directory_stands_for_its_sae(tmp_path, dictionary):
  formats.save_sae(dictionary, tmp_path / "sae")
  assert formats.load_sae(tmp_path).latents == F
  weights = artifacts.hash_file(tmp_path / "sae" / saelens.WEIGHTS)
  # SAELens's note of how often latents fire is nothing of the weights.
  (tmp_path / "sae" / "sparsity.safetensors").write_bytes(b"")
  assert formats.hash_sae(tmp_path) == weights


def _edit(path, **changes):
  config = json.loads((path / "cfg.json").read_text())
  for name, value in changes.items():
    target = config["metadata"] if name == "sae_lens_version" else config
    target[name] = value
  (path / "cfg.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"architecture": "temporal"}, "architecture='temporal'"),
    ({"architecture": "jumprelu"}, r"missing: \['threshold'\]"),
    ({"architecture": "transcoder", "d_out": E}, "W_dec has shape"),
    ({"d_out": E}, "is no transcoder"),
    ({"normalize_activations": "constant_norm_rescale"}, "normalize_activ"),
    ({"metadata": 3}, "metadata is not"),
    (
      {"metadata": {"sae_lens_version": "6.0.0", "sae_jax_sources": 0}},
      "sources=0",
    ),
    (
      {"metadata": {"sae_lens_version": "6.0.0", "sae_jax_sources": 5}},
      "sources=5",
    ),
    ({"reshape_activations": "hook_q"}, "reshape_activations='hook_q'"),
    ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor"),
    ({"k": F + 1}, f"k={F + 1}"),
    ({"k": 2.5}, "k=2.5"),
    ({"d_sae": F + 1}, "W_enc has shape"),
  ],
)
def test_what_is_not_supported_is_refused_by_name(
  tmp_path, changes, named, dictionary
):
  formats.save_sae(dictionary, tmp_path)
  _edit(tmp_path, **changes)
  with pytest.raises(errors.InputError, match=named.replace("'", ".")):
    formats.load_sae(tmp_path)


def test_damaged_weights_are_refused(tmp_path, dictionary):
  formats.save_sae(dictionary, tmp_path)
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


def test_an_interrupted_save_leaves_nothing_that_loads(
  tmp_path, monkeypatch, dictionary, kinds
):
  formats.save_sae(dictionary, tmp_path)

  def fail(path, value):
    raise OSError("no space left on device")

  # New weights are in place, the configuration that belongs to them is not.
  monkeypatch.setattr(artifacts, "write_json_atomic", fail)
  with pytest.raises(OSError, match="no space"):
    formats.save_sae(kinds.make(seed=1), tmp_path)
  with pytest.raises(errors.InputError, match="holds no dictionary"):
    formats.load_sae(tmp_path)


def test_nan_weights_are_not_saved(tmp_path, dictionary):
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


def test_unknown_formats_and_places_are_named(tmp_path, dictionary):
  with pytest.raises(errors.InputError, match=r"'gguf'.*saelens"):
    formats.save_sae(dictionary, tmp_path, format="gguf")
  with pytest.raises(errors.InputError, match="no such directory"):
    formats.load_sae(tmp_path / "absent")
  (tmp_path / "model.bin").touch()
  with pytest.raises(errors.InputError, match=r"it holds model\.bin"):
    formats.load_sae(tmp_path)
  with pytest.raises(errors.InputError, match=r"bin is no dictionary of a"):
    formats.load_sae(tmp_path / "model.bin")
  for i in range(2):
    formats.save_sae(dictionary, tmp_path / "sae" / str(i))
  with pytest.raises(errors.InputError, match=r"holds 2 .* such as .*sae/0"):
    formats.load_sae(tmp_path)


def test_weights_in_another_memory_order_are_saved_as_they_are(
  tmp_path, dictionary
):
  turned = dataclasses.replace(
    dictionary.params,
    w_dec_FD=np.asfortranarray(dictionary.params.w_dec_FD),
  )
  formats.save_sae(dataclasses.replace(dictionary, params=turned), tmp_path)
  np.testing.assert_array_equal(
    formats.load_sae(tmp_path).params.w_dec_FD, dictionary.params.w_dec_FD
  )


def test_decoder_rows_are_read_one_by_one_as_unit_directions(tmp_path, kinds):
  dictionary = kinds.make(metadata={"hook_name": "blocks.3.hook_resid_post"})
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
