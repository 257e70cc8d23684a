# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A dictionary of differences: which of its latents a fine-tune switches on.

A delta SAE is trained on paired activation differences, tuned − base (`minus`
in a train config; Aranguri et al. 2025, alignmentforum.org/posts/
XPNJSa3BxMAN4ZXc7). Here it reads the differences of the diff's own evidence:
of its arm, of the matched control and of the base model run again.
"""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors, formats, sae, store
from sae_jax.diff import config as config_lib
from sae_jax.diff import decoder, delta_fit, statistics, sums, table
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import on_mesh

METHOD = "delta"
BASE, NULL = "base", "null"
_DIRECTIONS = 8  # decoder rows that are kept


def names(config: config_lib.DiffConfig) -> list[tuple[str, str]]:
  """The parts that `run` yields: one per tuned arm.

  Raises:
    errors.InputError: there is not one run per tuned arm.
  """
  return [(METHOD, arm.name) for arm, _ in config.of_tuned("delta")]


def run(
  problem: problem_lib.Problem, skip: frozenset[tuple[str, str]] = frozenset()
) -> Iterator[table.Part]:
  """Mean activations of each arm's delta SAE on its paired differences.

  The score is the mean activation on the arm's differences less that on the
  matched control's; without a control, less that on a difference of zero.

  Raises:
    errors.InputError: a dictionary of another width, of plain activations, or
      of another arm's differences.
  """
  for arm, path in problem.config.of_tuned("delta"):
    if (METHOD, arm.name) not in skip:
      yield part(problem, arm, path)


def part(
  problem: problem_lib.Problem, arm: config_lib.Arm, path: str
) -> table.Part:
  """One arm with the delta SAE in `path`."""
  dictionary = formats.load_sae(path)
  same_rows = _check(problem, arm, path, dictionary)
  view = _differences(problem, arm, dictionary)
  control = problem.control_of(arm)
  found = _Means(view)
  zero_F = found.at_zero()
  noise_F = None
  if NULL in view.evidence.names:
    noise_F = np.abs(found.mean(NULL) - zero_F)
  measured = statistics.measure(
    [found.block(arm.name, control.name if control else "", zero_F)],
    found.n_G,
    dictionary.latents,
    problem.config.statistics,
    noise_F=noise_F,
  )
  columns = measured.columns | found.columns(arm.name, zero_F)
  if control:
    columns |= found.control_columns(control.name, columns)
  explained = delta_fit.explained(view, arm.name)
  placed = decoder.place(view)
  columns |= {
    "explained": explained.unique_F,
    "decoder_norm": decoder.lengths(placed, view.mesh),
    "cos_mean_difference": decoder.cosines(placed, explained.mean_D, view.mesh),
  }
  best = np.argsort(-columns["score"], kind="stable")[:_DIRECTIONS]
  return table.Part(
    method=METHOD,
    arm=arm.name,
    dictionary="delta",
    control=control.name if control else "",
    columns=columns,
    summary=measured.summary
    | {
      "run": path,
      "latents": dictionary.latents,
      "k": dictionary.k,
      "trained_on_these_rows": same_rows,
      "variance_explained": explained.share,
      "mean_share": explained.mean_share,
      "never_active": int(np.sum(columns["fires_tuned"] == 0)),
      "warnings": [
        *measured.summary["warnings"],
        *_warnings(arm, control, same_rows),
      ],
    },
    directions={
      f"latent_{latent}": np.asarray(dictionary.params.w_dec_FD[latent])
      for latent in best
      if columns["score"][latent] > 0
    },
  )


class _Means:
  """Activations of a delta SAE by group, for the names of its evidence."""

  def __init__(self, view: problem_lib.Problem):
    self._view = view
    self.n_G = np.asarray(view.evidence.group_rows_G, np.float64)

  def at_zero(self) -> np.ndarray:
    """What the dictionary says to a difference of zero, float64 [F].

    Encoded in the shape of the other batches: the same bits as there.
    """
    view = self._view
    batch = next(view.evidence.batches(BASE))
    values_BK, latents_BK = on_mesh.encoder(view.mesh)(
      on_mesh.place(view.dictionary, view.mesh), jnp.zeros_like(batch.x_BD)
    )
    found_F = np.zeros(view.dictionary.latents)
    values_K, latents_K = jax.device_get((values_BK[0], latents_BK[0]))
    on_K = values_K > 0
    found_F[latents_K[on_K]] = values_K[on_K]
    return found_F

  def mean(self, name: str) -> np.ndarray:
    return sums.total(self._sums(name).sums_GF) / self.n_G.sum()

  def fires(self, name: str) -> np.ndarray:
    return sums.total(self._sums(name).fires_GF) / self.n_G.sum()

  def block(
    self, name: str, control: str, zero_F: np.ndarray
  ) -> statistics.Block:
    """Group sums of name − control, or of name − zero."""
    ours = self._sums(name).sums_GF
    theirs = self._sums(control).sums_GF if control else None

    def block(start: int, stop: int) -> np.ndarray:
      if theirs is not None:
        return ours[:, start:stop] - theirs[:, start:stop]
      return ours[:, start:stop] - self.n_G[:, None] * zero_F[None, start:stop]

    return block

  def columns(self, name: str, zero_F: np.ndarray) -> dict[str, np.ndarray]:
    mean_F = self.mean(name)
    return {
      "mean_base": zero_F,
      "mean_tuned": mean_F,
      "delta": mean_F - zero_F,
      "fires_base": (zero_F > 0).astype(np.float32),
      "fires_tuned": self.fires(name),
    }

  def control_columns(
    self, control: str, columns: dict[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    mean_F = self.mean(control)
    return {
      "mean_control": mean_F,
      "delta_control": mean_F - columns["mean_base"],
      "contrast": columns["mean_tuned"] - mean_F,
      "fires_control": self.fires(control),
    }

  def _sums(self, name: str) -> sums.LatentSums:
    return sums.latent_sums(self._view, name)


def _differences(
  problem: problem_lib.Problem, arm: config_lib.Arm, dictionary: sae.Sae
) -> problem_lib.Problem:
  """The problem whose models are differences to the base, for this arm."""
  base = problem.evidence.store(BASE)
  control = problem.control_of(arm)
  names = [arm.name, *([control.name] if control else [])]
  if NULL in problem.evidence.names:
    names.append(NULL)
  stores = {BASE: base} | {
    name: store.difference(problem.evidence.store(name), base) for name in names
  }
  work = problem.work / f"{METHOD}.{arm.name}"
  work.mkdir(exist_ok=True)
  return dataclasses.replace(
    problem,
    evidence=problem.evidence.replaced(stores),
    dictionary=dictionary,
    work=work,
  )


def _check(
  problem: problem_lib.Problem,
  arm: config_lib.Arm,
  path: str,
  dictionary: sae.Sae,
) -> bool:
  """Whether it was trained on these very rows; refuses what it is not for."""
  evidence = problem.evidence
  if dictionary.d_model != evidence.d_model:
    raise errors.InputError(
      f"delta={path} takes differences of width {dictionary.d_model}, but"
      f" {evidence.hook} has {evidence.d_model}"
    )
  trained = dictionary.metadata.get("sae_jax_store")
  minus = dictionary.metadata.get("sae_jax_minus")
  if trained and not minus:
    raise errors.InputError(
      f"delta={path} was trained on activations of one model, not on"
      " differences of two; train it with minus=BASE_STORE"
    )
  identities = {n: evidence.store(n).identity for n in evidence.names}
  if trained is None or trained == identities[arm.name]:
    return trained is not None and minus == identities[BASE]
  for name, identity in identities.items():
    if trained == identity:
      raise errors.InputError(
        f"delta={path} was trained on differences of {name!r}, but in its"
        f" place in delta it is taken for {arm.name!r}; give the runs in the"
        " order of the tuned arms"
      )
  return False


def _warnings(
  arm: config_lib.Arm, control: config_lib.Arm | None, same_rows: bool
) -> list[str]:
  found = []
  if control is None:
    found.append(
      f"{arm.name}: no matched control: activations are never negative, so"
      " every latent that fires on any fine-tuning's differences is found"
    )
  if same_rows:
    found.append(
      f"{arm.name}: the delta SAE was trained on these rows, so how well it"
      " fits them says little about others"
    )
  return found
