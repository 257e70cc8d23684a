# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The training steps that are compared: ours, peers', the encoder alone.

Each is a function of a `Problem` that makes a model and returns a step to call
again and again; it returns when the step's results are there. Peers are
imported when they are made.
"""

import dataclasses
import functools
import os
from collections.abc import Callable

# Without a GPU, sparsify's Triton kernels must be switched off before import.
os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import mesh, sae
from sae_jax.ops.topk_encode import reference
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import stack
from sae_jax.train import stacked as stacked_lib
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib

_STEPS = 10_000  # nominal length of the run; only schedules see it


@dataclasses.dataclass(frozen=True)
class Problem:
  """What every contender is given."""

  batch: int
  d_model: int
  latents: int
  k: int
  dead: float  # fraction of latents that count as dead in every step

  def rows(self) -> np.ndarray:
    rng = np.random.default_rng(0)
    x_BD = rng.normal(size=(self.batch, self.d_model)) + 0.5
    return x_BD.astype(np.float32)

  def dead_latents(self) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.random(self.latents) < self.dead


def _config(problem: Problem, matmul_dtype: str) -> sae.SaeConfig:
  return sae.SaeConfig(
    latents=problem.latents, k=problem.k, matmul_dtype=matmul_dtype
  )


def _state(problem, config, seed, on) -> state_lib.TrainState:
  x_BD = problem.rows()
  return state_lib.init_state(
    config,
    optimizer_lib.make_optimizer(
      optimizer_lib.OptimizerConfig(), latents=config.latents, steps=_STEPS
    ),
    sample_ND=x_BD[:256],
    mean_square_norm=float((x_BD**2).sum(1).mean()),
    total_variance=float(x_BD.var(0).sum()),
    seed=seed,
    mesh=on,
  )


def _again(problem, train_step, state, on) -> Callable[[], None]:
  """The step on the state that it left; the same latents are always dead."""
  rows = jax.device_put(
    jnp.asarray(problem.rows(), jnp.bfloat16),
    jax.NamedSharding(on, jax.P("data", None)),
  )
  tokens = state.tokens_since_fired_F  # [F], or [S, F] of a stack
  # Whatever the wait is, these are over it.
  counters = np.where(problem.dead_latents(), 2**30, 0).astype(np.int32)
  counters = np.broadcast_to(counters, tokens.shape)
  sharding = tokens.sharding
  held = {"state": state}

  def step():
    held["state"] = dataclasses.replace(
      held["state"], tokens_since_fired_F=jax.device_put(counters, sharding)
    )
    held["state"], scalars = train_step(held["state"], rows)
    jax.block_until_ready((held["state"], scalars))

  return step


def ours(problem: Problem, matmul_dtype: str) -> Callable[[], None]:
  """`sae_jax`: one device, counters and metrics included."""
  return separate(problem, 1, matmul_dtype)


def separate(
  problem: Problem, count: int, matmul_dtype: str = "bfloat16"
) -> Callable[[], None]:
  """The steps of so many dictionaries, one after another; same batch."""
  config, on = _config(problem, matmul_dtype), mesh.single()
  train_step = step_lib.make_train_step(
    config,
    optimizer_lib.OptimizerConfig(),
    on,
    d_model=problem.d_model,
    steps=_STEPS,
  )
  steps = [
    _again(problem, train_step, _state(problem, config, seed, on), on)
    for seed in range(count)
  ]

  def all_steps():
    for step in steps:
      step()

  return all_steps


def stacked(
  problem: Problem, count: int, devices: int = 1
) -> Callable[[], None]:
  """One step of so many dictionaries, on one batch, split over devices."""
  config = _config(problem, "bfloat16")
  on = mesh.make(
    mesh.MeshConfig(sae=devices, latent=1), jax.devices()[:devices]
  )
  train_step = stacked_lib.make_stacked_step(
    [config] * count,
    [optimizer_lib.OptimizerConfig()] * count,
    on,
    d_model=problem.d_model,
    steps=_STEPS,
  )
  state_S = stack.stack_states(
    (_state(problem, config, seed, on) for seed in range(count)), count
  )
  return _again(problem, train_step, state_S, on)


def encoder_gemm(problem: Problem, dtype: str) -> Callable[[], None]:
  """The encoder's matrix product alone, written to memory: the floor."""
  x_BD = jnp.asarray(problem.rows(), dtype)
  w_FD = jnp.ones((problem.latents, problem.d_model), dtype)
  b_F = jnp.zeros((problem.latents,), jnp.float32)
  product = jax.jit(reference.pre_activations)
  return lambda: product(x_BD, w_FD, b_F).block_until_ready()


def sparsify(problem: Problem) -> Callable[[], None]:
  """eai-sparsify's coder in the loop of its `trainer.py`, with Adam."""
  import sparsify as library
  import torch

  coder = library.SparseCoder(
    problem.d_model,
    library.SparseCoderConfig(num_latents=problem.latents, k=problem.k),
  )
  optimizer = torch.optim.Adam(coder.parameters(), lr=2e-4)
  x_BD = torch.from_numpy(problem.rows())
  dead_F = torch.from_numpy(problem.dead_latents())
  tokens_since_fired_F = torch.zeros(problem.latents, dtype=torch.long)

  def step():
    coder.set_decoder_norm_to_unit_norm()
    out = coder(x_BD, dead_mask=dead_F)
    (out.fvu + out.auxk_loss / 32).backward()
    coder.remove_gradient_parallel_to_decoder_directions()
    optimizer.step()
    optimizer.zero_grad()
    fired_F = torch.zeros(problem.latents, dtype=torch.bool)
    fired_F[out.latent_indices.flatten()] = True
    tokens_since_fired_F.add_(problem.batch)
    tokens_since_fired_F[fired_F] = 0
    out.fvu.item()

  return step


def dictionary_learning(problem: Problem) -> Callable[[], None]:
  """dictionary_learning's `TopKTrainer.update`."""
  import torch
  from dictionary_learning.trainers import top_k

  trainer = top_k.TopKTrainer(
    steps=_STEPS,
    activation_dim=problem.d_model,
    dict_size=problem.latents,
    k=problem.k,
    layer=0,
    lm_name="none",
    device="cpu",
    seed=0,
  )
  x_BD = torch.from_numpy(problem.rows())
  dead_F = torch.from_numpy(problem.dead_latents())
  count = iter(range(1, _STEPS))
  # Step 0 sets the decoder's bias from the batch; it is not timed.
  trainer.update(0, x_BD)

  def step():
    trainer.num_tokens_since_fired = torch.where(
      dead_F, trainer.dead_feature_threshold, 0
    )
    trainer.update(next(count), x_BD)

  return step


def sae_lens(problem: Problem) -> Callable[[], None]:
  """SAELens's `TopKTrainingSAE` in the step of its `SAETrainer`."""
  import sae_lens as library
  import torch
  from sae_lens.saes import sae as base

  config = library.TopKTrainingSAEConfig(
    d_in=problem.d_model, d_sae=problem.latents, k=problem.k
  )
  model = library.TopKTrainingSAE.from_dict(config.to_dict())
  optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
  x_BD = torch.from_numpy(problem.rows())
  dead_F = torch.from_numpy(problem.dead_latents())
  passes_since_fired_F = torch.zeros(problem.latents)
  firing_F = torch.zeros(problem.latents)

  def step():
    model.train()
    out = model.training_forward_pass(
      base.TrainStepInput(
        sae_in=x_BD,
        coefficients={},
        dead_neuron_mask=dead_F,
        n_training_steps=1,
        is_logging_step=False,
      )
    )
    with torch.no_grad():
      fired_BF = out.feature_acts.bool().float()
      passes_since_fired_F.add_(1)
      passes_since_fired_F[fired_BF.sum(-2).bool()] = 0
      firing_F.add_(fired_BF.sum(0))
    out.loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()

  return step


OURS = "sae_jax, bfloat16 products"
PRODUCT = "encoder product alone, bfloat16"
CONTENDERS = {
  OURS: functools.partial(ours, matmul_dtype="bfloat16"),
  "sae_jax, float32 products": functools.partial(ours, matmul_dtype="float32"),
  PRODUCT: functools.partial(encoder_gemm, dtype="bfloat16"),
  "encoder product alone, float32": functools.partial(
    encoder_gemm, dtype="float32"
  ),
  "eai-sparsify": sparsify,
  "dictionary-learning": dictionary_learning,
  "sae-lens": sae_lens,
}
PEERS = ("eai-sparsify", "dictionary-learning", "sae-lens")
