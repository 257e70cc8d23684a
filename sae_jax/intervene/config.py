# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a causal screen is told: two models, suspects, strengths, a judge."""

import dataclasses
import math
import re
from typing import Literal

from sae_jax import errors
from sae_jax import mesh as mesh_lib
from sae_jax.intervene import edits
from sae_jax.judge import config as judge_config
from sae_jax.judge import scores
from sae_jax.lm import hooks as hooks_lib

Removal = Literal["subtract", "project_out"]
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BundleConfig:
  """A sum of latents, each weighted by its signed score in the diff."""

  name: str
  top: int = 10  # so many by |score|
  method: str = ""  # whose score ranks them; "": the screen's
  # Whose score weighs them; "": the same. A score that is no change of
  # activation, such as frozen_gradient's, ranks but does not say which way.
  weights: str = ""
  arm: str = ""  # "": the screen's; a control's bundle shows the opposite sign
  direction: Literal["both", "up", "down"] = "both"  # risen, fallen ones only
  latents: tuple[int, ...] = ()  # these in place of the top
  # Another bundle of as many latents, whose random ones it is compared with;
  # "": it has its own.
  band: str = ""

  def __post_init__(self):
    if not _NAME.fullmatch(self.name) or self.name == "latent":
      raise errors.InputError(
        f"bundle {self.name!r}: a name has lower-case letters, digits, _ and -,"
        " and is not 'latent'"
      )
    if self.top < 1:
      raise errors.InputError(
        f"bundle {self.name!r}: top={self.top}: give a number >= 1"
      )
    if len(set(self.latents)) < len(self.latents):
      raise errors.InputError(
        f"bundle {self.name!r}: latents names one of them twice"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationConfig:
  """The second stage: survivors write answers, which are judged."""

  judge: judge_config.JudgeConfig = dataclasses.field(
    default_factory=judge_config.JudgeConfig
  )
  # None: the screen's own prompts. Only the judge `answers` needs responses.
  questions: judge_config.PromptsConfig | None = None
  prompts: int = 0  # at most so many, evenly over topics; 0: all
  samples: int = 1  # per prompt
  max_new_tokens: int = 64
  temperature: float = 1.0
  incoherence: float = 0.10  # share allowed above that of the unsteered model
  survivors: int = 20  # single latents, those of largest effect
  random: int = 5  # random latents beside them
  examples: int = 8  # answers per row that are shown in summary.json

  def __post_init__(self):
    for name, least in (
      ("prompts", 0),
      ("samples", 1),
      ("max_new_tokens", 1),
      ("survivors", 0),
      ("random", 0),
      ("examples", 0),
    ):
      _at_least(f"generation.{name}", getattr(self, name), least)
    for name in ("temperature", "incoherence"):
      _at_least(f"generation.{name}", getattr(self, name), 0)
    if self.samples > 1 and self.temperature == 0:
      raise errors.InputError(
        f"generation.samples={self.samples} at temperature 0 would all be the"
        " same; give a temperature or samples=1"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SteerConfig:
  """Base + direction, tuned − direction: which latents carry the behaviour?"""

  base: str  # a Hugging Face directory, hub id, .gguf, or adapter
  tuned: str  # shows the behaviour
  control: str = ""  # tuned alike on harmless data; measured, never steered
  sae: str  # a train run, or a directory that load_sae opens
  hook: str = ""  # "": the one that the SAE was trained on
  hooks: tuple[str, ...] = ()  # more layers that get the same direction
  diff: str = ""  # a finished diff of the two models with this SAE
  arm: str = ""  # of the diff; "": its only tuned one
  method: str = "frozen"  # of the diff, which ranks the latents
  # Candidates: these latents; else the `top` of largest |score|, of the diff;
  # top=0: every latent that fires on the prompts.
  latents: tuple[int, ...] = ()
  top: int = 1000
  # None: the diff's top 10.
  bundles: tuple[BundleConfig, ...] | None = None
  # Names of the diff's directions, such as "linear.bad.contrast"; None: the
  # arm's contrast and mean_difference.
  directions: tuple[str, ...] | None = None
  prompts: judge_config.PromptsConfig  # with both responses; held out
  # For single latents, evenly over topics; 0: all. Where there are bundles,
  # random latents are then measured on these alone, and directions are compared
  # with the first bundle's random ones.
  single_prompts: int = 0
  strengths: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
  # In units of the base's median residual norm at the hook, or of the length
  # of one of the diff's directions, `unit_direction`.
  unit: Literal["median_norm", "direction"] = "median_norm"
  unit_direction: str = ""
  where: edits.Where = "all"  # tokens that are steered
  # How a direction is taken from the tuned model. "project_out": at strength s
  # the stream's component along it is lowered by the share s of itself, so that
  # 1 removes it and a stream that has none of it is left alone.
  removal: Removal = "subtract"
  # Nats per token of log(p(behaviour) + p(contrast)) that steering may cost.
  damage: float = 0.25
  random: int = 20  # random latents, and as many random bundles per bundle
  generation: GenerationConfig | None = None
  statistics: scores.ScoreConfig = dataclasses.field(
    default_factory=scores.ScoreConfig
  )
  batch_rows: int = 64  # sequences per forward pass
  dtype: Literal["float32", "bfloat16"] = "float32"
  seed: int = 0
  mesh: mesh_lib.MeshConfig = dataclasses.field(
    default_factory=mesh_lib.MeshConfig
  )

  def __post_init__(self):
    for name, least in (
      ("top", 0),
      ("single_prompts", 0),
      ("damage", 0),
      ("random", 2),
      ("batch_rows", 1),
    ):
      _at_least(name, getattr(self, name), least)
    self._check_strengths()
    self._check_candidates()
    for hook in self.hooks:
      hooks_lib.parse(hook)
    if self.seed < 0:
      raise errors.InputError(f"seed={self.seed}: give 0 or more")

  @property
  def narrow(self) -> bool:
    """Whether random latents are measured on the prompts of single ones."""
    own = self.bundles is None or any(not b.band for b in self.bundles)
    return bool(self.single_prompts and own and (self.bundles or self.diff))

  def _check_strengths(self):
    if not self.strengths:
      raise errors.InputError("strengths=(): name at least one")
    for strength in self.strengths:
      if not (strength > 0 and math.isfinite(strength)):
        raise errors.InputError(
          f"strengths: {strength} is not above 0; both directions are tried by"
          " themselves"
        )
    if list(self.strengths) != sorted(set(self.strengths)):
      raise errors.InputError(
        f"strengths={self.strengths}: order them, each once"
      )
    if (self.unit == "direction") != bool(self.unit_direction):
      raise errors.InputError(
        f"unit={self.unit!r} with unit_direction={self.unit_direction!r}: the"
        " unit 'direction' needs the name of one, the other has none"
      )

  def _check_candidates(self):
    if len(set(self.latents)) < len(self.latents):
      raise errors.InputError("latents names one of them twice")
    bundles = self.bundles or ()
    names = [bundle.name for bundle in bundles]
    if len(set(names)) < len(names):
      raise errors.InputError(f"bundles {names}: two have the same name")
    _check_bands(bundles)
    scored = [bundle.name for bundle in bundles if not bundle.latents]
    for field, value in (
      ("directions", self.directions),
      ("unit_direction", self.unit_direction),
      ("bundles", scored),
      ("top", 0 if self.latents else self.top),
    ):
      if value and not self.diff:
        raise errors.InputError(
          f"{field}={value} needs a diff: give diff=DIR, or name the latents"
          " (of bundles too) yourself"
        )


def _check_bands(bundles: tuple[BundleConfig, ...]) -> None:
  own = {b.name: len(b.latents) or b.top for b in bundles if not b.band}
  for bundle in bundles:
    size = len(bundle.latents) or bundle.top
    if bundle.band and own.get(bundle.band) != size:
      raise errors.InputError(
        f"bundle {bundle.name!r}: band={bundle.band!r} is no bundle of {size}"
        " latents with random ones of its own; leave it out"
      )


def _at_least(name: str, value: float, least: float) -> None:
  if not value >= least:
    raise errors.InputError(f"{name}={value}: give a number >= {least}")
