# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Names the five dictionaries that stage-wise diffing compares."""

import dataclasses

from sae_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagewiseRuns:
  """Train runs or SAE directories, each begun from another's dictionary.

  The steps of Bricken et al. (2024): `data` is the change of the text from the
  base model's to the fine-tuning's, `model` the change of the model. Every
  dictionary but the first is trained with `init_from` set to the one before
  it, so that latent i is the same in all five.
  """

  start: str  # base model, base text
  data_first: str  # from start: base model, fine-tuning's text
  data_then_model: str  # from data_first: tuned model, fine-tuning's text
  model_first: str  # from start: tuned model, base text
  model_then_data: str  # from model_first: tuned model, fine-tuning's text
  arm: str = ""  # of the tuned model; "": the only tuned arm

  def __post_init__(self):
    for name, path in self.paths.items():
      if not path:
        raise errors.InputError(
          f"stagewise.{name} is empty: give the directory of a train run or of"
          " an SAE; all five are needed"
        )

  @property
  def paths(self) -> dict[str, str]:
    """The five dictionaries by name."""
    return {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if field.name != "arm"
    }
