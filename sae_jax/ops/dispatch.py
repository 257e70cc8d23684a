# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which implementation of an operation runs.

`None` means the best one of the default backend's platform; a name is taken
literally and never replaced by another one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from sae_jax import errors


def for_platform(platform: str) -> str:
  """The implementation that `None` stands for on `platform`."""
  return "cpu" if platform == "cpu" else "xla"


def choose(
  op: str,
  implementations: Mapping[str, Callable[..., Any]],
  implementation: str | None,
) -> Callable[..., Any]:
  """Returns the function that `implementation` names.

  Raises:
    errors.InputError: the operation has no implementation of that name.
  """
  name = implementation or for_platform(jax.default_backend())
  if name not in implementations:
    raise errors.InputError(
      f"{op}: implementation={implementation!r} does not exist; choose one of"
      f" {sorted(implementations)}, or None for the platform's own"
    )
  return implementations[name]
