# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which latents are active on the prompts: what random ones are drawn from.

A diff has counted it; without one the models are run to the hook and encoded.
"""

import pathlib
from collections.abc import Callable

import numpy as np

from sae_jax import artifacts, formats, lm
from sae_jax.interpret import diff_results, on_mesh
from sae_jax.intervene import bands
from sae_jax.intervene import config as config_lib
from sae_jax.judge import prompts as prompts_lib
from sae_jax.lm import batch as batch_lib

_SEQUENCES = 16  # per forward pass


def of_diff(config: config_lib.SteerConfig) -> np.ndarray | None:
  """Active on the diff's prompts in either model, bool [F]; None if unknown."""
  if not config.diff:
    return None
  found = diff_results.columns(
    config.diff,
    ("fires_base", "fires_tuned"),
    method=config.method,
    arm=config.arm or diff_results.only_arm(config.diff),
  )
  fires_F = np.any([np.nan_to_num(x) > 0 for x in found.values()], axis=0)
  return fires_F if fires_F.any() else None


def read(
  config: config_lib.SteerConfig,
  work: pathlib.Path,
  hook: str,
  prompts: prompts_lib.Prompts,
  load: Callable[[str], lm.LanguageModel],
) -> np.ndarray:
  """Latents that are active in the base or the tuned model, bool [F].

  First tokens are left out. What is found is kept in `work`.
  """
  path = work / "fires.npz"
  if not path.is_file():
    dictionary = formats.load_sae(config.sae)
    fires_F = np.zeros(dictionary.latents, bool)
    for name in ("base", "tuned"):
      fires_F |= _fires(load(name), dictionary, hook, prompts)
    artifacts.write_npz_atomic(path, {"fires": fires_F})
  with np.load(path, allow_pickle=False) as file:
    return file["fires"]


def pool(
  config: config_lib.SteerConfig, arm: str, fires_F: np.ndarray
) -> bands.Pool:
  """What random latents are drawn from."""
  if not config.diff:
    return bands.Pool(fires_F, np.zeros(len(fires_F), bool))
  part = diff_results.columns(
    config.diff, ("changed",), method=config.method, arm=arm
  )
  return bands.Pool(fires_F, part["changed"])


def _fires(
  model: lm.LanguageModel, dictionary, hook: str, prompts: prompts_lib.Prompts
) -> np.ndarray:
  placed = on_mesh.place(dictionary, model.mesh)
  encode = on_mesh.encoder(model.mesh)
  sequences = [
    prompt.tokens + prompt.responses[field]
    for prompt in prompts.prompts
    for field in (prompts.behaviour, prompts.contrast)
  ]
  longest = max(len(tokens) for tokens in sequences)
  lanes = on_mesh.lanes(model.mesh)
  size = -(-_SEQUENCES // lanes) * lanes
  fires_F = np.zeros(dictionary.latents, bool)
  for first in range(0, len(sequences), size):
    tokens_BT, mask_BT = batch_lib.pad(
      sequences[first : first + size], size, longest, left=False
    )
    x_BTD = lm.activations(model, tokens_BT, [hook], mask_BT)[hook]
    values_NK, indices_NK = encode(placed, x_BTD.reshape(-1, x_BTD.shape[-1]))
    mask_BT = mask_BT.copy()
    mask_BT[:, 0] = False
    active_NK = (np.asarray(values_NK) > 0) & mask_BT.reshape(-1, 1)
    fires_F[np.asarray(indices_NK)[active_NK]] = True
  return fires_F
