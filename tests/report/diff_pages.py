# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Pages of diffs as the tests read them."""

import json

from test_report import Page

from sae_jax import report


def write(paths, tmp_path):
  return Page(report.write_report(paths, tmp_path / "r.html").read_text())


def edit(path, change):
  value = json.loads(path.read_text())
  change(value)
  path.write_text(json.dumps(value))


def figures(page):
  return {
    a["aria-label"].split(".")[0]: spec
    for (_, a), spec in zip(
      [t for t in page.tags if "plot" in (t[1].get("class") or "").split()],
      page.specs,
      strict=True,
    )
  }


def anchors(page):
  return [a["id"] for _, a in page.tags if a.get("id")]
