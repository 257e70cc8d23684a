# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Says on stderr what a reader waits for, when that takes long.

A read is never given up: disks and object stores come back. But a run that
stands still must say of its own accord on what.
"""

import sys
import threading
import time
from collections.abc import Callable

import tensorstore as ts

# Far more than a slow read of a chunk takes, retries included.
FIRST_SECONDS = 30.0


class Patience:
  """A wait that is spoken of after `FIRST_SECONDS`, then 2, 4, 8 … times it."""

  def __init__(self) -> None:
    self._started = time.monotonic()
    self._next = FIRST_SECONDS

  def seconds(self) -> float:
    """How long to wait before `say`."""
    return max(0.0, self._started + self._next - time.monotonic())

  def say(self, waited_for: Callable[[], str]) -> None:
    """Prints what is waited for, if its time has come."""
    waited = time.monotonic() - self._started
    if waited < self._next:
      return
    self._next = 2 * waited
    print(
      f"waiting for {waited:.0f} s: {waited_for()}", file=sys.stderr, flush=True
    )


def done(future: ts.Future, waited_for: Callable[[], str]) -> None:
  """Returns once `future` has a result or has failed."""
  if future.done():
    return
  event = threading.Event()
  future.add_done_callback(lambda _: event.set())
  patience = Patience()
  while not event.wait(patience.seconds()):
    patience.say(waited_for)
