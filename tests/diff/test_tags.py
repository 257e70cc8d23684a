# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A row's words follow from its numbers."""

import numpy as np

from sae_jax.diff import table, tags


def test_a_row_is_tagged_by_what_its_numbers_say():
  part = table.Part(
    method="frozen",
    arm="bad",
    columns={
      "score": np.array([2.0, -1.0, 0.0, 0.5, np.nan]),
      "changed": np.array([True, True, False, False, False]),
      "fires_base": np.array([0.0, 0.2, 0.0, 0.1, 0.1]),
      "fires_tuned": np.array([0.3, 0.0, 0.0, 0.1, 0.1]),
      "fires_control": np.array([0.1, 0.2, 0.0, 0.1, 0.1]),
      "delta": np.array([2.0, -1.0, 0.0, 0.4, -0.4]),
      "delta_control": np.array([0.1, -0.5, 0.0, 0.1, 0.9]),
    },
  )
  found = tags.tagged(part)
  assert found.columns["tags"].tolist() == [
    "risen,tuned-only",
    "fallen,base-only,like-control",
    "silent",
    "",
    "",
  ]


def test_a_latent_without_partner_is_alone_and_has_not_risen():
  part = table.Part(
    method="match",
    arm="partner",
    columns={
      "score": np.array([0.9, 0.1]),
      "changed": np.array([True, False]),
      "partner": np.array([-1, 4]),
    },
  )
  assert tags.tagged(part).columns["tags"].tolist() == ["alone", ""]
