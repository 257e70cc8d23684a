# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Artifacts of any kind to one page: diffs first, then dictionaries."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from sae_jax import artifacts, errors
from sae_jax.report import diff_page, entries, page, training_run


def write_report(
  paths: Sequence[str | os.PathLike[str]], out_html: str | os.PathLike[str]
) -> pathlib.Path:
  """Writes one HTML file about diffs, training runs and their evaluations.

  Args:
    paths: directories of diff, train and evaluate jobs, in any order; an
      evaluation inside a run's directory is found by itself.
    out_html: the file; it appears whole or not at all.

  Returns:
    The path written.

  Raises:
    errors.InputError: a path is none of these, or the file cannot be written.
  """
  diffs, shown = entries.read_all(paths)
  titles = [diff_page.title(diff) for diff in diffs]
  leads = [diff_page.lead(diff) for diff in diffs]
  groups = [
    (
      title if len(diffs) == 1 else f"{diff.name}: {title}",
      diff_page.sections(diff),
    )
    for diff, title in zip(diffs, titles, strict=True)
  ]
  if shown:
    titles.append(training_run.title(shown))
    leads.append(training_run.lead(shown))
    name = titles[-1] if len(shown) > 1 else f"Dictionary: {titles[-1]}"
    groups.append((name, training_run.sections(shown)))
  html = page.render(
    # Dictionaries are named where they begin; diffs are what the page is about.
    title="; ".join(dict.fromkeys(titles[: len(diffs) or None])),
    lead="; ".join(leads),
    sections=[
      dataclasses.replace(section, group=title if len(groups) > 1 else "")
      for title, sections in groups
      for section in sections
    ],
  )
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
