# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Samples of a fine-tuning set, ranked by how far they push the suspects.

ΔP of a sample is the signal of the *base* model over the completion's tokens
less that over the reference's (Chen et al. 2025, arXiv 2507.21509, §6; with
latents in place of a persona vector, if that is asked for). No model is tuned.
"""

import dataclasses
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
from sae_jax.monitor import auroc
from sae_jax.monitor import config as config_lib
from sae_jax.monitor import probe as probe_lib
from sae_jax.monitor import samples as samples_lib

_CHUNK = 256  # samples between two files of progress
_SHOWN_CHARS = 600  # of a text in summary.json; samples.parquet has all of it


@dataclasses.dataclass(frozen=True)
class Weights:
  """A signal as a linear function of latents and residual."""

  latents: tuple[int, ...]
  weights_L: np.ndarray
  unit_D: np.ndarray | None


def signal_weights(
  probe: probe_lib.Probe, names: Sequence[str], signal: str
) -> Weights:
  """What a signal is made of.

  Raises:
    errors.InputError: it has no value for a single text.
  """
  if signal == probe_lib.LATENTS:
    return Weights(probe.latents, probe.weights_L, None)
  if signal in names:
    at = list(names).index(signal)
    sign_1 = np.sign(probe.weights_L[at : at + 1])
    return Weights((probe.latents[at],), sign_1, None)
  if signal in probe.directions:
    return Weights((), np.zeros(0), probe.directions[signal])
  known = [probe_lib.LATENTS, *names, *probe.directions]
  raise errors.InputError(
    f"screening.signal={signal!r}: samples can be ranked by {', '.join(known)}"
  )


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
    errors.InputError: see `samples.load` and `signal_weights`.
  """
  about = config.screening
  assert about is not None
  weights = signal_weights(probe, names, about.signal)
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
        found = _measure(config, probe, weights, norm, base, part)
        artifacts.write_json_atomic(file, found)
      rows += found
      progress.update(len(rows))
  _write(path, samples, rows)
  return _summary(config, samples, rows)


def _measure(
  config: config_lib.MonitorConfig,
  probe: probe_lib.Probe,
  weights: Weights,
  norm: float,
  base: lm.LanguageModel,
  part: Sequence[samples_lib.Sample],
) -> list[dict[str, Any]]:
  """value, reference_value (None without) and reference of some samples."""
  about = config.screening
  assert about is not None
  prompts = [sample.prompt for sample in part]
  references = [sample.reference for sample in part]
  texts = [sample.reference_text for sample in part]
  if about.reference == config_lib.OWN_ANSWER:
    references = _own_answers(about, base, prompts, config.batch_size)
    texts = [base.tokenizer.decode(tokens) for tokens in references]
  completions = [sample.completion for sample in part]
  value_N = _values(config, probe, weights, norm, base, prompts, completions)
  other_N: list[float | None] = [None] * len(part)
  if about.reference:
    other_N = _values(config, probe, weights, norm, base, prompts, references)
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
  stop = base.config.eos_ids[:1] or (base.tokenizer.eos_id,)
  known = {
    prompt: tuple(answer) or tuple(stop)
    for prompt, answer in zip(different, answers, strict=True)
  }
  return [known[prompt] for prompt in prompts]


def _values(
  config: config_lib.MonitorConfig,
  probe: probe_lib.Probe,
  weights: Weights,
  norm: float,
  base: lm.LanguageModel,
  prompts: Sequence[tuple[int, ...]],
  after: Sequence[Any],
) -> list[float]:
  """The signal over the tokens after each prompt."""
  spans = [
    ((*p, *a), len(p), len(p) + len(a))
    for p, a in zip(prompts, after, strict=True)
  ]
  unit_D = weights.unit_D
  found = reading.read(
    base,
    probe.hook,
    spans,
    dictionary=probe.dictionary,
    latents=weights.latents,
    directions_VD=None if unit_D is None else unit_D[None],
    batch_size=config.batch_size,
  )
  value_N = found.latents_PL @ weights.weights_L
  if unit_D is not None:
    value_N = value_N + found.projections_PV[:, 0]
  return (value_N / norm).tolist()


def _order(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
  """ΔP of every sample, and the samples by it, largest first."""
  delta_N = np.array(
    [row["value"] - (row["reference_value"] or 0.0) for row in rows]
  )
  return delta_N, np.argsort(-delta_N, kind="stable")


def _write(
  path: pathlib.Path,
  samples: Sequence[samples_lib.Sample],
  rows: Sequence[dict[str, Any]],
) -> None:
  delta_N, order_N = _order(rows)
  columns: dict[str, list[Any]] = {"rank": list(range(1, len(rows) + 1))}
  for name, value in (
    ("id", lambda i: samples[i].id),
    ("line", lambda i: samples[i].line),
    ("delta", lambda i: float(delta_N[i])),
    ("value", lambda i: rows[i]["value"]),
    ("reference_value", lambda i: rows[i]["reference_value"]),
    ("bad", lambda i: samples[i].bad),
    ("prompt", lambda i: samples[i].prompt_text),
    ("completion", lambda i: samples[i].completion_text),
    ("reference", lambda i: rows[i]["reference"]),
  ):
    columns[name] = [value(i) for i in order_N]
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
    samples, path, group, signal, reference; mean: ΔP of the whole set, with its
    interval over samples; top, bottom, random: examples; with labels also
    auroc, bad (how many) and found: the share of bad ones among as many leading
    samples as there are bad ones.
  """
  about, statistics = config.screening, config.statistics
  assert about is not None
  delta_N, order_N = _order(rows)
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
      "value": row["value"],
      "reference_value": row["reference_value"],
      "bad": sample.bad,
      "prompt": sample.prompt_text[:_SHOWN_CHARS],
      "completion": sample.completion_text[:_SHOWN_CHARS],
      "reference": row["reference"][:_SHOWN_CHARS],
    }

  mean = scores.score(
    delta_N,
    confidence=statistics.confidence,
    resamples=statistics.resamples,
    seed=statistics.seed,
  )
  return {
    "samples": len(rows),
    "path": about.path,
    "group": about.group or config.groups[0].name,
    "signal": about.signal,
    "reference": about.reference or None,
    "mean": mean.json(),
    **_labelled(samples, delta_N, order_N, statistics.confidence),
    "top": [example(i) for i in order_N[:shown]],
    "bottom": [example(i) for i in order_N[::-1][:shown]],
    "random": [example(int(i)) for i in picked],
  }


def _labelled(
  samples: Sequence[samples_lib.Sample],
  delta_N: np.ndarray,
  order_N: np.ndarray,
  confidence: float,
) -> dict[str, Any]:
  if samples[0].bad is None:
    return {"auroc": None, "bad": None, "found": None}
  bad_N = np.array([sample.bad for sample in samples], bool)
  count = int(bad_N.sum())
  return {
    "auroc": auroc.of_samples(delta_N[bad_N], delta_N[~bad_N], confidence),
    "bad": count,
    "found": float(bad_N[order_N[:count]].mean()) if count else None,
  }
