# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Do a crosscoder's latents carry what the fine-tuning changed?

The tuned model is run on from the base model's activations, to which the
differences of some latents' decoder blocks are added: how much of the way back
to its own predictions does that go (Minder et al. 2025, arXiv:2504.02922)?
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sae_jax import artifacts, errors, lm, ops, sae
from sae_jax.diff import pairs, resampling
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import on_mesh
from sae_jax.judge import likelihood
from sae_jax.lm import batch as batch_lib
from sae_jax.lm import hooks as hooks_lib

NOTHING = "nothing"  # the set of no latents: the base's activations alone


def unavailable(problem: problem_lib.Problem, name: str) -> str:
  """Why the test cannot be made for an arm; "" if it can."""
  if problem.prompts is None:
    return "there are no prompts to run the models on"
  for model in ("base", name):
    if not problem.models.source(model):
      return f"there is no model of {model!r}, only its store"
  site = hooks_lib.parse(problem.evidence.hook).site
  if site not in ("resid_pre", "resid_post"):
    return f"the tuned model cannot be run on from its {site} alone"
  return ""


def measure(
  problem: problem_lib.Problem,
  name: str,
  crosscoder: sae.Sae,
  sets: Mapping[str, np.ndarray],
) -> dict[str, Any]:
  """KL(tuned ‖ tuned from h) in nats, h = h^base + Σ_S f (d^tuned − d^base).

  All positions but the first `skip_positions` are patched at once; KL is of
  the predictions at the tokens in scope.

  Args:
    problem: with prompts and live models; kept in `work` when it is done.
    name: the arm.
    crosscoder: of two sources, base and arm.
    sets: name -> bool [F], the latents S.

  Returns:
    JSON values: `tokens` in scope; `kl`, of h = h^base; and by set `latents`,
    `kl`, and `recovered`, 1 − kl / KL of h^base, with an interval (`low`,
    `high`) that draws prompts. `recovered` is None where the models do not
    differ.

  Raises:
    errors.InputError: models of different vocabularies, or KL is not finite.
  """
  path = problem.work / f"patching.{name}.json"
  found = artifacts.read_json(path)
  if found is None:
    found = _measure(problem, name, crosscoder, sets)
    artifacts.write_json_atomic(path, found)
  return found


def _measure(problem, name, crosscoder, sets) -> dict[str, Any]:
  prompts = pairs.given(problem)
  sequences = prompts.sequences(problem.config.scope)
  base, tuned = problem.model("base"), problem.model(name)
  if base.config.vocab_size != tuned.config.vocab_size:
    raise errors.InputError(
      f"{tuned.source} has {tuned.config.vocab_size} words and {base.source}"
      f" {base.config.vocab_size}; their predictions cannot be compared"
    )
  program = _Program(problem, base, tuned, crosscoder, sets)
  lanes = on_mesh.lanes(problem.mesh)
  size = -(-min(problem.config.batch_size, len(sequences)) // lanes) * lanes
  order = sorted(
    range(len(sequences)), key=lambda i: (len(sequences[i].tokens), i)
  )
  prompt_N, kl_N = [], []
  progress = problem.progress(len(order), "sequences")
  for first in range(0, len(order), size):
    batch = [sequences[i] for i in order[first : first + size]]
    for sequence, kl_SA in zip(batch, program.run(batch, size), strict=True):
      prompt_N += [sequence.prompt] * kl_SA.shape[1]
      kl_N.append(kl_SA)
    progress.update(first + len(batch), f"patching {name}")
  progress.close()
  kl_SN = np.concatenate(kl_N, axis=1).astype(np.float64)
  if not np.isfinite(kl_SN).all():
    raise errors.InputError(
      f"patching {tuned.source}: KL is not finite; run with dtype=float32, or"
      " check the weights"
    )
  return _summary(problem, np.array(prompt_N), kl_SN, sets)


class _Program:
  """The models and the sets of latents, on the mesh."""

  def __init__(self, problem, base, tuned, crosscoder, sets):
    self._problem = problem
    self._base, self._tuned = base, tuned
    self._crosscoder = on_mesh.place(crosscoder, problem.mesh)
    none_F = np.zeros(crosscoder.latents, bool)
    self._keep_SF = np.stack([none_F, *sets.values()]).astype(np.float32)

  def run(self, batch, size: int) -> list[np.ndarray]:
    """KL at the tokens in scope of every sequence, [S, tokens]."""
    problem = self._problem
    tokens_BT, mask_BT = pairs.padded(
      [s.tokens for s in batch], size, self._tuned
    )
    width = tokens_BT.shape[1]
    spans = [pairs.span(problem, s) for s in batch]
    scope_BS = pairs.positions(spans, size, width)
    skipped_T = np.arange(width) < problem.config.skip_positions
    patch_BT = mask_BT & ~skipped_T[None, :]
    placed = [
      batch_lib.place(x, problem.mesh)
      for x in (tokens_BT, mask_BT, patch_BT, scope_BS)
    ]
    kl_SBS = jax.device_get(
      _divergences(
        self._base.model,
        self._tuned.model,
        self._crosscoder,
        self._keep_SF,
        *placed,
        hook=problem.evidence.hook,
        mesh=problem.mesh,
      )
    )
    return [
      kl_SBS[:, row, : stop - start] for row, (start, stop) in enumerate(spans)
    ]


@functools.partial(jax.jit, static_argnames=("hook", "mesh"))
def _divergences(
  base,
  tuned,
  crosscoder,
  keep_SF,
  tokens_BT,
  mask_BT,
  patch_BT,
  scope_BS,
  *,
  hook,
  mesh,
):
  """KL [S, B, positions in scope], one set after another."""
  # A tap on the last stream keeps all blocks running.
  last = f"blocks.{tuned.layers - 1}.hook_resid_post"

  def run(model, taps):
    return lm.forward(
      model, tokens_BT, mask_BT, taps=taps, want_logits=False, mesh=mesh
    ).taps

  base_BTD = run(base, (hook,))[hook]
  taps = run(tuned, (hook, last))
  own_BTD, clean_BTD = taps[hook], taps[last]
  joined_ND = jnp.concatenate([base_BTD, own_BTD], axis=2)
  joined_ND = joined_ND.astype(jnp.float32).reshape(-1, joined_ND.shape[2])

  def one(keep_F):
    change_ND = _change(crosscoder, keep_F, joined_ND, mesh)
    change_BTD = change_ND.reshape(base_BTD.shape)
    h_BTD = (base_BTD + change_BTD).astype(own_BTD.dtype)
    h_BTD = jnp.where(patch_BT[..., None], h_BTD, own_BTD)
    out = lm.forward(
      tuned,
      tokens_BT,
      mask_BT,
      entry=hooks_lib.Entry(hook, h_BTD),
      want_logits=False,
      mesh=mesh,
    )
    return _kl(tuned, clean_BTD, out.resid_BTD, scope_BS)

  return on_mesh.everywhere(lax.map(one, keep_SF), mesh)


def _kl(model, clean_BTD, other_BTD, scope_BS):
  """KL(clean ‖ other) of the predictions at some positions, [B, S]."""

  def part(xs):
    clean_BsD, other_BsD = xs
    log_p_BsV = jax.nn.log_softmax(model.unembed(clean_BsD))
    log_q_BsV = jax.nn.log_softmax(model.unembed(other_BsD))
    return jnp.sum(jnp.exp(log_p_BsV) * (log_p_BsV - log_q_BsV), axis=-1)

  picked = [likelihood.picked(x, scope_BS) for x in (clean_BTD, other_BTD)]
  blocks = likelihood.position_blocks(
    tuple(picked), 2 * model.config.vocab_size
  )
  kl_Bns = jnp.moveaxis(lax.map(part, blocks), 0, 1)
  return kl_Bns.reshape(kl_Bns.shape[0], -1)[:, : scope_BS.shape[1]]


def _change(crosscoder, keep_F, x_ND, mesh):
  """Σ_S f (d^tuned − d^base) of every row, [N, D/2]."""

  def local(shard, keep_F, x_ND):
    values_NK, indices_NK = on_mesh.active(shard, x_ND)
    base_Fd, tuned_Fd = jnp.split(shard.params.w_dec_FD, 2, axis=1)
    kept_NK = values_NK * keep_F[indices_NK]
    return lax.psum(
      ops.sparse_decode(kept_NK, indices_NK, tuned_Fd - base_Fd), "latent"
    )

  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(
      on_mesh.specs(crosscoder),
      jax.P("latent"),
      jax.P(on_mesh.ROWS, None),
    ),
    out_specs=jax.P(on_mesh.ROWS, None),
    check_vma=False,
  )(crosscoder, keep_F, x_ND)


def _summary(problem, prompt_N, kl_SN, sets) -> dict[str, Any]:
  config = problem.config.statistics
  _, group_N = np.unique(prompt_N, return_inverse=True)
  groups = int(group_N.max()) + 1
  sum_SP = np.stack([np.bincount(group_N, kl_N, groups) for kl_N in kl_SN])
  nothing = float(kl_SN[0].mean())
  found: dict[str, Any] = {"tokens": len(prompt_N), "kl": nothing, "sets": {}}
  for (name, keep_F), sum_P in zip(sets.items(), sum_SP[1:], strict=True):
    kl = float(sum_P.sum() / len(prompt_N))
    row: dict[str, Any] = {"latents": int(np.sum(keep_F)), "kl": kl}
    row |= {"recovered": None, "low": None, "high": None}
    if nothing > 0:
      row["recovered"] = 1 - kl / nothing
      if groups > 1:
        weight_RP = resampling.draw(
          config.seed, groups, 1, config.resamples
        ).weight_RG
        whole_R, rest_R = weight_RP @ sum_SP[0], weight_RP @ sum_P
        kept_R = whole_R > 0
        tail = (1 - config.confidence) / 2
        row["low"], row["high"] = map(
          float,
          np.quantile(1 - rest_R[kept_R] / whole_R[kept_R], [tail, 1 - tail]),
        )
    found["sets"][name] = row
  return found
