# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Uploads to a hub, and the model card that goes with them."""

import json
import shutil
import socket

import fake_hub
import huggingface_hub
import numpy as np
import pytest
import yaml

from sae_jax import artifacts, errors, formats, sae
from sae_jax.formats import hub, model_card

_D, _F, _K = 8, 32, 5
_HOOK = "blocks.9.hook_resid_post"
_METADATA = {
  "model_name": "HuggingFaceTB/SmolLM2-135M",
  "hook_name": _HOOK,
  "dataset_path": "/home/me/texts/web|crawl.jsonl",
  "context_size": 128,
  "training_tokens": 2_048_000,
}


@pytest.fixture
def online(monkeypatch):
  monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def _dictionary(**changes):
  rng = np.random.default_rng(0)
  w_dec_FD = rng.normal(size=(_F, _D)).astype(np.float32)
  w_dec_FD /= np.linalg.norm(w_dec_FD, axis=1, keepdims=True)
  params = sae.Params(
    w_enc_FD=w_dec_FD,
    w_dec_FD=w_dec_FD,
    b_enc_F=np.zeros(_F, np.float32),
    b_dec_D=np.zeros(_D, np.float32),
  )
  return sae.make_sae(params, _K, _METADATA, **changes)


def _run(tmp_path):
  """A run with its dictionary, its metrics, and an [eval] beside it."""
  run, evaluation = tmp_path / "run", tmp_path / "eval"
  formats.save_sae(_dictionary(), run / "sae")
  lines = [
    {"step": 9, "train/fvu": 0.5, "eval/fvu": 0.375, "eval/l0": 5.0},
    {"step": 10, "train/fvu": 0.4},
  ]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (run / "metrics.jsonl").write_text(text)
  evaluation.mkdir()
  weights = formats.hash_sae(run)
  config = {"job": "evaluate", "inputs": {"sae": weights}}
  artifacts.write_json_atomic(evaluation / "config.json", config)
  found = {"hook": _HOOK, "rows": 4096, "eval/fvu": 0.25, "eval/l0": 5.0}
  found |= {"eval/loss_recovered": 0.9876, "lm_tokens": 512}
  artifacts.write_json_atomic(evaluation / "metrics.json", found)
  return run


def test_a_card_says_what_is_known(tmp_path):
  run = _run(tmp_path)
  card = model_card.text(
    formats.load_sae(run),
    found=model_card.measured(run),
    repo="me/saes",
    folder=_HOOK,
  )
  front = yaml.safe_load(card.split("---")[1])
  assert front["library_name"] == "saelens"
  assert front["base_model"] == "HuggingFaceTB/SmolLM2-135M"
  assert {"saelens", "sae_jax", "topk"} <= set(front["tags"])
  for said in (
    "# TopK sparse autoencoder of HuggingFaceTB/SmolLM2-135M, " + _HOOK,
    "| Text | web\\|crawl.jsonl |",
    "| Context | 128 tokens |",
    "| Trained on | 2,048,000 rows |",
    "| Active latents | the 5 largest pre-activations, if above 0 |",
    "| Decoder rows | of length 1 |",
    "On 4,096 held-out rows of blocks.9.hook_resid_post; the language model's"
    " loss on 512 tokens.",
    "| fvu | 0.25 |",
    "| loss_recovered | 0.9876 |",
    f'SAE.from_pretrained("me/saes", "{_HOOK}")',
  ):
    assert said in card
  assert "/home/me" not in card


def test_without_an_evaluation_the_runs_last_look_is_given(tmp_path):
  run = _run(tmp_path)
  shutil.rmtree(tmp_path / "eval")
  found = model_card.measured(run)
  assert found.figures == {"fvu": 0.375, "l0": 5.0}
  assert found.rows == "held-out rows, after step 9"
  formats.save_sae(_dictionary(), tmp_path / "alone")
  assert model_card.measured(tmp_path / "alone") is None


def test_an_evaluation_of_another_dictionary_is_not_quoted(tmp_path):
  run = _run(tmp_path)
  other = artifacts.read_json(tmp_path / "eval" / "config.json")
  other["inputs"]["sae"] = "0" * 64
  artifacts.write_json_atomic(tmp_path / "eval" / "config.json", other)
  assert model_card.measured(run).figures["fvu"] == 0.375
  with pytest.raises(errors.InputError, match="not an evaluation of"):
    model_card.measured(run, tmp_path / "eval")


def test_what_saelens_cannot_open_is_not_called_its_own():
  card = model_card.text(_dictionary(), form="sparsify")
  assert yaml.safe_load(card.split("---")[1])["library_name"] == "sae_jax"
  assert "SAELens" not in card
  normed = model_card.text(_dictionary(layer_norm=True))
  assert "sae_jax.decode(sae, values_BK, indices_BK, x_BD)" in normed


def test_what_is_pushed_is_what_sae_lens_loads(tmp_path, sae_lens, online):
  run = _run(tmp_path)
  with fake_hub.serve() as (endpoint, repos):
    access = {"endpoint": endpoint, "token": "secret"}
    url = hub.push(run, "me/saes", **access)
    assert url == f"{endpoint}/me/saes/tree/main/{_HOOK}"
    files = repos["me/saes"]
    assert set(files) == {
      "README.md",
      f"{_HOOK}/README.md",
      f"{_HOOK}/cfg.json",
      f"{_HOOK}/sae_weights.safetensors",
    }
    assert b"| fvu | 0.25 |" in files["README.md"]
    # The repository's own card is left as it is from then on.
    repos["me/saes"]["README.md"] = b"mine"
    hub.push(run, "me/saes", folder="second", **access)
    assert files["README.md"] == b"mine"
    assert b'"me/saes", "second"' in files["second/README.md"]
    # Other weights, whose figures are those of what they were made of.
    other = tmp_path / "other"
    formats.save_sae(formats.load_sae(run), other, format="sparsify")
    hub.push(other, "me/saes", folder="third", origin=run, **access)
    assert b"| fvu | 0.25 |" in files["third/README.md"]
    assert "third/sae.safetensors" in files
    for name, content in files.items():
      (tmp_path / "got" / name).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / "got" / name).write_bytes(content)
  model = sae_lens.SAE.load_from_disk(tmp_path / "got" / _HOOK)
  assert model.cfg.metadata.hook_name == _HOOK
  np.testing.assert_array_equal(
    model.W_dec.detach().numpy(), _dictionary().params.w_dec_FD
  )


def test_a_hub_that_refuses_or_is_not_there_is_named(tmp_path, online):
  run = _run(tmp_path)
  with fake_hub.serve() as (endpoint, repos):
    with pytest.raises(errors.InputError, match=r"me/saes: not uploaded.*401"):
      hub.push(run, "me/saes", endpoint=endpoint, token="wrong")
    assert not repos
    with pytest.raises(errors.InputError, match="HFValidationError"):
      hub.push(run, "not a name", endpoint=endpoint, token="secret")
    with pytest.raises(errors.InputError, match="no name of a folder"):
      hub.push(run, "me/saes", folder="../up", endpoint=endpoint)
  with socket.socket() as held:
    held.bind(("127.0.0.1", 0))
    closed = f"http://127.0.0.1:{held.getsockname()[1]}"
    with pytest.raises(errors.InputError, match=r"ConnectError.*the network"):
      hub.push(run, "me/saes", endpoint=closed, token="secret")
