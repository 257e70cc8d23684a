# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A dictionary's whole report card: `metrics.json` and `density.npz`.

Reads the held-out chunks of a store and, when one is given, the language
model; both parts see the same held-out text.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sae_jax import artifacts, errors, lm, sae, store
from sae_jax.evaluate import fidelity, heldout, lm_loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
  """How much to measure on, and in which portions."""

  contexts: int = 128  # for the LM's loss; 0 leaves it out
  batch_rows: int = 8192
  batch_contexts: int = 8
  seed: int = 0  # which contexts, and the bootstrap

  def __post_init__(self):
    for name, least in (
      ("contexts", 0),
      ("batch_rows", 1),
      ("batch_contexts", 1),
    ):
      if getattr(self, name) < least:
        raise errors.InputError(
          f"{name}={getattr(self, name)}: give a number >= {least}"
        )


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Numbers by metric name, and one array entry per latent."""

  metrics: dict[str, Any]
  arrays: dict[str, np.ndarray]

  def write(self, directory: pathlib.Path) -> None:
    """Writes density.npz, then metrics.json, each whole or not at all."""
    artifacts.write_npz_atomic(directory / "density.npz", self.arrays)
    artifacts.write_json_atomic(directory / "metrics.json", self.metrics)


def evaluate(
  dictionary: sae.Sae,
  source: store.Store,
  hook: str,
  chunks: range,
  *,
  mesh: jax.sharding.Mesh,
  target: str = "",
  model: lm.LanguageModel | None = None,
  config: EvaluateConfig | None = None,
  progress: Callable[[int], None] | None = None,
) -> Evaluation:
  """Measures fidelity on all rows of `chunks` and the LM's loss on a sample.

  Args:
    dictionary: the SAE.
    source: a store of the hook it was trained on.
    hook: the store's hook.
    chunks: held-out read chunks (`store.holdout`).
    mesh: where the rows go; the model brings its own.
    target: the store's hook that a transcoder decodes to.
    model: the LM with all blocks; None leaves the LM's loss out.
    config: sizes.
    progress: called with the number of LM contexts done.

  Returns:
    `metrics`: `eval/…` names of DESIGN §7 with what they were measured on;
    `arrays`: fires_F (int64), density_F, mean_F, max_F.

  Raises:
    errors.InputError: see `fidelity.measure`, `heldout.contexts` and
      `lm_loss.measure`.
  """
  config = config or EvaluateConfig()
  rows = fidelity.measure(
    dictionary,
    source,
    hook,
    chunks,
    mesh=mesh,
    target=target,
    batch_rows=config.batch_rows,
  )
  metrics = {
    "hook": hook,
    **({"target": target} if target else {}),
    "rows": rows.rows,
    "latents": len(rows.fires_F),
    "eval/fvu": rows.fvu,
    "eval/explained_variance": 1 - rows.fvu,
    "eval/mse": rows.mse,
    "eval/cosine": rows.cosine,
    "eval/norm_ratio": rows.norm_ratio,
    "eval/l0": rows.l0,
    "eval/dead_frac": rows.dead_frac,
    **{f"eval/fvu_{m}": fvu for m, fvu in enumerate(rows.fvu_M)},
  }
  if model is not None and config.contexts:
    drawn = heldout.contexts(source, chunks, config.contexts, config.seed)
    loss = lm_loss.measure(
      dictionary,
      model,
      hook,
      drawn,
      source.stats(target or hook).mean_D,
      target=target,
      batch_contexts=config.batch_contexts,
      seed=config.seed,
      progress=progress,
    )
    metrics |= _lm_metrics(loss)
  arrays = {
    "fires_F": rows.fires_F,
    "density_F": rows.density_F,
    "mean_F": rows.mean_F,
    "max_F": rows.max_F,
  }
  return Evaluation(metrics, arrays)


def _lm_metrics(loss: lm_loss.LmLoss) -> dict[str, Any]:
  return {
    "eval/ce_clean": loss.ce_clean,
    "eval/ce_spliced": loss.ce_spliced,
    "eval/ce_zero": loss.ce_zero,
    "eval/ce_mean": loss.ce_mean,
    "eval/kl": loss.kl,
    "eval/loss_recovered": loss.loss_recovered,
    "eval/loss_recovered_95": loss.loss_recovered_95,
    "lm_contexts": loss.contexts,
    "lm_tokens": loss.tokens,
    "lm_replaced_frac": loss.replaced_frac,
    "lm_positions": (
      "replaced at the positions that are rows of the store; others (special"
      " tokens, outlier norms) pass through unchanged"
    ),
  }
