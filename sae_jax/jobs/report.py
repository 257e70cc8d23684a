# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax report`: what any jobs wrote in, one HTML page out."""

import pathlib
from collections.abc import Sequence
from typing import Any

from sae_jax import report


def run(paths: Sequence[str], out: str | None) -> dict[str, Any]:
  """Writes the page; default: report.html in the first directory."""
  page = report.write_report(
    paths, out or pathlib.Path(paths[0]) / "report.html"
  )
  return {"report": str(page)}
