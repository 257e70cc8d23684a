# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The language model's loss with the dictionaries of quality.py in it.

What `sae_jax.evaluate` measures, for many dictionaries: the clean and the
zero-ablated model are run once for all of them. Reads cells of the cache and
writes `loss.json` beside each.
"""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import artifacts, formats, lm, store
from sae_jax.evaluate import heldout, lm_loss
from sae_jax.interpret import on_mesh

_BATCH = 4  # contexts per forward pass


def fill(
  directories: list[pathlib.Path],
  source: store.Store,
  hook: str,
  held_out: int,
  model_name: str,
  contexts: int,
) -> None:
  """Writes the loss of every finished cell that has none of these contexts.

  Args:
    directories: of cells of this hook.
    source: the store they were trained on.
    hook: the store's hook.
    held_out: rows, as for training.
    model_name: what `lm.load_lm` takes.
    contexts: so many held-out ones, the same for all.
  """
  waiting = [
    place
    for place in directories
    if (place / "cell.json").exists()
    and (artifacts.read_json(place / "loss.json") or {}).get("asked")
    != contexts
  ]
  if not waiting:
    return
  model = lm.load_lm(model_name, dtype=jnp.float32)
  drawn = heldout.contexts(source, source.holdout(held_out)[1], contexts, 0)
  bounds = _bounds(model, source, hook, drawn, directories[0].parent)
  for place in waiting:
    finished = on_mesh.place(formats.load_sae(place / "sae"), model.mesh)
    spliced_N = _losses(
      model, hook, drawn, lm_loss.splice(model.mesh), finished
    )
    clean, zero = sum(bounds["clean"]), sum(bounds["zero"])
    recovered = (zero - sum(spliced_N)) / (zero - clean)
    artifacts.write_json_atomic(
      place / "loss.json",
      {
        "recovered": recovered,
        "asked": contexts,
        "predictions": bounds["predictions"],
        "clean": clean / bounds["predictions"],
        "zero": zero / bounds["predictions"],
        "spliced": sum(spliced_N) / bounds["predictions"],
        "spliced_by_context": spliced_N,
      },
    )
    print(f"{place.name}: loss recovered {recovered:.4f}", file=sys.stderr)


def _bounds(model, source, hook, drawn, cache: pathlib.Path):
  """Sums of the clean and of the zero-ablated losses by context, kept."""
  file = cache / f"loss-{hook}-{len(drawn)}.json"
  if found := artifacts.read_json(file):
    return found
  nothing_D = np.zeros(source.d_model(hook), np.float32)
  found = {
    "predictions": sum(len(context.tokens_T) - 1 for context in drawn),
    "clean": _losses(model, hook, drawn, None, None),
    "zero": _losses(model, hook, drawn, lm_loss.replace, nothing_D),
  }
  artifacts.write_json_atomic(file, found)
  return found


def _losses(model, hook, drawn, change, argument) -> list[float]:
  """Nats of every context, summed over its predictions.

  Args:
    model: the language model.
    hook: where `change` is applied, at the positions the store kept.
    drawn: contexts.
    change: the function of an `lm.Edit`; None: no edit.
    argument: its first one; the kept positions are its second.
  """
  longest = max(len(context.tokens_T) for context in drawn)
  nats = []
  for start in range(0, len(drawn), _BATCH):
    part = drawn[start : start + _BATCH]
    shape = (_BATCH, longest)
    tokens_BT = np.zeros(shape, np.int32)
    mask_BT, kept_BT = np.zeros(shape, bool), np.zeros(shape, bool)
    for i in range(_BATCH):
      context = part[min(i, len(part) - 1)]
      length = len(context.tokens_T)
      tokens_BT[i, :length] = context.tokens_T
      mask_BT[i, :length] = True
      kept_BT[i, :length] = context.kept_T
    edits = ()
    if change is not None:
      edits = (lm.Edit(hook, change, (argument, kept_BT)),)
    logp_BT = np.asarray(
      _logprobs(model.model, tokens_BT, mask_BT, edits, mesh=model.mesh)
    )
    sums_B = -logp_BT.sum(axis=1, dtype=np.float64)
    nats += sums_B[: len(part)].tolist()
  return nats


@functools.partial(jax.jit, static_argnames="mesh")
def _logprobs(model, tokens_BT, mask_BT, edits, *, mesh):
  return lm.token_logprobs(model, tokens_BT, mask_BT, edits=edits, mesh=mesh)
