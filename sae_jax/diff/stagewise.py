# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which latents turn when the model changes, and not when the text does.

Stage-wise diffing (Bricken et al. 2024, transformer-circuits.pub/2024/
model-diffing): one dictionary is fine-tuned from base model and base text to
tuned model and its text along two paths, text first and model first. The cosine
of a decoder row before and after a step says how far the latent turned in it.
Reads five dictionaries, two at a time; no activations.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from sae_jax import errors, formats, sae
from sae_jax.diff import config as config_lib
from sae_jax.diff import problem as problem_lib
from sae_jax.diff import stagewise_runs, table

METHOD = "stagewise"

# The two paths as one walk, so that neighbours are the steps.
_WALK = (
  "data_then_model",
  "data_first",
  "start",
  "model_first",
  "model_then_data",
)
# Column -> the step's two dictionaries.
STEPS = {
  "cos_model_second": ("data_first", "data_then_model"),
  "cos_data_first": ("start", "data_first"),
  "cos_model_first": ("start", "model_first"),
  "cos_data_second": ("model_first", "model_then_data"),
}
_BLOCK = 1 << 22  # elements that are float64 at a time
_QUANTILES = (0.01, 0.1, 0.5, 0.9)


def names(config: config_lib.DiffConfig) -> list[tuple[str, str]]:
  """The one part that `run` yields."""
  return [(METHOD, _arm(config).name)]


def run(
  problem: problem_lib.Problem, skip: frozenset[tuple[str, str]] = frozenset()
) -> Iterator[table.Part]:
  """Rotations of every latent in the four steps.

  The score is 1 − max(cosine) over the two steps that change the model: high
  only if the latent turned in both orders. Its null is the same number of the
  two steps that change the text, over all latents: `p` is the share of them
  that turned as far; `q` at a score t is #(null ≥ t) / #(scores ≥ t), the
  share of false ones among the latents that turned so far if the model's
  change turned them as the text's did.

  Raises:
    errors.InputError: dictionaries of different shapes, not begun from one
      another, or `start` is not the diff's own dictionary.
  """
  runs = problem.config.stagewise
  assert runs is not None
  arm = _arm(problem.config)
  if (METHOD, arm.name) in skip:
    return
  if formats.hash_sae(runs.start) != formats.hash_sae(problem.config.sae):
    raise errors.InputError(
      f"stagewise.start={runs.start} is not the dictionary sae="
      f"{problem.config.sae} that this diff is about, so latent i of one is not"
      " latent i of the other; give sae=stagewise.start"
    )
  cosines, about = measure(runs)
  yield _part(arm.name, cosines, about, problem.config.statistics.q)


def measure(
  runs: stagewise_runs.StagewiseRuns,
) -> tuple[dict[str, np.ndarray], list["About"]]:
  """The cosine of every decoder row in each step, by column of the table.

  Returns:
    columns of `STEPS` -> float64 [F], and what the dictionaries say of
    themselves, in the order of the walk.

  Raises:
    errors.InputError: see `run`.
  """
  cosines: dict[str, np.ndarray] = {}
  about = []
  before: sae.Sae | None = None
  for name in _WALK:
    path = runs.paths[name]
    dictionary = formats.load_sae(path)
    about.append(_about(name, path, dictionary))
    _check_shape(about[0], about[-1])
    if before is not None:
      step = {about[-2].name, name}
      column = next(c for c, pair in STEPS.items() if set(pair) == step)
      cosines[column] = _row_cosines(
        np.asarray(before.params.w_dec_FD),
        np.asarray(dictionary.params.w_dec_FD),
      )
    before = dictionary
  _check_lineage(about)
  return cosines, about


@dataclasses.dataclass(frozen=True)
class About:
  """What a dictionary says of itself; "" where it does not say."""

  name: str
  path: str
  shape: tuple[int, int, int]  # latents, width, k
  weights: str  # hash
  init_from: str  # hash of the weights that it began from
  store: str  # identity of what it was trained on


def rotation(a_F: np.ndarray, b_F: np.ndarray) -> np.ndarray:
  """1 − the larger of two cosines: how far a row turned in both steps."""
  return 1 - np.maximum(a_F, b_F)


def against_null(
  score_F: np.ndarray, null_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """p and q of scores against an empirical null; see `run`."""
  ordered_F, null_N = np.sort(score_F), np.sort(null_N)
  as_far_F = len(null_N) - np.searchsorted(null_N, ordered_F, side="left")
  found_F = len(score_F) - np.searchsorted(ordered_F, ordered_F, side="left")
  false_F = as_far_F / len(null_N) * len(score_F) / found_F
  # No larger at a higher score.
  q_F = np.minimum.accumulate(np.minimum(false_F, 1))
  place_F = np.searchsorted(ordered_F, score_F, side="left")
  p_F = (1 + as_far_F) / (1 + len(null_N))
  return p_F[place_F], q_F[place_F]


def _part(
  arm: str, cosines: dict[str, np.ndarray], about: list[About], level: float
) -> table.Part:
  score_F = rotation(cosines["cos_model_first"], cosines["cos_model_second"])
  null_F = rotation(cosines["cos_data_first"], cosines["cos_data_second"])
  p_F, q_F = against_null(score_F, null_F)
  changed_F = (q_F <= level) & (score_F > 0)
  return table.Part(
    method=METHOD,
    arm=arm,
    columns={
      "score": score_F,
      "p": p_F,
      "q": q_F,
      "changed": changed_F,
      **cosines,
    },
    summary={
      "changed": int(changed_F.sum()),
      "rotation": _quantiles(score_F),
      "rotation_of_data_steps": _quantiles(null_F),
      "cosines": {name: _quantiles(values) for name, values in cosines.items()},
      "null": (
        "the rotation of all latents in the two steps that change the text; q"
        " is the share of latents that the text's change turned as far, not a"
        " test over prompts"
      ),
      "runs": {one.name: one.path for one in about},
      "warnings": _warnings(about),
    },
  )


def _arm(config: config_lib.DiffConfig) -> config_lib.Arm:
  runs = config.stagewise
  assert runs is not None
  tuned = {arm.name: arm for arm in config.tuned()}
  if runs.arm in tuned:
    return tuned[runs.arm]
  if runs.arm or len(tuned) != 1:
    raise errors.InputError(
      f"stagewise.arm={runs.arm!r}: the tuned arms are"
      f" {', '.join(tuned) or 'none'}; name the one whose model the five"
      " dictionaries end with"
    )
  return next(iter(tuned.values()))


def _about(name: str, path: str, dictionary: sae.Sae) -> About:
  known = dictionary.metadata
  store = [known.get("sae_jax_store", ""), known.get("sae_jax_minus", "")]
  return About(
    name=name,
    path=path,
    shape=(dictionary.latents, dictionary.d_model, dictionary.k),
    weights=formats.hash_sae(path),
    init_from=known.get("sae_jax_init_from", ""),
    store="-".join(filter(None, store)),
  )


def _check_shape(first: About, other: About) -> None:
  if first.shape != other.shape:
    raise errors.InputError(
      f"stagewise.{other.name}={other.path} has (latents, width, k) ="
      f" {other.shape}, but stagewise.{first.name}={first.path} has"
      f" {first.shape};"
      " all five are the same latents, fine-tuned"
    )


def _check_lineage(about: list[About]) -> None:
  """Each dictionary has to have begun from the one before it on its path."""
  by_name = {one.name: one for one in about}
  for before, after in STEPS.values():
    parent, child = by_name[before], by_name[after]
    # Ours say what they were trained on; others' say nothing.
    ours = bool(child.store)
    if ours and child.init_from != parent.weights:
      began = "another dictionary" if child.init_from else "random rows"
      raise errors.InputError(
        f"stagewise.{after}={child.path} began from {began}, not from"
        f" stagewise.{before}={parent.path}, so its latents are not the same;"
        f" train it with init_from={parent.path!r}"
      )


def _warnings(about: list[About]) -> list[str]:
  found = [
    f"{one.name} ({one.path}) does not say what it began from; that its latents"
    " are those of the one before it is taken on trust"
    for one in about
    if one.name != "start" and not one.init_from
  ]
  stores = {one.name: one.store for one in about}
  if all(stores.values()):
    ends = stores["data_then_model"], stores["model_then_data"]
    if ends[0] != ends[1]:
      found.append(
        "the two paths end on different stores; both should end with the tuned"
        " model on its own text"
      )
    between = ("start", "data_first", "model_first", "data_then_model")
    if len({stores[name] for name in between}) < len(between):
      found.append(
        "two steps were trained on one store, so one of them changed neither"
        " model nor text"
      )
  return found


def _row_cosines(a_FD: np.ndarray, b_FD: np.ndarray) -> np.ndarray:
  """Cosine of each row with its own counterpart, in float64; equal rows: 1."""
  cos_F = np.empty(len(a_FD))
  step = max(1, _BLOCK // a_FD.shape[1])
  for start in range(0, len(a_FD), step):
    span = slice(start, start + step)
    a_BD, b_BD = a_FD[span].astype(np.float64), b_FD[span].astype(np.float64)
    size_B = np.linalg.norm(a_BD, axis=1) * np.linalg.norm(b_BD, axis=1)
    dot_B = np.einsum("bd,bd->b", a_BD, b_BD)
    cos_B = np.divide(dot_B, size_B, out=np.zeros_like(dot_B), where=size_B > 0)
    equal_B = (a_BD == b_BD).all(1)  # to the bit, whatever rounding says
    cos_F[span] = np.where(equal_B, 1.0, np.clip(cos_B, -1, 1))
  return cos_F


def _quantiles(values_F: np.ndarray) -> dict[str, Any]:
  return {
    "mean": float(values_F.mean()),
    "least": float(values_F.min()),
    "largest": float(values_F.max()),
    "quantiles": {str(p): float(np.quantile(values_F, p)) for p in _QUANTILES},
  }
