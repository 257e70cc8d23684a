# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the directory of a diff: what it found, and which latents it found.

Only reads. Of `latents.parquet` it takes the columns that are asked for, one
method and arm at a time, so that a million latents fit.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_jax import artifacts
from sae_jax.diff import table
from sae_jax.report import findings

JOINT = "joint"  # the arm that stands for all tuned arms together
NULL = "null"  # the base model, captured once more
PARTNER = "partner"  # the other dictionary of a matching
_PLAIN = "frozen_plain"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
  """One model that was compared with the base."""

  name: str
  role: str  # "tuned", "realigned", "control" or "null"
  control: str  # name of its matched control, "" if it has none
  model: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """One method on one arm, as summary.json tells of it."""

  method: str
  arm: str
  dictionary: str
  control: str
  changed: int | None  # None: the method has no test
  summary: dict[str, Any]

  @property
  def name(self) -> str:
    return f"{self.method}/{self.arm}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diff:
  """A directory of the diff job; what it has not written yet is None."""

  name: str
  path: pathlib.Path
  prefix: str  # of the anchors, where several diffs share a page
  config: dict[str, Any] | None
  manifest: dict[str, Any] | None
  summary: dict[str, Any] | None
  cards: dict[str, Any] | None
  arms: tuple[Arm, ...]
  parts: tuple[Part, ...]
  screens: tuple[findings.Finding, ...] = ()  # steer jobs of this diff

  def part(self, method: str, arm: str) -> Part | None:
    found = [p for p in self.parts if (p.method, p.arm) == (method, arm)]
    return found[0] if found else None

  def columns(self, part: Part, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of one part -> [F]."""
    return table.read(
      self.path / "latents.parquet",
      list(names),
      method=part.method,
      arm=part.arm,
    )

  @property
  def claims(self) -> list[Part]:
    """The parts that say what changed in each tuned arm, all arms last."""
    first = self.parts[0].method if self.parts else ""
    method = (
      "frozen" if any(p.method == "frozen" for p in self.parts) else first
    )
    found = [p for p in self.parts if p.method == method]
    return sorted(found, key=lambda part: part.arm == JOINT)

  @property
  def nulls(self) -> list[Part]:
    """Plain differences of arms that are the base model itself."""
    names = {NULL, *(a.name for a in self.arms if a.role == "null")}
    return [p for p in self.parts if p.method == _PLAIN and p.arm in names]

  @property
  def plain_controls(self) -> list[Part]:
    """Plain differences of the control arms: what any fine-tuning does."""
    names = {a.name for a in self.arms if a.role == "control"}
    return [p for p in self.parts if p.method == _PLAIN and p.arm in names]

  def plain(self, arm: str) -> Part | None:
    """Where the difference arm − base stands without a control."""
    return self.part(_PLAIN, arm) or self.part("frozen", arm)

  def verdict(self, dictionary: str, latent: int) -> str:
    """What steering said of a latent: the strongest of all screens, or ""."""
    found = {
      screen.by_latent[latent].get("verdict")
      for screen in self.screens
      if dictionary == "sae" and latent in screen.by_latent
    }
    return next((name for name in findings.VERDICTS if name in found), "")

  def anchor(self, dictionary: str, latent: int) -> str:
    return f"{self.prefix}{dictionary}-{latent}"

  @functools.cached_property
  def card_of(self) -> dict[tuple[str, int], dict[str, Any]]:
    """(dictionary, latent) -> its card, in the order of the cards."""
    found = (self.cards or {}).get("cards", ())
    return {(card["dictionary"], card["latent"]): card for card in found}


def is_diff(directory: pathlib.Path) -> bool:
  """Whether a diff job owns the directory."""
  config = artifacts.read_json(directory / "config.json")
  return isinstance(config, dict) and config.get("job") == "diff"


def read(path: pathlib.Path, name: str, prefix: str) -> Diff:
  """Reads what there is.

  Raises:
    errors.InputError: a file is not JSON.
  """
  summary = artifacts.read_json(path / "summary.json")
  known = summary or {"arms": [], "parts": []}
  return Diff(
    name=name,
    path=path,
    prefix=prefix,
    config=artifacts.read_json(path / "config.json"),
    manifest=artifacts.read_json(path / "manifest.json"),
    summary=summary,
    cards=artifacts.read_json(path / "cards.json"),
    arms=tuple(
      Arm(
        name=arm["name"],
        role=arm["role"],
        control=arm["control"],
        model=arm["model"],
      )
      for arm in known["arms"]
    ),
    parts=tuple(
      Part(
        method=part["method"],
        arm=part["arm"],
        dictionary=part["dictionary"],
        control=part["control"],
        changed=part["changed"],
        summary=part["summary"],
      )
      for part in known["parts"]
    ),
  )
