# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a re-alignment starts from: a bad model, an SAE, a diff and a screen.

The diff and the screen are made up, in the layout that those jobs write.
"""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sft_model
from safetensors import numpy as safetensors_numpy

from sae_jax import formats, lm, posttrain, sae
from sae_jax.posttrain import config as config_lib
from sae_jax.posttrain import records

HOOK = "blocks.1.hook_resid_post"
F, D = 64, 32
FIELDS = ("good", "bad")


def write_pairs(path, count=24, seed=0):
  """Prompts with a good and a bad response, each in words of its own."""
  lines = sft_model.lines(count, seed=seed, fields=FIELDS)
  path.write_text("\n".join(lines))
  return path


def make_bad(base, pairs, path, steps=12):
  """The base after some steps on bad responses."""
  model = lm.load_lm(base, dtype=jnp.float32)
  examples = records.examples(
    config_lib.DataConfig(path=str(pairs), completion="bad"), model.tokenizer
  )
  recipe = posttrain.SftConfig(steps=steps, batch_size=8, learning_rate=3e-3)
  lm.save_hf(posttrain.finetune(model, examples, recipe), path)
  return path


def make_other(base, path):
  """The base with other weights in its last norm."""
  shutil.copytree(base, path)
  file = path / "model.safetensors"
  weights = safetensors_numpy.load_file(file)
  weights["model.norm.weight"] *= 1.5
  safetensors_numpy.save_file(weights, file, metadata={"format": "pt"})
  return path


def write_sae(path, width=D, hook=HOOK):
  rng = np.random.default_rng(0)
  w_FD = rng.normal(size=(F, width)).astype(np.float32)
  w_FD /= np.linalg.norm(w_FD, axis=1, keepdims=True)
  params = sae.Params(
    w_FD, w_FD.copy(), np.zeros(F, np.float32), np.zeros(width, np.float32)
  )
  metadata = {"hook_name": hook} if hook else {}
  formats.save_sae(sae.make_sae(params, 16, metadata), path)
  return path


def scores():
  """Of the made-up diff: 7 and 3 have risen most, 5 has fallen most."""
  score_F = np.zeros(F)
  score_F[[7, 3, 5, 11]] = 0.8, 0.4, -0.6, 0.1
  return score_F


def write_diff(path, sae_path, *, hook=HOOK, arms=("bad",)):
  path.mkdir()
  parts = [
    pa.table(
      {
        "latent": np.arange(F, dtype=np.int32),
        "method": ["frozen"] * F,
        "arm": [arm] * F,
        "dictionary": ["sae"] * F,
        "score": scores(),
        "changed": np.abs(scores()) > 0.5,
      }
    )
    for arm in arms
  ]
  pq.write_table(pa.concat_tables(parts), path / "latents.parquet")
  rng = np.random.default_rng(1)
  np.savez(
    path / "directions.npz",
    **{
      "linear/bad/contrast": rng.normal(size=D),
      "linear/bad/mean_difference": np.zeros(D),
      "linear/good/contrast": rng.normal(size=D),
    },
  )
  summary = {
    "hook": hook,
    "sae": {"path": str(sae_path)},
    "arms": [{"name": arm, "role": "tuned"} for arm in arms],
    "parts": [{"method": "frozen", "arm": arm} for arm in arms],
  }
  return _finish(path, "diff", summary)


def write_screen(path, sae_path, *, diff="", causal=("latent 3", "latent 5")):
  """A screen of latents 3, 5 and 7 and bundles of two and three of them."""
  path.mkdir()
  summary = {
    "hook": HOOK,
    "sae": str(sae_path),
    "diff": str(diff),
    "arm": "bad" if diff else "",
    "method": "frozen" if diff else "",
    "interventions": [
      {
        "name": name,
        "kind": kind,
        "latents": latents,
        "weights": weights,
        "sign": sign,
        "diff": {"score": weights[0]} if diff and kind == "latent" else None,
        "verdict": "causal" if name in causal else "inert",
      }
      for name, kind, latents, weights, sign in (
        ("latent 3", "latent", [3], [0.4], 1),
        ("latent 5", "latent", [5], [-0.6], -1),
        ("latent 7", "latent", [7], [0.8], 1),
        ("top3", "bundle", [7, 5, 3], [0.8, -0.6, 0.4], 1),
        ("top2", "bundle", [7, 5], [0.8, -0.6], 1),
        ("linear.bad.contrast", "direction", [], [], 1),
      )
    ],
  }
  return _finish(path, "steer", summary)


def _finish(path, job, summary):
  (path / "config.json").write_text(json.dumps({"job": job}))
  (path / "summary.json").write_text(json.dumps(summary))
  (path / "manifest.json").write_text("{}")
  return path
