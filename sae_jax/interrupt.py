# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""SIGTERM (preemption) and Ctrl-C as a flag that a loop looks at."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator


@dataclasses.dataclass
class Stop:
  """`requested` names the signal that arrived, or is empty."""

  requested: str = ""


@contextlib.contextmanager
def catch(*, alone: bool = True) -> Iterator[Stop]:
  """Notes the first SIGTERM or SIGINT; a second one acts as it always does.

  Does nothing where this process is not `alone`: one of several that act
  together must not stop at a step of its own.
  """
  stop = Stop()
  # Python delivers signals to the main thread only.
  in_main = threading.current_thread() is threading.main_thread()
  if not alone or not in_main:
    yield stop
    return

  def note(number, frame):
    del frame
    stop.requested = signal.Signals(number).name
    signal.signal(number, before[number])

  before = {
    number: signal.signal(number, note)
    for number in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    yield stop
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
