# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a decoder: to a layer, with taps and edits, on a mesh.

`forward` is pure and composes into other jitted programs; `logits` and
`activations` compile it for a `LanguageModel`. Sequences are split over
`(sae, data)` where their number divides, heads and widths over `latent`.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sae_jax import errors
from sae_jax.lm import attention as attention_lib
from sae_jax.lm import batch as batch_lib
from sae_jax.lm import hooks as hooks_lib
from sae_jax.lm import load as load_lib
from sae_jax.lm import low_rank
from sae_jax.lm import model as model_lib
from sae_jax.lm import plan as plan_lib


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
  """What a forward pass found."""

  resid_BTD: jax.Array  # the stream after the last block that was run
  taps: dict[str, jax.Array]  # canonical hook -> [B, T, D]
  logits_BTV: jax.Array | None = None  # f32
  cache: attention_lib.KvCache | None = None


def forward(
  model: model_lib.Decoder,
  tokens_BT: jax.Array,
  mask_BT: jax.Array | None = None,
  *,
  taps: Sequence[str] = (),
  edits: Sequence[hooks_lib.Edit] = (),
  entry: hooks_lib.Entry | None = None,
  branch_BT: jax.Array | None = None,
  want_logits: bool = True,
  cache: attention_lib.KvCache | None = None,
  start: jax.Array | int = 0,
  mesh: jax.sharding.Mesh | None = None,
  adapter: low_rank.Adapter | None = None,
  remat: bool = False,
) -> Outputs:
  """Runs the decoder; pure, to be called under `jax.jit`.

  Without logits, nothing after the last tap is computed (and all blocks but
  not the head where there is no tap).

  Args:
    tokens_BT: int32 token ids; padding may hold any valid id.
    mask_BT: bool, which slots hold tokens; with a cache [B, S] over its slots.
      None: all of them. Padding may be left or right; its outputs mean nothing.
    taps: hook names.
    edits: applied in order; a tap at an edited hook sees the edited values.
    entry: the stream to begin with; only blocks after it are run, and of
      `tokens_BT` no more than the shape is used.
    branch_BT: int32, to continue one text in several ways in one sequence: 0 is
      the text, and tokens of branch 1, 2, … follow it as if the other branches
      were not there. Not for padding on the left, and not with a cache.
    want_logits: run all blocks and the head.
    cache: keys and values of the slots before `start`; all blocks are run.
    start: the slot of the first token.
    mesh: pins the stream's sharding where given.
    adapter: low-rank corrections of some blocks. A gradient with respect to
      them alone neither runs back through the blocks below nor keeps anything
      of them.
    remat: for gradients: keep only the stream between blocks and compute each
      block again on the way back (a third more work, 1 / 20 of the memory).

  Raises:
    errors.InputError: a hook that does not exist, is not loaded, or lies before
      the entry.
  """
  plan = plan_lib.make(
    model, taps, edits, run_all=want_logits or cache is not None, entry=entry
  )
  b, t = tokens_BT.shape
  if mask_BT is None:
    slots = t if cache is None else cache.k_LBSKH.shape[2]
    mask_BT = jnp.ones((b, slots), bool)
  at, position_BT = attention_lib.positions(
    model.config, mask_BT.astype(bool), start, t, branch_BT
  )
  pin = functools.partial(batch_lib.pin, mesh=mesh)
  new_mask_BT = jax.lax.dynamic_slice_in_dim(at.mask_BS, start, t, axis=1)
  if entry is None:
    h_BTD = pin(model.embed(tokens_BT, position_BT))
  else:
    h_BTD = pin(_enter(plan, entry, new_mask_BT))
  h_BTD, found, cache = _run_blocks(
    model, plan, h_BTD, at, new_mask_BT, cache, pin, adapter, remat
  )
  return Outputs(
    resid_BTD=h_BTD,
    taps={hook.canonical: pin(found[hook]) for hook in plan.taps},
    logits_BTV=pin(model.unembed(h_BTD)) if want_logits else None,
    cache=cache,
  )


def _enter(plan: plan_lib.Plan, entry: hooks_lib.Entry, mask_BT) -> jax.Array:
  """The stream that the first block takes; a resid_pre is the block's own."""
  hook, h_BTD = plan.entry, entry.h_BTD
  if h_BTD.shape[:2] != mask_BT.shape:
    raise errors.InputError(
      f"entry at {entry.hook!r}: a stream of shape {h_BTD.shape} for tokens of"
      f" shape {mask_BT.shape}"
    )
  if hook is not None and hook.site == "resid_post":
    h_BTD = _edit(plan.edits, hook.site, hook.layer, h_BTD, mask_BT)
  return h_BTD


def _run_blocks(
  model, plan: plan_lib.Plan, h_BTD, at, mask_BT, cache, pin, adapter, remat
):
  """Scans the whole blocks and runs the tail.

  Taps are written to one buffer per site in the scan's carry, with one slot
  more than there are taps, which takes what nobody asked for.
  """
  n = plan.blocks
  edits = [edit for edit in plan.edits if edit[0].layer >= plan.first]
  slides_L = jnp.asarray(model.config.sliding_layers, bool)
  slot_L = {
    site: jnp.asarray(
      [layers.index(i) if i in layers else len(layers) for i in range(n)],
      jnp.int32,
    )
    for site, layers in plan.slots.items()
  }
  buffers = {
    site: pin(jnp.zeros((len(layers) + 1, *h_BTD.shape), h_BTD.dtype), axis=1)
    for site, layers in plan.slots.items()
  }

  def step(carry, layer_and_block):
    h_BTD, buffers, cache = carry
    layer, block = layer_and_block
    buffers = dict(buffers)

    def touch(site, x_BTD):
      x_BTD = _edit(edits, site, layer, x_BTD, mask_BT)
      if site in buffers:
        buffers[site] = jax.lax.dynamic_update_index_in_dim(
          buffers[site], x_BTD, slot_L[site][layer], 0
        )
      return x_BTD

    h_BTD, cache = block(h_BTD, at, slides_L[layer], cache, layer, touch)
    return (pin(h_BTD), buffers, cache), None

  def step_indexed(carry, layer_and_adapter):
    # Indexing the stacked weights here, and not slicing them for the scan,
    # keeps XLA from copying the first n layers of a model loaded whole.
    layer, correction = layer_and_adapter
    block = jax.tree.map(
      lambda x: jax.lax.dynamic_index_in_dim(x, layer, keepdims=False),
      model.blocks,
    )
    return step(carry, (layer, low_rank.attach(block, correction)))

  # Inside a scan nothing can merge the two computations of a block.
  checkpointed = functools.partial(jax.checkpoint, prevent_cse=False)
  carry = (h_BTD, buffers, cache)
  found = {}
  if plan.entry is not None and plan.entry.site == "resid_post":
    found[plan.entry] = h_BTD
  if n and n == model.layers and adapter is None and not plan.first:
    body = checkpointed(step) if remat else step
    carry, _ = jax.lax.scan(body, carry, (jnp.arange(n), model.blocks))
  else:
    policy = None if remat else _all_but_slices
    body = checkpointed(step_indexed, policy=policy)
    for layers, part in low_rank.segments(adapter, plan.first, n):
      layer_n = jnp.asarray(layers, jnp.int32)
      carry, _ = jax.lax.scan(body, carry, (layer_n, part))
  h_BTD, buffers, cache = carry
  found |= {
    hooks_lib.Hook(layer, site): buffers[site][i]
    for site, layers in plan.slots.items()
    for i, layer in enumerate(layers)
  }
  found[plan.end] = h_BTD
  if plan.tail:
    found |= _run_tail(model, plan, h_BTD, at, mask_BT, slides_L, adapter)
  return h_BTD, found, cache


def _all_but_slices(primitive, *_, **__) -> bool:
  """Keeps for the gradient what a block computed, not its slice of weights."""
  return primitive not in (jax.lax.dynamic_slice_p, jax.lax.squeeze_p)


def _run_tail(
  model, plan: plan_lib.Plan, h_BTD, at, mask_BT, slides_L, adapter
):
  """The tapped first part of block `plan.blocks`; XLA drops the rest of it."""
  layer, found = plan.blocks, {}

  def touch(site, x_BTD):
    x_BTD = _edit(plan.edits, site, layer, x_BTD, mask_BT)
    found[hooks_lib.Hook(layer, site)] = x_BTD
    return x_BTD

  if plan.tail[-1].site == "resid_pre":
    touch("resid_pre", h_BTD)
  else:
    block = jax.tree.map(lambda x: x[layer], model.blocks)
    if adapter is not None and adapter.first <= layer < adapter.end:
      part = adapter.blocks(layer, layer + 1)
      block = low_rank.attach(block, jax.tree.map(lambda x: x[0], part))
    block(h_BTD, at, slides_L[layer], None, layer, touch)
  return {hook: found[hook] for hook in plan.tail}


def _edit(edits, site: str, layer, x_BTD, mask_BT):
  """Applies the edits of this site; `layer` is traced inside the scan."""
  for hook, edit in edits:
    if hook.site == site:

      def change(x_BTD, edit=edit):
        y_BTD = edit.fn(x_BTD, mask_BT, *edit.args)
        if y_BTD.shape != x_BTD.shape:
          raise errors.InputError(
            f"edit at {edit.hook!r}: {edit.fn.__name__} returned shape"
            f" {y_BTD.shape} for {x_BTD.shape}; it must keep the shape"
          )
        return y_BTD.astype(x_BTD.dtype)

      x_BTD = jax.lax.cond(layer == hook.layer, change, lambda x: x, x_BTD)
  return x_BTD


def logits(
  lm: load_lib.LanguageModel,
  tokens_BT,
  mask_BT=None,
  *,
  edits: Sequence[hooks_lib.Edit] = (),
) -> jax.Array:
  """Next-token logits [B, T, V] in f32.

  Args:
    tokens_BT: integer token ids (numpy or jax).
    mask_BT: bool, which are real; None: all. Left or right padding.
    edits: changes of the activations, see `hooks.Edit`.

  Raises:
    errors.InputError: malformed tokens, wrong hooks, or no head loaded.
  """
  tokens_BT, mask_BT = batch_lib.check_tokens(lm, tokens_BT, mask_BT)
  return _logits(lm.model, tokens_BT, mask_BT, tuple(edits), mesh=lm.mesh)


@functools.partial(jax.jit, static_argnames=("mesh",))
def _logits(model, tokens_BT, mask_BT, edits, *, mesh):
  out = forward(model, tokens_BT, mask_BT, edits=edits, mesh=mesh)
  return out.logits_BTV


def activations(
  lm: load_lib.LanguageModel,
  tokens_BT,
  hooks: Sequence[str],
  mask_BT=None,
  *,
  edits: Sequence[hooks_lib.Edit] = (),
) -> dict[str, jax.Array]:
  """Activations at several hooks in one pass; nothing past the last is run.

  Args:
    tokens_BT: integer token ids (numpy or jax).
    hooks: hook names, see `hooks.parse`.
    mask_BT: bool, which are real; None: all. Left or right padding.
    edits: changes of the activations, see `hooks.Edit`.

  Returns:
    canonical hook name -> [B, T, D] in the model's dtype, sequences split over
    the mesh's `(sae, data)` axes where their number divides.

  Raises:
    errors.InputError: malformed tokens, or hooks that are not there.
  """
  if isinstance(hooks, str):
    hooks = (hooks,)
  if not hooks:
    raise errors.InputError("no hooks are given; name at least one")
  tokens_BT, mask_BT = batch_lib.check_tokens(lm, tokens_BT, mask_BT)
  return _activations(
    lm.model, tokens_BT, mask_BT, tuple(edits), taps=tuple(hooks), mesh=lm.mesh
  )


@functools.partial(jax.jit, static_argnames=("taps", "mesh"))
def _activations(model, tokens_BT, mask_BT, edits, *, taps, mesh):
  out = forward(
    model,
    tokens_BT,
    mask_BT,
    taps=taps,
    edits=edits,
    want_logits=False,
    mesh=mesh,
  )
  return out.taps
