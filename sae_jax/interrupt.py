# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""SIGTERM (preemption) and Ctrl-C as a question that a loop asks.

The processes of one run stop at the same step, whichever of them got a signal.
"""

import contextlib
import itertools
import signal
import threading
import time
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

# JAX looks once a second whether SIGTERM came; asking more often tells no more.
_TICK_SECONDS = 1.0
_STARTED = time.monotonic()

# Numbers given to JAX's preemption service: they only grow, through all loops.
_given = 0


class Stop:
  """`requested` names the signal that ends this process, or is empty."""

  def __init__(self, *, together: bool = False):
    self.requested = ""
    self._noted = ""
    self._together = together
    self._before: int | None = None

  def due(self, step: int) -> str:
    """Names the signal that ends the run before `step`; empty to go on.

    All processes ask once per step and get the same answer at the same step:
    the first one that none of them has asked about when the signal is noticed
    (JAX: at most a second later). It costs a mutex; the processes exchange
    something only once there was a signal.
    """
    global _given
    if self.requested or not self._together:
      return self.requested
    if self._before is None:
      self._before = _given + 1 - step
    # Not the step: before the first question JAX agrees on number 1, which a
    # resumed run would never come to.
    _given = self._before + step
    if multihost_utils.reached_preemption_sync_point(_given):
      self.requested = self._noted or "SIGTERM"
    return self.requested

  def note(self, name: str) -> None:
    """Takes up a signal to this process; of several it ends none alone."""
    self._noted = name
    if self._together:
      # To JAX, which listens to SIGTERM and tells the other processes.
      signal.raise_signal(signal.SIGTERM)
    else:
      self.requested = name


@contextlib.contextmanager
def catch(*, resumable: bool = True, in_step: bool = True) -> Iterator[Stop]:
  """Notes the first SIGTERM or SIGINT; a second SIGINT acts as it always does.

  Args:
    resumable: where a stop would lose the work, False leaves signals as they
      are.
    in_step: all processes of the run go through the same steps and ask
      `Stop.due` at each. If not, each looks at `Stop.requested` when it
      likes, which all get within seconds of a signal to one.
  """
  together = jax.process_count() > 1
  # Python delivers signals to the main thread only.
  in_main = threading.current_thread() is threading.main_thread()
  if not resumable or not in_main:
    yield Stop()
    return
  stop = Stop(together=together)

  def note(number, frame):
    del frame
    signal.signal(number, before[number])
    stop.note(signal.Signals(number).name)

  numbers = [signal.SIGINT] if together else [signal.SIGINT, signal.SIGTERM]
  before = {number: signal.signal(number, note) for number in numbers}
  listening = _listen(stop) if together and not in_step else None
  try:
    with listening or contextlib.nullcontext():
      yield stop
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


@contextlib.contextmanager
def _listen(stop: Stop) -> Iterator[None]:
  """Asks for a process that does not go in step with the others.

  JAX tells of a signal at an agreed number. Here the numbers are seconds since
  the process began, so that all come to it together, whatever they work at.
  """
  done = threading.Event()

  def listen():
    for tick in itertools.count():
      if stop.due(tick):
        return
      following = _STARTED + (tick + 1) * _TICK_SECONDS
      if done.wait(max(0.0, following - time.monotonic())):
        return

  thread = threading.Thread(target=listen, daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
