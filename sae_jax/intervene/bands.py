# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Random latents and bundles: what steering does that means nothing.

They fire on the prompts, did not change in the diff and are no candidates, as
far as there are enough of those; their signs are random.
"""

import dataclasses
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from sae_jax import errors
from sae_jax.intervene.candidates import Candidate


@dataclasses.dataclass(frozen=True)
class Pool:
  """Latents to draw from.

  Attributes:
    fires_F: bool.
    changed_F: bool, in the diff.
  """

  fires_F: np.ndarray
  changed_F: np.ndarray

  def tiers(self, taken: set[int]) -> Iterator[tuple[np.ndarray, str]]:
    """Latents, and what is wrong with them; the best come first."""
    free_F = np.ones(len(self.fires_F), bool)
    free_F[list(taken)] = False
    fires_F, same_F = self.fires_F, ~self.changed_F
    yield np.flatnonzero(fires_F & same_F & free_F), ""
    yield np.flatnonzero(fires_F & same_F), "some are candidates themselves"
    yield np.flatnonzero(fires_F), "some have changed in the diff"
    yield np.arange(len(fires_F)), "some never fire on the prompts"


def draw(
  found: Sequence[Candidate], pool: Pool, count: int, seed: int
) -> tuple[list[Candidate], list[str]]:
  """Random latents, and for each bundle random bundles of its weights.

  Args:
    found: all candidates.
    pool: see there.
    count: random latents, and random bundles of each bundle.
    seed: of the draws; a band does not depend on which others there are.

  Returns:
    the random candidates, and warnings.

  Raises:
    errors.InputError: the dictionary has too few latents.
  """
  singles = {c.latents[0] for c in found if c.kind == "latent"}
  latents_C, warnings = _choose(
    pool, singles, count, count, "random latents", seed, 0
  )
  random = [
    Candidate(
      name=f"random latent {latent}",
      kind="latent",
      latents=(int(latent),),
      weights=(float(sign),),
      sign=int(sign),
      is_random=True,
      changed=bool(pool.changed_F[latent]),
    )
    for latent, sign in latents_C
  ]
  bundles = [c for c in found if c.kind == "bundle" and c.band == c.name]
  for bundle in bundles:
    size = len(bundle.latents)
    tag = zlib.crc32(bundle.name.encode()) + 1
    for i in range(count):
      chosen_N, more = _choose(
        pool,
        singles | set(bundle.latents),
        size,
        size,
        f"random bundles like {bundle.name}",
        seed,
        tag,
        i,
      )
      warnings += [w for w in more if w not in warnings]
      rng = np.random.default_rng([seed, tag, i, 1])
      weight_N = rng.permutation(np.abs(bundle.weights))
      random.append(
        Candidate(
          name=f"random {bundle.name} {i}",
          kind="bundle",
          latents=tuple(int(latent) for latent, _ in chosen_N),
          weights=tuple(
            float(sign * weight)
            for (_, sign), weight in zip(chosen_N, weight_N, strict=True)
          ),
          band=bundle.name,
          is_random=True,
        )
      )
  return random, warnings


def members(all_: Sequence[Candidate], candidate: Candidate) -> list[int]:
  """Which of all candidates are the random ones it is compared with.

  Not itself, and no random latent that is the candidate's own latent.
  """
  own = candidate.latents if candidate.kind == "latent" else None
  return [
    i
    for i, other in enumerate(all_)
    if other.is_random
    and other.band == candidate.band
    and other is not candidate
    and (own is None or other.latents != own)
  ]


def _choose(
  pool: Pool,
  taken: set[int],
  count: int,
  least: int,
  what: str,
  *seed: int,
) -> tuple[list[tuple[int, int]], list[str]]:
  """Latents with random signs, of the best tier that has enough of them."""
  for tier, wrong in pool.tiers(taken):
    if len(tier) >= least:
      rng = np.random.default_rng(seed)
      latents = rng.choice(tier, count, replace=False).tolist()
      signs = rng.choice((-1, 1), count).tolist()
      warnings = (
        [f"{what}: {wrong}, as there are too few others"] if wrong else []
      )
      return list(zip(latents, signs, strict=True)), warnings
  raise errors.InputError(
    f"{what}: {count} different latents are needed, the dictionary has"
    f" {len(pool.fires_F)}; lower config.random or the bundle's top"
  )
