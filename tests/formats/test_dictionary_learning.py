# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""dictionary_learning's directories, against the real one both ways."""

import dataclasses
import json

import numpy as np
import pytest

from sae_jax import errors, formats
from sae_jax.formats import torch_file

torch = pytest.importorskip("torch")

CLASSES = (
  *("AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE"),
  *("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder", "GatedAutoEncoder"),
)


def _theirs(model, x_BD):
  with torch.no_grad():
    x = torch.from_numpy(x_BD)
    return model.encode(x).numpy(), model(x).numpy()


@pytest.mark.parametrize("name", CLASSES)
def test_we_load_theirs(tmp_path, dictionary_learning, kinds, name):
  made = {"AutoEncoderTopK": [kinds.K], "BatchTopKSAE": [kinds.K]}
  made["MatryoshkaBatchTopKSAE"] = [kinds.K, [32, kinds.F - 32]]
  model = getattr(dictionary_learning, name)(
    kinds.D, kinds.F, *made.get(name, [])
  )
  torch.manual_seed(0)
  with torch.no_grad():
    for key, p in model.state_dict().items():
      if p.ndim:
        p.copy_(0.3 * torch.randn_like(p, dtype=torch.float32)) if (
          p.dtype == torch.float32
        ) else None
      elif key == "threshold":
        p.fill_(0.4)
  torch.save(model.state_dict(), tmp_path / "ae.pt")
  trainer = {
    **{"dict_class": name, "lm_name": "EleutherAI/pythia-70m", "layer": 3},
    **{"activation_dim": kinds.D, "dict_size": kinds.F},
    **({"k": kinds.K} if name in made else {}),
    "submodule_name": "resid_post_layer_3",
  }
  config = {"trainer": trainer, "buffer": {"ctx_len": 128}}
  (tmp_path / "config.json").write_text(json.dumps(config))
  there, _ = dictionary_learning.load_dictionary(str(tmp_path), "cpu")
  loaded = formats.load_sae(tmp_path)
  x_BD = kinds.rows()
  kinds.same(kinds.ours(loaded, x_BD), _theirs(there, x_BD))
  assert loaded.metadata["hook_name"] == "blocks.3.hook_resid_post"
  assert loaded.metadata["context_size"] == 128


# The class that a dictionary of ours becomes. Not 1: rows of other lengths.
OURS = {
  "AutoEncoderTopK": {},
  "AutoEncoderTopK, not centred": {"centred": False},
  "AutoEncoder": {"activation": "relu"},
  "AutoEncoderNew, not 1": {"activation": "relu"},
  "AutoEncoderNew": {"activation": "relu", "centred": False},
  "GatedAutoEncoder": {"activation": "gated"},
  "GatedAutoEncoder, not centred": {"activation": "gated", "centred": False},
  "JumpReluAutoEncoder": {"activation": "jumprelu", "centred": False},
  "JumpReluAutoEncoder, centred": {"activation": "jumprelu"},
  "BatchTopKSAE": {"activation": "jumprelu"},
  "MatryoshkaBatchTopKSAE": {"activation": "jumprelu"},
}
_DETAILS = {"k": 7, "matryoshka_widths": [32, 96]}


def _made(kinds, case):
  metadata = {"hook_name": "blocks.9.hook_resid_post", "model_name": "gpt2"}
  if "Matryoshka" in case:
    metadata["training_architecture_details"] = _DETAILS
  dictionary = kinds.make(**OURS[case], metadata=metadata)
  params = dictionary.params
  if "TopKSAE" in case:
    params = dataclasses.replace(
      params, threshold_F=0 * params.threshold_F + 0.4
    )
  if case.endswith("not 1"):
    params = dataclasses.replace(params, w_dec_FD=2 * params.w_dec_FD)
  return dataclasses.replace(dictionary, params=params)


@pytest.mark.parametrize("case", OURS)
def test_they_load_ours(tmp_path, dictionary_learning, kinds, case):
  dictionary = _made(kinds, case)
  formats.save_sae(dictionary, tmp_path, format="dictionary_learning")
  model, config = dictionary_learning.load_dictionary(str(tmp_path), "cpu")
  assert type(model).__name__ == case.split(",")[0]
  assert config["trainer"]["lm_name"] == "gpt2"
  assert config["trainer"]["layer"] == 9
  x_BD = kinds.rows()
  kinds.same(kinds.ours(dictionary, x_BD), _theirs(model, x_BD))


@pytest.mark.parametrize("case", OURS)
def test_a_round_trip(tmp_path, kinds, case):
  dictionary = _made(kinds, case)
  formats.save_sae(dictionary, tmp_path, format="dictionary_learning")
  config = json.loads((tmp_path / "config.json").read_text())
  name = case.split(",")[0]
  assert config["trainer"]["dict_class"] == name
  state = torch.load(tmp_path / "ae.pt", weights_only=True)
  if name == "MatryoshkaBatchTopKSAE":
    assert state["group_sizes"].tolist() == [32, 64]
    assert state["k"] == config["trainer"]["k"] == 7
  loaded = formats.load_sae(tmp_path)
  assert dictionary.metadata.items() <= loaded.metadata.items()
  assert loaded.k == dictionary.k
  if dictionary.centred == loaded.centred:
    kinds.assert_equal(loaded, dictionary)
  else:  # what b_dec does to the encoder is in its bias
    assert loaded.centred == (not dictionary.centred)
    x_BD = kinds.rows()
    kinds.same(kinds.ours(loaded, x_BD), kinds.ours(dictionary, x_BD))
  formats.save_sae(loaded, tmp_path / "again", format="dictionary_learning")
  again = tmp_path / "again"
  assert json.loads((again / "config.json").read_text()) == config
  assert (again / "ae.pt").read_bytes() == (tmp_path / "ae.pt").read_bytes()


@pytest.fixture
def saved(tmp_path, kinds):
  """A BatchTopK of the format, without our own metadata."""
  formats.save_sae(
    _made(kinds, "BatchTopKSAE"), tmp_path, format="dictionary_learning"
  )
  _edit(tmp_path, sae_jax_metadata=None)
  return tmp_path


def _edit(path, sae_jax_metadata=(), **changes):
  config = json.loads((path / "config.json").read_text())
  config["trainer"] |= changes
  if sae_jax_metadata is None:
    del config["sae_jax_metadata"]
  (path / "config.json").write_text(json.dumps(config))


def _edit_state(path, drop=(), **changes):
  state = torch_file.read(path / "ae.pt")
  state = {k: v for k, v in state.items() if k not in drop}
  torch_file.write(path / "ae.pt", {**state, **changes})


def test_a_file_without_its_config_says_what_it_needs(saved, kinds):
  loaded = formats.load_sae(saved / "ae.pt")
  assert loaded.metadata["training_architecture"] == "batchtopk"
  assert loaded.metadata["training_architecture_details"]["k"] == 40
  assert loaded.metadata["decoder_norms"] == pytest.approx([1, 1, 1])
  assert len(formats.hash_sae(saved)) == 64
  (saved / "config.json").unlink()
  with pytest.raises(
    errors.InputError, match=r"AutoEncoderTopK, BatchTopKSAE;"
  ):
    formats.load_sae(saved)
  gated = kinds.make("gated")
  formats.save_sae(gated, saved, format="dictionary_learning")
  (saved / "config.json").unlink()
  kinds.assert_equal(
    dataclasses.replace(formats.load_sae(saved), k=gated.k), gated
  )


def test_rows_of_an_autoencoder_are_brought_to_norm_1(tmp_path, kinds):
  """As their loader does; the reconstruction stays."""
  dictionary = kinds.make("relu")
  formats.save_sae(dictionary, tmp_path, format="dictionary_learning")
  turned = 3 * np.asarray(dictionary.params.w_dec_FD).T
  _edit_state(tmp_path, **{"decoder.weight": turned})
  loaded = formats.load_sae(tmp_path)
  assert loaded.metadata["decoder_norms"] == pytest.approx([1, 1, 1])
  x_BD = kinds.rows()
  acts_BF, _ = kinds.ours(dictionary, x_BD)
  np.testing.assert_allclose(
    kinds.ours(loaded, x_BD)[0], 3 * acts_BF, atol=3e-5
  )


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"dict_class": "IdentityDict"}, "dict_class='IdentityDict'"),
    ({"dict_class": "GatedAutoEncoder"}, "missing: .*gate_bias"),
    ({"dict_size": 95}, r"encoder.weight has shape \(96, 24\)"),
    ({"activation_dim": 23}, r"\(96, 24\)"),
    ({"k": 39}, r"one k; they give \[39, 40\]"),
    ({"k": "40"}, "one k"),
  ],
)
def test_configs_that_do_not_fit_are_refused(saved, changes, named):
  _edit(saved, **changes)
  with pytest.raises(errors.InputError, match=named):
    formats.load_sae(saved)


@pytest.mark.parametrize(
  ("drop", "changes", "named"),
  [
    ((), {"threshold": np.float32(-1)}, "threshold=-1 was never set"),
    ((), {"threshold": np.float32(np.nan)}, "threshold=nan"),
    ((), {"threshold": np.zeros(3, "f4")}, "no number threshold"),
    (("threshold",), {}, "no number threshold"),
    (("encoder.weight",), {}, r"no matrix encoder\.weight"),
    (("b_dec",), {}, r"missing: \['b_dec'\]"),
    ((), {"bias": np.zeros(3, "f4")}, r"not understood: \['bias'\]"),
    ((), {"b_dec": np.zeros(3, "f4")}, r"b_dec has shape \(3,\)"),
    ((), {"b_dec": np.full(24, np.nan, "f4")}, "b_dec holds NaN"),
  ],
)
def test_damaged_states_are_refused(saved, drop, changes, named):
  _edit_state(saved, drop, **changes)
  with pytest.raises(errors.InputError, match=named):
    formats.load_sae(saved)


def test_damaged_files_are_refused(saved):
  file = saved / "ae.pt"
  whole = file.read_bytes()
  file.write_bytes(whole[:-100])
  with pytest.raises(errors.InputError, match="damaged"):
    formats.load_sae(saved)
  file.write_bytes(whole)
  for part in ("trainer", "buffer", "sae_jax_metadata"):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {part: 3}))
    with pytest.raises(errors.InputError, match=f"{part} is not"):
      formats.load_sae(saved)
    (saved / "config.json").write_text(json.dumps(config))


def test_a_checkpoint_of_a_training_finds_its_config(saved):
  (saved / "checkpoints").mkdir()
  place = (saved / "ae.pt").rename(saved / "checkpoints" / "ae_1000.pt")
  loaded = formats.load_sae(place)
  assert loaded.activation == "jumprelu"
  assert loaded.metadata["hook_name"] == "blocks.9.hook_resid_post"


@pytest.mark.parametrize(
  ("made", "named"),
  [
    ({"out": 18}, "no output of another width .* saelens"),
    ({"skip": True}, "no skip connection; .* saelens, sparsify"),
    ({"layer_norm": True}, "no layer norm"),
    ({"sources": 2}, "no several sources"),
  ],
)
def test_what_it_has_no_class_for_is_not_saved(tmp_path, kinds, made, named):
  with pytest.raises(errors.InputError, match=named):
    formats.save_sae(
      kinds.make(**made), tmp_path / "a", format="dictionary_learning"
    )
  assert not (tmp_path / "a").exists()
