# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Bundles by several rules are compared with one set of random bundles."""

import numpy as np
import pytest

from sae_jax import errors, judge
from sae_jax.intervene import bands, candidates, config


def bundle(name, band=""):
  return candidates.Candidate(
    name=name,
    kind="bundle",
    latents=(0, 1),
    weights=(2.0, -1.0),
    band=band or name,
  )


def test_a_bundle_with_another_ones_band_draws_none_of_its_own():
  pool = bands.Pool(np.ones(16, bool), np.zeros(16, bool))
  first, second = bundle("contrast"), bundle("plain", "contrast")
  random, _ = bands.draw([first, second], pool, 5, 0)
  drawn = [c for c in random if c.kind == "bundle"]
  assert [c.band for c in drawn] == ["contrast"] * 5
  assert random == bands.draw([first], pool, 5, 0)[0]
  all_ = [first, second, *random]
  assert [all_[i] for i in bands.members(all_, second)] == drawn


def steer(*bundles):
  return config.SteerConfig(
    base="base",
    tuned="bad",
    sae="sae",
    diff="diff",
    bundles=bundles,
    prompts=judge.PromptsConfig(path="pairs.jsonl"),
  )


@pytest.mark.parametrize(
  "other",
  [
    config.BundleConfig(name="more", top=20, band="contrast"),
    config.BundleConfig(name="lost", band="nobody"),
    config.BundleConfig(name="self", band="self"),
  ],
)
def test_a_band_is_that_of_a_bundle_of_the_same_size(other):
  steer(
    config.BundleConfig(name="contrast"),
    config.BundleConfig(name="plain", band="contrast"),
  )
  with pytest.raises(errors.InputError, match=f"bundle '{other.name}': band"):
    steer(config.BundleConfig(name="contrast"), other)
