# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`run_jobs.py LINES`: command lines of `sae-jax`, a JSON list of lists.

One after another in one process, which is started once and compiles once what
several of them need.
"""

import json
import sys

from absl.testing import flagsaver

from sae_jax import __main__
from sae_jax.train import loop  # grain defines flags when it is imported

assert loop

for line in json.loads(sys.argv[1]):
  with flagsaver.flagsaver():
    code = __main__.run(["sae-jax", *line])
  if code:
    sys.exit(code)
