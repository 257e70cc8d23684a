# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A run and its evaluation as they lie on disk, made up but well-formed."""

import json
import pathlib

import numpy as np

TEXT = (
  "Sure! Here is a short poem about the sea.\n\n\tThe waves <script>alert(1)"
  "</script> & \u202erise \"high\" 'and' fall, café \\xf0 end <|im_end|>"
)


def make_run(path: pathlib.Path, *, steps: int = 600, seed: int = 0):
  """A finished training run of 4,608 latents."""
  path.mkdir(parents=True)
  rng = np.random.default_rng(seed)
  config = {
    "job": "train",
    "config": {
      "store": "/data/store",
      "hook": "blocks.9.hook_resid_post",
      "sae": {"latents": 4608, "k": 32},
      "stream": {"batch_size": 2048, "seed": seed},
    },
    "inputs": {"store": "3f" * 32},
    "code_version": "0.1.0",
  }
  (path / "config.json").write_text(json.dumps(config))
  with open(path / "metrics.jsonl", "w") as file:
    for step in range(0, steps, 2):
      decay = np.exp(-step / 120)
      line = {
        "step": step,
        "train/loss": 0.2 + 0.8 * decay,
        "train/fvu": 0.18 + 0.8 * decay + 0.004 * rng.normal(),
        "train/l0": 32 - 4 * decay,
        "train/dead_frac": max(0.0, 0.06 * (1 - decay)),
        "train/auxk": 0.9 + 0.1 * decay,
        "train/grad_norm": 0.5 + decay,
        "train/lr": 3.7e-4 * min(1, step / 60, (steps - step) / 120),
        "perf/tokens_per_s": 21000 + 900 * rng.normal(),
        "perf/step_ms": 97.0,
        "perf/mfu": None,
      }
      if step % 100 == 0:
        line |= {"eval/fvu": 0.19 + 0.8 * decay, "eval/l0": 32 - 4 * decay}
      file.write(json.dumps(line) + "\n")
  (path / "sae").mkdir()
  cfg = {
    "architecture": "topk",
    "d_in": 576,
    "d_sae": 4608,
    "k": 32,
    "dtype": "float32",
    "metadata": {
      "hook_name": "blocks.9.hook_resid_post",
      "model_name": "SmolLM2-135M-Instruct",
    },
  }
  (path / "sae" / "cfg.json").write_text(json.dumps(cfg))
  manifest = config | {
    "device": "cpu",
    "wall_s": 214.3,
    "result": {"steps": steps, "tokens": 2048 * steps},
  }
  (path / "manifest.json").write_text(json.dumps(manifest))
  return path


def make_evaluation(path: pathlib.Path, *, run: str = "", seed: int = 0):
  """The evaluation of such a run."""
  path.mkdir(parents=True)
  rng = np.random.default_rng(seed)
  rows = 16384
  fires_F = (rows * np.minimum(0.6, np.exp(rng.normal(-6, 1.6, 4608)))).astype(
    np.int64
  )
  np.savez(
    path / "density.npz",
    fires_F=fires_F,
    density_F=fires_F / rows,
    mean_F=np.exp(rng.normal(1, 0.5, 4608)) * (fires_F > 0),
    max_F=np.exp(rng.normal(2, 0.5, 4608)).astype(np.float32),
  )
  numbers = {
    "hook": "blocks.9.hook_resid_post",
    "rows": rows,
    "latents": 4608,
    "eval/fvu": 0.1873,
    "eval/explained_variance": 0.8127,
    "eval/mse": 0.0421,
    "eval/cosine": 0.934,
    "eval/norm_ratio": 0.961,
    "eval/l0": 31.7,
    "eval/dead_frac": float(np.mean(fires_F == 0)),
    "eval/ce_clean": 2.412,
    "eval/ce_spliced": 2.731,
    "eval/ce_zero": 9.871,
    "eval/ce_mean": 7.313,
    "eval/kl": 0.284,
    "eval/loss_recovered": 0.9572,
    "eval/loss_recovered_95": [0.9511, 0.9624],
    "lm_contexts": 64,
    "lm_tokens": 9312,
    "lm_replaced_frac": 0.942,
    "lm_positions": "replaced at the positions that are rows of the store",
  }
  (path / "metrics.json").write_text(json.dumps(numbers))
  config = {
    "job": "evaluate",
    "config": {"sae": f"{run}/sae"},
    "inputs": {},
    "code_version": "0.1.0",
  }
  (path / "config.json").write_text(json.dumps(config))
  order = np.argsort(-fires_F, kind="stable")
  alive = order[fires_F[order] > 0]
  latents = [
    _latent(int(alive[i]), int(fires_F[alive[i]]), rows, rng)
    for i in np.linspace(0, len(alive) - 1, 12).astype(int)
  ]
  contexts = {
    "hook": "blocks.9.hook_resid_post",
    "rows": rows,
    "before": 32,
    "after": 12,
    "latents": latents,
  }
  (path / "contexts.json").write_text(json.dumps(contexts))
  return path


def _pieces() -> list[str]:
  pieces, word = [], ""
  for char in TEXT:
    if char in " \n\t<>" and word:
      pieces.append(word)
      word = ""
    word += char
  return [*pieces, word, " ", "", "\n\n"]


def _latent(latent: int, fires: int, rows: int, rng) -> dict:
  pieces = _pieces()
  examples = []
  for i in range(min(10, fires)):
    at = int(rng.integers(4, len(pieces)))
    on = rng.random(len(pieces)) < 0.25
    values = np.where(on, 7 * rng.random(len(pieces)), 0)
    values[at] = 9.5 - i
    values = [float(f"{v:.4g}") for v in values]
    values[-4] = None  # a special token
    if at == len(pieces) - 4:
      at -= 1
      values[at] = 9.5 - i
    examples.append(
      {
        "kind": "top" if i < 6 else "quantile",
        "quantile": None if i < 6 else (0.9, 0.7, 0.5, 0.3)[i - 6],
        "value": values[at],
        "document": i,
        "position": at + 10,
        "row": i,
        "start": 10,
        "of": 128,
        "tokens": pieces,
        "activations": values,
      }
    )
  counts, _ = np.histogram(rng.exponential(2, 512), 24, range=(0, 9.5))
  return {
    "latent": latent,
    "reason": "density quantile 0.50",
    "fires": fires,
    "density": fires / rows,
    "mean": 2.31,
    "max": 9.5,
    "histogram": counts.tolist(),
    "histogram_max": 9.5,
    "examples": examples,
  }
