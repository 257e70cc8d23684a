# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A sweep as it lies on disk, made up but well-formed, and evaluations."""

import itertools
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import report_data

HOOK = "blocks.9.hook_resid_post"
LATENTS = 4608
# 4 sparsities at 4 learning rates, as a config's `sweep` says it.
GRID = tuple(
  {"k": k, "learning_rate": rate}
  for k, rate in itertools.product((16, 32, 64, 128), (1e-4, 2e-4, 4e-4, 8e-4))
)


def make_sweep(
  path: pathlib.Path,
  *,
  sweep: Sequence[Mapping[str, Any]] = GRID,
  frozen: Mapping[int, int] | None = None,
  steps: int = 600,
  done: int | None = None,
) -> pathlib.Path:
  """A sweep of 4,608 latents.

  Args:
    path: the directory.
    sweep: what members have of their own.
    frozen: members that diverged, and at which step.
    steps: that it is to train.
    done: steps so far, of a run under way; None: it is finished.
  """
  frozen = frozen or {}
  path.mkdir(parents=True)
  config = {
    "job": "train",
    "config": {
      "store": "/data/store",
      "hook": HOOK,
      "sae": {"latents": LATENTS, "k": 32, "aux_coefficient": 1 / 32},
      "optimizer": {"learning_rate": None},
      "stream": {"batch_size": 2048, "seed": 0},
      "seed": 0,
      "steps": steps,
      "sweep": [_own(own) for own in sweep],
    },
    "inputs": {"store": "3f" * 32},
    "code_version": "0.1.0",
  }
  (path / "config.json").write_text(json.dumps(config))
  members = [_settings(own) for own in sweep]
  so_far = steps if done is None else done
  with open(path / "metrics.jsonl", "w") as file:
    for step in range(0, so_far, 2):
      live = len(members) - sum(at <= step for at in frozen.values())
      line = {
        "step": step,
        "perf/tokens_per_s": 4100.0 + 40 * math.sin(step),
        "perf/step_ms": 498.0,
        "perf/stall_ms": 0.2,
        "sweep/live": float(live),
      }
      file.write(json.dumps(line) + "\n")
  last = [
    _write_member(path, i, own, steps, so_far, frozen.get(i))
    for i, own in enumerate(members)
  ]
  if done is not None:
    return path
  result = {
    "run": str(path),
    "steps": steps,
    "tokens": 2048 * steps,
    "members": [
      {
        "member": i,
        "sae": str(path / "sae" / str(i)),
        **own,
        "frozen_at": frozen.get(i),
        **last[i],
      }
      for i, own in enumerate(members)
    ],
    "perf/tokens_per_s": 4100.0,
  }
  for i, own in enumerate(members):
    _export(path / "sae" / str(i), own)
  manifest = config | {"device": "cpu", "wall_s": 914.3, "result": result}
  (path / "manifest.json").write_text(json.dumps(manifest))
  return path


def make_evaluation(
  path: pathlib.Path, run: pathlib.Path, member: int, **numbers: float
) -> pathlib.Path:
  """An evaluation of a member; `fvu=0.2` overrides eval/fvu."""
  report_data.make_evaluation(path, seed=member)
  (path / "contexts.json").unlink()  # a sweep shows none
  found = json.loads((path / "metrics.json").read_text())
  found |= {f"eval/{name}": value for name, value in numbers.items()}
  (path / "metrics.json").write_text(json.dumps(found))
  config = json.loads((path / "config.json").read_text())
  config["config"] = {"run": f"{run}/sae/{member}"}
  config["inputs"] = {"sae": f"{member}" * 64, "store": "3f" * 32}
  (path / "config.json").write_text(json.dumps(config))
  return path


def fvu(own: Mapping[str, Any], step: float) -> float:
  """What a member with such settings leaves unexplained at a step."""
  ease = math.log2(own["k"]) / 10 + 0.15 * math.log10(
    own["learning_rate"] / 1e-4
  ) * (1 if own["learning_rate"] < 5e-4 else 0.4)
  layer = int(own["hook"].split(".")[1]) if own["hook"][:7] == "blocks." else 9
  tail = 0.55 - 0.6 * ease + 0.02 * abs(layer - 9) ** 0.7
  return tail + (1 - tail) * math.exp(-step * own["learning_rate"] / 0.02)


def _own(own: Mapping[str, Any]) -> dict[str, Any]:
  names = ("k", "seed", "learning_rate", "aux_coefficient", "hook")
  return {name: own.get(name) for name in names}


def _settings(own: Mapping[str, Any]) -> dict[str, Any]:
  return {
    "k": 32,
    "seed": 0,
    "learning_rate": 2e-4 / math.sqrt(LATENTS / 2**14),
    "aux_coefficient": 1 / 32,
    "hook": HOOK,
  } | own


def _write_member(
  path: pathlib.Path,
  index: int,
  own: Mapping[str, Any],
  steps: int,
  so_far: int,
  frozen_at: int | None,
) -> dict[str, float]:
  """Its metrics.jsonl; returns its last metrics."""
  place = path / "members" / str(index)
  place.mkdir(parents=True)
  last: dict[str, float] = {}
  with open(place / "metrics.jsonl", "w") as file:
    for step in range(0, so_far, 2):
      if frozen_at is not None and step >= frozen_at:
        break
      spike = 1.0
      if frozen_at is not None and step > frozen_at - 40:
        spike = 1.16 ** (step - frozen_at + 40)
      found = spike * fvu(own, step)
      line = {
        "train/loss": 1.02 * found,
        "train/fvu": found * (1 + 0.02 * math.sin(step * (index + 3))),
        "train/l0": own["k"] * (1 - 0.1 * math.exp(-step / 60)),
        "train/dead_frac": 0.08 * own["k"] ** -0.3 * (1 - math.exp(-step / 99)),
        "train/auxk": 0.9 + 0.1 * math.exp(-step / 120) + 0.002 * index,
        "train/grad_norm": spike * (0.5 + math.exp(-step / 120)),
        "train/lr": own["learning_rate"] * min(1, step / 60, 1 - step / steps),
      }
      if step % 100 == 0:
        line |= {"eval/fvu": 1.01 * found, "eval/l0": 0.99 * line["train/l0"]}
      last |= line
      file.write(json.dumps({"step": step} | line) + "\n")
  return last


def _export(place: pathlib.Path, own: Mapping[str, Any]) -> None:
  place.mkdir(parents=True)
  cfg = {
    "architecture": "topk",
    "d_in": 576,
    "d_sae": LATENTS,
    "k": own["k"],
    "dtype": "float32",
    "metadata": {
      "hook_name": own["hook"],
      "model_name": "SmolLM2-135M-Instruct",
    },
  }
  (place / "cfg.json").write_text(json.dumps(cfg))
