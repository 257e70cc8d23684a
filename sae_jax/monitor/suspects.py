# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What is suspect in a base model: latents and directions, fixed beforehand.

Latents and linear baselines come from a diff, the persona vector from the base
model itself under two sets of prompts.
"""

import numpy as np

from sae_jax import errors, lm
from sae_jax.interpret import diff_results, reading
from sae_jax.judge import prompts as prompts_lib
from sae_jax.monitor import config as config_lib

_DIRECTIONS = ("contrast", "mean_difference")  # of the diff's method "linear"


def latents(
  group: config_lib.GroupConfig, arm: str, count: int
) -> tuple[tuple[int, ...], np.ndarray]:
  """The latents, best first, and their weights: signed scores at norm 1.

  Args:
    group: of the config.
    arm: of its diff.
    count: how many latents the dictionary has.

  Raises:
    errors.InputError: no such latents, or none of them changed.
  """
  if group.latents:
    wrong = [i for i in group.latents if not 0 <= i < count]
    if wrong or len(set(group.latents)) < len(group.latents):
      raise errors.InputError(
        f"group {group.name!r}: latents={group.latents}: give different ones of"
        f" 0 to {count - 1}"
      )
    score_F = diff_results.columns(
      group.diff, ("score",), method=group.method, arm=arm
    )["score"]
    chosen, score_L = group.latents, score_F[list(group.latents)]
  else:
    found = diff_results.ranked(
      group.diff, method=group.method, arm=arm, top=group.top
    )
    chosen, score_L = tuple(found.latents_N.tolist()), found.scores_N
  score_L = np.nan_to_num(np.asarray(score_L, np.float64))
  size = np.linalg.norm(score_L)
  if not size > 0:
    raise errors.InputError(
      f"group {group.name!r}: no latent of {group.method}/{arm} in"
      f" {group.diff} changed, so nothing is suspect; name another method, arm"
      " or diff, or latents that changed"
    )
  return chosen, score_L / size


def directions(
  group: config_lib.GroupConfig, arm: str
) -> dict[str, np.ndarray]:
  """Unit vectors of the arm's linear baselines that the diff has."""
  found = diff_results.directions(group.diff)
  unit = {}
  for name in _DIRECTIONS:
    vector_D = found.get(f"linear.{arm}.{name}")
    if vector_D is not None and np.linalg.norm(vector_D) > 0:
      vector_D = vector_D.astype(np.float64)
      unit[name] = vector_D / np.linalg.norm(vector_D)
  return unit


def persona_vector(
  group: config_lib.GroupConfig,
  hook: str,
  base: lm.LanguageModel,
  batch_size: int,
) -> np.ndarray:
  """Unit vector of mean activation under the positive prompts − the negative.

  Args:
    group: with a persona; its scope says which tokens count.
    hook: where.
    base: the base model.
    batch_size: sequences at a time.

  Raises:
    errors.InputError: both sets of prompts give the same mean activation.
  """
  assert group.persona is not None
  means = []
  for config in (group.persona.positive, group.persona.negative):
    prompts = prompts_lib.load(config, base.tokenizer)
    found = reading.read(
      base,
      hook,
      prompts_lib.spans(prompts, group.scope, group.skip_positions),
      batch_size=batch_size,
    )
    means.append(found.mean_PD.mean(0))
  vector_D = means[0] - means[1]
  size = np.linalg.norm(vector_D)
  if not size > 0:
    raise errors.InputError(
      f"group {group.name!r}: persona.positive and persona.negative give the"
      " same activations; let their prompts differ, by system or by file"
    )
  return vector_D / size
