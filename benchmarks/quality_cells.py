# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One trained and measured dictionary of quality.py: a cell of its table.

A cell is a function of its fields and the store alone. Its result is a
directory of the cache, `cell.json` written last; a cell that was killed is
done again from the start.
"""

import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import machine
import numpy as np
import quality_learners
import quality_task

from sae_jax import artifacts, evaluate, formats, mesh, sae, store, stream

_LOOKS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)  # of the steps
_LOOK_ROWS = 2048  # held-out rows of a look during training
_CHECK_ROWS = 512  # on which the library's own forward pass is compared
_SAMPLE_ROWS = 32_768  # for the initial b_dec, as `sae-jax train` takes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
  """What is trained on what; every field is part of its name."""

  system: str  # of quality_learners.LEARNERS
  hook: str
  latents: int
  k: int
  seed: int  # of the dictionary and of the order of the rows
  batch: int
  steps: int
  activation: str = "topk"
  rate: float | None = None  # None: the library's own schedule
  warmup: int = 0  # steps, with a given rate

  @property
  def recipe(self) -> str:
    """How the learning rate is chosen, for people."""
    if self.rate is None:
      return "default"
    return f"{self.rate:g}, warm-up {self.warmup}"

  @property
  def name(self) -> str:
    rate = "default" if self.rate is None else f"{self.rate:g}w{self.warmup}"
    return (
      f"{self.hook}-F{self.latents}-K{self.k}-{self.batch}x{self.steps}-"
      f"{self.activation}-{self.system}-{rate}-s{self.seed}"
    )


def place(cache: pathlib.Path, source: store.Store, cell: Cell) -> pathlib.Path:
  """The cell's directory: stores do not share cells."""
  return cache / source.identity[:12] / cell.name


def result(directory: pathlib.Path) -> dict[str, Any] | None:
  """What `run` wrote, with the language model's part where there is one."""
  found = artifacts.read_json(directory / "cell.json")
  if found is None:
    return None
  loss = artifacts.read_json(directory / "loss.json")
  return found | {"loss": loss}


def run(
  cell: Cell, source: store.Store, held_out: int, directory: pathlib.Path
) -> None:
  """Trains and measures one cell, and writes its directory."""
  directory.mkdir(parents=True, exist_ok=True)
  training, testing = source.holdout(held_out)
  learner = quality_learners.LEARNERS[cell.system](
    quality_task.Task(
      d_model=source.d_model(cell.hook),
      latents=cell.latents,
      k=cell.k,
      batch=cell.batch,
      steps=cell.steps,
      seed=cell.seed,
      activation=cell.activation,
      rate=cell.rate,
      warmup=cell.warmup,
    ),
    data(source, cell.hook, training),
  )
  look_ND = rows(source, cell.hook, testing, _LOOK_ROWS)
  batches = stream.open_stream(
    source,
    cell.hook,
    stream.StreamConfig(batch_size=cell.batch, seed=cell.seed),
    mesh=mesh.single(),
    chunks=training,
  )
  try:
    clock, curve = train(learner, batches, cell.steps, look_ND)
  finally:
    batches.close()
  finished = learner.dictionary()
  found = evaluate.evaluate(
    finished, source, cell.hook, testing, mesh=mesh.single()
  )
  formats.save_sae(finished, directory / "sae")
  artifacts.write_json_atomic(
    directory / "cell.json",
    {
      "cell": dataclasses.asdict(cell),
      "version": machine.version(quality_learners.PACKAGES[cell.system]),
      "metrics": found.metrics,
      "check": check(learner, finished, look_ND[:_CHECK_ROWS]),
      "clock": clock,
      "curve": curve,  # (step, seconds, processor seconds, held-out FVU)
    },
  )


def data(source: store.Store, hook: str, training: range) -> quality_task.Data:
  """What a run of ours knows of the rows before it starts."""
  stats = source.stats(hook)
  return quality_task.Data(
    sample_ND=rows(source, hook, training, _SAMPLE_ROWS),
    mean_square_norm=stats.mean_square_norm,
    total_variance=float(stats.variance_D.sum()),
  )


def rows(
  source: store.Store, hook: str, chunks: range, count: int
) -> np.ndarray:
  """So many float32 rows, from read chunks all over `chunks`."""
  wanted = min(-(-count // source.read_rows), len(chunks))
  ids = np.unique(np.linspace(chunks[0], chunks[-1], wanted).astype(int))
  parts = source.read_chunks(hook, ids.tolist())
  return np.concatenate(parts)[:count].astype(np.float32)


def train(
  learner: quality_task.Learner, batches, steps: int, look_ND: np.ndarray
) -> tuple[dict[str, float], list[list[float]]]:
  """All steps; their seconds, and what held-out rows said in between.

  The first step compiles or warms up, and is counted as long as the mean of the
  others.
  """
  looks = {max(1, round(share * steps)) for share in _LOOKS} | {steps}
  wall = processor = first = 0.0
  curve = []
  for step in range(steps):
    batch = jax.block_until_ready(next(batches))
    start, used = time.perf_counter(), time.process_time()
    learner.step(batch)
    spent = time.perf_counter() - start
    if step == 0:
      first = spent
    else:
      wall += spent
      processor += time.process_time() - used
    if step + 1 in looks:
      scale = (step + 1) / max(step, 1)
      fvu = fraction_unexplained(
        look_ND, ours_reconstruct(learner.dictionary(), look_ND)
      )
      curve.append([step + 1, scale * wall, scale * processor, fvu])
  scale = steps / max(steps - 1, 1)
  clock = {
    "first_s": first,
    "wall_s": scale * wall,
    "processor_s": scale * processor,
  }
  return clock, curve


def ours_reconstruct(dictionary: sae.Sae, x_ND: np.ndarray) -> np.ndarray:
  x_ND = jax.numpy.asarray(x_ND)
  return np.asarray(sae.decode(dictionary, *sae.encode(dictionary, x_ND)))


def fraction_unexplained(x_ND: np.ndarray, x_hat_ND: np.ndarray) -> float:
  """Σ‖x̂ − x‖² / Σ‖x − x̄‖²."""
  spread_ND = x_ND - x_ND.mean(0, keepdims=True)
  return float(
    np.square(x_hat_ND - x_ND, dtype=np.float64).sum()
    / np.square(spread_ND, dtype=np.float64).sum()
  )


def check(
  learner: quality_task.Learner, finished: sae.Sae, x_ND: np.ndarray
) -> dict[str, float]:
  """The library's own reconstruction beside ours of its weights.

  Rows whose last active latent is nearly tied may choose another one.
  """
  ours_ND = ours_reconstruct(finished, x_ND)
  theirs_ND = learner.reconstruct(x_ND)
  off_N = np.linalg.norm(ours_ND - theirs_ND, axis=1)
  off_N /= np.linalg.norm(theirs_ND, axis=1)
  return {
    "fvu_ours": fraction_unexplained(x_ND, ours_ND),
    "fvu_theirs": fraction_unexplained(x_ND, theirs_ND),
    "rows_equal": float((off_N < 1e-4).mean()),
  }


def to_json(cell: Cell) -> str:
  return json.dumps(dataclasses.asdict(cell))


def from_json(text: str) -> Cell:
  return Cell(**json.loads(text))
