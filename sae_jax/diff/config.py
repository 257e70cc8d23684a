# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a diff is told: the models or stores, the dictionary, the methods."""

import dataclasses
import re
from typing import Literal

from sae_jax import errors
from sae_jax import mesh as mesh_lib
from sae_jax.diff import cards_config as cards_lib
from sae_jax.diff import stagewise_runs
from sae_jax.judge import config as judge_config
from sae_jax.lm import text as text_lib

METHODS = (
  "frozen",
  "attribution",
  "delta",
  "crosscoder",
  "stagewise",
  "match",
  "lens",
  "linear",
)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_TAKEN = ("base", "null", "joint", "partner")
_COMPARED = ("tuned", "realigned")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
  """A model that is compared with the base, live or by its store."""

  name: str
  # A Hugging Face directory, hub id, .gguf, or what posttrain wrote.
  model: str = ""
  store: str = ""  # instead: activations paired with those of `base_store`
  # tuned: meant to show the behaviour, several are ranked jointly as well;
  # realigned: compared like a tuned one, but no further sample of it;
  # control: trained alike on harmless data, subtracted from both; null: should
  # show nothing (another benign fine-tune), counted as false discovery.
  role: Literal["tuned", "realigned", "control", "null"] = "tuned"
  control: str = ""  # its matched control; "": the one control there is

  def __post_init__(self):
    if not _NAME.fullmatch(self.name) or self.name in _TAKEN:
      raise errors.InputError(
        f"arm {self.name!r}: a name has lower-case letters, digits, _ and -,"
        f" and is none of {', '.join(_TAKEN)}"
      )
    if not self.model and not self.store:
      raise errors.InputError(
        f"arm {self.name!r} has neither a model nor a store; give one"
      )
    if self.control and self.role not in _COMPARED:
      raise errors.InputError(
        f"arm {self.name!r} has the role {self.role} and a control; only tuned"
        " and realigned arms have one"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatisticsConfig:
  """How sure is sure; the unit of every resample is a prompt or document."""

  resamples: int = 1000  # bootstrap resamples and sign flips
  confidence: float = 0.95
  q: float = 0.05  # false discovery rate
  shuffles: int = 50  # label shuffles of the control
  top: int = 100  # rank stability: staying among so many
  seed: int = 0

  def __post_init__(self):
    for name, least in (("resamples", 20), ("shuffles", 1), ("top", 1)):
      if getattr(self, name) < least:
        raise errors.InputError(
          f"statistics.{name}={getattr(self, name)}: give a number >= {least}"
        )
    for name in ("confidence", "q"):
      if not 0 < getattr(self, name) < 1:
        raise errors.InputError(
          f"statistics.{name}={getattr(self, name)}: give a number between 0"
          " and 1"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LensConfig:
  """Unrelated text for the activation-difference lens."""

  text: text_lib.TextConfig
  positions: int = 5  # the first so many tokens of every context
  contexts: int = 1000

  def __post_init__(self):
    for name in ("positions", "contexts"):
      if getattr(self, name) < 1:
        raise errors.InputError(
          f"lens.{name}={getattr(self, name)}: give a number >= 1"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffConfig:
  """A base, its arms, one dictionary of the base, and what to ask."""

  base: str = ""  # model; not needed where everything is in stores
  base_store: str = ""
  arms: tuple[Arm, ...]
  sae: str  # a train run, or a directory that load_sae opens
  hook: str = ""  # "": the one that the SAE was trained on
  prompts: judge_config.PromptsConfig | None = None
  # Tokens that count: of the prompt, its last one, the shared responses, or
  # all. Stores given from outside are all counted.
  scope: Literal["prompt", "prompt_last", "response", "all"] = "response"
  activation: Literal["post", "pre"] = "post"  # after or before the top-k
  skip_positions: int = 1  # of every sequence: BOS and attention sinks
  groups: int = 256  # units that are resampled: prompts or documents, at most
  batch_rows: int = 8192  # activations per encode
  batch_size: int = 16  # sequences per forward pass
  dtype: Literal["float32", "bfloat16"] = "float32"  # of the models
  methods: tuple[str, ...] = ("frozen", "attribution", "linear")
  null_arm: bool = True  # live: run the base again, batched differently
  delta: tuple[str, ...] = ()  # runs of SAEs trained on paired differences
  # Runs of crosscoders trained on (base, arm), one for each tuned arm.
  crosscoder: tuple[str, ...] = ()
  stagewise: stagewise_runs.StagewiseRuns | None = None
  match: str = ""  # a second SAE
  lens: LensConfig | None = None
  statistics: StatisticsConfig = dataclasses.field(
    default_factory=StatisticsConfig
  )
  cards: cards_lib.CardsConfig = dataclasses.field(
    default_factory=cards_lib.CardsConfig
  )
  mesh: mesh_lib.MeshConfig = dataclasses.field(
    default_factory=mesh_lib.MeshConfig
  )

  def __post_init__(self):
    self._check_numbers()
    self._check_arms()
    self._check_methods()

  @property
  def live(self) -> bool:
    """Whether activations are captured from models, not read from stores."""
    return not self.base_store

  def arm(self, name: str) -> Arm:
    return next(arm for arm in self.arms if arm.name == name)

  def tuned(self) -> list[Arm]:
    """The arms that are compared: tuned and realigned ones."""
    return [arm for arm in self.arms if arm.role in _COMPARED]

  def of_tuned(self, field: str) -> list[tuple[Arm, str]]:
    """Every compared arm with its own run, of a field that lists runs.

    Raises:
      errors.InputError: there is not one run per compared arm.
    """
    tuned, runs = self.tuned(), getattr(self, field)
    if len(runs) != len(tuned):
      raise errors.InputError(
        f"{field}={runs}: give one run per tuned arm, in the order of arms"
        f" ({', '.join(arm.name for arm in tuned) or 'there is none'})"
      )
    return list(zip(tuned, runs, strict=True))

  def joined(self) -> list[Arm]:
    """The arms that are a sample of one kind of fine-tuning."""
    return [arm for arm in self.arms if arm.role == "tuned"]

  def control_of(self, arm: Arm) -> Arm | None:
    """The arm's matched control; None where there is none."""
    if arm.role not in _COMPARED:
      return None
    controls = [a for a in self.arms if a.role == "control"]
    if arm.control:
      return self.arm(arm.control)
    return controls[0] if len(controls) == 1 else None

  def _check_numbers(self):
    for name, least in (
      ("skip_positions", 0),
      ("groups", 1),
      ("batch_rows", 1),
      ("batch_size", 1),
    ):
      if getattr(self, name) < least:
        raise errors.InputError(
          f"{name}={getattr(self, name)}: give a number >= {least}"
        )

  def _check_arms(self):
    names = [arm.name for arm in self.arms]
    if not names:
      raise errors.InputError("arms=(): name at least one model to compare")
    if len(set(names)) < len(names):
      raise errors.InputError(f"arms {names}: two have the same name")
    controls = [arm.name for arm in self.arms if arm.role == "control"]
    for arm in self.arms:
      if arm.control and arm.control not in controls:
        raise errors.InputError(
          f"arm {arm.name!r}: control={arm.control!r} is no arm of role"
          f" control; there are {controls or 'none'}"
        )
      if self.base_store and not arm.store:
        raise errors.InputError(
          f"arm {arm.name!r} has no store, but base_store is given; give all"
          " of them stores, or none and prompts"
        )
      if not self.base_store and arm.store:
        raise errors.InputError(
          f"arm {arm.name!r} has a store, but there is no base_store to compare"
          " it with; give base_store"
        )
    if self.live and not self.base:
      raise errors.InputError("give base (a model) and prompts, or base_store")
    if self.live and self.prompts is None:
      raise errors.InputError(
        "models are compared on prompts: give prompts=PromptsConfig(path=…), or"
        " stores of all of them"
      )

  def _check_methods(self):
    for name in self.methods:
      if name not in METHODS:
        raise errors.InputError(
          f"methods: {name!r} is none of {', '.join(METHODS)}"
        )
    if not self.methods or len(set(self.methods)) < len(self.methods):
      raise errors.InputError(
        f"methods={self.methods}: name at least one, each once"
      )
    for method, field in (
      ("delta", self.delta),
      ("crosscoder", self.crosscoder),
      ("stagewise", self.stagewise),
      ("match", self.match),
      ("lens", self.lens),
    ):
      if method in self.methods and not field:
        raise errors.InputError(
          f"methods has {method!r}, which needs the field {method}"
        )
    if "attribution" in self.methods and self.prompts is None:
      raise errors.InputError(
        "methods has 'attribution', which needs prompts with two responses"
      )
