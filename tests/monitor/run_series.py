# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs with known trajectories, without any model."""

import numpy as np

from sae_jax.monitor import trajectory


def run(
  name,
  values,
  *,
  role="benign",
  group="g",
  steps=None,
  shows=None,
  selection=False,
  dose=None,
  signal="s",
):
  """Checkpoints after a base at step 0; `values` of one signal, or of many."""
  many = values if isinstance(values, dict) else {signal: values}
  count = len(next(iter(many.values())))
  steps = list(range(1, count + 1)) if steps is None else steps
  shows = [False] * count if shows is None else shows
  return trajectory.Run(
    group=group,
    name=name,
    role=role,
    selection=selection,
    dose=dose,
    steps_C=np.array([0, *steps]),
    signals={k: np.array([0.0, *v], float) for k, v in many.items()},
    shows_C=np.array([False, *shows]),
    base_C=np.array([True] + [False] * count),
  )
