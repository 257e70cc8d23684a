# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a training run is, as numbers."""

import dataclasses

from sae_jax import errors, sae, stream
from sae_jax import mesh as mesh_lib
from sae_jax.train import normalize
from sae_jax.train import optimizer as optimizer_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberConfig:
  """What one dictionary of a sweep has of its own; None: what the run has."""

  k: int | None = None
  seed: int | None = None
  learning_rate: float | None = None  # the peak
  aux_coefficient: float | None = None
  sparsity: float | None = None
  target_l0: float | None = None
  hook: str | None = None  # of the same store, as wide as the others
  target: str | None = None  # likewise


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """One dictionary on one hook of one store, or a sweep of several."""

  store: str  # path or URL of a store, finished or bounded
  hook: str  # such as "blocks.9.hook_resid_post"
  sae: sae.SaeConfig
  stream: stream.StreamConfig
  steps: int
  # Dictionaries that one compiled step trains on one reading of the rows, each
  # as `members` says it would be trained alone. (): one dictionary.
  sweep: tuple[MemberConfig, ...] = ()
  # A store paired with `store`, such as the base model's: the dictionary is of
  # the differences `store` − `minus`.
  minus: str = ""
  # Of a crosscoder: stores paired with `store`, and hooks besides `hook`. Rows
  # of all hooks of all stores, in this order, lie side by side.
  paired: tuple[str, ...] = ()
  hooks: tuple[str, ...] = ()
  # A hook of the same store that a transcoder decodes to; "": rows are decoded
  # to themselves.
  target: str = ""
  # What is done to rows first. "scale": one factor for all that makes the mean
  # square norm D. "centre": the mean is subtracted, too. "standardize": each
  # dimension is divided by its deviation, besides. The dictionary that is
  # exported takes raw rows, whatever is chosen here; metrics in training are of
  # treated rows, those of `evaluate` of raw ones.
  normalize: str = "scale"
  # A train run or SAE to start from instead of random rows: latent i stays
  # latent i. Only the dictionary is taken; the optimizer starts afresh.
  init_from: str = ""
  optimizer: optimizer_lib.OptimizerConfig = dataclasses.field(
    default_factory=optimizer_lib.OptimizerConfig
  )
  mesh: mesh_lib.MeshConfig = dataclasses.field(
    default_factory=mesh_lib.MeshConfig
  )
  seed: int = 0  # of the initial dictionary
  held_out_rows: int = 0  # rounded up to whole write chunks; never trained on
  eval_every: int = 500  # steps between looks at the held-out rows
  checkpoint_every: int = 500
  keep_checkpoints: int = 2  # the newest
  keep_every: int = 0  # steps; checkpoints at its multiples stay for good
  # Where they lie: "" for OUT/checkpoints, or gs://BUCKET/…, which outlives the
  # machine. All processes must reach it.
  checkpoints: str = ""
  log_every: int = 10
  wandb_project: str = ""  # empty: no wandb

  def __post_init__(self):
    for name, least in (
      ("steps", 1),
      ("eval_every", 1),
      ("checkpoint_every", 1),
      ("keep_checkpoints", 1),
      ("log_every", 1),
      ("held_out_rows", 0),
      ("keep_every", 0),
    ):
      if getattr(self, name) < least:
        raise errors.InputError(
          f"{name}={getattr(self, name)}: give a number >= {least}"
        )
    if self.eval_every % self.log_every:
      raise errors.InputError(
        f"eval_every={self.eval_every} is not a multiple of"
        f" log_every={self.log_every}; held-out metrics are logged with the"
        " step's own"
      )
    if self.keep_every % self.checkpoint_every:
      raise errors.InputError(
        f"keep_every={self.keep_every} is not a multiple of"
        f" checkpoint_every={self.checkpoint_every}; only what is saved can be"
        " kept"
      )
    if self.normalize not in normalize.KINDS:
      raise errors.InputError(
        f"normalize={self.normalize!r}: choose one of {normalize.KINDS}"
      )
    if self.minus and (self.paired or self.hooks):
      raise errors.InputError(
        f"minus={self.minus} with paired={self.paired} and hooks={self.hooks}:"
        " a dictionary is of differences or of rows side by side; leave one out"
      )
    if self.sweep:
      _check_sweep(self)
    else:
      _check_target(self)


# What a resumed run may change: it does not enter the numbers. (On another mesh
# they differ by float reassociation.)
MAY_CHANGE = (
  "store",  # these four may move: what is in them is among the inputs
  "minus",
  "paired",
  "init_from",
  "mesh",
  "eval_every",
  "checkpoint_every",
  "keep_checkpoints",
  "keep_every",
  "log_every",
  "wandb_project",
)


def members(config: TrainConfig) -> tuple[TrainConfig, ...]:
  """The run of its own that each dictionary of the sweep is equal to.

  Raises:
    errors.InputError: there can be no such run.
  """
  return tuple(_member(config, index) for index in range(len(config.sweep)))


def _member(config: TrainConfig, index: int) -> TrainConfig:
  own = config.sweep[index]
  try:
    return dataclasses.replace(
      config,
      sweep=(),
      sae=_with(
        config.sae,
        k=own.k,
        aux_coefficient=own.aux_coefficient,
        sparsity=own.sparsity,
        target_l0=own.target_l0,
      ),
      optimizer=_with(config.optimizer, learning_rate=own.learning_rate),
      seed=config.seed if own.seed is None else own.seed,
      hook=own.hook or config.hook,
      target=own.target or config.target,
    )
  except errors.InputError as error:
    raise errors.InputError(f"sweep[{index}]: {error}") from None


def _with(config, **own):
  given = {name: value for name, value in own.items() if value is not None}
  return dataclasses.replace(config, **given)


def _check_target(config: TrainConfig) -> None:
  target = config.target
  if target and (config.paired or config.hooks):
    raise errors.InputError(
      f"target={target} with paired={config.paired} and hooks={config.hooks}: a"
      " crosscoder decodes to what it encodes; leave one out"
    )
  if target and target == config.hook:
    raise errors.InputError(
      f"target={target} is the hook itself, which is what an autoencoder"
      " decodes to; leave it out"
    )
  if config.sae.skip and not target:
    raise errors.InputError(
      "sae.skip=True: a skip belongs to a transcoder; without a target it would"
      " copy the input to itself. Give target=HOOK, or leave it out"
    )


def _check_sweep(config: TrainConfig) -> None:
  for index, member in enumerate(config.sweep):
    if not isinstance(member, MemberConfig):
      raise errors.InputError(
        f"sweep[{index}] is {member!r}: give MemberConfig(k=…, …)"
      )
    if config.hooks and member.hook:
      raise errors.InputError(
        f"sweep[{index}].hook={member.hook}: the dictionaries are of all of"
        f" hook={config.hook} and hooks={config.hooks}; leave one out"
      )
    if config.init_from and member.seed is not None:
      raise errors.InputError(
        f"sweep[{index}].seed={member.seed}: a seed draws the first rows, but"
        f" these are those of init_from={config.init_from}; leave one out"
      )
  found = members(config)
  if len({bool(member.target) for member in found}) > 1:
    raise errors.InputError(
      "sweep: some dictionaries are transcoders and others have no target;"
      " train them in two runs"
    )
  for index, member in enumerate(found):
    if member in found[:index]:
      raise errors.InputError(
        f"sweep[{found.index(member)}] and sweep[{index}] are one and the same"
        " dictionary; let them differ in k, seed, learning_rate,"
        " aux_coefficient, sparsity, target_l0, hook or target"
      )
