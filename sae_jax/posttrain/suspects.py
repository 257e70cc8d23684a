# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which latents are watched while a model is re-aligned, and their weights."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from sae_jax import artifacts, errors
from sae_jax.interpret import diff_results
from sae_jax.lm import hooks as hooks_lib
from sae_jax.posttrain import realign_config

_DIRECTIONS = ("contrast", "mean_difference")  # of the diff's method "linear"


@dataclasses.dataclass(frozen=True)
class Suspects:
  """Latents with signed weights of norm 1: their sum is the bundle.

  Attributes:
    why: where they are from, in words.
    sae: where the dictionary is.
    hook: "" where nothing says it but the dictionary.
    directions: of the diff, by name: [D].
  """

  latents: tuple[int, ...]
  weights_L: np.ndarray
  why: str
  sae: str
  hook: str
  directions: dict[str, np.ndarray]


def choose(config: realign_config.WatchConfig) -> Suspects:
  """Reads the diff and the screen that the config names.

  Raises:
    errors.InputError: there is no such finished job, the screen called nothing
      causal, or the jobs looked at different places.
  """
  screen = _screen(config.screen) if config.screen else {}
  diff = _diff(config, screen)
  method = config.method or screen.get("method") or "frozen"
  arm = config.arm or screen.get("arm") or ""
  if diff:
    arm = arm or diff_results.only_arm(diff)
  if screen:
    latents, weights, why = _causal(screen, config.screen)
  elif config.latents:
    latents, why = config.latents, "named in the config"
    weights = [1.0] * len(latents)
    if diff:
      weights = _scores(diff, method, arm, latents)
      why += f", weighted by the scores of {method}/{arm}"
  else:
    found = diff_results.ranked(diff, method=method, arm=arm, top=config.top)
    latents = tuple(found.latents_N.tolist())
    weights = found.scores_N.tolist()
    why = f"the {len(latents)} of largest |score| of {method}/{arm}"
  size = float(np.linalg.norm(weights))
  if not size > 0:
    raise errors.InputError(
      f"watch: no latent to watch has a score but 0 in {method}/{arm} of"
      f" {diff}; choose another method, or name other watch.latents"
    )
  sae, hook = _place(config, diff, screen)
  return Suspects(
    latents=latents,
    weights_L=np.asarray(weights, np.float64) / size,
    why=why,
    sae=sae,
    hook=hook,
    directions=_directions(diff, arm) if diff else {},
  )


def identity(config: realign_config.WatchConfig) -> dict[str, str]:
  """Hashes of what `choose` reads."""
  found = {}
  screen = _screen(config.screen) if config.screen else {}
  if screen:
    found["screen"] = artifacts.hash_json(screen)
  if diff := _diff(config, screen):
    found["diff"] = diff_results.identity(diff)
  return found


def _diff(config: realign_config.WatchConfig, screen: dict[str, Any]) -> str:
  return config.diff or screen.get("diff") or ""


def _screen(path: str) -> dict[str, Any]:
  """summary.json of a finished steer job."""
  directory = pathlib.Path(path).expanduser()
  recorded = artifacts.read_json(directory / "config.json")
  if recorded is None or recorded.get("job") != "steer":
    raise errors.InputError(
      f"watch.screen={directory} is no directory of a sae-jax steer; name the"
      " --out of one"
    )
  if not (directory / "manifest.json").is_file():
    raise errors.InputError(
      f"watch.screen={directory} is not finished; run sae-jax steer to its end"
    )
  return artifacts.read_json(directory / "summary.json")


def _causal(
  screen: dict[str, Any], path: str
) -> tuple[tuple[int, ...], list[float], str]:
  """The causal single latents, else those of the smallest causal bundle."""
  causal = [x for x in screen["interventions"] if x["verdict"] == "causal"]
  singles = [x for x in causal if x["kind"] == "latent"]
  if singles:
    return (
      tuple(int(x["latents"][0]) for x in singles),
      [float(x["sign"]) for x in singles],
      f"what the screen called causal ({len(singles)})",
    )
  bundles = [x for x in causal if x["kind"] == "bundle"]
  if not bundles:
    raise errors.InputError(
      f"watch.screen={path} called no latent and no bundle causal; name"
      " watch.diff or watch.latents in its place"
    )
  smallest = min(bundles, key=lambda x: len(x["latents"]))
  return (
    tuple(map(int, smallest["latents"])),
    [float(weight) for weight in smallest["weights"]],
    f"those of {smallest['name']}, which the screen called causal",
  )


def _scores(
  diff: str, method: str, arm: str, latents: tuple[int, ...]
) -> list[float]:
  found = diff_results.columns(diff, ("score",), method=method, arm=arm)
  score_F = np.nan_to_num(found["score"].astype(np.float64))
  wrong = [i for i in latents if not 0 <= i < len(score_F)]
  if wrong:
    raise errors.InputError(
      f"watch.latents: {wrong[0]} is not among the {len(score_F)} latents of"
      f" {diff}"
    )
  return score_F[list(latents)].tolist()


def _place(
  config: realign_config.WatchConfig, diff: str, screen: dict[str, Any]
) -> tuple[str, str]:
  """The SAE and the hook; those of the jobs have to agree."""
  sae, hook = config.sae, config.hook
  said = []  # who, which SAE, which hook
  if screen:
    said.append(
      (f"watch.screen={config.screen}", screen["sae"], screen["hook"])
    )
  if diff:
    summary = diff_results.summary(diff)
    said.append((f"watch.diff={diff}", summary["sae"]["path"], summary["hook"]))
  for who, its_sae, its_hook in said:
    sae, hook = sae or its_sae, hook or its_hook
    if hooks_lib.parse(hook) != hooks_lib.parse(its_hook):
      raise errors.InputError(
        f"{who} is about {its_hook}, but {hook} is watched; use one place for"
        " both"
      )
  return sae, hook


def _directions(diff: str, arm: str) -> dict[str, np.ndarray]:
  """The linear baselines of the same arm, where the diff has them."""
  known = diff_results.directions(diff)
  wanted = [f"linear.{arm}.{name}" for name in _DIRECTIONS]
  return {
    name: known[name]
    for name in wanted
    if name in known and np.linalg.norm(known[name]) > 0
  }
