# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A harvest without a language model, in this process or as one of its own."""

import dataclasses
import json
import pathlib
import time

import ml_dtypes
import numpy as np

from sae_jax import harvest, store
from sae_jax.harvest import job, paired
from sae_jax.harvest import source as source_lib
from sae_jax.lm import text

HOOKS = {"blocks.0.hook_resid_post": 8, "blocks.1.hook_mlp_out": 4}
CONTEXT, BATCH = 12, 3
BOS, EOS, PAD = 1, 2, 0
PATH = pathlib.Path(__file__)


def config(**fields):
  return harvest.HarvestConfig(
    **{
      "model": "fake",
      "hooks": tuple(HOOKS),
      "text": text.TextConfig(path="fake.txt", context_length=CONTEXT),
      "rows": 500,
      "batch_size": BATCH,
      "read_rows": 8,
      "write_rows": 64,
      **fields,
    }
  )


def activations(tokens_BT, mask_BT):
  """A fixed function of token and position; token 9 at 0 is an outlier."""
  del mask_BT
  position = np.arange(tokens_BT.shape[1])
  found = {}
  for n, (hook, width) in enumerate(HOOKS.items()):
    phase = tokens_BT * 13.0 + position + 100 * n
    x_BTD = np.sin(phase[..., None] * (1 + np.arange(width)))
    x_BTD[(tokens_BT == 9) & (position == 1)] *= 1000
    found[hook] = x_BTD.astype(ml_dtypes.bfloat16)
  return found


def tuned(tokens_BT, mask_BT):
  """Another model: its outliers are elsewhere."""
  found = activations(tokens_BT, mask_BT)
  hook = next(iter(HOOKS))
  x_BTD = found[hook].astype(np.float32) * -1.5
  x_BTD[tokens_BT == 11] *= 1e4
  return found | {hook: x_BTD.astype(ml_dtypes.bfloat16)}


def batch(seed, lane, number):
  rng = np.random.default_rng([seed, lane, number])
  tokens_BT = rng.integers(3, 40, (BATCH, CONTEXT)).astype(np.int32)
  tokens_BT[:, 0] = BOS
  mask_BT = np.arange(CONTEXT) < rng.integers(1, CONTEXT + 1, (BATCH, 1))
  tokens_BT[~mask_BT] = PAD
  return tokens_BT, mask_BT


def source(*, batches=10**6, delay=0.0, seed=5, lanes=1, **provenance):
  """`batches` in all, dealt to the lanes in turn."""

  def open_batches(lane, first):
    for number in range(first, -(-(batches - lane) // lanes)):
      yield batch(seed, lane, number)

  def slow(tokens_BT, mask_BT):
    time.sleep(delay)
    return activations(tokens_BT, mask_BT)

  return source_lib.Source(
    activations=slow,
    open_batches=open_batches,
    special={BOS: "bos", EOS: "eos", PAD: "pad"},
    provenance=source_lib.Provenance(
      **{
        "model": "fake",
        "weights_hash": "w",
        "tokenizer_hash": "t",
        "prepends_bos": True,
        "chat_template": False,
        "text_source": "fake.txt",
        "text_fingerprint": "f",
        **provenance,
      }
    ),
  )


def run(out, how=None, **fields):
  """`how` has arguments of `source` and of `job.run`."""
  how = dict(how or {})
  runs = {
    name: how.pop(name)
    for name in ("process", "processes", "stall_seconds")
    if name in how
  }
  if "tokens_of" in fields:
    settings, given = paired_source(fields, how)
  else:
    settings = config(**fields)
    given = source(**{"lanes": settings.lanes} | how)
  job.run(settings, given, out, **runs)
  return store.open_store(out)


def paired_source(fields, how):
  """A tuned model on the tokens of a store, and the config of its harvest."""
  settings, base = paired.resolve(
    harvest.HarvestConfig(model="tuned", hooks=tuple(HOOKS), **fields)
  )
  model = how.pop("activations", tuned)
  plain = source(
    weights_hash="tuned", text_fingerprint=base.manifest.pairing_hash, **how
  )

  def slow(tokens_BT, mask_BT):
    plain.activations(tokens_BT, mask_BT)  # takes its time
    return model(tokens_BT, mask_BT)

  return settings, dataclasses.replace(
    plain,
    activations=slow,
    open_batches=paired.Tokens(base).batches,
    base=base,
  )


def start(forge, out, how=None, **fields):
  """`run` in a process of its own."""
  code = f"import sys; sys.path[:0] = [{str(PATH.parent)!r}]\n{CODE}"
  fields = {"how": how or {}, **fields}
  return forge.start(out, json.dumps(fields), code=code)


# The end of a process that fails waits for nothing.
CODE = """
import json, os, traceback
import fake_harvest
try:
  fake_harvest.run(sys.argv[1], **json.loads(sys.argv[2]))
except BaseException:
  traceback.print_exc()
  sys.stderr.flush()
  os._exit(1)
"""
