# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Samples of a fine-tuning set, ranked by how far they push the suspects.

ΔP of a sample is the signal of the *base* model over the completion's tokens
less that over the reference's (Chen et al. 2025, arXiv 2507.21509, §6; with
latents in place of a persona vector, if that is asked for). No model is tuned.
"""

import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sae_jax import artifacts, errors, lm, metrics
from sae_jax.interpret import reading
from sae_jax.judge import scores
from sae_jax.lm import decoding
from sae_jax.monitor import auroc
from sae_jax.monitor import config as config_lib
from sae_jax.monitor import probe as probe_lib
from sae_jax.monitor import samples as samples_lib

_CHUNK = 256  # samples between two files of progress
_SHOWN_CHARS = 600  # of a text in summary.json; samples.parquet has all of it


def run(
  config: config_lib.MonitorConfig,
  probe: probe_lib.Probe,
  names: Sequence[str],
  norm: float,
  base: lm.LanguageModel,
  work: pathlib.Path,
  path: pathlib.Path,
) -> dict[str, Any]:
  """Ranks the samples; writes `path` (parquet, by ΔP) and returns the summary.

  Args:
    config: with a screening.
    probe: of the group, with its directions.
    names: of its single latents' signals.
    norm: the base's mean residual norm, as for the signals.
    base: the base model.
    work: where chunks of finished samples are kept.
    path: of samples.parquet.

  Raises:
    errors.InputError: see `samples.load`; or samples have no such signal.
  """
  about = config.screening
  assert about is not None
  known = probe_lib.text_signals(probe, names)
  if about.signal not in known:
    raise errors.InputError(
      f"screening.signal={about.signal!r}: samples can be ranked by"
      f" {', '.join(known)}"
    )
  samples = samples_lib.load(
    about, base.tokenizer, base.config.learned_positions or 0
  )
  rows = []
  with metrics.Progress(len(samples), "samples") as progress:
    for first in range(0, len(samples), _CHUNK):
      file = work / f"samples.{first:09d}.json"
      part = samples[first : first + _CHUNK]
      found = artifacts.read_json(file)
      if found is None:
        found = _measure(config, probe, names, norm, base, part)
        artifacts.write_json_atomic(file, found)
      rows += found
      progress.update(len(rows))
  _write(path, samples, rows, about.signal)
  return _summary(config, samples, rows)


def _measure(
  config: config_lib.MonitorConfig,
  probe: probe_lib.Probe,
  names: Sequence[str],
  norm: float,
  base: lm.LanguageModel,
  part: Sequence[samples_lib.Sample],
) -> list[dict[str, Any]]:
  """Of some samples: `value` and `reference_value` by signal, `reference`."""
  about = config.screening
  assert about is not None
  prompts = [sample.prompt for sample in part]
  references = [sample.reference for sample in part]
  texts = [sample.reference_text for sample in part]
  if about.reference == config_lib.OWN_ANSWER:
    references = _own_answers(about, base, prompts, config.batch_size)
    texts = [base.tokenizer.decode(tokens) for tokens in references]
  completions = [sample.completion for sample in part]
  value_N = _values(config, probe, names, norm, base, prompts, completions)
  other_N: Sequence[dict[str, float] | None] = [None] * len(part)
  if about.reference:
    other_N = _values(config, probe, names, norm, base, prompts, references)
  return [
    {"value": value, "reference_value": other, "reference": text}
    for value, other, text in zip(value_N, other_N, texts, strict=True)
  ]


def _own_answers(
  about: config_lib.ScreeningConfig,
  base: lm.LanguageModel,
  prompts: Sequence[tuple[int, ...]],
  batch_size: int,
) -> list[tuple[int, ...]]:
  """The base's greedy answers, once per different prompt.

  An empty answer is its end-of-sequence token: that is what the base says.
  """
  different = sorted(set(prompts))
  answers = lm.generate_tokens(
    base,
    different,
    max_new_tokens=about.max_new_tokens,
    temperature=0.0,
    batch_size=batch_size,
  )
  # A base without such a token never stops before it has said something.
  stop = tuple(sorted(decoding.default_stop_tokens(base)))[:1]
  known = {
    prompt: tuple(answer) or stop
    for prompt, answer in zip(different, answers, strict=True)
  }
  return [known[prompt] for prompt in prompts]


def _values(
  config: config_lib.MonitorConfig,
  probe: probe_lib.Probe,
  names: Sequence[str],
  norm: float,
  base: lm.LanguageModel,
  prompts: Sequence[tuple[int, ...]],
  after: Sequence[Any],
) -> list[dict[str, float]]:
  """Every signal over the tokens after each prompt."""
  spans = [
    ((*p, *a), len(p), len(p) + len(a))
    for p, a in zip(prompts, after, strict=True)
  ]
  found = reading.read(
    base,
    probe.hook,
    spans,
    dictionary=probe.dictionary,
    latents=probe.latents,
    directions_VD=np.stack([*probe.directions.values()])
    if probe.directions
    else None,
    batch_size=config.batch_size,
  )
  weights = probe_lib.text_signals(probe, names)
  both_NX = np.concatenate([found.latents_PL, found.projections_PV], axis=1)
  value_NS = both_NX @ np.stack([*weights.values()], axis=1) / norm
  return [dict(zip(weights, row, strict=True)) for row in value_NS.tolist()]


def _deltas(rows: Sequence[dict[str, Any]], signal: str) -> np.ndarray:
  """ΔP of every sample."""
  value_N = np.array([row["value"][signal] for row in rows])
  if rows[0]["reference_value"] is None:
    return value_N
  return value_N - [row["reference_value"][signal] for row in rows]


def _order(delta_N: np.ndarray) -> np.ndarray:
  """The samples by ΔP, largest first."""
  return np.argsort(-delta_N, kind="stable")


def _write(
  path: pathlib.Path,
  samples: Sequence[samples_lib.Sample],
  rows: Sequence[dict[str, Any]],
  signal: str,
) -> None:
  order = _order(_deltas(rows, signal)).tolist()
  columns: dict[str, list[Any]] = {
    "rank": list(range(1, len(rows) + 1)),
    "id": [samples[i].id for i in order],
    "line": [samples[i].line for i in order],
    "bad": [samples[i].bad for i in order],
  }
  for name in rows[0]["value"]:
    columns[name] = _deltas(rows, name)[order].tolist()
  columns |= {
    "prompt": [samples[i].prompt_text for i in order],
    "completion": [samples[i].completion_text for i in order],
    "reference": [rows[i]["reference"] for i in order],
  }
  sink = io.BytesIO()
  pq.write_table(pa.table(columns), sink, compression="zstd")
  artifacts.write_bytes_atomic(path, sink.getvalue())


def _summary(
  config: config_lib.MonitorConfig,
  samples: Sequence[samples_lib.Sample],
  rows: Sequence[dict[str, Any]],
) -> dict[str, Any]:
  """JSON values.

  Returns:
    samples, path, group, signal, reference; mean, auroc, found: `by_signal` of
    the signal that ranks; bad: how many; top, bottom, random: examples;
    by_signal: ΔP's mean over the set with its interval over samples, and with
    labels auroc and found, the share of bad ones among as many leading samples
    as there are bad ones.
  """
  about, statistics = config.screening, config.statistics
  assert about is not None
  delta_N = _deltas(rows, about.signal)
  order_N = _order(delta_N)
  shown = min(about.shown, len(rows))
  rng = np.random.default_rng(statistics.seed)
  picked = np.sort(rng.choice(len(rows), shown, replace=False))
  place_N = np.empty(len(rows), int)
  place_N[order_N] = np.arange(1, len(rows) + 1)

  def example(i: int) -> dict[str, Any]:
    sample, row = samples[i], rows[i]
    return {
      "rank": int(place_N[i]),
      "id": sample.id,
      "delta": float(delta_N[i]),
      "value": row["value"][about.signal],
      "reference_value": (row["reference_value"] or {}).get(about.signal),
      "bad": sample.bad,
      "prompt": sample.prompt_text[:_SHOWN_CHARS],
      "completion": sample.completion_text[:_SHOWN_CHARS],
      "reference": row["reference"][:_SHOWN_CHARS],
    }

  by_signal = {
    name: _figures(samples, _deltas(rows, name), statistics)
    for name in rows[0]["value"]
  }
  return {
    "samples": len(rows),
    "path": about.path,
    "group": about.group or config.groups[0].name,
    "signal": about.signal,
    "reference": about.reference or None,
    "bad": sum(map(bool, (s.bad for s in samples))) if about.label else None,
    **by_signal[about.signal],
    "by_signal": by_signal,
    "top": [example(i) for i in order_N[:shown]],
    "bottom": [example(i) for i in order_N[::-1][:shown]],
    "random": [example(int(i)) for i in picked],
  }


def _figures(
  samples: Sequence[samples_lib.Sample],
  delta_N: np.ndarray,
  statistics: config_lib.StatisticsConfig,
) -> dict[str, Any]:
  mean = scores.score(
    delta_N,
    confidence=statistics.confidence,
    resamples=statistics.resamples,
    seed=statistics.seed,
  )
  found: dict[str, Any] = {"mean": mean.json(), "auroc": None, "found": None}
  if samples[0].bad is None:
    return found
  bad_N = np.array([sample.bad for sample in samples], bool)
  count = int(bad_N.sum())
  found["auroc"] = auroc.of_samples(
    delta_N[bad_N], delta_N[~bad_N], statistics.confidence
  )
  if count:
    found["found"] = float(bad_N[_order(delta_N)[:count]].mean())
  return found
