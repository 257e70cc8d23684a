# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Llamascopium's layouts against their rules, and sae_lens's loaders."""

import json
import warnings

import coded
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from sae_jax import errors, sae
from sae_jax.formats import llamascopium

_B, _D, _F, _K = 16, 8, 32, 4
_IN, _OUT = "blocks.8.ln2.hook_normalized", "blocks.8.hook_mlp_out"
_NORMS = {"in": 3.0, "out": 0.5}
_CONFIG = {
  "sae_type": "sae",
  "d_model": _D,
  "expansion_factor": _F / _D,
  "act_fn": "jumprelu",
  "top_k": _K,
  "norm_activation": "dataset-wise",
  "sparsity_include_decoder_norm": True,
  "use_decoder_bias": True,
  "hook_point_in": _IN,
  "hook_point_out": _OUT,
}


def _tensors(seed=0, unit=False):
  rng = np.random.default_rng(seed)
  w_dec_FD = rng.normal(size=(_F, _D)) * rng.uniform(0.2, 2, size=(_F, 1))
  if unit:
    w_dec_FD /= np.linalg.norm(w_dec_FD, axis=1, keepdims=True)
  tensors = {
    "W_E": rng.normal(size=(_D, _F)) / np.sqrt(_D),
    "b_E": 0.3 * rng.normal(size=_F),
    "W_D": w_dec_FD,
    "b_D": rng.normal(size=_D),
    "activation_function.log_jumprelu_threshold": rng.normal(size=_F) - 1,
    f"dataset_average_activation_norm.{_IN}": np.asarray(_NORMS["in"]),
    f"dataset_average_activation_norm.{_OUT}": np.asarray(_NORMS["out"]),
  }
  return {name: np.asarray(a, np.float32) for name, a in tensors.items()}


def _write(path, tensors, config, file="sae_weights.safetensors"):
  (path / file).parent.mkdir(parents=True, exist_ok=True)
  tensors = {n: np.asarray(a, order="C") for n, a in tensors.items()}
  safetensors.numpy.save_file(tensors, path / file)
  name = "config.json" if file.startswith("sae") else "hyperparams.json"
  (path / name).write_text(json.dumps(config))


def _formula(tensors, config, x_BD):
  """Their normalize, encode, decode, denormalize: (score/s_out, x̂)."""
  t = {name: np.asarray(a, np.float64) for name, a in tensors.items()}
  dataset_wise = config["norm_activation"] == "dataset-wise"
  s_in = np.sqrt(_D) / _NORMS["in"] if dataset_wise else 1.0
  s_out = np.sqrt(_D) / _NORMS["out"] if dataset_wise else 1.0
  pre_BF = (s_in * x_BD.astype(np.float64)) @ t["W_E"] + t["b_E"]
  norm_F = np.ones(_F)
  if config["sparsity_include_decoder_norm"]:
    norm_F = np.linalg.norm(t["W_D"], axis=1)
  score_BF = pre_BF * norm_F
  match config["act_fn"]:
    case "relu":
      kept_BF = score_BF > 0
    case "jumprelu":
      log_F = t["activation_function.log_jumprelu_threshold"]
      kept_BF = score_BF > np.exp(log_F)
    case "topk":
      least_B1 = np.sort(score_BF, axis=1)[:, -_K][:, None]
      kept_BF = score_BF >= np.maximum(least_B1, 1e-30)
  f_BF = pre_BF * kept_BF
  out_BD = f_BF @ t["W_D"]
  if config["use_decoder_bias"]:
    out_BD = out_BD + t["b_D"]
  return f_BF * norm_F / s_out, out_BD / s_out


def _rows():
  return np.random.default_rng(1).normal(size=(_B, _D)).astype(np.float32)


@pytest.mark.parametrize(
  "change",
  [
    {},
    {"act_fn": "topk"},
    {"act_fn": "relu", "use_decoder_bias": False},
    {"sparsity_include_decoder_norm": False},
    {"norm_activation": "inference"},
  ],
  ids=lambda change: ",".join(map(str, change.values())) or "default",
)
def test_a_dictionary_is_its_rules(tmp_path, change):
  config = _CONFIG | change
  tensors = _tensors()
  _write(tmp_path, tensors, config)
  assert llamascopium.matches(tmp_path)
  dictionary = llamascopium.load(tmp_path)
  assert dictionary.metadata["hook_name"] == _IN
  assert dictionary.metadata["hook_name_out"] == _OUT
  coded.assert_same(
    coded.both(dictionary, _rows()), _formula(tensors, config, _rows())
  )
  if config["sparsity_include_decoder_norm"]:
    norm_F = np.linalg.norm(dictionary.params.w_dec_FD, axis=1)
    np.testing.assert_allclose(norm_F, 1, rtol=1e-6)


def _earlier(tensors):
  names = {"W_E": "encoder.weight", "W_D": "decoder.weight"}
  names |= {"b_E": "encoder.bias", "b_D": "decoder.bias"}
  return {
    new: tensors[old].T if old.startswith("W") else tensors[old]
    for old, new in names.items()
  }


def test_llama_scopes_hub_layout(tmp_path):
  """Its scalar threshold is θ / s_out of the rules."""
  tensors, theta = _tensors(), 2.0
  key = "activation_function.log_jumprelu_threshold"
  tensors[key] = np.full(_F, np.log(theta), np.float32)
  config = {k: v for k, v in _CONFIG.items() if k != "sae_type"} | {
    "dataset_average_activation_norm": _NORMS,
    "jump_relu_threshold": theta * _NORMS["out"] / np.sqrt(_D),
    "d_sae": _F,
  }
  bf16 = {n: a.astype(ml_dtypes.bfloat16) for n, a in _earlier(tensors).items()}
  rounded = {n: a.astype(np.float32) for n, a in bf16.items()}
  tensors |= {"W_E": rounded["encoder.weight"].T}
  tensors |= {"W_D": rounded["decoder.weight"].T}
  tensors |= {"b_E": rounded["encoder.bias"], "b_D": rounded["decoder.bias"]}
  _write(tmp_path, rounded, config, "checkpoints/final.safetensors")
  assert llamascopium.matches(tmp_path)
  coded.assert_same(
    coded.both(llamascopium.load(tmp_path), _rows()),
    _formula(tensors, config, _rows()),
  )


@pytest.mark.parametrize("release", ["scope", "r1_distill"])
def test_sae_lens_reads_the_same_where_decoder_rows_are_of_length_1(
  tmp_path, sae_lens, monkeypatch, release
):
  """sae_lens leaves out decoder norms, and has one scale for in and out."""
  torch = pytest.importorskip("torch")
  from sae_lens.loading import pretrained_sae_loaders as loaders

  hook = "blocks.8.hook_resid_post"
  tensors = _tensors(seed=2, unit=True)
  files = _earlier(tensors)
  config = _CONFIG | {"hook_point_in": hook, "hook_point_out": hook}
  scale = np.sqrt(_D) / _NORMS["in"]
  if release == "scope":
    config |= {"dataset_average_activation_norm": {"in": 3.0, "out": 3.0}}
    config |= {"jump_relu_threshold": 0.25, "d_sae": _F}
    _write(tmp_path, files, config, "checkpoints/final.safetensors")
    load = loaders.llama_scope_sae_huggingface_loader
  else:
    key = "activation_function.log_jumprelu_threshold"
    files["log_jumprelu_threshold"] = tensors[key]
    files[f"dataset_average_activation_norm.{hook}"] = np.float32(3)
    config |= {"expansion_factor": _F // _D}
    _write(tmp_path, files, config)
    load = loaders.llama_scope_r1_distill_sae_huggingface_loader

  def fetched(repo_id, filename, subfolder="", **_):
    inside = f"{subfolder}/{filename}".split("L8R", 1)[1]
    return str(tmp_path / inside.lstrip("/"))

  monkeypatch.setattr(loaders, "hf_hub_download", fetched)
  their_config, state, _ = load(
    "fnlp/repo", "L8R", "cpu", cfg_overrides={"dtype": "float32"}
  )
  model = sae_lens.SAE.from_dict(their_config)
  model.load_state_dict({n: t.contiguous() for n, t in state.items()})
  model.fold_activation_norm_scaling_factor(scale)
  dictionary = llamascopium.load(tmp_path)
  with torch.no_grad():
    x = torch.from_numpy(_rows())
    # Their activations are in the scale of normalized rows.
    theirs = model.encode(x).numpy() / scale, model(x).numpy()
  coded.assert_same(coded.both(dictionary, _rows()), theirs)


@pytest.mark.parametrize("activation", ["topk", "relu", "jumprelu"])
def test_what_is_saved_follows_their_rules(tmp_path, activation):
  rng = np.random.default_rng(5)
  params = sae.Params(
    w_enc_FD=rng.normal(size=(_F, _D)).astype(np.float32) / 3,
    w_dec_FD=rng.normal(size=(_F, _D)).astype(np.float32) / 3,
    b_enc_F=0.3 * rng.normal(size=_F).astype(np.float32),
    b_dec_D=rng.normal(size=_D).astype(np.float32),
    threshold_F=None
    if activation != "jumprelu"
    # One below 0: relu(pre) asks for pre > 0 all the same.
    else np.append(rng.uniform(0, 0.5, _F - 1), -1).astype(np.float32),
  )
  dictionary = sae.make_sae(params, _K, activation=activation)
  llamascopium.save(dictionary, tmp_path)
  saved = safetensors.numpy.load_file(tmp_path / "sae_weights.safetensors")
  config = json.loads((tmp_path / "config.json").read_text())
  assert int(config["d_model"] * config["expansion_factor"]) == _F
  ours = coded.both(dictionary, _rows())
  coded.assert_same(_formula(saved, config, _rows()), ours)
  coded.assert_same(coded.both(llamascopium.load(tmp_path), _rows()), ours)


@pytest.mark.parametrize(
  ("change", "says"),
  [
    ({"act_fn": "batchtopk"}, "act_fn='batchtopk' is not supported"),
    ({"sae_type": "crosscoder"}, "sae_type='crosscoder' is not supported"),
    ({"norm_activation": "token-wise"}, "scales every row"),
    ({"use_glu_encoder": True}, "use_glu_encoder=True is not supported"),
    ({"hook_point_in": "elsewhere"}, "needs the data's mean norm"),
  ],
)
def test_what_is_not_supported_is_named(tmp_path, change, says):
  _write(tmp_path, _tensors(), _CONFIG | change)
  with pytest.raises(errors.InputError, match=says):
    llamascopium.load(tmp_path)


def test_another_tools_directory_is_not_theirs(tmp_path):
  assert not llamascopium.matches(tmp_path)
  (tmp_path / "config.json").write_text("[1]")
  (tmp_path / "sae_weights.safetensors").write_bytes(b"")
  assert not llamascopium.matches(tmp_path)
  missing = {n: a for n, a in _tensors().items() if n != "b_E"}
  _write(tmp_path, missing, _CONFIG)
  with pytest.raises(errors.InputError, match="has no b_E"):
    llamascopium.load(tmp_path)


@pytest.fixture(scope="module")
def library():
  """The real one, in which dictionaries are taken through their own steps."""
  pytest.importorskip("torch")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip(
      "llamascopium", reason="llamascopium is not installed: pip install it"
    )
    import llamascopium.models.sae

  return llamascopium.models.sae


def _theirs(model, config, x_BD):
  """Normalized, encoded, decoded and brought back by the library itself."""
  import torch

  rows = {_IN: torch.from_numpy(x_BD), _OUT: torch.zeros(1, _D)}
  with torch.no_grad():
    scaled, factors = model.normalize_activations(
      rows, return_scale_factor=True
    )
    acts_BF = model.encode(scaled[_IN])
    back = model.denormalize_activations(
      {_OUT: model.decode(acts_BF)}, {_OUT: factors[_OUT]}
    )
    if config["sparsity_include_decoder_norm"]:
      acts_BF = acts_BF * model.decoder_norm()
    return (acts_BF / factors[_OUT]).numpy(), back[_OUT].numpy()


@pytest.mark.parametrize("act_fn", ["topk", "relu", "jumprelu"])
def test_the_library_writes_and_we_read(tmp_path, library, act_fn):
  torch = pytest.importorskip("torch")
  fields = {k: v for k, v in _CONFIG.items() if k != "sae_type"}
  fields |= {"act_fn": act_fn, "device": "cpu", "dtype": torch.float32}
  config = library.SAEConfig(**fields)
  model = library.SparseAutoEncoder(config)
  state = {n: torch.from_numpy(a) for n, a in _tensors().items()}
  if act_fn != "jumprelu":
    del state["activation_function.log_jumprelu_threshold"]
  model.load_full_state_dict(state)
  model.save_pretrained(tmp_path)
  config.save_hyperparameters(tmp_path)
  dictionary = llamascopium.load(tmp_path)
  coded.assert_same(
    coded.both(dictionary, _rows()), _theirs(model, fields, _rows())
  )


@pytest.mark.parametrize("act_fn", ["topk", "relu", "jumprelu"])
def test_we_write_and_the_library_reads(tmp_path, library, act_fn):
  config = _CONFIG | {"act_fn": act_fn}
  _write(tmp_path / "theirs", _tensors(), config)
  dictionary = llamascopium.load(tmp_path / "theirs")
  llamascopium.save(dictionary, tmp_path / "ours")
  model = library.SparseAutoEncoder.from_pretrained(str(tmp_path / "ours"))
  written = {"sparsity_include_decoder_norm": False}
  coded.assert_same(
    _theirs(model, written, _rows()), coded.both(dictionary, _rows())
  )
