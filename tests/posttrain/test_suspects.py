# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which latents are watched: of a diff, of a screen, or named."""

import json

import numpy as np
import pytest
import realign_case

from sae_jax import errors
from sae_jax.posttrain import realign_config, suspects


@pytest.fixture
def diff(tmp_path):
  return str(realign_case.write_diff(tmp_path / "diff", "/the/sae"))


def choose(**fields):
  return suspects.choose(realign_config.WatchConfig(**fields))


def check(found, latents, weights):
  assert found.latents == latents
  weights = np.array(weights)
  np.testing.assert_allclose(
    found.weights_L, weights / np.linalg.norm(weights), rtol=1e-12
  )


def test_the_top_of_a_diff(diff):
  found = choose(diff=diff, top=3)
  check(found, (7, 5, 3), [0.8, -0.6, 0.4])
  assert found.sae == "/the/sae" and found.hook == realign_case.HOOK
  assert list(found.directions) == ["linear.bad.contrast"]  # the other is 0
  assert "3 of largest |score| of frozen/bad" in found.why
  # Latents whose score is 0 are no suspects.
  assert choose(diff=diff, top=50).latents == (7, 5, 3, 11)
  assert choose(diff=diff, sae="/other").sae == "/other"


def test_named_latents_have_the_diffs_weights(diff):
  check(choose(diff=diff, latents=(3, 9, 5)), (3, 9, 5), [0.4, 0, -0.6])
  check(choose(sae="/an/sae", latents=(3, 9)), (3, 9), [1, 1])
  with pytest.raises(errors.InputError, match="64 is not among the 64 latents"):
    choose(diff=diff, latents=(3, 64))
  with pytest.raises(errors.InputError, match="no latent to watch has a score"):
    choose(diff=diff, latents=(20, 21))


def test_what_a_screen_called_causal(tmp_path, diff):
  def screen(name, **fields):
    return str(realign_case.write_screen(tmp_path / name, "/the/sae", **fields))

  found = choose(screen=screen("singles"))
  check(found, (3, 5), [1, -1])  # which way they were steered
  assert found.directions == {}
  found = choose(screen=screen("with_a_diff", diff=diff))
  check(found, (3, 5), [1, -1])
  assert list(found.directions) == ["linear.bad.contrast"]
  bundles = screen("bundles", causal=("top3", "top2", "linear.bad.contrast"))
  found = choose(screen=bundles)
  check(found, (7, 5), [0.8, -0.6])
  assert "top2" in found.why
  nothing = screen("nothing", causal=("linear.bad.contrast",))
  with pytest.raises(errors.InputError, match="no latent and no bundle causal"):
    choose(screen=nothing)


def test_jobs_that_do_not_fit(tmp_path, diff):
  sae = "/the/sae"
  other = realign_case.write_diff(
    tmp_path / "other", sae, hook="blocks.0.hook_resid_post"
  )
  screen = realign_case.write_screen(tmp_path / "screen", sae)
  with pytest.raises(errors.InputError, match="other is about"):
    choose(screen=str(screen), diff=str(other))
  with pytest.raises(errors.InputError, match="diff is about"):
    choose(diff=diff, hook="blocks.2.hook_resid_post")
  # Another name of the same place.
  assert choose(diff=diff, hook="model.layers.1").hook == "model.layers.1"
  two = realign_case.write_diff(tmp_path / "two", sae, arms=("bad", "worse"))
  with pytest.raises(errors.InputError, match="name one"):
    choose(diff=str(two))
  assert choose(diff=str(two), arm="worse").latents[0] == 7


def test_jobs_that_are_not_there(tmp_path, diff):
  with pytest.raises(
    errors.InputError, match="is no directory of a sae-jax st"
  ):
    choose(screen=diff)
  screen = realign_case.write_screen(tmp_path / "screen", "/the/sae")
  (screen / "manifest.json").unlink()
  with pytest.raises(
    errors.InputError, match="is not finished; run sae-jax st"
  ):
    choose(screen=str(screen))


def test_what_a_resumed_run_compares(tmp_path, diff):
  def identity(**fields):
    return suspects.identity(realign_config.WatchConfig(**fields))

  screen = realign_case.write_screen(tmp_path / "s", "/the/sae", diff=diff)
  before = identity(screen=str(screen))
  assert before.keys() == {"screen", "diff"}
  assert before["diff"] == identity(diff=diff)["diff"]
  summary = json.loads((screen / "summary.json").read_text())
  summary["interventions"][0]["verdict"] = "inert"
  (screen / "summary.json").write_text(json.dumps(summary))
  assert identity(screen=str(screen))["screen"] != before["screen"]
  assert identity(sae="/an/sae", latents=(1,)) == {}


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(sae="/an/sae"), "watch names no suspects"),
    (dict(latents=(1,)), "watch.sae is empty"),
    (dict(latents=(1,), screen="s"), "both say which latents"),
    (dict(latents=(1, 1), sae="s"), "names a latent twice"),
    (dict(diff="d", top=0), "watch.top=0: give a number >= 1"),
    (dict(diff="d", skip=-1), "watch.skip=-1: give a number >= 0"),
  ],
)
def test_wrong_configs_are_refused(fields, message):
  with pytest.raises(errors.InputError, match=message):
    realign_config.WatchConfig(**fields)
