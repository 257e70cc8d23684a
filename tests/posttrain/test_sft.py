# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning against torch autograd, on meshes, and interrupted."""

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sft_model
import torch
import transformers

from sae_jax import errors, lm, metrics, posttrain
from sae_jax import mesh as mesh_lib
from sae_jax.lm import adapter, low_rank, weights
from sae_jax.lm import config as config_lib
from sae_jax.posttrain import data, sft
from sae_jax.posttrain import step as step_lib

pytestmark = [
  pytest.mark.usefixtures("quick_compilation"),
  pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is depr"),
]

# A logit of this model is the sum of 2 * 3 residuals over at most 48 products
# each: off by sqrt(6 * 48) * eps of its size at random. A gradient comes from
# as long a way back, and norms and the softmax amplify by a few.
RTOL = 2 * 4 * (6 * 48) ** 0.5 * 1.2e-7
# A large eps, so that Adam does not blow rounding errors of small gradients up
# to the size of a step; clipping and decay are active. One recipe for all, so
# that they share what is compiled.
CONFIG = posttrain.SftConfig(
  steps=4,
  batch_size=4,
  learning_rate=1e-2,
  warmup_steps=1,
  eps=1e-3,
  grad_clip=0.5,
  weight_decay=0.1,
  seed=3,
)
STEP = dataclasses.replace(CONFIG, steps=1, warmup_steps=0)
LORA = posttrain.LoraConfig(
  rank=4, alpha=8, targets=("q", "o", "down"), layers=(1, 2)
)


def load(path, **kwargs):
  return lm.load_lm(path, **{"dtype": jnp.float32, **kwargs})


def arrays(model):
  named = weights.named(model.model)
  return {name: np.asarray(value) for name, value in named.items()}


def losses(model, examples, config):
  found = []
  tuned = posttrain.finetune(
    model,
    examples,
    config,
    on_step=lambda _, scalars: found.append(float(scalars["train/loss"])),
  )
  return found, tuned


def torch_loss(model, examples):
  """Mean over all learned tokens of a batch, one example at a time."""
  total, count = 0.0, 0
  for example in examples:
    tokens = torch.tensor([example.tokens])
    logp = torch.log_softmax(model(tokens).logits[0, :-1], -1)
    chosen = logp.gather(-1, tokens[0, 1:, None])[:, 0]
    learned = torch.tensor(example.loss_mask[1:])
    total, count = total - chosen[learned].sum(), count + learned.sum()
  return total / count


def torch_step(model, examples, config, rate):
  """One step of AdamW; returns how far eps-sized errors can move a weight."""
  decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
  plain = [p for p in model.parameters() if p.requires_grad and p.ndim == 1]
  adam = torch.optim.AdamW(
    [{"params": decayed}, {"params": plain, "weight_decay": 0.0}],
    lr=rate,
    betas=(config.b1, config.b2),
    eps=config.eps,
    weight_decay=config.weight_decay,
  )
  loss = torch_loss(model, examples)
  loss.backward()
  norm = torch.nn.utils.clip_grad_norm_(decayed + plain, config.grad_clip)
  largest = max(p.grad.abs().max().item() for p in decayed + plain)
  adam.step()
  # d/dg of g / (|g| + eps) is at most 1 / eps; a weight's own rounding is 1.
  return loss.item(), norm.item(), rate * RTOL * largest / config.eps + 2e-7


def test_a_full_step_is_torchs(llama_path, tmp_path):
  examples = sft_model.examples(4)
  scalars = {}
  tuned = posttrain.finetune(
    load(llama_path),
    examples,
    STEP,
    on_step=lambda _, found: scalars.update(jax.device_get(found)),
  )
  theirs = transformers.AutoModelForCausalLM.from_pretrained(llama_path)
  loss, norm, bound = torch_step(theirs, examples, STEP, STEP.learning_rate)
  assert scalars["train/loss"] == pytest.approx(loss, rel=RTOL)
  assert scalars["train/grad_norm"] == pytest.approx(norm, rel=RTOL)
  theirs.save_pretrained(tmp_path)
  before, ours = arrays(load(llama_path)), arrays(tuned)
  for name, expected in arrays(load(tmp_path)).items():
    np.testing.assert_allclose(ours[name], expected, rtol=0, atol=bound)
    assert np.abs(expected - before[name]).max() > 100 * bound, name


def test_an_adapters_step_is_pefts(llama_path, tmp_path):
  import peft  # takes seconds

  examples = sft_model.examples(4)
  model = load(llama_path)
  config = dataclasses.replace(STEP, lora=LORA)
  tuned = sft.train(model, examples, config)
  recipe = step_lib.recipe(model, config)
  _, start = step_lib.assemble(
    recipe,
    model.model,
    step_lib.new_state(recipe, model.model, config.seed).params,
  )
  adapter.save(
    start, model.config, tmp_path, base=str(llama_path), alpha=LORA.alpha
  )
  theirs = peft.PeftModel.from_pretrained(
    transformers.AutoModelForCausalLM.from_pretrained(llama_path),
    tmp_path,
    is_trainable=True,
  )
  _, _, bound = torch_step(theirs, examples, config, config.learning_rate)
  theirs.save_pretrained(tmp_path / "theirs")
  ours = arrays(tuned.model)
  expected = arrays(load(tmp_path / "theirs"))
  # A product B A of a moved B (A moves by its decay alone: B is zero) sums
  # `rank` products, A is below 1 / sqrt(32).
  bound = LORA.scale * LORA.rank * bound / 32**0.5 + 2e-7
  moved = [
    name
    for name, value in arrays(model).items()
    if np.abs(ours[name] - value).max() > 100 * bound
  ]
  assert len(moved) == 3  # nothing but the targets
  for name, value in expected.items():
    np.testing.assert_allclose(ours[name], value, rtol=0, atol=bound)
  # Layer 0 is not adapted.
  np.testing.assert_array_equal(
    ours["blocks.mlp.w_down_DF"][0], arrays(model)["blocks.mlp.w_down_DF"][0]
  )


@pytest.mark.parametrize(
  "lora", [None, pytest.param(LORA, marks=pytest.mark.slow)]
)
def test_a_mesh_learns_what_one_device_learns(llama_path, lora):
  config = dataclasses.replace(CONFIG, lora=lora)
  examples = sft_model.examples(10)
  one, alone = losses(load(llama_path), examples, config)
  mesh = mesh_lib.make(mesh_lib.MeshConfig(data=2, latent=4))
  model = load(llama_path, mesh=mesh)
  many, together = losses(model, examples, config)
  # Every step adds rate / eps * RTOL of a gradient of norm <= 1 to what the
  # next loss is off by, at most.
  steps = np.arange(1, 1 + config.steps)
  bound = RTOL * steps * (1 + config.learning_rate / config.eps)
  assert np.all(np.abs(np.subtract(one, many)) <= bound * np.abs(one))
  assert one[0] - one[-1] > 100 * bound[-1]
  shardings = [x.sharding for x in jax.tree.leaves(together.model)]
  assert shardings == [x.sharding for x in jax.tree.leaves(model.model)]
  for name, value in arrays(alone).items():
    np.testing.assert_allclose(
      arrays(together)[name], value, rtol=0, atol=10 * bound[-1]
    )


def test_only_marked_tokens_are_learned(llama_path):
  """What an unmarked last token is changes nothing."""
  first = data.Example([3, 4, 5, 6, 7], [False, False, True, True, False])
  other = dataclasses.replace(first, tokens=[3, 4, 5, 6, 30])
  marked = dataclasses.replace(
    first, loss_mask=[False, False, True, True, True]
  )
  model = load(llama_path)
  found = [
    losses(model, [e] * 4, dataclasses.replace(CONFIG, steps=2))[0]
    for e in (first, other, marked)
  ]
  assert found[0] == found[1] != found[2]


@pytest.mark.slow
def test_recomputing_blocks_changes_no_loss(llama_path):
  examples = sft_model.examples(8)
  model = load(llama_path)
  kept, _ = losses(model, examples, CONFIG)
  again, _ = losses(model, examples, dataclasses.replace(CONFIG, remat=True))
  np.testing.assert_allclose(kept, again, rtol=RTOL)


@pytest.mark.slow
def test_long_completions_are_scored_in_parts(llama_path):
  """More than 128 learned tokens: the logits of a part at a time."""
  rng = np.random.default_rng(0)
  example = data.Example(rng.integers(3, 48, 150).tolist(), [True] * 150)
  config = dataclasses.replace(CONFIG, steps=1, batch_size=1)
  found, _ = losses(load(llama_path), [example], config)
  theirs = transformers.AutoModelForCausalLM.from_pretrained(llama_path)
  with torch.no_grad():
    assert found[0] == pytest.approx(
      torch_loss(theirs, [example]).item(), rel=RTOL
    )


def test_the_model_given_stays_and_the_new_one_has_another_name(llama_path):
  model = load(llama_path)
  before = arrays(model)
  _, tuned = losses(model, sft_model.examples(8), CONFIG)
  for name, value in arrays(model).items():
    np.testing.assert_array_equal(value, before[name])
  assert tuned.weights_hash != model.weights_hash
  _, other = losses(model, sft_model.examples(8, seed=1), CONFIG)
  assert other.weights_hash != tuned.weights_hash


@pytest.mark.slow
def test_bfloat16_products_have_float32_masters(llama_path):
  small = load(llama_path, dtype=jnp.bfloat16)
  assert small.dtype == jnp.bfloat16
  # Steps of 1e-4 are below the rounding of a bfloat16 weight of 0.1, 4e-4.
  config = dataclasses.replace(CONFIG, steps=40, learning_rate=1e-4)
  found, tuned = losses(small, sft_model.examples(4), config)
  assert tuned.dtype == jnp.bfloat16
  assert found[-1] < 0.98 * found[0]


def test_an_interrupted_run_goes_on_to_the_same_bits(llama_path, tmp_path):
  model, examples = load(llama_path), sft_model.examples(10)
  config = dataclasses.replace(CONFIG, steps=6, checkpoint_every=3, lora=LORA)
  whole = posttrain.finetune(
    model, examples, config, directory=tmp_path / "whole"
  )

  def stop(step, scalars):
    if step == 3:
      os.kill(os.getpid(), signal.SIGTERM)

  with pytest.raises(errors.Interrupted, match="SIGTERM at step 4 of 6; a che"):
    posttrain.finetune(
      model, examples, config, directory=tmp_path / "cut", on_step=stop
    )
  seen = []
  rest = posttrain.finetune(
    model,
    examples,
    config,
    directory=tmp_path / "cut",
    on_step=lambda step, _: seen.append(step),
  )
  assert seen == [4, 5]
  for name, value in arrays(whole).items():
    np.testing.assert_array_equal(arrays(rest)[name], value)
  lines = [
    [
      {k: v for k, v in line.items() if not k.startswith("perf/")}
      for line in metrics.read(tmp_path / name / "metrics.jsonl")
    ]
    for name in ("whole", "cut")
  ]
  assert lines[0] == lines[1] and len(lines[0]) == 6
  with pytest.raises(errors.InputError, match="checkpoints of another run"):
    posttrain.finetune(model, examples[1:], config, directory=tmp_path / "cut")


def test_looks_come_before_their_step_and_at_the_end(llama_path):
  """The model of a look is the one after so many steps, whoever looks."""
  model = load(llama_path)
  seen = {"two": {}, "three": {}}

  def watch(name):
    def at(step, tuned):
      seen[name][step] = arrays(tuned.model)["final_norm.scale"]
      return {f"eval/{name}": float(step)}

    return at

  looks = [sft.Look(2, watch("two")), sft.Look(3, watch("three"))]
  tuned = sft.train(model, sft_model.examples(4), CONFIG, looks=looks)
  assert list(seen["two"]) == [0, 2, 4] and list(seen["three"]) == [0, 3, 4]
  assert tuned.metrics["eval/two"] == tuned.metrics["eval/three"] == 4
  norms = seen["two"] | seen["three"]
  for step, whole in ((0, model), (4, tuned.model)):
    expected = arrays(whole)["final_norm.scale"]
    np.testing.assert_array_equal(norms[step], expected)
  assert len({norm.tobytes() for norm in norms.values()}) == len(norms)


def test_a_loss_that_is_not_finite_stops_the_run(llama_path, tmp_path):
  model = load(llama_path)
  scale = weights.named(model.model)["final_norm.scale"]
  broken = weights.replaced(model.model, {"final_norm.scale": scale * jnp.nan})
  model = dataclasses.replace(model, model=broken)
  seen = []

  def look(step, tuned):
    seen.append(step)
    return {}

  with pytest.raises(metrics.NonFiniteError, match="train/loss is nan at step"):
    sft.train(
      model,
      sft_model.examples(4),
      CONFIG,
      directory=tmp_path,
      looks=[sft.Look(1, look)],
    )
  assert seen == [0]  # before any loss
  assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


@pytest.mark.slow
def test_what_lies_below_an_adapter_costs_no_memory():
  """Gradients neither keep nor run through blocks below the first adapted."""

  def temporary(layers, first):
    recipe, model, batch = problem(layers, first)
    state = step_lib.abstract_state(recipe)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    compiled = (
      step_lib.make_train_step(recipe)
      .lower(state, model, batch, rate)
      .compile()
    )
    return compiled.memory_analysis().temp_size_in_bytes

  few, many = temporary(4, 2), temporary(12, 10)
  all_ = temporary(12, 2)
  # Two adapted blocks either way; ten times as many are ten times as much.
  assert many < 1.05 * few
  assert all_ > 3 * many


def problem(layers, first):
  """Abstract arguments of a step on 8 sequences of 64 tokens."""
  config = config_lib.from_hf(
    dict(
      model_type="llama",
      vocab_size=64,
      hidden_size=64,
      intermediate_size=128,
      num_hidden_layers=layers,
      num_attention_heads=4,
      num_key_value_heads=4,
    ),
    place="",
  )
  mesh = mesh_lib.single()
  recipe = step_lib.Recipe(
    model=config,
    dtype=jnp.dtype("float32"),
    mesh=mesh,
    weight_decay=0.0,
    grad_clip=1.0,
    b1=0.9,
    b2=0.99,
    eps=1e-8,
    remat=False,
    lora=posttrain.LoraConfig(rank=2, layers=(first, layers - 1)),
  )
  example = data.Example([1] * 64, [True] * 64)
  batch = data.batch([example] * 8, mesh)
  decoder = weights.abstract_decoder(config, mesh, jnp.float32)
  return recipe, decoder, batch


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(targets=("q", "query")), "no target 'query'.*q, k, v, o, gate"),
    (dict(targets=()), "give one or more of q, k"),
    (dict(rank=0), "lora.rank=0"),
    (dict(layers=(2, 1)), "lora.layers=.2, 1.: give the first and the last"),
  ],
)
def test_adapters_that_cannot_be(change, message):
  with pytest.raises(errors.InputError, match=message):
    posttrain.LoraConfig(**change)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(lora=posttrain.LoraConfig(layers=(1, 3))), "layers are 0 to 2"),
    (dict(examples=[]), "no examples"),
    (
      dict(example=([1, 2], [True])),
      "example 0: 2 tokens and a loss mask of 1",
    ),
    (dict(example=([1, 2], [True, False])), "no token after the first"),
    (dict(example=([1, 99], [False, True])), "from 1 to 99.* has ids 0 to 47"),
    (dict(layers=2), "only 2 layers are loaded"),
  ],
)
def test_refusals(llama_path, changes, message):
  model = load(llama_path, layers=changes.get("layers"))
  examples = sft_model.examples(2)
  if "example" in changes:
    examples = [data.Example(*changes["example"])]
  config = dataclasses.replace(CONFIG, lora=changes.get("lora"))
  with pytest.raises(errors.InputError, match=message):
    posttrain.finetune(model, changes.get("examples", examples), config)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(steps=0), "steps=0"),
    (dict(epochs=0.0), "epochs=0.0: give a number > 0"),
    (dict(b1=1.0), "b1=1.0"),
    (dict(learning_rate=float("nan")), "learning_rate=nan"),
  ],
)
def test_recipes_that_cannot_be(change, message):
  with pytest.raises(errors.InputError, match=message):
    dataclasses.replace(CONFIG, **change)


def test_targets_that_a_model_has_not():
  assert low_rank.TARGETS.keys() >= {"gate"}
  recipe, _, _ = problem(2, 0)
  gpt2 = dataclasses.replace(recipe.model, gated_mlp=False)
  with pytest.raises(errors.InputError, match="has none of them"):
    step_lib.abstract_state(
      dataclasses.replace(
        recipe, model=gpt2, lora=posttrain.LoraConfig(targets=("gate",))
      )
    )
