# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Two responses to one prompt: from where on they are scored."""

from collections.abc import Sequence

from sae_jax import errors


def first_difference(a: Sequence[int], b: Sequence[int]) -> int:
  """The first token from which on two responses are scored.

  What both begin with is equally likely in both and would only dilute their
  difference. A response that the other one continues differs from it in where
  it ends, which no token of its own shows: both are then scored from the
  shorter one's last token on, so that neither is left without a token.

  Raises:
    errors.InputError: they are the same tokens, or one has none.
  """
  if not a or not b:
    raise errors.InputError("a response without tokens; give both some text")
  for i, (x, y) in enumerate(zip(a, b, strict=False)):
    if x != y:
      return i
  if len(a) == len(b):
    raise errors.InputError(
      "both responses are the same tokens; give two that differ"
    )
  return min(len(a), len(b)) - 1
