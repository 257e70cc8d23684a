# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a case of a benchmark that compiles in a process of its own.

What the compiler takes is freed with the process, and one case that a compiler
refuses does not end the others.
"""

import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

Case = dict[str, Any]
Result = dict[str, Any]


def run(script: str, case: Case) -> list[Result]:
  """What `script --child CASE` prints; one result with `error` if it fails."""
  started = time.monotonic()
  done = subprocess.run(
    [sys.executable, script, "--child", json.dumps(case)],
    capture_output=True,
    text=True,
    # jax reads it when it is imported, and would look for a GPU otherwise.
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
  )
  if done.returncode:
    print(done.stderr[-4000:], file=sys.stderr)
    return [{"case": case, "error": _reason(done.stderr)}]
  wall = {"wall_s": round(time.monotonic() - started, 1)}
  return [r | wall for r in json.loads(done.stdout.splitlines()[-1])]


def _reason(stderr: str) -> str:
  """What a reader of a table wants to know of a failure."""
  full = re.search(r"Used ([\d.]+\w) of ([\d.]+\w) hbm", stderr)
  if full:
    return f"does not fit: {full[1]} of {full[2]} of memory"
  lines = stderr.strip().splitlines()
  return lines[-1] if lines else "killed"


def answer(
  case: Case, compile_and_read: Callable[[Case, pathlib.Path], list[Result]]
) -> None:
  """In the process of `run`: prints what the compiled programs say.

  Args:
    case: has `keep`, a directory for the compiler's text dumps, or None.
    compile_and_read: gets the case and the directory of the dumps. Imports jax
      only when it is called: XLA_FLAGS are read then.
  """
  with tempfile.TemporaryDirectory() as scratch:
    directory = pathlib.Path(case["keep"] or scratch)
    # v5p's and v6e's programs cannot be printed by jaxlib ("async-update
    # instruction should have 1 operands"), but the compiler dumps them.
    os.environ["XLA_FLAGS"] = " ".join(
      (
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_dump_to={directory}",
        "--xla_dump_hlo_as_text",
      )
    )
    results = compile_and_read(case, directory)
  # KiB on Linux.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
  print(json.dumps([r | {"peak_rss": peak} for r in results]))


def newest_dump(directory: pathlib.Path, ending: str) -> str:
  """The compiler's text dump of that kind, of what it compiled last."""
  found = sorted(
    directory.glob(f"*{ending}"), key=lambda path: path.stat().st_mtime
  )
  if not found:
    raise RuntimeError(f"the compiler left no {ending} in {directory}")
  return found[-1].read_text()
