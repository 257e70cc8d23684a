# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Prompts with two responses: in batches, and summed up by group.

What a method finds of every pair is averaged over the pairs of a group and
kept in `problem.work`, a chunk of groups at a time, so that a killed run goes
on where it was.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from sae_jax import artifacts, errors, lm
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import on_mesh
from sae_jax.judge import prompts as prompts_lib
from sae_jax.lm import batch as batch_lib

# Sums of a chunk of groups that are held in memory: 256 MiB.
_HELD = 1 << 25
_BATCHES_PER_CHUNK = 32  # what a kill may cost


@dataclasses.dataclass(frozen=True)
class PairBatch:
  """Sequence 2i is a prompt with the behaviour, 2i + 1 with the contrast.

  A short batch is filled up with sequences that are all padding.
  """

  prompts_N: np.ndarray  # which prompts; the batch holds at least N pairs
  tokens_BT: np.ndarray  # int32
  mask_BT: np.ndarray  # bool: not padding
  scored_BR: np.ndarray  # int32: positions of the response; -1: none
  scope_BS: np.ndarray  # int32: positions whose activations count; -1: none


# (model, batch) -> [pairs of the batch, C], on every device.
Compute = Callable[[lm.LanguageModel, PairBatch], jax.Array]


def given(problem: problem_lib.Problem) -> prompts_lib.Prompts:
  """The prompts.

  Raises:
    errors.InputError: there are none.
  """
  if problem.prompts is None:
    raise errors.InputError(
      "this method runs the models on prompts, but none are given; set"
      " prompts=PromptsConfig(path=…), or leave the method out"
    )
  return problem.prompts


def group_pairs(problem: problem_lib.Problem) -> list[np.ndarray]:
  """The prompts with both responses, by group; groups without any left out.

  Prompt i is in group i mod G, G = min(config.groups, prompts), as in evidence
  of prompts; so where all prompts are pairs these are the evidence's groups.

  Raises:
    errors.InputError: there are no prompts, or none has both responses.
  """
  prompts = given(problem)
  if not prompts.pairs:
    raise errors.InputError(
      f"{prompts.path}: no prompt has both responses {prompts.behaviour!r} and"
      f" {prompts.contrast!r}; add them, or name the two fields in"
      " prompts.behaviour and prompts.contrast"
    )
  prompt_P = np.asarray(prompts.pairs)
  count = min(problem.config.groups, len(prompts.prompts))
  members = (prompt_P[prompt_P % count == g] for g in range(count))
  return [some for some in members if len(some)]


def group_means(
  problem: problem_lib.Problem,
  name: str,
  stem: str,
  width: int,
  compute: Compute,
) -> np.ndarray:
  """Mean over the pairs of each group of what `compute` finds of every pair.

  Chunks of groups are written to `work/STEM.npy` as they are done, so a killed
  run goes on after the last one.

  Returns:
    float64 [G, width], read from disk as it is used.

  Raises:
    errors.InputError: no such model or pairs, or a result is not finite.
  """
  groups = group_pairs(problem)
  path = problem.work / f"{stem}.npy"
  finished = problem.work / f"{stem}.json"
  done = (artifacts.read_json(finished) or {"groups": 0})["groups"]
  if not done:
    np.lib.format.open_memmap(
      path, "w+", np.float64, shape=(len(groups), width)
    ).flush()
  if done < len(groups):
    model = problem.model(name)
    means_GC = np.load(path, mmap_mode="r+")
    progress = problem.progress(sum(map(len, groups)), "pairs")
    for chunk in _chunks(groups, done, width, _pairs_at_once(problem)):
      for group, mean_C in _chunk_means(problem, model, chunk, compute, groups):
        means_GC[group] = mean_C
      means_GC.flush()
      artifacts.write_json_atomic(finished, {"groups": chunk.stop})
      progress.update(sum(map(len, groups[: chunk.stop])), stem)
    progress.close()
  return np.load(path, mmap_mode="r")


def _chunk_means(
  problem: problem_lib.Problem,
  model: lm.LanguageModel,
  chunk: range,
  compute: Compute,
  groups: Sequence[np.ndarray],
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (group, mean over its pairs) of a chunk of groups."""
  group_of = {int(i): g for g in chunk for i in groups[g]}
  sums: dict[int, np.ndarray] = {}
  waiting: tuple[PairBatch, jax.Array] | None = None

  def take(batch: PairBatch, values_NC: jax.Array) -> None:
    # The batch may hold more pairs than there are: its padding.
    for i, value_C in zip(batch.prompts_N, np.asarray(values_NC), strict=False):
      if not np.isfinite(value_C).all():
        raise errors.InputError(
          f"{model.source}: what it computes on prompt"
          f" {given(problem).prompts[i].id!r} is not finite; run with"
          " dtype=float32, or check its weights"
        )
      group = group_of[int(i)]
      sums[group] = sums.get(group, 0.0) + value_C.astype(np.float64)

  for batch in pair_batches(problem, model, list(group_of)):
    running = batch, compute(model, batch)
    if waiting is not None:
      take(*waiting)  # while the next one runs
    waiting = running
  if waiting is not None:
    take(*waiting)
  for group in chunk:
    yield group, sums[group] / len(groups[group])


def _chunks(
  groups: Sequence[np.ndarray], start: int, width: int, pairs_at_once: int
) -> Iterator[range]:
  each = max(map(len, groups))
  size = max(
    1,
    min(_HELD // width, pairs_at_once * _BATCHES_PER_CHUNK // each),
  )
  for first in range(start, len(groups), size):
    yield range(first, min(first + size, len(groups)))


def _pairs_at_once(problem: problem_lib.Problem) -> int:
  """Pairs per batch: a multiple of what the mesh splits sequences by."""
  lanes = on_mesh.lanes(problem.mesh)
  return -(-max(1, problem.config.batch_size // 2) // lanes) * lanes


def pair_batches(
  problem: problem_lib.Problem,
  model: lm.LanguageModel,
  prompts: Sequence[int],
) -> Iterator[PairBatch]:
  """Both sequences of each prompt, prompts of similar length together."""
  all_of = {i: _sequences(given(problem), i) for i in given(problem).pairs}
  flat = [sequence for pair in all_of.values() for sequence in pair]
  # Of all pairs, so that only the sequences' length varies what is compiled.
  scored = _widest([_response(s) for s in flat])
  scope = _widest([span(problem, s) for s in flat])
  order = sorted(prompts, key=lambda i: (max(map(_length, all_of[i])), i))
  size = _pairs_at_once(problem)
  for first in range(0, len(order), size):
    some = order[first : first + size]
    batch = [sequence for i in some for sequence in all_of[i]]
    tokens_BT, mask_BT = padded([s.tokens for s in batch], 2 * size, model)
    t = tokens_BT.shape[1]
    yield PairBatch(
      np.asarray(some),
      tokens_BT,
      mask_BT,
      positions([_response(s) for s in batch], 2 * size, min(scored, t)),
      positions([span(problem, s) for s in batch], 2 * size, min(scope, t)),
    )


def _sequences(
  prompts: prompts_lib.Prompts, i: int
) -> tuple[prompts_lib.Sequence, prompts_lib.Sequence]:
  prompt = prompts.prompts[i]
  if not prompt.tokens:
    raise errors.InputError(
      f"{prompts.path}: prompt {prompt.id!r} has no tokens, so that the first"
      " token of a response follows nothing; give it text"
    )
  behaviour, contrast = (
    prompts_lib.Sequence(
      i, prompt.tokens + prompt.responses[field], len(prompt.tokens)
    )
    for field in (prompts.behaviour, prompts.contrast)
  )
  return behaviour, contrast


def _length(sequence: prompts_lib.Sequence) -> int:
  return len(sequence.tokens)


def _response(sequence: prompts_lib.Sequence) -> tuple[int, int]:
  return sequence.response_start, len(sequence.tokens)


def span(
  problem: problem_lib.Problem, sequence: prompts_lib.Sequence
) -> tuple[int, int]:
  """The positions [a, b) of a sequence that the config counts; b >= a."""
  start, stop = sequence.span(problem.config.scope)
  start = max(start, problem.config.skip_positions)
  return start, max(start, stop)


def positions(
  spans: Sequence[tuple[int, int]], rows: int, width: int
) -> np.ndarray:
  """Spans written out, int32 [rows, width]; -1 after their end."""
  at_RW = np.full((rows, width), -1, np.int32)
  for at_W, (start, stop) in zip(at_RW, spans, strict=False):
    at_W[: stop - start] = np.arange(start, stop)
  return at_RW


def _widest(spans: Sequence[tuple[int, int]]) -> int:
  return rounded(max(stop - start for start, stop in spans))


def rounded(length: int) -> int:
  """One of few lengths: a multiple of a quarter to an eighth of itself."""
  step = max(32, 1 << max(length.bit_length() - 3, 0))
  return max(1, -(-length // step)) * step


def padded(
  ids: Sequence[Sequence[int]], rows: int, model: lm.LanguageModel
) -> tuple[np.ndarray, np.ndarray]:
  """tokens_BT and mask_BT, padded on the right to a `rounded` length.

  Raises:
    errors.InputError: longer than the model's position table.
  """
  longest = max(map(len, ids))
  batch_lib.check_length(model, longest)
  return batch_lib.pad(ids, rows, rounded(longest), left=False)


def placed(batch: PairBatch, mesh: jax.sharding.Mesh) -> list[jax.Array]:
  """tokens, mask, scored and scope on the mesh."""
  return [
    batch_lib.place(x, mesh)
    for x in (batch.tokens_BT, batch.mask_BT, batch.scored_BR, batch.scope_BS)
  ]
