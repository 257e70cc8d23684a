# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What is watched in one base model, and how a checkpoint is read.

A signal is a shift against the base, divided by the base's mean residual norm
on the same tokens, so that it means the same in models of any scale. Signs are
fixed beforehand: larger is more suspicious.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors, formats, lm, sae
from sae_jax.interpret import diff_results, on_mesh, reading
from sae_jax.judge import margin
from sae_jax.judge import prompts as prompts_lib
from sae_jax.lm import hooks as hooks_lib
from sae_jax.monitor import alarm, suspects
from sae_jax.monitor import config as config_lib

LATENTS, DRIFT, PERSONA = "latents", "drift", "persona_vector"
MARGIN = alarm.YARDSTICK


@dataclasses.dataclass(frozen=True)
class Probe:
  """One group's suspects and prompts, made from its diff.

  Attributes:
    latents: best of the diff first.
    weights_L: of norm 1, signed by the diff.
    directions: name -> unit vector [D].
    spans: what is read; see `judge.prompts.spans`.
  """

  group: config_lib.GroupConfig
  hook: str
  arm: str
  sae_path: str
  dictionary: sae.Sae
  latents: tuple[int, ...]
  weights_L: np.ndarray
  directions: Mapping[str, np.ndarray]
  prompts: prompts_lib.Prompts
  spans: Sequence[reading.Span]


@dataclasses.dataclass(frozen=True)
class Read:
  """One model on the group's prompts; what is kept on disk.

  Attributes:
    latents_L: mean activations, the mean over sequences.
    mean_D: mean residual.
    norm: mean residual norm.
    behaviour_P: nats per token; see `judge.margin.PairValues`.
    contrast_P: nats per token.
  """

  latents_L: np.ndarray
  mean_D: np.ndarray
  norm: float
  behaviour_P: np.ndarray
  contrast_P: np.ndarray

  def equals(self, other: "Read") -> bool:
    """Whether both models computed the very same numbers."""
    theirs = other.arrays()
    return all(np.array_equal(v, theirs[k]) for k, v in self.arrays().items())

  def arrays(self) -> dict[str, np.ndarray]:
    return {k: np.asarray(v) for k, v in dataclasses.asdict(self).items()}

  @classmethod
  def load(cls, path: pathlib.Path) -> "Read":
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    return cls(**arrays | {"norm": float(arrays["norm"])})


def make(
  group: config_lib.GroupConfig, base: lm.LanguageModel, batch_size: int
) -> Probe:
  """Reads the diff, the dictionary and the prompts.

  Args:
    group: of the config.
    base: its base model: its tokenizer, its mesh, and the persona vector.
    batch_size: sequences at a time.

  Raises:
    errors.InputError: they do not fit one another.
  """
  summary = diff_results.summary(group.diff)
  arm = group.arm or diff_results.only_arm(group.diff)
  hook = group.hook or summary["hook"]
  hook = hooks_lib.parse(hook, base.config.num_layers).canonical
  if hook != hooks_lib.parse(summary["hook"]).canonical:
    raise errors.InputError(
      f"group {group.name!r}: hook={group.hook}, but {group.diff} compared"
      f" {summary['hook']}; leave hook out, or name a diff of it"
    )
  path = sae_path(group)
  dictionary = formats.load_sae(path)
  if dictionary.d_model != base.config.d_model:
    raise errors.InputError(
      f"group {group.name!r}: the SAE {path} is {dictionary.d_model} wide and"
      f" {group.base} is {base.config.d_model}; use an SAE of this model"
    )
  latents, weights_L = suspects.latents(group, arm, dictionary.latents)
  directions = suspects.directions(group, arm)
  if group.persona is not None:
    vector_D = suspects.persona_vector(group, hook, base, batch_size)
    directions[PERSONA] = vector_D
  prompts = prompts_lib.load(group.prompts, base.tokenizer)
  margin.paired(prompts)
  return Probe(
    group=group,
    hook=hook,
    arm=arm,
    sae_path=path,
    dictionary=on_mesh.place(dictionary, base.mesh),
    latents=latents,
    weights_L=weights_L,
    directions=directions,
    prompts=prompts,
    spans=prompts_lib.spans(prompts, group.scope, group.skip_positions),
  )


def sae_path(group: config_lib.GroupConfig) -> str:
  return group.sae or diff_results.summary(group.diff)["sae"]["path"]


def measure(probe: Probe, model: lm.LanguageModel, batch_size: int) -> Read:
  """Runs one model on the prompts: residuals, latents, behaviour."""
  found = reading.read(
    model,
    probe.hook,
    probe.spans,
    dictionary=probe.dictionary,
    latents=probe.latents,
    batch_size=batch_size,
  )
  pairs = margin.pair_margins(model, probe.prompts, batch_size=batch_size)
  return Read(
    latents_L=found.latents_PL.mean(0),
    mean_D=found.mean_PD.mean(0),
    norm=float(found.norm_P.mean()),
    behaviour_P=pairs.behaviour_P,
    contrast_P=pairs.contrast_P,
  )


def singles(probes: Mapping[str, Probe]) -> dict[str, tuple[str, ...]]:
  """Group -> the names of its single latents' signals.

  By their numbers where all groups watch the same ones of one dictionary, else
  by their place in the diff: latent 7 of another dictionary is another thing.
  """
  known = {
    (probe.latents, str(pathlib.Path(probe.sae_path).resolve()))
    for probe in probes.values()
  }
  if len(known) == 1:
    return {
      name: tuple(f"latent {i}" for i in probe.latents)
      for name, probe in probes.items()
    }
  return {
    name: tuple(f"latent #{i + 1}" for i in range(len(probe.latents)))
    for name, probe in probes.items()
  }


def signals(
  probe: Probe, names: tuple[str, ...], base: Read, read: Read
) -> dict[str, float]:
  """The shifts of one checkpoint against the base.

  Returns:
    latents: Σ w Δa / norm; each of `names`: sign(w) Δa / norm; each direction:
    unit vector · Δmean / norm; drift: |Δmean| / norm, which says that something
    changed and not what; margin: the behaviour's own shift, in nats per token,
    the yardstick that no other signal is ahead of if it comes no sooner.
  """
  if not base.norm > 0:
    raise errors.InputError(
      f"group {probe.group.name!r}: the base's residuals at {probe.hook} are 0;"
      " choose another hook or scope"
    )
  moved_L = (read.latents_L - base.latents_L) / base.norm
  moved_D = (read.mean_D - base.mean_D) / base.norm
  shift = read.behaviour_P - read.contrast_P
  shift = shift - (base.behaviour_P - base.contrast_P)
  return (
    {LATENTS: float(probe.weights_L @ moved_L)}
    | {
      name: float(np.sign(weight) * moved) + 0.0  # no -0.0
      for name, weight, moved in zip(
        names, probe.weights_L, moved_L, strict=True
      )
    }
    | {
      name: float(unit_D @ moved_D) for name, unit_D in probe.directions.items()
    }
    | {DRIFT: float(np.linalg.norm(moved_D)), MARGIN: float(shift.mean())}
  )


def text_signals(probe: Probe, names: Sequence[str]) -> dict[str, np.ndarray]:
  """The signals that a text has under one model, as weights [L + V].

  Of the latents' activations and the projections on the probe's directions.
  """
  directions = list(probe.directions)
  one_XX = np.eye(len(probe.latents) + len(directions))
  zero_V = np.zeros(len(directions))
  found = {LATENTS: np.concatenate([probe.weights_L, zero_V])}
  for at, name in enumerate(names):
    found[name] = np.sign(probe.weights_L[at]) * one_XX[at]
  for at, name in enumerate(directions):
    found[name] = one_XX[len(probe.latents) + at]
  return found


def load_model(
  source: str, config: config_lib.MonitorConfig, mesh: jax.sharding.Mesh
) -> lm.LanguageModel:
  return lm.load_lm(source, mesh=mesh, dtype=jnp.dtype(config.dtype))
