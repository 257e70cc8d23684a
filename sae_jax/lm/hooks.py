# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Names of the places in a decoder where activations are read and edited.

Canonical names follow TransformerLens, `blocks.12.hook_resid_post`; Hugging
Face's `model.layers.12` is accepted and means that layer's output.
"""

import dataclasses
import re
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import jax

from sae_jax import errors

# In the order in which a block computes them.
SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
_CANONICAL = re.compile(r"blocks\.(\d+)\.hook_(\w+)")
_HUGGING_FACE = re.compile(
  r"(?:model\.layers|model\.language_model\.layers|transformer\.h"
  r"|gpt_neox\.layers)\.(\d+)"
)


@dataclasses.dataclass(frozen=True, order=True)
class Hook:
  """One tensor [B, T, D] of one block.

  `attn_out` and `mlp_out` are what is added to the residual stream (after
  gemma's post-norms); `resid_mid` is the stream between the two.
  """

  layer: int  # from 0
  site: str  # one of SITES

  @property
  def canonical(self) -> str:
    return f"blocks.{self.layer}.hook_{self.site}"

  @property
  def order(self) -> tuple[int, int]:
    """Sorts hooks as a forward pass reaches them."""
    return self.layer, SITES.index(self.site)


def parse(name: str, num_layers: int | None = None) -> Hook:
  """Reads a hook name; with `num_layers` its layer is checked as well.

  Raises:
    errors.InputError: no such site, or no such layer.
  """
  if match := _CANONICAL.fullmatch(name):
    hook = Hook(int(match[1]), match[2])
  elif match := _HUGGING_FACE.fullmatch(name):
    hook = Hook(int(match[1]), "resid_post")
  else:
    hook = None
  if hook is None or hook.site not in SITES:
    raise errors.InputError(
      f"hook {name!r} is unknown; name it blocks.LAYER.hook_SITE with SITE one"
      f" of {', '.join(SITES)}, or model.layers.LAYER for that layer's output"
    )
  if num_layers is not None and hook.layer >= num_layers:
    raise errors.InputError(
      f"hook {name!r}: the model's layers are 0 to {num_layers - 1}"
    )
  return hook


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Edit:
  """A change of the activations at one hook, applied in every forward pass.

  `fn(h_BTD, mask_BT, *args)` returns the new activations of the same shape;
  `mask_BT` marks real tokens. While a model generates, T is 1 after the
  prompt. A tap at the same hook sees the edited values. `fn` is a top-level
  function (compiled programs are kept per `fn`); `args` are pytrees of arrays
  that may change from call to call without a new compilation.
  """

  hook: str = dataclasses.field(metadata={"static": True})
  fn: Callable[..., jax.Array] = dataclasses.field(metadata={"static": True})
  args: tuple[Any, ...] = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Entry:
  """A residual stream that a forward pass begins with, not the embedding.

  `hook` is a resid_post or resid_pre; blocks below it are not run. An edit or
  a tap at this very hook sees `h_BTD`.
  """

  hook: str = dataclasses.field(metadata={"static": True})
  h_BTD: jax.Array


def check_edits(edits: Iterable[Edit], num_layers: int) -> tuple[Edit, ...]:
  """The edits with canonical hook names, which have to exist.

  Raises:
    errors.InputError: an unknown hook, or a function that cannot be kept.
  """
  checked = []
  for edit in edits:
    if not isinstance(edit.fn, Hashable):
      raise errors.InputError(
        f"edit at {edit.hook!r}: {edit.fn!r} is not hashable; give a function"
        " defined at the top level of a module"
      )
    hook = parse(edit.hook, num_layers)
    checked.append(dataclasses.replace(edit, hook=hook.canonical))
  return tuple(checked)
