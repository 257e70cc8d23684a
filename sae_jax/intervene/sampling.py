# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Sampled answers under many interventions, with common random numbers."""

from collections.abc import Callable, Sequence

import numpy as np

from sae_jax import errors, lm
from sae_jax.intervene import edits as edits_lib
from sae_jax.lm import batch as batch_lib


def sample(
  model: lm.LanguageModel,
  prompts: Sequence[Sequence[int]],
  interventions: edits_lib.Interventions,
  *,
  samples: int = 1,
  max_new_tokens: int,
  temperature: float = 1.0,
  seed: int = 0,
  batch_rows: int = 64,
  progress: Callable[[int], None] | None = None,
) -> list[list[list[list[int]]]]:
  """Answers to every prompt under every intervention.

  Sample s of prompt p draws the same random numbers under every intervention:
  where an intervention changes nothing the text is the same, and differences
  between interventions have less noise.

  Args:
    model: its end-of-sequence tokens end an answer.
    prompts: token ids, none empty; of a chat template up to where the answer
      begins.
    interventions: N of them. In "prompt" they change the prompt's tokens only,
      in "response" only those that the model wrote itself.
    samples: S per prompt; with temperature 0 all are alike, so give 1.
    max_new_tokens: at most so many per answer.
    temperature: 0 is greedy.
    seed: of all draws.
    batch_rows: answers at a time; changes memory and speed only.
    progress: is told how many of the N · P · S answers are there.

  Returns:
    [N][P][S] lists of new tokens, without the one that ended them.

  Raises:
    errors.InputError: no prompt, an empty one, or wrong numbers or hooks.
  """
  if samples < 1 or batch_rows < 1:
    raise errors.InputError(
      f"samples={samples}, batch_rows={batch_rows}: give at least 1 of each"
    )
  ids = batch_lib.encode(model, prompts)
  if not ids:
    raise errors.InputError("there are no prompts to answer; give at least one")
  interventions = interventions.on(model)
  shape = (interventions.n, len(ids), samples)
  found: list[list[int]] = [[] for _ in range(int(np.prod(shape)))]
  # Alike lengths together, as prompts are padded to the longest of a batch.
  order_P = sorted(range(len(ids)), key=lambda p: len(ids[p]))
  rows_R = np.arange(len(found)).reshape(shape)[:, order_P]
  rows_R = np.moveaxis(rows_R, 1, 0).reshape(-1)
  batch_rows = min(batch_rows, len(rows_R))
  for first in range(0, len(rows_R), batch_rows):
    rows = rows_R[first : first + batch_rows]
    # The last batch repeats a row, to be of the shape that is compiled.
    filled_B = np.resize(rows, batch_rows)
    n_B, p_B, s_B = np.unravel_index(filled_B, shape)
    answers = lm.generate_tokens(
      model,
      [ids[p] for p in p_B],
      max_new_tokens=max_new_tokens,
      temperature=temperature,
      seed=seed,
      row_edits=lambda row_B, n_B=n_B: interventions.lm_edits(n_B[row_B]),
      # Further samples leave those there are as they are.
      draws=(s_B * len(ids) + p_B).tolist(),
      batch_size=batch_rows,
    )
    for row, answer in zip(rows, answers, strict=False):
      found[row] = answer
    if progress is not None:
      progress(first + len(rows))
  rows_NPS = np.arange(len(found)).reshape(shape)
  return [[[found[row] for row in s] for s in p] for p in rows_NPS]
