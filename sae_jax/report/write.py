# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Artifacts of any kind to one page: diffs, what followed, dictionaries."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from sae_jax import artifacts, errors
from sae_jax.report import (
  diff_page,
  entries,
  page,
  run_frontier,
  story,
  sweep_entry,
  sweep_page,
  training_run,
)


def write_report(
  paths: Sequence[str | os.PathLike[str]], out_html: str | os.PathLike[str]
) -> pathlib.Path:
  """Writes one HTML file about everything that is given.

  Args:
    paths: directories of diff, steer, realign, monitor, train and evaluate
      jobs, in any order; an evaluation inside a run's directory is found by
      itself, and a screen of a given diff is told on the diff's cards too.
    out_html: the file; it appears whole or not at all.

  Returns:
    The path written.

  Raises:
    errors.InputError: a path is none of these, or the file cannot be written.
  """
  html = _html(entries.read_all(paths))
  out = pathlib.Path(out_html).expanduser().absolute()
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    artifacts.write_bytes_atomic(out, html.encode())
  except OSError as error:
    raise errors.InputError(
      f"--out={out}: cannot write the report ({error.strerror}); choose"
      " another path"
    ) from error
  return out


def _html(shown: entries.Shown) -> str:
  diffs, found = shown.diffs, shown.findings
  pages = [diff_page.sections(diff) for diff in diffs]
  pages += [story.of(finding).sections(finding) for finding in found]
  named = list(zip(story.names(diffs, found), pages, strict=True))
  title, lead = story.title(diffs, found), story.lead(diffs, found)
  if shown.sweeps:
    named += _named(shown.sweeps)
    titles = dict.fromkeys(map(sweep_page.title, shown.sweeps))
    title = title or "; ".join(titles)
    lead = "; ".join(filter(None, [lead, *map(sweep_page.lead, shown.sweeps)]))
  if shown.dictionaries:
    of_runs = training_run.title(shown.dictionaries)
    several = len(shown.dictionaries) > 1
    named.append(
      (
        of_runs if several else f"Dictionary: {of_runs}",
        training_run.sections(shown.dictionaries),
      )
    )
    # Dictionaries are named where they begin; the rest is what a page is about.
    title = title or of_runs
    lead = "; ".join(
      filter(None, [lead, training_run.lead(shown.dictionaries)])
    )
  sections = [
    dataclasses.replace(section, group=name if len(named) > 1 else "")
    for name, some in named
    for section in some
  ]
  sections[:0] = run_frontier.together(shown.sweeps, shown.dictionaries)
  if len(diffs) + len(found) > 1:
    sections.insert(0, story.section(diffs, found))
  return page.render(title=title, lead=lead, sections=sections)


def _named(
  sweeps: Sequence[sweep_entry.Sweep],
) -> list[tuple[str, list[page.Section]]]:
  """The pages of sweeps; those of one title are told apart by their names."""
  titles = [sweep_page.title(sweep) for sweep in sweeps]
  return [
    (
      title if titles.count(title) == 1 else f"{sweep.name}: {title}",
      sweep_page.sections(sweep),
    )
    for title, sweep in zip(titles, sweeps, strict=True)
  ]
