# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The monitor from its models to its files, one model at a time.

Each model's reading appears whole in the output's work folder: a monitor that
was killed goes on with the models that are missing. A model that several runs
share is read once.
"""

import pathlib
import shutil
from typing import Any

import jax

from sae_jax import artifacts, errors, lm, metrics
from sae_jax import mesh as mesh_lib
from sae_jax.judge import prompts as prompts_lib
from sae_jax.lm import config as lm_config
from sae_jax.lm import tokenizer as tokenizer_lib
from sae_jax.monitor import config as config_lib
from sae_jax.monitor import plan as plan_lib
from sae_jax.monitor import probe as probe_lib
from sae_jax.monitor import results, screening


def run(
  config: config_lib.MonitorConfig,
  groups: tuple[plan_lib.Group, ...],
  output: artifacts.Output,
) -> dict[str, Any]:
  """Writes summary.json and checkpoints.parquet; returns what is printed.

  Raises:
    errors.InputError: models, dictionaries and prompts do not fit.
  """
  mesh = mesh_lib.make(config.mesh)
  work = output.path / "work"
  work.mkdir(exist_ok=True)
  total = sum(len(group.models()) for group in groups)
  watched, done = [], 0
  with metrics.Progress(total, "models") as progress:
    for number, group in enumerate(groups):
      watched.append(
        _watch(config, group, work, f"{number:04d}", mesh, progress, done)
      )
      done += len(group.models())
  measured = results.measured(config, watched)
  screened = None
  if config.screening is not None:
    screened = _screen(config, measured, mesh, output.path)
  summary = results.summarise(config, measured, screened)
  results.write_table(output.path / "checkpoints.parquet", measured)
  output.write_json("summary.json", summary)
  shutil.rmtree(work)
  return _result(output.path, summary)


def _watch(
  config: config_lib.MonitorConfig,
  group: plan_lib.Group,
  work: pathlib.Path,
  name: str,
  mesh: jax.sharding.Mesh,
  progress: metrics.Progress,
  done: int,
) -> results.Watched:
  """Reads what has not been read yet of one group's models.

  One model is in memory at a time, the base first.
  """
  model: lm.LanguageModel | None
  model = probe_lib.load_model(group.base.source, config, mesh)
  base_config, tokenizer = model.config, model.tokenizer
  probe = probe_lib.make(group.config, model, config.batch_size)
  reads = {}
  for known, source in group.models().items():
    path = work / f"{name}.{known}.npz"
    if not path.is_file():
      if known != group.base.weights_hash:
        model = None
        model = probe_lib.load_model(source, config, mesh)
        _check(probe, group, model, base_config, tokenizer)
      read = probe_lib.measure(probe, model, config.batch_size)
      artifacts.write_npz_atomic(path, read.arrays())
    reads[known] = probe_lib.Read.load(path)
    done += 1
    progress.update(done, group.config.name)
  return results.Watched(group, probe, reads)


def _screen(
  config: config_lib.MonitorConfig,
  groups: list[results.Measured],
  mesh: jax.sharding.Mesh,
  path: pathlib.Path,
) -> dict[str, Any]:
  assert config.screening is not None
  wanted = config.screening.group or config.groups[0].name
  (group,) = (g for g in groups if g.watched.plan.config.name == wanted)
  source = group.watched.plan.base
  return screening.run(
    config,
    group.watched.probe,
    group.names,
    group.watched.reads[source.weights_hash].norm,
    probe_lib.load_model(source.source, config, mesh),
    path / "work",
    path / "samples.parquet",
  )


def _check(
  probe: probe_lib.Probe,
  group: plan_lib.Group,
  model: lm.LanguageModel,
  base_config: lm_config.ModelConfig,
  base_tokenizer: tokenizer_lib.Tokenizer,
) -> None:
  """A checkpoint of another architecture or tokenizer is not comparable."""
  for field in ("d_model", "num_layers", "vocab_size"):
    ours, theirs = (getattr(c, field) for c in (base_config, model.config))
    if ours != theirs:
      raise errors.InputError(
        f"group {group.config.name!r}: {model.source} has {field}={theirs}, its"
        f" base {group.base.source} {ours}; the models of a run are fine-tunes"
        " of the base"
      )
  try:
    tokenizer = model.tokenizer
  except errors.InputError:
    return  # a checkpoint without one was trained with its base's
  if tokenizer.hash == base_tokenizer.hash:
    return
  own = prompts_lib.load(group.config.prompts, tokenizer)
  if own.prompts != probe.prompts.prompts:
    raise errors.InputError(
      f"group {group.config.name!r}: the tokenizer of {model.source} makes"
      f" other tokens of the prompts than that of {group.base.source}"
    )


def _result(path: pathlib.Path, summary: dict[str, Any]) -> dict[str, Any]:
  runs = [run for group in summary["groups"] for run in group["runs"]]
  shown = {}
  for name in (
    probe_lib.LATENTS,
    "contrast",
    "mean_difference",
    probe_lib.PERSONA,
  ):
    about = summary["signals"].get(name)
    if about is not None:
      shown[name] = {
        "auroc_run_out": _mean(about["auroc_run_out"]),
        "auroc_group_out": _mean(about["auroc_group_out"]),
        "false_alarms": about["false_alarms"],
        "missed": about["missed"],
        "median_lead": about["lead"]["median"],
        "median_ahead": about["ahead"]["median"],
        "dose_ordered": about["dose"],
      }
  return {
    "monitor": str(path),
    "groups": len(summary["groups"]),
    "runs": len(runs),
    "signals": shown,
    "warnings": len(summary["warnings"]),
  }


def _mean(found: dict[str, Any] | None) -> float | None:
  return None if found is None else found["mean"]
