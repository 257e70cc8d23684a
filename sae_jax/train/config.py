# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a training run is, as numbers."""

import dataclasses

from sae_jax import errors, sae, stream
from sae_jax import mesh as mesh_lib
from sae_jax.train import optimizer as optimizer_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """One dictionary on one hook of one store."""

  store: str  # path or URL of a store, finished or bounded
  hook: str  # such as "blocks.9.hook_resid_post"
  sae: sae.SaeConfig
  stream: stream.StreamConfig
  steps: int
  # A store paired with `store`, such as the base model's: the dictionary is of
  # the differences `store` − `minus`.
  minus: str = ""
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
  keep_checkpoints: int = 2
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


# What a resumed run may change: it does not enter the numbers. (On another mesh
# they differ by float reassociation.)
MAY_CHANGE = (
  "store",  # these three may move: what is in them is among the inputs
  "minus",
  "init_from",
  "mesh",
  "eval_every",
  "checkpoint_every",
  "keep_checkpoints",
  "log_every",
  "wandb_project",
)
