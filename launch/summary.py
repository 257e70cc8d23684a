# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Prints the headline of an evaluation: `summary.py METRICS.json PAGE.html`."""

import json
import pathlib
import sys

ROWS = (
  ("FVU", "eval/fvu", "{:.4f}"),
  ("L0", "eval/l0", "{:.2f}"),
  ("dead fraction", "eval/dead_frac", "{:.4f}"),
  ("loss recovered", "eval/loss_recovered", "{:.4f}"),
)

if __name__ == "__main__":
  metrics = json.loads(pathlib.Path(sys.argv[1]).read_text())
  for name, key, form in ROWS:
    print(f"{name:15s} {form.format(metrics[key])}")
  print(f"{'report':15s} {pathlib.Path(sys.argv[2]).resolve()}")
