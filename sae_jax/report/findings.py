# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads what the steer, realign and monitor jobs wrote: their summary.json.

Only reads. Whatever a job has not written yet is None.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from sae_jax import artifacts

JOBS = ("steer", "realign", "monitor")
VERDICTS = ("causal", "correlated", "inert")  # of a screen, strongest first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
  """A directory of one of the `JOBS`."""

  job: str
  name: str
  path: pathlib.Path
  prefix: str  # of the anchors
  config: dict[str, Any] | None
  manifest: dict[str, Any] | None
  summary: dict[str, Any] | None
  # Of latents that have a card on the page: its anchor, what they read as.
  links: Mapping[int, tuple[str, str]] = dataclasses.field(default_factory=dict)
  of: str = ""  # the diff on the page whose latents these are

  @property
  def settings(self) -> Mapping[str, Any]:
    """The job's own config."""
    return (self.config or {}).get("config") or {}

  @property
  def found(self) -> dict[str, Any]:
    """The summary, empty while there is none."""
    return self.summary or {}

  @property
  def diff(self) -> str:
    """The directory of the diff that the job was given, "" if none.

    Groups with a diff each have latents of several dictionaries: none.
    """
    watch = self.settings.get("watch") or {}
    groups = self.settings.get("groups") or ()
    if len({group.get("diff") for group in groups}) > 1:
      return ""
    for place in (self.found, self.settings, watch, *groups[:1]):
      if isinstance(place.get("diff"), str) and place["diff"]:
        return place["diff"]
    return ""

  @functools.cached_property
  def by_latent(self) -> dict[int, dict[str, Any]]:
    """A screen's single latents by number."""
    found: dict[int, dict[str, Any]] = {}
    for row in self.found.get("interventions") or ():
      if row["kind"] == "latent" and row.get("latents"):
        latent = row["latents"][0]
        # One without a score in the diff is tried with either sign.
        known = found.get(latent)
        if known is None or _effect(row) > _effect(known):
          found[latent] = row
    return found

  def reference(self, latent: int) -> dict[str, Any]:
    """A latent by number, with what it reads as and where its card is."""
    href, reading = self.links.get(latent, ("", ""))
    return {"latent": latent, "reading": reading, "href": href}


def job_of(directory: pathlib.Path) -> str:
  """Which of the `JOBS` owns the directory, "" if none does."""
  config = artifacts.read_json(directory / "config.json")
  job = config.get("job") if isinstance(config, dict) else None
  return job if job in JOBS else ""


def read(path: pathlib.Path, name: str, prefix: str) -> Finding:
  """Reads what there is.

  Raises:
    errors.InputError: a file is not JSON.
  """
  return Finding(
    job=job_of(path),
    name=name,
    path=path,
    prefix=prefix,
    config=artifacts.read_json(path / "config.json"),
    manifest=artifacts.read_json(path / "manifest.json"),
    summary=artifacts.read_json(path / "summary.json"),
  )


def _effect(row: Mapping[str, Any]) -> float:
  """The smaller of both effects, in the expected directions."""
  ends = []
  for way, sign in (("up", 1), ("down", -1)):
    score = (row.get(way) or {}).get("effect") or {}
    mean = score.get("mean")
    ends.append(float("-inf") if mean is None else sign * mean)
  return min(ends)
