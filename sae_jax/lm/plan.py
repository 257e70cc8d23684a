# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which blocks a forward pass runs, and where it reads and edits."""

import dataclasses
from collections.abc import Sequence

from sae_jax import errors
from sae_jax.lm import hooks as hooks_lib
from sae_jax.lm import model as model_lib


@dataclasses.dataclass(frozen=True)
class Plan:
  """What to run: whole blocks, then one in part for `tail` hooks.

  The blocks are those from `first` to before `blocks`.
  """

  blocks: int
  taps: tuple[hooks_lib.Hook, ...]
  tail: tuple[hooks_lib.Hook, ...]
  edits: tuple[tuple[hooks_lib.Hook, hooks_lib.Edit], ...]
  entry: hooks_lib.Hook | None = None  # what the pass begins with

  @property
  def first(self) -> int:
    """The first block that is run."""
    return _blocks_below(self.entry)

  @property
  def end(self) -> hooks_lib.Hook:
    """The stream that the scan ends with; tapping it costs nothing."""
    return hooks_lib.Hook(self.blocks - 1, "resid_post")

  @property
  def slots(self) -> dict[str, tuple[int, ...]]:
    """site -> the layers tapped there while the whole blocks run."""
    elsewhere = [*self.tail, self.end]
    if self.entry is not None and self.entry.site == "resid_post":
      elsewhere.append(self.entry)  # no block that is run writes it
    scanned = [hook for hook in self.taps if hook not in elsewhere]
    return {
      site: tuple(hook.layer for hook in scanned if hook.site == site)
      for site in hooks_lib.SITES
      if any(hook.site == site for hook in scanned)
    }


def make(
  model: model_lib.Decoder,
  taps: Sequence[str],
  edits: Sequence[hooks_lib.Edit],
  *,
  run_all: bool,
  entry: hooks_lib.Entry | None = None,
) -> Plan:
  """What to run for these taps and edits; `run_all`: every block and the head.

  Raises:
    errors.InputError: a hook that does not exist, is not loaded, or lies before
      the entry.
  """
  config, loaded = model.config, model.layers
  parsed = {hooks_lib.parse(name, config.num_layers) for name in taps}
  hooks = tuple(sorted(parsed, key=lambda hook: hook.order))
  checked = hooks_lib.check_edits(edits, config.num_layers)
  edited = tuple((hooks_lib.parse(e.hook), e) for e in checked)
  begin = None if entry is None else _entry(entry, config.num_layers)
  for hook in (*hooks, *(hook for hook, _ in edited), begin):
    if hook is None:
      continue
    if begin is not None and hook.order < begin.order:
      raise errors.InputError(
        f"hook {hook.canonical!r} lies before {begin.canonical!r}, where this"
        " pass begins; enter at the first hook that is tapped or edited"
      )
    if hook.site == "resid_mid" and config.parallel_residual:
      raise errors.InputError(
        f"hook {hook.canonical!r}: this model's attention and MLP are parallel,"
        " so it has no resid_mid; use resid_pre, attn_out or resid_post"
      )
    needed = hook.layer + (hook.site != "resid_pre")
    if needed > loaded:
      raise errors.InputError(
        f"hook {hook.canonical!r} needs {needed} layers, but {loaded} are"
        f" loaded; load the model with layers={needed} or more"
      )
  if run_all or not hooks:
    if not model.has_head:
      raise errors.InputError(
        f"this needs all {config.num_layers} layers and the head, but only"
        f" {loaded} layers are loaded; load the model without layers="
      )
    return Plan(loaded, hooks, (), edited, begin)
  last = hooks[-1]
  if last.site in ("mlp_out", "resid_post"):
    return Plan(last.layer + 1, hooks, (), edited, begin)
  tail = tuple(hook for hook in hooks if hook.layer == last.layer)
  return Plan(last.layer, hooks, tail, edited, begin)


def _entry(entry: hooks_lib.Entry, num_layers: int) -> hooks_lib.Hook:
  hook = hooks_lib.parse(entry.hook, num_layers)
  if hook.site not in ("resid_pre", "resid_post"):
    raise errors.InputError(
      f"entry {hook.canonical!r}: a pass begins between blocks; use a resid_pre"
      " or resid_post"
    )
  return hook


def _blocks_below(hook: hooks_lib.Hook | None) -> int:
  """How many blocks have been run where the stream is this."""
  return 0 if hook is None else hook.layer + (hook.site == "resid_post")
