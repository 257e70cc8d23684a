# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How many latents get a card, on which text, and whether they are labelled."""

import dataclasses

from sae_jax import endpoint as endpoint_lib
from sae_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewConfig:
  """Further text on which latents are shown, beside the diff's own prompts.

  A store of the base model's activations says where they fire. The arms'
  activations come from stores paired with it; those of an arm without a store
  are computed by running its model on the shown contexts alone.
  """

  name: str  # such as "web" or "chat"
  base: str  # store of the base model's activations at the diff's hook
  stores: dict[str, str] = dataclasses.field(default_factory=dict)  # by arm

  def __post_init__(self):
    if not self.name or self.name in ("prompts", "documents"):
      raise errors.InputError(
        f"cards.views: the name {self.name!r} is empty or that of the diff's"
        " own evidence; choose another"
      )
    if not self.base:
      raise errors.InputError(
        f"cards.views {self.name!r}: base is empty; give a store of the base"
        " model's activations"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelsConfig:
  """Labels by a chat model, each tested on contexts that it was not made from.

  With the defaults, a latent costs 7 requests: one with the `shown` contexts,
  then tests of 8 contexts each.
  """

  endpoint: endpoint_lib.EndpointConfig
  shown: int = 12  # contexts from which a label is made
  held_out: int = 12  # contexts with and as many without, to test it on

  def __post_init__(self):
    for name, least in (("shown", 2), ("held_out", 4)):
      if getattr(self, name) < least:
        raise errors.InputError(
          f"cards.labels.{name}={getattr(self, name)}: give a number >= {least}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardsConfig:
  """How many latents get a card, and what it shows."""

  latents: int = 24  # 0: no cards
  views: tuple[ViewConfig, ...] = ()
  labels: LabelsConfig | None = None
  top: int = 4  # strongest contexts per model and view
  before: int = 24  # tokens shown before the one that fired
  after: int = 12
  rows: int = 1_000_000  # of each store that are searched
  words: int = 10  # of the logit lens, each kind
  neighbours: int = 5

  def __post_init__(self):
    for name, least in (
      ("latents", 0),
      ("top", 1),
      ("before", 0),
      ("after", 0),
      ("rows", 1),
      ("words", 1),
      ("neighbours", 0),
    ):
      if getattr(self, name) < least:
        raise errors.InputError(
          f"cards.{name}={getattr(self, name)}: give a number >= {least}"
        )
    names = [view.name for view in self.views]
    if len(set(names)) < len(names):
      raise errors.InputError(f"cards.views {names}: two have the same name")
