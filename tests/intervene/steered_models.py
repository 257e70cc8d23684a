# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Small random models in torch and as ours, a dictionary, and prompt pairs."""

import atexit
import dataclasses
import functools
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from sae_jax import lm, sae
from sae_jax.judge import prompts as prompts_lib

LAYERS, D, VOCAB, LATENTS, K = 4, 32, 96, 64, 4
_SIZES = dict(
  vocab_size=VOCAB,
  hidden_size=D,
  intermediate_size=48,
  num_hidden_layers=LAYERS,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=128,
)
_CLASSES = {
  "llama": ("LlamaConfig", {}),
  # Windows shorter than the texts, and soft-caps.
  "gemma2": (
    "Gemma2Config",
    dict(head_dim=8, sliding_window=4, query_pre_attn_scalar=8),
  ),
  "gpt2": (
    "GPT2Config",
    dict(
      vocab_size=VOCAB,
      n_embd=D,
      n_layer=LAYERS,
      n_head=4,
      n_positions=128,
      bos_token_id=0,
      eos_token_id=0,
    ),
  ),
}


@dataclasses.dataclass(frozen=True)
class Pair:
  """One model, in torch and where it is saved."""

  torch: torch.nn.Module
  path: pathlib.Path

  def load(self, **kwargs) -> lm.LanguageModel:
    return lm.load_lm(self.path, **{"dtype": jnp.float32, **kwargs})

  def blocks(self):
    """The torch modules of the layers."""
    inner: Any = self.torch.base_model
    return (
      inner.h if isinstance(inner, transformers.GPT2Model) else inner.layers
    )


@functools.cache
def pair(name: str) -> Pair:
  """Made once per process; the weights are larger than usual."""
  class_name, more = _CLASSES[name]
  torch.manual_seed(sum(name.encode()))
  arguments = more if name == "gpt2" else {**_SIZES, **more}
  config = getattr(transformers, class_name)(**arguments)
  model = transformers.AutoModelForCausalLM.from_config(
    config, attn_implementation="eager"
  )
  model = model.float().eval().requires_grad_(False)
  for weight in model.parameters():
    if weight.ndim > 1:
      weight.mul_(4.0)
  path = pathlib.Path(tempfile.mkdtemp(prefix=f"steered-{name}-"))
  atexit.register(shutil.rmtree, path)
  model.save_pretrained(path)
  return Pair(model, path)


def dictionary(seed: int = 0) -> sae.Sae:
  """Random directions, of which K are active in every row."""
  key = jax.random.split(jax.random.key(seed), 3)
  w_FD = jax.random.normal(key[0], (LATENTS, D))
  w_FD /= jnp.linalg.norm(w_FD, axis=1, keepdims=True)
  return sae.make_sae(
    sae.Params(
      w_enc_FD=w_FD,
      w_dec_FD=w_FD,
      b_enc_F=0.1 * jax.random.normal(key[1], (LATENTS,)),
      b_dec_D=0.1 * jax.random.normal(key[2], (D,)),
    ),
    k=K,
  )


def prompts(
  count: int = 7, seed: int = 0, words: int = 9
) -> prompts_lib.Prompts:
  """Pairs of every kind: one word, a common start, one within the other.

  Prompts have 2 to `words` tokens, responses up to as many; every fourth prompt
  has no pair.
  """
  rng = np.random.Generator(np.random.Philox(seed))

  def draw(low: int) -> tuple[int, ...]:
    count = int(rng.integers(low, words + 1))
    return tuple(rng.integers(1, VOCAB, count).tolist())

  found = []
  for i in range(count):
    prompt = draw(2)
    kind = i % 4
    if kind == 0:
      good, bad = draw(1), draw(1)
      bad = (good[0] % (VOCAB - 1) + 1, *bad[1:])
    elif kind == 1:
      first = int(rng.integers(1, VOCAB - 1))
      good, bad = (first,), (first + 1,)
    elif kind == 2:
      start = draw(1)
      good, bad = (*start, 5, *draw(1)), (*start, 6, *draw(1))
    else:
      good = draw(2)
      bad = good + draw(1)
    responses = {"good": good, "bad": bad}
    if i % 4 == 3 and i % 8 != 3:
      responses.pop("bad")
    found.append(
      prompts_lib.Prompt(f"p{i}", f"topic {i % 2}", prompt, responses)
    )
  return prompts_lib.Prompts(
    tuple(found), "bad", "good", ("bad", "good"), "made.jsonl"
  )
