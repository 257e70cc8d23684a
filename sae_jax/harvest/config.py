# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a harvest is told; every field decides the store's bytes but `mesh`."""

import dataclasses
import math
from typing import Literal

from sae_jax import errors
from sae_jax import mesh as mesh_lib
from sae_jax.lm import text as text_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class HarvestConfig:
  """Which activations of which model on which text, and how many."""

  model: str  # a directory, a .gguf file or a hub id
  hooks: tuple[str, ...]  # all from one pass: blocks.12.hook_resid_post, …
  text: text_lib.TextConfig | None = None
  # Instead of text: a finished store, such as the base model's, whose token
  # sequences are run again. Exactly its rows are kept, so the two are paired;
  # what decides rows and their order comes from there.
  tokens_of: str = ""
  rows: int = 0  # tokens to keep; fewer if the text ends before
  batch_size: int = 16  # contexts per forward pass
  dtype: Literal["bfloat16", "float32"] = "bfloat16"  # of the forward pass
  # Whether BOS, EOS, pad and the other special tokens are left out.
  drop_special: bool = True
  # Rows whose norm is more than so many times the median of the first batch
  # are left out (attention sinks: over 100 times in some models); 0: none are.
  outlier_norm_multiple: float = 10.0
  read_rows: int = 256  # rows per checked block, what a reader reads at least
  write_rows: int = 32768  # rows per file; rows are permuted within it
  # Independent writers. Part of the data order; at least the processes.
  lanes: int = 1
  # At most so many files per array on disk: harvest waits until training has
  # used the oldest. 0: all stay.
  window: int = 0
  seed: int = 0
  # Of each process's own devices; sequences are split over `data`.
  mesh: mesh_lib.MeshConfig = dataclasses.field(
    default_factory=lambda: mesh_lib.MeshConfig(data=-1, latent=1)
  )

  def __post_init__(self):
    if not self.hooks:
      raise errors.InputError(
        "hooks=(): name at least one, such as blocks.12.hook_resid_post"
      )
    if (self.text is None) == (not self.tokens_of):
      raise errors.InputError(
        f"text={self.text} and tokens_of={self.tokens_of!r}: give one of them,"
        " text to read, or a store whose tokens are run again"
      )
    for name, least in (
      ("rows", 0 if self.tokens_of else 1),
      ("batch_size", 1),
      ("read_rows", 1),
      ("write_rows", 1),
      ("lanes", 1),
      ("window", 0),
      ("seed", 0),
    ):
      if getattr(self, name) < least:
        raise errors.InputError(
          f"{name}={getattr(self, name)}: give a number >= {least}"
        )
    if self.write_rows % self.read_rows:
      raise errors.InputError(
        f"write_rows={self.write_rows} is not a multiple of"
        f" read_rows={self.read_rows}"
      )
    if self.seed >= 2**64:
      raise errors.InputError(f"seed={self.seed}: give a number below 2**64")
    if self.window and self.window < 2 * self.lanes:
      raise errors.InputError(
        f"window={self.window}: give at least 2 write chunks per lane"
        f" (lanes={self.lanes}), one to read and one to write"
      )
    multiple = self.outlier_norm_multiple
    if not math.isfinite(multiple) or (multiple != 0 and multiple <= 1):
      raise errors.InputError(
        f"outlier_norm_multiple={multiple}: give a multiple of the median norm"
        " above 1, or 0 to keep every row"
      )
