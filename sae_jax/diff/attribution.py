# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which latents of one model carry a behaviour, by gradient times activation.

Needs no second model: prompts with a response that shows the behaviour and one
that does not. Every forward and backward pass is followed by the products with
all decoder rows, split over `latent`; [B, T, F] never exists.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import lm
from sae_jax.diff import config as config_lib
from sae_jax.diff import decoder, margin, pairs, statistics, sums, table
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import on_mesh
from sae_jax.judge import likelihood

METHOD = "attribution"

# Products of tokens and latents that one device holds at once: 64 MiB, twice.
_PRODUCTS = 1 << 24


def names(config: config_lib.DiffConfig) -> list[tuple[str, str]]:
  """The parts that `run` yields."""
  return [(METHOD, arm.name) for arm in config.tuned()]


def run(
  problem: problem_lib.Problem, skip: frozenset[tuple[str, str]] = frozenset()
) -> Iterator[table.Part]:
  """Attribution in every tuned model.

  Raises:
    errors.InputError: no live models, or no prompts with both responses.
  """
  for name in names(problem.config):
    if name not in skip:
      yield part(problem, name[1])


def part(problem: problem_lib.Problem, name: str) -> table.Part:
  """Attribution in one model, "base" or an arm; see `attributions`.

  Raises:
    errors.InputError: see `run`.
  """
  groups = pairs.group_pairs(problem)
  weight_G = np.array([len(members) for members in groups], np.float64)
  found = attributions(problem, name)
  measured = statistics.measure(
    [lambda start, stop: found.delta_GF[:, start:stop] * weight_G[:, None]],
    weight_G,
    problem.dictionary.latents,
    problem.config.statistics,
  )
  gradient_D = _mean(found.gradient_GD, weight_G)
  dictionary = decoder.place(problem)
  columns = measured.columns | {
    "gradient": decoder.project(dictionary, gradient_D[None], problem.mesh)[0]
  }
  summary = measured.summary | {
    "model": name,
    "pairs": int(weight_G.sum()),
    "behaviour": pairs.given(problem).behaviour,
    "contrast": pairs.given(problem).contrast,
    "margin": _margins(problem, name, found.margin_G, groups),
    "gradient_length": float(np.linalg.norm(gradient_D)),
  }
  return table.Part(
    method=METHOD,
    arm=name,
    columns=columns,
    summary=summary,
    directions={"gradient": gradient_D.astype(np.float32)},
  )


@dataclasses.dataclass(frozen=True)
class Attributions:
  """Means over the pairs of each group; read from disk as they are used.

  Attributes:
    delta_GF: nats per token of the response; see `attributions`.
    gradient_GD: see `margin.group_gradients`.
    margin_G: see `margin.margins`.
  """

  delta_GF: np.ndarray
  gradient_GD: np.ndarray
  margin_G: np.ndarray


def attributions(problem: problem_lib.Problem, name: str) -> Attributions:
  """Difference of attributions between behaviour and contrast.

  δ_l = Σ_t −(g_t·d_l) ((a_t − ā)·d_l) over the tokens in scope, with g_t the
  gradient of the response's mean-token cross-entropy by the activation a_t, ā
  the mean activation of the model and d_l the decoder row: to first order what
  removing the deviation of latent l from its mean would cost the response.
  Here: δ of the behaviour minus δ of the contrast, so what pushes towards the
  behaviour is positive. (OpenAI 2025, "Debugging misaligned completions with
  sparse-autoencoder latent attribution"; there averaged over tokens.)

  Args:
    problem: with prompts that have both responses, and live models.
    name: "base" or an arm.

  Raises:
    errors.InputError: no such model or pairs, or a result is not finite.
  """
  problem.model(name)  # a missing one is named before anything long runs
  evidence, mesh = problem.evidence, problem.mesh
  rows = evidence.group_rows_G.sum()
  mean_D = sums.activation_sums(problem, name).sum(0) / rows
  mean_D = jax.device_put(
    jnp.asarray(mean_D, jnp.float32), jax.NamedSharding(mesh, jax.P())
  )
  dictionary = decoder.place(problem)

  def compute(model: lm.LanguageModel, batch: pairs.PairBatch) -> jax.Array:
    return _pair_attributions(
      model.model,
      dictionary.params.w_dec_FD,
      mean_D,
      *pairs.placed(batch, mesh),
      hook=evidence.hook,
      mesh=mesh,
    )

  f, d = problem.dictionary.latents, evidence.d_model
  means_GC = pairs.group_means(
    problem, name, f"attributions.{name}", f + d + 1, compute
  )
  return Attributions(
    means_GC[:, :f], means_GC[:, f : f + d], np.array(means_GC[:, f + d])
  )


@functools.partial(jax.jit, static_argnames=("hook", "mesh"))
def _pair_attributions(
  model,
  w_dec_FD,
  mean_D,
  tokens_BT,
  mask_BT,
  scored_BR,
  scope_BS,
  *,
  hook,
  mesh,
):
  """Attributions, gradient and margin of each pair, [pairs, F + D + 1]."""
  logp_B, grad_BTD, x_BTD = margin.backward(
    model, tokens_BT, mask_BT, scored_BR, hook=hook, mesh=mesh
  )
  grad_BSD = likelihood.picked(grad_BTD, scope_BS)
  deviation_BSD = likelihood.picked(
    x_BTD.astype(jnp.float32) - mean_D[None, None, :], scope_BS
  )
  # The gradient is that of −loss, so the formula's minus is in it.
  delta_BF = products(w_dec_FD, grad_BSD, deviation_BSD, mesh=mesh)
  found = (delta_BF, jnp.sum(grad_BSD, axis=1), logp_B[:, None])
  found_BC = jnp.concatenate(
    [on_mesh.everywhere(x, mesh) for x in found], axis=1
  )
  return on_mesh.everywhere(found_BC[0::2] - found_BC[1::2], mesh)


def products(
  w_FD: jax.Array, g_BTD: jax.Array, x_BTD: jax.Array, *, mesh
) -> jax.Array:
  """Σ_t (g_t·w_l) (x_t·w_l), f32 [B, F], a block of latents at a time.

  Args:
    w_FD: rows split over `latent`.
    g_BTD: f32; sequences split over `sae` and `data`, which must divide B.
    x_BTD: likewise.
    mesh: of all of them.
  """

  def local(w_FD, g_BTD, x_BTD):
    latents = w_FD.shape[0]
    b, t = g_BTD.shape[:2]
    size = min(latents, max(1, _PRODUCTS // (b * t)))

    def step(i, out_BF):
      # The last block overlaps the one before: weights are not padded.
      start = jnp.minimum(i * size, latents - size)
      w_fD = jax.lax.dynamic_slice_in_dim(w_FD, start, size)
      part_Bf = jnp.sum(_dot(g_BTD, w_fD) * _dot(x_BTD, w_fD), axis=1)
      return jax.lax.dynamic_update_slice_in_dim(out_BF, part_Bf, start, 1)

    zeros_BF = jnp.zeros((b, latents), jnp.float32)
    return jax.lax.fori_loop(0, -(-latents // size), step, zeros_BF)

  rows = jax.P(on_mesh.ROWS, None, None)
  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(jax.P("latent", None), rows, rows),
    out_specs=jax.P(on_mesh.ROWS, "latent"),
    check_vma=False,
  )(w_FD, g_BTD, x_BTD)


def _dot(x_BTD: jax.Array, w_fD: jax.Array) -> jax.Array:
  return jnp.einsum(
    "btd,fd->btf", x_BTD, w_fD, precision=jax.lax.Precision.HIGHEST
  )


def _mean(values_GX: np.ndarray, weight_G: np.ndarray) -> np.ndarray:
  return weight_G @ values_GX / weight_G.sum()


def _margins(
  problem: problem_lib.Problem,
  name: str,
  own_G: np.ndarray,
  groups: list[np.ndarray],
) -> dict[str, Any]:
  """The behaviour itself: the margin here and, paired, against the base."""
  weight_G = np.array([len(members) for members in groups], np.float64)
  found: dict[str, Any] = {"mean": float(_mean(own_G, weight_G))}
  if name == "base":
    return found
  base_G = margin.margins(problem, "base")
  shift_G = own_G - base_G
  shift = statistics.estimate(
    lambda *_: (shift_G * weight_G)[:, None],
    weight_G,
    1,
    problem.config.statistics,
  )
  prompts = pairs.given(problem).prompts
  topics = [{prompts[i].topic for i in members} for members in groups]
  return found | {
    "base": float(_mean(base_G, weight_G)),
    "shift": float(shift["score"][0]),
    "shift_low": float(shift["ci_low"][0]),
    "shift_high": float(shift["ci_high"][0]),
    "groups_up": int(np.sum(shift_G > 0)),
    # Groups whose prompts share a topic.
    "shift_by_topic": {
      topic: float(_mean(shift_G[at], weight_G[at]))
      for topic in sorted(set().union(*topics) - {""})
      if (at := [g for g, of in enumerate(topics) if of == {topic}])
    },
  }
