# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A job in a process of its own, to be killed."""

import json
import os
import time

from sae_jax import config as values

_CONFIG = """
import json, pathlib
from sae_jax import config
from {module} import {name}

def get_config():
  values = json.loads(pathlib.Path({path!r}).read_text())
  return config.from_dict({name}, values)
"""


def start(forge, job, config, place, out):
  """Starts `sae-jax JOB`; its config's files are written into `place`."""
  path = place / "config.json"
  path.write_text(json.dumps(values.to_dict(config)))
  cls = type(config)
  (place / "config.py").write_text(
    _CONFIG.format(module=cls.__module__, name=cls.__name__, path=str(path))
  )
  return forge.start(
    *(job, f"--config={place}/config.py", f"--out={out}"),
    env=dict(
      os.environ,
      JAX_NUM_CPU_DEVICES="8",
      JAX_DISABLE_MOST_OPTIMIZATIONS="1",  # as in this process
    ),
  )


def wait_for_checkpoint(process, out, step):
  deadline = time.monotonic() + 240
  while not (out / "checkpoints" / str(step)).exists():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.005)
