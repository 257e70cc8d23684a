# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a sweep's settings and members are called, and what they share."""

import re
from collections.abc import Iterable
from typing import Any

from sae_jax.report import groups, say
from sae_jax.report.sweep_entry import SETTINGS, Member, Sweep

NAMES = {
  "hook": "hook",
  "learning_rate": "learning rate",
  "aux_coefficient": "AuxK coefficient",
  "sparsity": "sparsity",
  "target_l0": "target L0",
  "k": "k",
  "seed": "seed",
}
_SHORT = NAMES | {"learning_rate": "lr", "aux_coefficient": "AuxK coef."}


def value(setting: str, found: Any) -> str:
  """A setting's value as people write it: 2e-4, 1,024."""
  if found is None:
    return say.MISSING
  if setting == "learning_rate":
    return say.rate(found)
  if setting in ("aux_coefficient", "sparsity", "target_l0"):
    return f"{found:.4g}"
  return f"{found:,}" if setting == "k" else str(found)


def told_apart(sweep: Sweep, member: Member) -> str:
  """What a member differs in: k 32, lr 2e-4; "" when it differs in nothing."""
  return ", ".join(
    f"{_SHORT[name]} {value(name, member.settings[name])}"
    for name in reversed(sweep.varying)
  )


def label(sweep: Sweep, member: Member) -> str:
  """Member 3: k 32, lr 2e-4."""
  apart = told_apart(sweep, member)
  return f"Member {member.index}" + (f": {apart}" if apart else "")


def values(sweep: Sweep, setting: str) -> list[Any]:
  """The different values of a setting, in order; layers as numbers."""
  found = {member.settings[setting] for member in sweep.members}
  return sorted(found, key=lambda v: _natural(v) if isinstance(v, str) else v)


def span(sweep: Sweep, setting: str) -> str:
  """All values where they are few, else from which to which."""
  found = [value(setting, v) for v in values(sweep, setting)]
  if len(found) > 4 and setting != "hook":
    return f"{found[0]} to {found[-1]}"
  return _joined(found)


def shared(sweep: Sweep) -> str:
  """What no member differs in, as a clause."""
  return ", ".join(
    f"{NAMES[name]} {value(name, sweep.members[0].settings[name])}"
    for name in SETTINGS
    if name not in sweep.varying and sweep.members[0].settings[name] is not None
  )


def coloured_by(sweep: Sweep) -> str:
  """The setting that the colours stand for."""
  return sweep.varying[0] if sweep.varying else SETTINGS[0]


def by_colour(sweep: Sweep) -> dict[Any, groups.Group]:
  """A group for each value of the setting that the colours stand for."""
  setting = coloured_by(sweep)
  found = values(sweep, setting)
  made = groups.ordered(sweep.prefix, [value(setting, v) for v in found])
  return dict(zip(found, made, strict=True))


def group_of(sweep: Sweep, member: Member) -> groups.Group:
  return by_colour(sweep)[member.settings[coloured_by(sweep)]]


def key(
  sweep: Sweep, *, front: bool = False, crosses: bool = True
) -> list[dict[str, Any]]:
  """The key of a sweep's figures; none where there is nothing to tell apart."""
  diverged = crosses and any(m.frozen_at is not None for m in sweep.members)
  shown = list(by_colour(sweep).values()) if sweep.varying else []
  if not shown and not diverged and not front:
    return []
  title = NAMES[coloured_by(sweep)] if shown else ""
  return [groups.key(title, shown, diverged=diverged, front=front)]


def identity(sweep: Sweep, member: Member, mark: str = "") -> dict[str, str]:
  """What a trace has so that the page knows whose it is in other figures."""
  meta = f"{sweep.prefix}m{member.index}"
  return {"meta": meta, "uid": f"{meta}{mark}"}


def diverged(sweep: Sweep, member: Member) -> str:
  """When a member diverged, "" if it did not.

  Of a run under way only its last logged step is known.
  """
  if member.frozen_at is None:
    return ""
  if sweep.manifest is None and member.frozen_at == 0:
    return "diverged at the start"
  if sweep.manifest is None:
    return f"diverged after step {member.frozen_at - 1:,}"
  return f"diverged at step {member.frozen_at:,}"


def _joined(texts: list[str]) -> str:
  return (
    texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
  )


def _natural(text: str) -> list[tuple[int, str]]:
  """Orders blocks.9 before blocks.12."""
  parts: Iterable[str] = re.split(r"(\d+)", text)
  return [(int(p), "") if p.isdigit() else (-1, p) for p in parts]
