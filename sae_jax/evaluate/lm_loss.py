# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the language model loses when it must read the SAE's reconstruction.

Runs the model over held-out contexts four times: clean, with the hook's
activations replaced by their reconstructions, by zero, and by their mean.
All three replacements touch the same positions: those that are rows of the
store. The others (special tokens, outlier norms), on which the SAE was never
trained, pass through unchanged. (SAELens splices at such positions only, too,
but zeroes every position, so its zero-ablated loss is another one.)
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors, lm, sae
from sae_jax.evaluate import heldout
from sae_jax.interpret import on_mesh

_RESAMPLES = 2000  # of the bootstrap: 95 % limits to about 1/40 of their width
_PAD_TO = 64  # sequence lengths are rounded up to this, to compile few shapes


@dataclasses.dataclass(frozen=True, kw_only=True)
class LmLoss:
  """Cross-entropies in nats per predicted token, over all contexts."""

  contexts: int
  tokens: int  # predicted tokens
  replaced_frac: float  # share of the positions that the edits replaced
  ce_clean: float
  ce_spliced: float
  ce_zero: float
  ce_mean: float
  kl: float  # mean over predictions of KL(clean ‖ spliced), nats
  loss_recovered: float | None  # None: ablation does no harm to recover from
  loss_recovered_95: tuple[float, float] | None  # bootstrap over contexts


def measure(
  dictionary: sae.Sae,
  model: lm.LanguageModel,
  hook: str,
  contexts: Sequence[heldout.Context],
  mean_D: np.ndarray,
  *,
  target: str = "",
  batch_contexts: int = 8,
  seed: int = 0,
  progress: Callable[[int], None] | None = None,
) -> LmLoss:
  """Measures loss recovered = (CE_zero − CE_spliced) / (CE_zero − CE_clean).

  A prediction counts when both its last token and its target are tokens of
  the context, special ones included; padding never counts.

  Args:
    dictionary: takes and returns raw activations of `hook`.
    model: with every block loaded.
    hook: where the SAE reads and writes.
    contexts: see `heldout.contexts`.
    mean_D: the mean activation where it writes, for mean ablation.
    target: where a transcoder writes, behind `hook`: all replacements are
      there, and what it reads is the model's own.
    batch_contexts: contexts per forward pass; the memory is a few times
      `batch_contexts · T · vocabulary` float32.
    seed: of the bootstrap.
    progress: called with the number of contexts done.

  Raises:
    errors.InputError: layers are missing, no context has two tokens, or the
      target comes before the hook.
  """
  _check_layers(model)
  _check_order(hook, target)
  contexts = [c for c in contexts if len(c.tokens_T) > 1]
  if not contexts:
    raise errors.InputError(
      "every held-out context is a single token, which predicts nothing;"
      " harvest longer documents"
    )
  dictionary = on_mesh.place(dictionary, model.mesh)
  sums_N6 = np.zeros((len(contexts), 6))
  done = 0
  for rows_B, batch in _batches(
    contexts, batch_contexts, on_mesh.lanes(model.mesh)
  ):
    sums_6B = _run(dictionary, model, (hook, target), batch, mean_D)
    sums_N6[rows_B] = sums_6B.T[: len(rows_B)]
    done += len(rows_B)
    if progress is not None:
      progress(done)
  replaced = sum(int(c.kept_T.sum()) for c in contexts)
  return _summary(
    sums_N6, replaced / sum(len(c.tokens_T) for c in contexts), seed
  )


@dataclasses.dataclass(frozen=True)
class _Batch:
  tokens_BT: np.ndarray  # int32
  mask_BT: np.ndarray  # bool: not padding
  kept_BT: np.ndarray  # bool: replaced by the edits
  weight_BT: np.ndarray  # float32: 1 where position t predicts a real t + 1


def _batches(
  contexts: Sequence[heldout.Context], size: int, lanes: int
) -> Iterator[tuple[np.ndarray, _Batch]]:
  """Contexts of similar length together; short batches are padded."""
  size = -(-min(size, len(contexts)) // lanes) * lanes
  order = np.argsort([len(c.tokens_T) for c in contexts], kind="stable")
  longest = len(contexts[order[-1]].tokens_T)
  for start in range(0, len(order), size):
    rows_B = order[start : start + size]
    length = len(contexts[rows_B[-1]].tokens_T)
    length = min(-(-length // _PAD_TO) * _PAD_TO, longest)
    tokens_BT = np.zeros((size, length), np.int32)
    mask_BT = np.zeros((size, length), bool)
    kept_BT = np.zeros((size, length), bool)
    weight_BT = np.zeros((size, length), np.float32)
    for i in range(size):
      # A batch is filled up with copies of its first context, of no weight.
      context = contexts[rows_B[i if i < len(rows_B) else 0]]
      n = len(context.tokens_T)
      tokens_BT[i, :n] = context.tokens_T
      mask_BT[i, :n] = True
      kept_BT[i, :n] = context.kept_T
      weight_BT[i, : n - 1] = i < len(rows_B)
    yield rows_B, _Batch(tokens_BT, mask_BT, kept_BT, weight_BT)


def _run(dictionary, model, hooks, batch: _Batch, mean_D) -> np.ndarray:
  """[6, B]: predicted tokens, the four losses and the KL, summed."""
  kept_BT, mean_D = batch.kept_BT, np.asarray(mean_D, np.float32)
  hook, target = hooks
  out = target or hook
  spliced = (dictionary, kept_BT)
  if target:
    # What is replaced lies behind, so this is what the model reads there.
    (x_BTD,) = lm.activations(
      model, batch.tokens_BT, [hook], batch.mask_BT
    ).values()
    spliced += (x_BTD,)
  edits = {
    "clean": (),
    "spliced": (lm.Edit(out, splice(model.mesh), spliced),),
    "zero": (lm.Edit(out, replace, (np.zeros_like(mean_D), kept_BT)),),
    "mean": (lm.Edit(out, replace, (mean_D, kept_BT)),),
  }

  def read(arm: str) -> tuple[jax.Array, jax.Array]:
    logits_BTV = lm.logits(
      model, batch.tokens_BT, batch.mask_BT, edits=edits[arm]
    )
    return logits_BTV, _cross_entropy(
      logits_BTV, batch.tokens_BT, batch.weight_BT, mesh=model.mesh
    )

  clean_BTV, clean_B = read("clean")
  spliced_BTV, spliced_B = read("spliced")
  kl_B = _kl(clean_BTV, spliced_BTV, batch.weight_BT, mesh=model.mesh)
  del clean_BTV, spliced_BTV  # the largest arrays by far; there come two more
  losses = (clean_B, spliced_B, read("zero")[1], read("mean")[1], kl_B)
  return np.stack([batch.weight_BT.sum(-1), *map(np.asarray, losses)])


@functools.cache
def splice(mesh: jax.sharding.Mesh):
  """An edit on this mesh: the reconstruction at the kept positions.

  Of what is there, or of x_BTD, what a transcoder reads.
  """

  def splice_on_mesh(h_BTE, mask_BT, dictionary, kept_BT, x_BTD=None):
    x_BTD = h_BTE if x_BTD is None else x_BTD
    y_hat_NE = on_mesh.reconstruct(
      dictionary, x_BTD.reshape(-1, x_BTD.shape[-1]), mesh
    )
    y_hat_BTE = y_hat_NE.reshape(h_BTE.shape).astype(h_BTE.dtype)
    return jnp.where((kept_BT & mask_BT)[..., None], y_hat_BTE, h_BTE)

  return splice_on_mesh


def replace(
  h_BTD: jax.Array, mask_BT: jax.Array, value_D: jax.Array, kept_BT: jax.Array
) -> jax.Array:
  """An edit: one vector at the kept positions."""
  return jnp.where(
    (kept_BT & mask_BT)[..., None],
    value_D.astype(h_BTD.dtype)[None, None, :],
    h_BTD,
  )


@functools.partial(jax.jit, static_argnames="mesh")
def _cross_entropy(
  logits_BTV: jax.Array,
  tokens_BT: jax.Array,
  weight_BT: jax.Array,
  *,
  mesh: jax.sharding.Mesh,
) -> jax.Array:
  logits_BTV = logits_BTV.astype(jnp.float32)
  targets_BT = jnp.roll(tokens_BT, -1, axis=1)  # the last one weighs nothing
  hit_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)
  nats_BT = jax.nn.logsumexp(logits_BTV, axis=-1) - hit_BT[..., 0]
  return _sum_B(nats_BT, weight_BT, mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def _kl(
  clean_BTV: jax.Array,
  other_BTV: jax.Array,
  weight_BT: jax.Array,
  *,
  mesh: jax.sharding.Mesh,
) -> jax.Array:
  log_p_BTV = jax.nn.log_softmax(clean_BTV.astype(jnp.float32))
  log_q_BTV = jax.nn.log_softmax(other_BTV.astype(jnp.float32))
  nats_BT = jnp.sum(jnp.exp(log_p_BTV) * (log_p_BTV - log_q_BTV), axis=-1)
  return _sum_B(nats_BT, weight_BT, mesh)


def _sum_B(nats_BT, weight_BT, mesh) -> jax.Array:
  """Sums per context, on every device. `where`: padding may hold NaN."""
  return jax.lax.with_sharding_constraint(
    jnp.sum(jnp.where(weight_BT > 0, nats_BT, 0), axis=-1),
    jax.NamedSharding(mesh, jax.P()),
  )


def _summary(sums_N6: np.ndarray, replaced_frac: float, seed: int) -> LmLoss:
  tokens, clean, spliced, zero, mean, kl = sums_N6.sum(0)
  recovered = _recovered(sums_N6.sum(0))
  return LmLoss(
    contexts=len(sums_N6),
    tokens=int(tokens),
    replaced_frac=replaced_frac,
    ce_clean=clean / tokens,
    ce_spliced=spliced / tokens,
    ce_zero=zero / tokens,
    ce_mean=mean / tokens,
    kl=kl / tokens,
    loss_recovered=None if np.isnan(recovered) else float(recovered),
    loss_recovered_95=_bootstrap(sums_N6, seed),
  )


def _recovered(sums_X6: np.ndarray) -> np.ndarray:
  _, clean_X, spliced_X, zero_X = np.moveaxis(sums_X6, -1, 0)[:4]
  gap_X = zero_X - clean_X
  return np.where(
    gap_X > 0, (zero_X - spliced_X) / np.where(gap_X > 0, gap_X, 1), np.nan
  )


def _bootstrap(sums_N6: np.ndarray, seed: int) -> tuple[float, float] | None:
  """95 % limits of loss recovered, contexts drawn with replacement."""
  n = len(sums_N6)
  if n < 2:
    return None
  rng = np.random.default_rng(seed)
  times_RN = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
  low, high = np.quantile(_recovered(times_RN @ sums_N6), [0.025, 0.975])
  return None if np.isnan(low + high) else (float(low), float(high))


def _check_order(hook: str, target: str) -> None:
  if target and lm.parse_hook(target).order < lm.parse_hook(hook).order:
    raise errors.InputError(
      f"a transcoder from {hook} to {target}, which the model computes before"
      " it: no loss says what this costs the model; give"
      " --config.evaluate.contexts=0"
    )


def _check_layers(model: lm.LanguageModel) -> None:
  if model.layers != model.config.num_layers:
    raise errors.InputError(
      f"{model.source} is loaded up to block {model.layers} of"
      f" {model.config.num_layers}, but the LM loss needs all of them; load it"
      " with layers=None"
    )
