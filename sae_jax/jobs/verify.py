# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax verify`: reads every byte of stores and names what is wrong."""

import sys
from collections.abc import Sequence
from typing import Any

from sae_jax import errors, metrics
from sae_jax.store import verify


def run(paths: Sequence[str], out: str | None) -> dict[str, Any]:
  """Prints each problem on stderr.

  Raises:
    errors.InputError: something is wrong with one of the stores.
  """
  if out is not None:
    raise errors.InputError("sae-jax verify writes nothing; leave out --out")
  wrong = {}
  for path in paths:
    progress = None

    def update(done: int, total: int) -> None:
      nonlocal progress
      progress = progress or metrics.Progress(total, "chunks")
      progress.update(done)

    findings = verify.verify(path, update)
    if progress is not None:
      progress.close()
    for finding in findings:
      print(finding.problem, file=sys.stderr)
    if findings:
      wrong[path] = len(findings)
  if wrong:
    counts = ", ".join(f"{n} in {path}" for path, n in wrong.items())
    raise errors.InputError(
      f"problems found: {counts}; restore the files named above, or harvest"
      " again"
    )
  return {"verified": list(paths)}
