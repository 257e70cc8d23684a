# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The activation-difference lens: what a model says before it is asked.

Mean difference of activations on the first tokens of unrelated text, read
through the head (arXiv 2510.13900). Runs the models; sums
over groups of contexts are kept in `problem.work` for a resume.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import artifacts, errors, lm, sae
from sae_jax.diff import config as config_lib
from sae_jax.diff import decoder, table
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import logit_lens, on_mesh
from sae_jax.lm import batch as batch_lib
from sae_jax.lm import text as text_lib

METHOD = "lens"

_TOP = 10  # words shown per direction
_RANDOM = 20  # random directions that the words are judged against


def names(config: config_lib.DiffConfig) -> list[tuple[str, str]]:
  """The parts that `run` yields: one per arm, of any role."""
  return [(METHOD, arm.name) for arm in config.arms]


def run(
  problem: problem_lib.Problem, skip: frozenset[tuple[str, str]] = frozenset()
) -> Iterator[table.Part]:
  """The lens of every arm.

  Raises:
    errors.InputError: no text is configured, it is too short, or a model is
      not given.
  """
  dictionary = decoder.place(problem)
  for arm in problem.config.arms:
    if (METHOD, arm.name) not in skip:
      yield part(problem, dictionary, arm)


def part(
  problem: problem_lib.Problem, dictionary: sae.Sae, arm: config_lib.Arm
) -> table.Part:
  """One arm; latents by the cosine of their decoder row with the lens.

  The lens is arm − control where there is a control, else arm − base, mean
  over contexts and over the positions that `skip_positions` leaves.

  Args:
    problem: with `config.lens` and live models.
    dictionary: on the mesh.
    arm: of any role.
  """
  control = problem.control_of(arm)
  other = control.name if control else "base"
  arm_GPD, n_G = position_sums(problem, arm.name)
  other_GPD, _ = position_sums(problem, other)
  base_GPD, _ = position_sums(problem, "base")
  contrast_GPD = arm_GPD - other_GPD
  counted = _counted(problem)
  contrast_PD = contrast_GPD.sum(0) / n_G.sum()
  mean_D = contrast_PD[counted].mean(0)
  measured = decoder.aligned(
    problem,
    dictionary,
    contrast_GPD[:, counted].sum(1),
    n_G * len(range(*counted.indices(contrast_GPD.shape[1]))),
  )
  directions = {f"lens_{p}": vector_D for p, vector_D in enumerate(contrast_PD)}
  directions["lens"] = mean_D
  summary = measured.summary | {
    "compared": f"{arm.name} - {other}",
    "contexts": int(n_G.sum()),
    "lens": _read(problem, mean_D[None])[0],
    "positions": _read(problem, contrast_PD),
    "null": _null(problem, mean_D),
    "chance_cosine": decoder.chance(
      dictionary.latents, dictionary.d_model, problem.config.statistics.q
    ),
  }
  if control:
    plain_PD = (arm_GPD - base_GPD).sum(0) / n_G.sum()
    plain_D = plain_PD[counted].mean(0)
    directions["lens_plain"] = plain_D
    summary["plain"] = _read(problem, plain_D[None])[0]
  return table.Part(
    method=METHOD,
    arm=arm.name,
    control=control.name if control else "",
    columns=measured.columns,
    summary=summary,
    directions={k: v.astype(np.float32) for k, v in directions.items()},
  )


def position_sums(
  problem: problem_lib.Problem, name: str, *, again: bool = False
) -> tuple[np.ndarray, np.ndarray]:
  """Sums of activations over the contexts of each group, by position.

  Args:
    problem: with `config.lens` and live models.
    name: "base" or an arm.
    again: compute it in another batch arrangement, under another name.

  Returns:
    float64 [G, P, D], and contexts per group, [G].

  Raises:
    errors.InputError: see `run`.
  """
  stem = f"lens.{name}.again" if again else f"lens.{name}"
  path = problem.work / f"{stem}.npz"
  if not path.exists():
    sums_GPD, n_G = _sum(problem, name, again)
    artifacts.write_npz_atomic(path, {"sums": sums_GPD, "n": n_G})
  with np.load(path, allow_pickle=False) as file:
    return file["sums"], file["n"]


def _sum(problem, name: str, again: bool) -> tuple[np.ndarray, np.ndarray]:
  model = problem.model(name)
  tokens_NP = _contexts(problem, model)
  count, positions = tokens_NP.shape
  groups = min(problem.config.groups, count)
  size = problem.config.batch_size
  size = -(-min(size, count) // on_mesh.lanes(problem.mesh))
  size *= on_mesh.lanes(problem.mesh)
  order_N = np.arange(count)[::-1] if again else np.arange(count)
  sums_GPD = np.zeros((groups, positions, problem.evidence.d_model))
  progress = problem.progress(count, "contexts")
  for first in range(0, count, size):
    some_B = order_N[first : first + size]
    tokens_BP = np.zeros((size, positions), np.int32)
    tokens_BP[: len(some_B)] = tokens_NP[some_B]
    x_BPD = lm.activations(model, tokens_BP, (problem.evidence.hook,))
    x_BPD = _everywhere(x_BPD[problem.evidence.hook], mesh=problem.mesh)
    x_BPD = np.asarray(x_BPD, np.float64)[: len(some_B)]
    np.add.at(sums_GPD, some_B % groups, x_BPD)
    progress.update(first + len(some_B), f"lens {name}")
  progress.close()
  n_G = np.bincount(np.arange(count) % groups, minlength=groups)
  return sums_GPD, n_G


@functools.partial(jax.jit, static_argnames="mesh")
def _everywhere(x_BPD, *, mesh):
  return on_mesh.everywhere(x_BPD.astype(jnp.float32), mesh)


def _contexts(problem, model) -> np.ndarray:
  """The first tokens of the text's contexts, int32 [N, P]."""
  config = problem.config.lens
  if config is None:
    raise errors.InputError(
      "the lens needs unrelated text; set lens=LensConfig(text=…), or leave"
      " 'lens' out of methods"
    )
  if config.positions > config.text.context_length:
    raise errors.InputError(
      f"lens.positions={config.positions}, but lens.text.context_length="
      f"{config.text.context_length}; make the contexts longer"
    )
  batch_lib.check_length(model, config.positions)
  long_enough = (
    context.tokens[: config.positions]
    for context in text_lib.contexts(config.text, model.tokenizer)
    if len(context.tokens) >= config.positions
  )
  found = list(itertools.islice(long_enough, config.contexts))
  if not found:
    raise errors.InputError(
      f"lens.text {config.text.path}: no context has {config.positions} tokens;"
      " give longer texts, or fewer lens.positions"
    )
  return np.stack(found).astype(np.int32)


def _counted(problem) -> slice:
  """Positions behind the direction: all but the first `skip_positions`."""
  config = problem.config
  if config.skip_positions >= config.lens.positions:
    raise errors.InputError(
      f"skip_positions={config.skip_positions} leaves none of lens.positions="
      f"{config.lens.positions}; raise lens.positions"
    )
  return slice(config.skip_positions, config.lens.positions)


def _read(problem, vectors_ND: np.ndarray) -> list[dict[str, Any]]:
  words = logit_lens.read(
    vectors_ND.astype(np.float32), problem.model("base"), _TOP
  )
  return [
    {"norm": float(np.linalg.norm(vector_D)), **found}
    for vector_D, found in zip(vectors_ND, words, strict=True)
  ]


def _null(problem, mean_D: np.ndarray) -> dict[str, Any]:
  """What the same reading shows where there is nothing to see.

  The base against itself (in another batch arrangement: rounding alone), and
  random directions of the lens's length: their strongest word's logit is what
  a strongest word has to exceed to mean anything.
  """
  base_GPD, n_G = position_sums(problem, "base")
  again_GPD, _ = position_sums(problem, "base", again=True)
  itself_PD = (again_GPD - base_GPD).sum(0) / n_G.sum()
  itself_D = itself_PD[_counted(problem)].mean(0)
  rng = np.random.default_rng(problem.config.statistics.seed)
  random_ND = rng.normal(size=(_RANDOM, len(mean_D)))
  random_ND *= np.linalg.norm(mean_D) / np.linalg.norm(
    random_ND, axis=1, keepdims=True
  )
  random = _read(problem, random_ND)
  strongest = [r["promoted"][0][1] for r in random if r["promoted"]]
  return {
    "base_against_itself": _read(problem, itself_D[None])[0],
    "random": random[0],
    "random_directions": _RANDOM,
    "random_strongest_logit": {
      "mean": float(np.mean(strongest)) if strongest else None,
      "max": float(np.max(strongest)) if strongest else None,
    },
  }
