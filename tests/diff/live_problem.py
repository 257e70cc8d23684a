# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A diff of tiny live models, opened without its job; and a torch twin."""

import functools

import diff_models
import jax
import numpy as np
import pytest
import torch
import transformers

from sae_jax import formats, judge, store
from sae_jax import mesh as mesh_lib
from sae_jax.diff import capture, config
from sae_jax.diff import evidence as evidence_lib
from sae_jax.diff import problem as problem_lib
from sae_jax.judge import prompts as prompts_lib

HOOK = "blocks.0.hook_resid_post"  # of two
ARMS = (
  config.Arm(name="bad", model="bad"),
  config.Arm(name="good", model="good", role="control"),
)


@pytest.fixture(autouse=True, scope="module")
def quick(quick_compilation):
  """Compiles quickly, and lets torch's threads not wait in vain."""
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def place(tmp_path_factory):
  """The directory that `write` fills, once for all modules."""
  return _written(tmp_path_factory.getbasetemp() / "live_problem")


@functools.cache
def _written(place):
  place.mkdir()
  return write(place)


def write(place):
  """base; bad: a planted direction and a drift; good: the drift alone."""
  planted_D = 4 * diff_models.directions()[diff_models.PLANTED]
  diff_models.write_model(place / "base")
  diff_models.write_model(place / "bad", push_D=planted_D, noise=0.01)
  diff_models.write_model(place / "good", noise=0.01)
  diff_models.write_prompts(place / "prompts.jsonl", count=11)
  diff_models.write_sae(place / "sae")
  text = np.random.default_rng(3).integers(1, diff_models.WORDS - 2, (23, 9))
  (place / "text").mkdir()
  for i, words in enumerate(text):
    (place / "text" / f"{i:02}.txt").write_text(
      " ".join(f"w{w}" for w in words)
    )
  return place


def settings(place, **changes):
  arms = changes.pop("arms", ARMS)
  return config.DiffConfig(
    **{
      "base": str(place / "base"),
      "arms": tuple(
        config.Arm(name=a.name, model=str(place / a.model), role=a.role)
        for a in arms
      ),
      "sae": str(place / "sae"),
      "prompts": judge.PromptsConfig(path=str(place / "prompts.jsonl")),
      "statistics": config.StatisticsConfig(resamples=40, shuffles=2),
      "batch_size": 8,
      **changes,
    }
  )


def open_problem(place, work, shape=(1, 1, 1), null=False, **changes):
  """A problem on a mesh of that shape; tests of one scope share its stores."""
  told = settings(place, **changes)
  sizes = dict(zip(mesh_lib.AXES, shape, strict=True))
  mesh = mesh_lib.make(
    mesh_lib.MeshConfig(**sizes), jax.devices()[: int(np.prod(shape))]
  )
  models = problem_lib.Models(told, mesh)
  prompts = prompts_lib.load(told.prompts, models.load("base").tokenizer)
  sequences = prompts.sequences(told.scope)
  names = ["base", *(arm.name for arm in told.arms), *(["null"] * null)]
  stores = place / "stores" / told.scope
  for name in names:
    capture.capture(
      models.load(name),
      sequences,
      HOOK,
      stores / name,
      batch_size=told.batch_size - 3 * (name == "null"),
      left=name == "null",
    )
  evidence = evidence_lib.from_prompts(
    {name: store.open_store(stores / name) for name in names},
    HOOK,
    prompts,
    sequences,
    scope=told.scope,
    skip=told.skip_positions,
    groups=told.groups,
    batch_rows=told.batch_rows,
    mesh=mesh,
  )
  scratch = work / f"work{''.join(map(str, shape))}"
  scratch.mkdir(exist_ok=True)
  return problem_lib.Problem(
    config=told,
    evidence=evidence,
    dictionary=formats.load_sae(told.sae),
    mesh=mesh,
    work=scratch,
    prompts=prompts,
    models=models,
  )


class Torch:
  """One of the models in Hugging Face's own code, in float64."""

  def __init__(self, model, layers=None):
    if not isinstance(model, torch.nn.Module):
      model = transformers.AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float64, attn_implementation="eager"
      )
    self.model = model.eval().requires_grad_(False)
    layers = model.model.layers if layers is None else layers
    self.layer = layers[int(HOOK.split(".")[1])]

  def run(self, tokens, response_start):
    """Mean log-probability of the response; gradient and activations [T, D]."""
    kept = []

    def keep(module, arguments, output):
      output = output[0] if isinstance(output, tuple) else output
      output.requires_grad_(True)
      output.retain_grad()
      kept.append(output)

    handle = self.layer.register_forward_hook(keep)
    with torch.enable_grad():
      logits = self.model(torch.tensor([tokens])).logits[0]
      logp = torch.log_softmax(logits, -1)
      at = torch.arange(response_start, len(tokens))
      mean = logp[at - 1, torch.tensor(tokens)[at]].mean()
      mean.backward()
    handle.remove()
    return mean.item(), kept[0].grad[0].numpy(), kept[0][0].detach().numpy()

  def log_softmax(self, tokens):
    with torch.no_grad():
      logits = self.model(torch.tensor([tokens])).logits[0]
    return torch.log_softmax(logits, -1).numpy()
