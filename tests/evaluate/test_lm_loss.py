# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The spliced-in loss equals that of a hooked torch model."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from evaluation_data import HOOK, make_sae

from sae_jax import errors, lm, sae
from sae_jax import mesh as mesh_lib
from sae_jax.evaluate import heldout, lm_loss

D, V, LAYER = 32, 61, 1


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
  """A random llama in torch, and where it is saved."""
  torch.manual_seed(0)
  config = transformers.LlamaConfig(
    vocab_size=V,
    hidden_size=D,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=128,
  )
  model = transformers.AutoModelForCausalLM.from_config(
    config, attn_implementation="eager"
  )
  model = model.float().eval().requires_grad_(False)
  for weight in model.parameters():
    if weight.ndim > 1:
      weight.mul_(12)  # sharp predictions: the edits must matter
  path = tmp_path_factory.mktemp("llama")
  model.save_pretrained(path)
  return model, path


def load(path, **kwargs):
  return lm.load_lm(path, dtype=jnp.float32, **kwargs)


@pytest.fixture(scope="module")
def contexts(llama):
  """Text that the model itself wrote, so that it predicts it well."""
  rng = np.random.default_rng(0)
  drawn = []
  for i, n in enumerate((9, 30, 2, 17, 23)):
    ids_1T = torch.tensor([[i + 1]])
    while ids_1T.shape[1] < n:
      p_V = torch.softmax(llama[0](ids_1T).logits[0, -1].double(), -1)
      word = rng.choice(V, p=p_V.numpy() / p_V.sum().item())
      ids_1T = torch.cat([ids_1T, torch.tensor([[word]])], 1)
    kept_T = rng.random(n) < 0.8
    kept_T[0] = False  # like BOS
    tokens_T = ids_1T[0].numpy().astype(np.int32)
    drawn.append(heldout.Context(i, tokens_T, kept_T))
  return drawn


@pytest.fixture(scope="module")
def mean_D():
  return np.random.default_rng(3).normal(size=D)


def torch_losses(model, contexts, change):
  """Per context: [predictions, summed loss], and log-probabilities."""
  sums, log_p = [], []
  for context in contexts:
    kept_T1 = torch.tensor(context.kept_T)[:, None]

    def hook(module, inputs, output, kept_T1=kept_T1):
      h_1TD = output[0] if isinstance(output, tuple) else output
      new_1TD = torch.where(kept_T1, change(h_1TD), h_1TD)
      return (new_1TD, *output[1:]) if isinstance(output, tuple) else new_1TD

    handle = model.model.layers[LAYER].register_forward_hook(hook)
    ids_1T = torch.tensor(context.tokens_T.astype(np.int64))[None]
    logits_TV = model(ids_1T).logits[0]
    handle.remove()
    log_TV = torch.log_softmax(logits_TV.double(), -1)[:-1]
    hit = log_TV[torch.arange(len(log_TV)), ids_1T[0, 1:]]
    sums.append((len(hit), -hit.sum().item()))
    log_p.append(log_TV)
  return np.array(sums), log_p


def in_torch(dictionary):
  p = [
    torch.tensor(np.asarray(a))
    for a in (
      dictionary.params.w_enc_FD,
      dictionary.params.w_dec_FD,
      dictionary.params.b_enc_F,
      dictionary.params.b_dec_D,
    )
  ]

  def reconstruct(h_BTD):
    values, indices = torch.topk(
      (h_BTD - p[3]) @ p[0].T + p[2], dictionary.k, dim=-1
    )
    return (torch.relu(values)[..., None] * p[1][indices]).sum(-2) + p[3]

  return reconstruct


def wanted(llama, contexts, dictionary, mean_D):
  model, _ = llama
  mean = torch.tensor(mean_D, dtype=torch.float32)
  arms = {
    "clean": lambda h: h,
    "spliced": in_torch(dictionary),
    "zero": torch.zeros_like,
    "mean": lambda h: mean.expand_as(h),
  }
  found = {a: torch_losses(model, contexts, f) for a, f in arms.items()}
  ce = {a: s[:, 1].sum() / s[:, 0].sum() for a, (s, _) in found.items()}
  clean, spliced = found["clean"][1], found["spliced"][1]
  kl = sum(
    (p.exp() * (p - q)).sum().item()
    for p, q in zip(clean, spliced, strict=True)
  )
  tokens = found["clean"][0][:, 0].sum()
  recovered = (ce["zero"] - ce["spliced"]) / (ce["zero"] - ce["clean"])
  return ce, kl / tokens, recovered, tokens


@pytest.mark.parametrize("axes", [(1, 1, 1), (2, 2, 2)])
def test_equals_a_hooked_torch_model(llama, contexts, mean_D, axes):
  dictionary = make_sae(40, D, 4)
  config = mesh_lib.MeshConfig(sae=axes[0], data=axes[1], latent=axes[2])
  mesh = None if axes == (1, 1, 1) else mesh_lib.make(config)
  model = load(llama[1], mesh=mesh)
  loss = lm_loss.measure(
    dictionary, model, HOOK, contexts, mean_D, batch_contexts=2
  )
  ce, kl, recovered, tokens = wanted(llama, contexts, dictionary, mean_D)
  assert loss.contexts == len(contexts)
  assert loss.tokens == tokens == sum(len(c.tokens_T) - 1 for c in contexts)
  # The arms must differ, or the comparison below says nothing.
  assert np.ptp(list(ce.values())) > 0.05 and kl > 0.01
  # Logits agree with torch to about 1e-5 at this depth; losses are means.
  for arm, value in ce.items():
    assert getattr(loss, f"ce_{arm}") == pytest.approx(value, abs=5e-5), arm
  assert loss.kl == pytest.approx(kl, abs=5e-5)
  gap = abs(ce["zero"] - ce["clean"])
  assert loss.loss_recovered == pytest.approx(recovered, abs=2e-4 / gap)
  kept = sum(c.kept_T.sum() for c in contexts)
  assert loss.replaced_frac == kept / sum(len(c.tokens_T) for c in contexts)


def measure(dictionary, model, contexts, mean_D, batch_contexts=2):
  """With two contexts at a time, all tests share the compiled programs."""
  return lm_loss.measure(
    dictionary, model, HOOK, contexts, mean_D, batch_contexts=batch_contexts
  )


def exact_sae():
  """±e_d as latents: every row is reconstructed exactly."""
  eye_DD = np.eye(D, dtype=np.float32)
  w_FD = np.concatenate([eye_DD, -eye_DD])
  params = sae.Params(
    w_FD, w_FD, np.zeros(2 * D, np.float32), np.zeros(D, np.float32)
  )
  return sae.make_sae(params, D)


def test_a_perfect_dictionary_recovers_all(llama, contexts, mean_D):
  loss = measure(exact_sae(), load(llama[1]), contexts, mean_D)
  assert loss.loss_recovered == pytest.approx(1, abs=1e-5)
  assert loss.kl == pytest.approx(0, abs=1e-6)
  assert loss.loss_recovered_95 == pytest.approx((1, 1), abs=1e-5)


def test_an_empty_dictionary_recovers_nothing(llama, contexts, mean_D):
  dictionary = exact_sae()
  silent = dataclasses.replace(
    dictionary.params, w_dec_FD=np.zeros((2 * D, D), np.float32)
  )
  dictionary = dataclasses.replace(dictionary, params=silent)
  loss = measure(dictionary, load(llama[1]), contexts, mean_D)
  assert loss.ce_spliced == loss.ce_zero
  assert loss.loss_recovered == pytest.approx(0, abs=1e-6)


def test_positions_that_are_not_rows_pass_through(llama, contexts, mean_D):
  untouched = [
    dataclasses.replace(c, kept_T=np.zeros_like(c.kept_T)) for c in contexts
  ]
  loss = measure(make_sae(40, D, 4), load(llama[1]), untouched, mean_D)
  assert loss.ce_zero == loss.ce_clean == loss.ce_spliced == loss.ce_mean
  assert loss.loss_recovered is None and loss.loss_recovered_95 is None
  assert loss.replaced_frac == 0


def test_batching_changes_nothing(llama, contexts, mean_D):
  model, dictionary = load(llama[1]), make_sae(40, D, 4)
  one, all_at_once = (
    measure(dictionary, model, contexts, mean_D, batch_contexts=n)
    for n in (2, 64)
  )
  for name in ("ce_clean", "ce_spliced", "ce_zero", "ce_mean", "kl"):
    assert getattr(one, name) == pytest.approx(
      getattr(all_at_once, name), abs=2e-6
    )


def test_missing_blocks_are_refused(llama, contexts, mean_D):
  with pytest.raises(errors.InputError, match="layers=None"):
    measure(make_sae(40, D, 4), load(llama[1], layers=2), contexts, mean_D)


def test_a_single_token_predicts_nothing(llama, contexts, mean_D):
  lone = dataclasses.replace(
    contexts[0], tokens_T=contexts[0].tokens_T[:1], kept_T=np.ones(1, bool)
  )
  with pytest.raises(errors.InputError, match="single token"):
    measure(make_sae(40, D, 4), load(llama[1]), [lone], mean_D)


def test_the_interval_covers_the_spread_of_contexts():
  """Loss recovered 0.9 on average, its spread over contexts known."""
  rng = np.random.default_rng(0)
  n = 400
  spliced_N = 2 + 0.1 * (1 + rng.normal(size=n))
  sums_N6 = np.stack(
    [
      np.ones(n),
      np.full(n, 2.0),
      spliced_N,
      np.full(n, 3.0),
      spliced_N,
      spliced_N,
    ],
    axis=1,
  )
  loss = lm_loss._summary(sums_N6, 1.0, seed=0)
  half = 1.96 * 0.1 / np.sqrt(n)
  low, high = loss.loss_recovered_95
  assert low < loss.loss_recovered < high
  # 2,000 resamples know a 95 % limit to about 6 % of the half width.
  assert high - low == pytest.approx(2 * half, rel=0.2)


def test_a_transcoder_replaces_what_it_decodes_to(llama, contexts):
  """Read before the MLP, as the model computed it; written after it."""
  model, path = llama
  centred = make_sae(40, D, 4)
  skip_DD = np.random.default_rng(5).normal(size=(D, D)).astype(np.float32)
  params = dataclasses.replace(centred.params, w_skip_DE=0.1 * skip_DD)
  dictionary = sae.make_sae(params, 4, centred=False)
  loss = lm_loss.measure(
    dictionary,
    load(path),
    f"blocks.{LAYER}.hook_resid_mid",
    contexts,
    np.zeros(D),
    target=f"blocks.{LAYER}.hook_mlp_out",
    batch_contexts=2,
  )
  w_enc_FD, w_dec_FD, b_enc_F, b_dec_D = (
    torch.tensor(np.asarray(a))
    for a in (params.w_enc_FD, params.w_dec_FD, params.b_enc_F, params.b_dec_D)
  )
  layer = model.model.layers[LAYER]
  sums = np.zeros(2)
  for context in contexts:
    kept_T1 = torch.tensor(context.kept_T)[:, None]
    seen = []

    def decode(module, inputs, output, kept_T1=kept_T1, seen=seen):
      x_1TD = seen[-1]
      values, indices = torch.topk(x_1TD @ w_enc_FD.T + b_enc_F, 4, dim=-1)
      y_1TD = (torch.relu(values)[..., None] * w_dec_FD[indices]).sum(-2)
      y_1TD += b_dec_D + x_1TD @ torch.tensor(0.1 * skip_DD)
      return torch.where(kept_T1, y_1TD, output)

    handles = (
      layer.post_attention_layernorm.register_forward_pre_hook(
        lambda module, inputs, seen=seen: seen.append(inputs[0])
      ),
      layer.mlp.register_forward_hook(decode),
    )
    ids_1T = torch.tensor(context.tokens_T.astype(np.int64))[None]
    log_TV = torch.log_softmax(model(ids_1T).logits[0].double(), -1)[:-1]
    for handle in handles:
      handle.remove()
    hit = log_TV[torch.arange(len(log_TV)), ids_1T[0, 1:]]
    sums += len(hit), -hit.sum().item()
  assert abs(loss.ce_spliced - loss.ce_clean) > 0.05
  assert loss.ce_zero == pytest.approx(loss.ce_mean)  # of a mean of zero
  assert loss.ce_spliced == pytest.approx(sums[1] / sums[0], abs=5e-5)


def test_a_target_before_its_hook_is_refused(llama, contexts):
  with pytest.raises(
    errors.InputError, match="which the model computes before"
  ):
    lm_loss.measure(
      make_sae(40, D, 4),
      load(llama[1]),
      f"blocks.{LAYER}.hook_resid_post",
      contexts,
      np.zeros(D),
      target=f"blocks.{LAYER}.hook_resid_mid",
    )
