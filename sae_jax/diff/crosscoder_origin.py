# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Is a dictionary a crosscoder of the base and an arm, and on what rows?"""

from sae_jax import errors, sae
from sae_jax.diff import config as config_lib
from sae_jax.diff import problem as problem_lib


def check(
  problem: problem_lib.Problem,
  arm: config_lib.Arm,
  path: str,
  crosscoder: sae.Sae,
) -> bool:
  """Whether it was trained on these very rows.

  Raises:
    errors.InputError: it is not one of the base and this arm, in this order.
  """
  evidence = problem.evidence
  if crosscoder.sources != 2:
    raise errors.InputError(
      f"crosscoder={path} is a dictionary of sources={crosscoder.sources}; a"
      " diff takes one of two models, the base and the arm: train it with"
      " store=BASE, paired=(TUNED,)"
    )
  if crosscoder.d_model != 2 * evidence.d_model:
    raise errors.InputError(
      f"crosscoder={path} takes rows of width {crosscoder.d_model}, but two"
      f" models at {evidence.hook} make {2 * evidence.d_model}"
    )
  joined = crosscoder.metadata.get("sae_jax_joined", [])
  trained = [one["store"] for one in joined]
  hooks = {one["hook"] for one in joined}
  if len(hooks) > 1:
    raise errors.InputError(
      f"crosscoder={path} is of the layers {', '.join(sorted(hooks))}, not of"
      " two models; train it with store=BASE, paired=(TUNED,)"
    )
  ours = [evidence.store("base").identity, evidence.store(arm.name).identity]
  if trained and trained == ours[::-1]:
    raise errors.InputError(
      f"crosscoder={path} was trained with {arm.name!r} first and the base"
      " second, so that every sign would be turned; train it with store=BASE,"
      " paired=(TUNED,)"
    )
  others = {
    evidence.store(name).identity: name
    for name in evidence.names
    if name not in ("base", arm.name)
  }
  if trained and trained != ours and trained[1] in others:
    raise errors.InputError(
      f"crosscoder={path} was trained on {others[trained[1]]!r}, but in its"
      f" place in crosscoder it is taken for {arm.name!r}; give the runs in the"
      " order of the tuned arms"
    )
  return trained == ours


def warnings(
  arm: config_lib.Arm, crosscoder: sae.Sae, same_rows: bool
) -> list[str]:
  """What there is to say beside its numbers."""
  found = []
  bound = crosscoder.metadata.get("sae_jax_exclusive_latents") or []
  if any(bound):
    found.append(
      f"{arm.name}: {bound[0]} latents of the base and {bound[1]} of the tuned"
      " model read and write it alone because the crosscoder was built so; only"
      " Latent Scaling says something about them"
    )
  if same_rows:
    found.append(
      f"{arm.name}: the crosscoder was trained on these rows, so how well it"
      " fits them says little about others"
    )
  return found
