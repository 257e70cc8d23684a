# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Taps, edits, padding, long sequences and dtypes of a forward pass."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sae_jax import errors
from sae_jax import lm as lm_lib
from sae_jax import mesh as mesh_lib
from sae_jax.lm import attention, config, hooks, run, weights

# As derived in test_lm_families.py, relative to the largest entry.
RTOL = 4 * (8 * 128) ** 0.5 * 1.2e-7

TOKENS_BT = np.random.default_rng(0).integers(0, 208, (3, 12))
TRACES = []


def add(h_BTD, mask_BT, vector_D):
  TRACES.append(h_BTD.shape)
  return h_BTD + jnp.where(mask_BT[..., None], vector_D[None, None], 0.0)


def halve(h_BTD, mask_BT):
  return h_BTD * 0.5


def transpose(h_BTD, mask_BT):
  return jnp.swapaxes(h_BTD, 1, 2)


def _torch_sites(model, name, tokens):
  """{(layer, site): tensor}, by hooks on the modules of transformers."""
  trunk = model.gpt_neox if name == "pythia" else model.model
  found, handles = {}, []

  def keep(key):
    def hook(module, args, output):
      found[key] = output[0] if isinstance(output, tuple) else output

    return hook

  for i, layer in enumerate(trunk.layers):
    modules = {"resid_post": layer, "mlp_out": layer.mlp}
    if name == "gemma2":
      modules["attn_out"] = layer.post_attention_layernorm
      modules["mlp_out"] = layer.post_feedforward_layernorm
    else:
      modules["attn_out"] = (
        layer.attention if name == "pythia" else layer.self_attn
      )
    for site, module in modules.items():
      handles.append(module.register_forward_hook(keep((i, site))))

    def keep_input(module, args, i=i):
      found[i, "resid_pre"] = args[0]

    handles.append(layer.register_forward_pre_hook(keep_input))
  with torch.no_grad():
    model(torch.from_numpy(tokens))
  for handle in handles:
    handle.remove()
  if name != "pythia":
    for i in range(len(trunk.layers)):
      found[i, "resid_mid"] = found[i, "resid_pre"] + found[i, "attn_out"]
  return found


def _error(ours, theirs):
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("name", ["llama", "gemma2", "pythia"])
def test_taps_of_every_site_equal_torch_hooks(hf_pair, name):
  pair = hf_pair(name)
  theirs = _torch_sites(pair.torch, name, TOKENS_BT)
  names = [f"blocks.{layer}.hook_{site}" for layer, site in theirs]
  ours = lm_lib.activations(pair.load(), TOKENS_BT, names)
  assert set(ours) == set(names)
  for (layer, site), value in theirs.items():
    assert _error(ours[f"blocks.{layer}.hook_{site}"], value) < RTOL


@pytest.mark.parametrize("site", hooks.SITES)
def test_a_run_that_stops_equals_a_whole_one(hf_pair, site):
  pair = hf_pair("llama")
  names = [f"blocks.1.hook_{site}", "blocks.0.hook_resid_mid"]
  whole = lm_lib.activations(
    pair.load(), TOKENS_BT, [*names, "blocks.2.hook_resid_post"]
  )
  few = pair.load(layers=2)
  assert few.layers == 2
  assert few.model.blocks.mlp.w_up_FD[...].shape[0] == 2
  stopped = lm_lib.activations(few, TOKENS_BT, names)
  for name in names:
    assert _error(stopped[name], whole[name]) < RTOL


def _compiled_text(lm, hook):
  mask_BT = np.ones(TOKENS_BT.shape, bool)
  lowered = run._activations.lower(
    lm.model,
    TOKENS_BT.astype(np.int32),
    mask_BT,
    (),
    taps=(hook,),
    mesh=lm.mesh,
  )
  return lowered.compile().as_text()


def test_nothing_past_the_last_hook_is_computed(hf_pair):
  lm = hf_pair("llama").load(layers=1)
  mlp_width = re.compile(r"\b112\b")
  assert mlp_width.search(_compiled_text(lm, "blocks.0.hook_resid_post"))
  assert not mlp_width.search(_compiled_text(lm, "blocks.0.hook_resid_mid"))
  pre = _compiled_text(lm, "blocks.0.hook_resid_pre")
  assert " dot(" not in pre


def test_edit_equals_a_torch_hook(hf_pair):
  pair = hf_pair("llama")
  vector = np.random.default_rng(1).normal(size=64).astype(np.float32)

  def add_to_output(module, args, output):
    return output + torch.from_numpy(vector)

  def halve_output(module, args, output):
    return (output[0] * 0.5, *output[1:])

  layers = pair.torch.model.layers
  handles = [
    layers[0].register_forward_hook(add_to_output),
    layers[2].self_attn.register_forward_hook(halve_output),
  ]
  with torch.no_grad():
    theirs = pair.torch(torch.from_numpy(TOKENS_BT)).logits
  for handle in handles:
    handle.remove()
  lm = pair.load()
  edits = (
    lm_lib.Edit("model.layers.0", add, (vector,)),
    lm_lib.Edit("blocks.2.hook_attn_out", halve),
  )
  plain = lm_lib.logits(lm, TOKENS_BT)
  ours = lm_lib.logits(lm, TOKENS_BT, edits=edits)
  assert _error(ours, theirs) < RTOL
  assert _error(plain, theirs) > 1000 * RTOL

  # A tap at the edited hook sees the edited stream, in the tail as well.
  hook = "blocks.0.hook_resid_post"
  before = lm_lib.activations(lm, TOKENS_BT, hook)[hook]
  after = lm_lib.activations(lm, TOKENS_BT, hook, edits=edits)[hook]
  assert _error(after, np.asarray(before) + vector) < RTOL
  tail = "blocks.2.hook_attn_out"
  edited = lm_lib.activations(lm, TOKENS_BT, tail, edits=edits)[tail]
  first = lm_lib.activations(lm, TOKENS_BT, tail, edits=edits[:1])[tail]
  assert _error(edited, 0.5 * np.asarray(first)) < RTOL


def test_new_arguments_of_an_edit_do_not_compile_again(hf_pair):
  lm = hf_pair("llama").load()
  results = []
  for scale in (1.0, 2.0, 3.0):
    edit = lm_lib.Edit("blocks.1.hook_resid_mid", add, (scale * np.ones(64),))
    results.append(np.asarray(lm_lib.logits(lm, TOKENS_BT[:2], edits=[edit])))
    if scale == 1.0:
      traced = len(TRACES)
  assert len(TRACES) == traced
  assert np.abs(results[0] - results[2]).max() > 1e-2


def test_left_and_right_padding_change_nothing(hf_pair):
  lm = hf_pair("gpt2").load()
  right = np.zeros((3, 12), int)
  left = np.zeros((3, 12), int)
  mask = np.zeros((3, 12), bool)
  for row, length in enumerate((12, 9, 5)):
    right[row, :length] = TOKENS_BT[row, :length]
    left[row, 12 - length :] = TOKENS_BT[row, :length]
    mask[row, :length] = True
  a = np.asarray(lm_lib.logits(lm, right, mask))
  b = np.asarray(lm_lib.logits(lm, left, mask[:, ::-1]))
  assert np.isfinite(a).all() and np.isfinite(b).all()
  assert _error(a[mask], b[mask[:, ::-1]]) < RTOL
  alone = np.asarray(lm_lib.logits(lm, TOKENS_BT[2:, :5]))
  assert _error(a[2, :5], alone[0]) < RTOL


@pytest.mark.parametrize("name", ["gemma2"])
def test_blocks_of_queries_equal_all_at_once(hf_pair, name, monkeypatch):
  lm = hf_pair(name).load()
  tokens = np.random.default_rng(2).integers(0, 208, (2, 21))
  mask = np.ones((2, 21), bool)
  mask[1, 15:] = False
  expected = np.asarray(lm_lib.logits(lm, tokens, mask))
  monkeypatch.setattr(attention, "_QUERIES_AT_ONCE", 8)
  monkeypatch.setattr(attention, "_QUERY_BLOCK", 8)
  blocks = jax.jit(lambda *args: lm_lib.forward(*args).logits_BTV)
  ours = np.asarray(blocks(lm.model, tokens, mask))
  assert _error(ours[mask], expected[mask]) < RTOL


def test_bfloat16_stays_close_to_float32(hf_pair):
  pair = hf_pair("llama")
  hook = "blocks.2.hook_resid_post"
  exact = lm_lib.activations(pair.load(), TOKENS_BT, hook)[hook]
  lm = pair.load(dtype=jnp.bfloat16)
  rounded = lm_lib.activations(lm, TOKENS_BT, hook)[hook]
  assert rounded.dtype == jnp.bfloat16
  assert lm_lib.logits(lm, TOKENS_BT).dtype == jnp.float32
  # Weights, inputs and the stream are rounded to 2^-9 each in 3 layers, and
  # the roundings add up at random: sqrt(3 * 6) * 2^-9 of a typical entry.
  error = np.asarray(rounded, np.float32) - np.asarray(exact)
  typical = np.sqrt(np.mean(np.square(np.asarray(exact))))
  assert np.sqrt(np.mean(np.square(error))) < 2 * 18**0.5 * 2**-9 * typical
  assert np.abs(error).max() > 1e-4


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda lm: lm_lib.activations(lm, TOKENS_BT, "blocks.3.hook_resid_post"),
     "layers are 0 to 2"),
    (lambda lm: lm_lib.activations(lm, TOKENS_BT, "blocks.1.hook_q"),
     "SITE one of resid_pre"),
    (lambda lm: lm_lib.activations(lm, TOKENS_BT, []), "no hooks"),
    (lambda lm: lm_lib.logits(lm, TOKENS_BT + 200), "ids 0 to 207"),
    (lambda lm: lm_lib.logits(lm, TOKENS_BT[0]), "sequences, positions"),
    (lambda lm: lm_lib.logits(lm, TOKENS_BT, np.ones((3, 5))), "mask of shape"),
    (lambda lm: lm_lib.logits(
      lm, TOKENS_BT, edits=[lm_lib.Edit("blocks.1.hook_resid_post", transpose)]
    ), "must keep the shape"),
  ],
)  # fmt: skip
def test_mistakes_are_named(hf_pair, call, message):
  with pytest.raises(errors.InputError, match=message):
    call(hf_pair("llama").load())


def test_what_is_not_loaded_is_named(hf_pair):
  lm = hf_pair("llama").load(layers=1)
  with pytest.raises(errors.InputError, match="layers=2 or more"):
    lm_lib.activations(lm, TOKENS_BT, "blocks.1.hook_resid_post")
  with pytest.raises(errors.InputError, match="only 1 layers are loaded"):
    lm_lib.logits(lm, TOKENS_BT)
  with pytest.raises(errors.InputError, match="without layers="):
    lm.final_norm(jnp.zeros((1, 64)))
  # The stream before the first block that is not there is known.
  lm_lib.activations(lm, TOKENS_BT, "blocks.1.hook_resid_pre")


def test_parallel_residual_has_no_resid_mid(hf_pair):
  with pytest.raises(errors.InputError, match="no resid_mid"):
    lm_lib.activations(
      hf_pair("pythia").load(), TOKENS_BT, "blocks.0.hook_resid_mid"
    )


def test_position_table_bounds_the_length(hf_pair):
  lm = hf_pair("gpt2").load()
  with pytest.raises(errors.InputError, match="table of 64"):
    lm_lib.logits(lm, np.zeros((1, 65), int))


def test_logit_lens_pieces_make_the_logits(hf_pair):
  for name in ("llama", "llama-wide-tied"):
    lm = hf_pair(name).load()
    hook = "blocks.2.hook_resid_post"
    h_BTD = lm_lib.activations(lm, TOKENS_BT, hook)[hook]
    lens_BTV = jnp.einsum("btd,vd->btv", lm.final_norm(h_BTD), lm.unembed_VD)
    assert _error(lens_BTV, lm_lib.logits(lm, TOKENS_BT)) < RTOL
    assert lm.embed_VD.shape == (208, 64)


def test_spellings_of_hooks():
  assert hooks.parse("model.layers.4").canonical == "blocks.4.hook_resid_post"
  assert hooks.parse("transformer.h.4") == hooks.Hook(4, "resid_post")
  assert hooks.parse("gpt_neox.layers.4") == hooks.Hook(4, "resid_post")
  assert hooks.parse("blocks.0.hook_mlp_out") == hooks.Hook(0, "mlp_out")
  for wrong in ("blocks.x.hook_resid_post", "blocks.1", "resid_post", ""):
    with pytest.raises(errors.InputError, match="unknown"):
      hooks.parse(wrong)


def test_a_mesh_sums_streams_and_gathers_no_weights():
  mesh = mesh_lib.make(mesh_lib.MeshConfig(data=4, latent=2))
  raw = dict(
    model_type="llama",
    vocab_size=208,
    hidden_size=64,
    intermediate_size=112,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
  )
  decoder = weights.abstract_decoder(
    config.from_hf(raw, place=""), mesh, jnp.dtype("float32"), layers=2
  )
  batch = jax.NamedSharding(mesh, jax.P(("sae", "data")))
  lowered = run._activations.lower(
    decoder,
    jax.ShapeDtypeStruct((8, 12), jnp.int32, sharding=batch),
    jax.ShapeDtypeStruct((8, 12), bool, sharding=batch),
    (),
    taps=("blocks.1.hook_resid_post",),
    mesh=mesh,
  )
  text = lowered.compile().as_text()
  collectives = re.findall(
    r"= (\S+?)\{\S* (all-gather|all-reduce|all-to-all|collective-permute"
    r"|reduce-scatter)\(",
    text,
  )
  # Embedding rows, attention outputs and MLP outputs of two sequences each.
  assert collectives == [("f32[2,12,64]", "all-reduce")] * 3
