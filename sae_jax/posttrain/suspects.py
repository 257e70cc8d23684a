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
  diff = config.diff or screen.get("diff") or ""
  method = config.method or screen.get("method") or "frozen"
  arm = config.arm or screen.get("arm") or ""
  if diff:
    arm = arm or diff_results.only_arm(diff)
  signs: dict[int, float] = {}
  if config.latents:
    latents, why = config.latents, "named in the config"
  elif screen:
    signs, why = _causal(screen, config.screen)
    latents = tuple(signs)
  else:
    found = diff_results.ranked(diff, method=method, arm=arm, top=config.top)
    latents = tuple(found.latents_N.tolist())
    why = f"the {len(latents)} of largest |score| of {method}/{arm}"
    if not latents:
      raise errors.InputError(
        f"watch.diff={diff}: no latent of {method}/{arm} has a score but 0;"
        " choose another method, or name watch.latents"
      )
  if diff:
    weights_L = _scores(diff, method, arm, latents)
    why += f"; weighted by the scores of {method}/{arm}"
  else:
    weights_L = np.array([signs.get(i, 1.0) for i in latents])
  size = np.linalg.norm(weights_L)
  if not size > 0:
    raise errors.InputError(
      f"watch: the scores of latents {list(latents)[:10]} in {diff} are all 0;"
      " watch other latents, or leave the diff out"
    )
  place = _place(config, diff, screen)
  return Suspects(
    latents=latents,
    weights_L=weights_L / size,
    why=why,
    sae=config.sae or place["sae"],
    hook=place["hook"],
    directions=_directions(diff, arm) if diff else {},
  )


def identity(config: realign_config.WatchConfig) -> dict[str, str]:
  """Hashes of what `choose` reads."""
  found = {}
  diff = config.diff
  if config.screen:
    screen = _screen(config.screen)
    found["screen"] = artifacts.hash_json(screen)
    diff = diff or screen.get("diff") or ""
  if diff:
    found["diff"] = diff_results.identity(diff)
  return found


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


def _causal(screen: dict[str, Any], path: str) -> tuple[dict[int, float], str]:
  """The causal single latents, else those of the smallest causal bundle."""
  causal = [x for x in screen["interventions"] if x["verdict"] == "causal"]
  singles = {
    int(x["latents"][0]): float(x["sign"])
    for x in causal
    if x["kind"] == "latent"
  }
  if singles:
    return singles, f"the {len(singles)} that the screen called causal"
  bundles = [x for x in causal if x["kind"] == "bundle"]
  if not bundles:
    raise errors.InputError(
      f"watch.screen={path} called no latent and no bundle causal; name"
      " watch.diff or watch.latents in its place"
    )
  smallest = min(bundles, key=lambda x: len(x["latents"]))
  return (
    {int(i): 1.0 for i in smallest["latents"]},
    f"those of {smallest['name']}, which the screen called causal",
  )


def _scores(
  diff: str, method: str, arm: str, latents: tuple[int, ...]
) -> np.ndarray:
  score_F = diff_results.columns(diff, ("score",), method=method, arm=arm)[
    "score"
  ]
  wrong = [i for i in latents if not 0 <= i < len(score_F)]
  if wrong:
    raise errors.InputError(
      f"watch.latents: {wrong[0]} is not among the {len(score_F)} latents of"
      f" {diff}"
    )
  return np.nan_to_num(score_F[list(latents)].astype(np.float64))


def _place(
  config: realign_config.WatchConfig, diff: str, screen: dict[str, Any]
) -> dict[str, str]:
  """The SAE and the hook of the jobs, which have to agree."""
  found = {"sae": "", "hook": config.hook}
  said = []  # name, SAE, hook
  if screen:
    said.append(
      (f"watch.screen={config.screen}", screen["sae"], screen["hook"])
    )
  if diff:
    summary = diff_results.summary(diff)
    said.append((f"watch.diff={diff}", summary["sae"]["path"], summary["hook"]))
  for name, sae, hook in said:
    found["sae"] = found["sae"] or sae
    if not found["hook"]:
      found["hook"] = hook
    elif hooks_lib.parse(found["hook"]) != hooks_lib.parse(hook):
      raise errors.InputError(
        f"{name} is about {hook}, but {found['hook']} is watched; use one"
        " place for both"
      )
  return found


def _directions(diff: str, arm: str) -> dict[str, np.ndarray]:
  """The linear baselines of the same arm, where the diff has them."""
  known = diff_results.directions(diff)
  wanted = [f"linear.{arm}.{name}" for name in _DIRECTIONS]
  return {
    name: known[name]
    for name in wanted
    if name in known and np.linalg.norm(known[name]) > 0
  }
