# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""SIGTERM (preemption) and Ctrl-C as a question that a loop asks.

The processes of one run stop at the same step, whichever of them got a signal.
"""

import contextlib
import itertools
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

# JAX looks once a second whether SIGTERM came; more often would tell no more.
_TICK_SECONDS = 1.0

# Numbers given to JAX's preemption service: they only grow, through all loops.
_given = 0


class Stop:
  """`requested` names the signal that ends this process, or is empty."""

  def __init__(self, *, together: bool = False):
    self.requested = ""
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
    if not self._together:
      return self.requested
    if self._before is None:
      self._before = _given + 1 - step
    # Not the step: before the first question JAX agrees on number 1, which a
    # resumed run would never come to.
    _given = self._before + step
    if multihost_utils.reached_preemption_sync_point(_given):
      self.requested = self.requested or "SIGTERM"
      return self.requested
    return ""


@contextlib.contextmanager
def catch(*, resumable: bool = True, in_step: bool = True) -> Iterator[Stop]:
  """Notes the first SIGTERM or SIGINT; a second SIGINT acts as it always does.

  Args:
    resumable: where a stop would lose the work, False leaves signals as they
      are.
    in_step: all processes of the run go through the same steps and ask
      `Stop.due` at each. If not, each looks at `Stop.requested` when it
      likes, and a signal to one reaches all within seconds.
  """
  together = jax.process_count() > 1
  # Python delivers signals to the main thread only.
  in_main = threading.current_thread() is threading.main_thread()
  if not resumable or not in_main:
    yield Stop()
    return
  stop = Stop(together=together and in_step)

  def note(number, frame):
    del frame
    stop.requested = signal.Signals(number).name
    signal.signal(number, before[number])
    if together:
      # To JAX, which listens to SIGTERM and tells the other processes.
      signal.raise_signal(signal.SIGTERM)

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
  """Sets `requested` soon after any process got a signal.

  JAX tells of a signal at an agreed number. Here the numbers are seconds, so
  that processes come to it together however differently they work.
  """
  done = threading.Event()

  def listen():
    ticks = Stop(together=True)
    for tick in itertools.count():
      if ticks.due(tick):
        stop.requested = stop.requested or ticks.requested
        return
      if done.wait(_TICK_SECONDS):
        return

  thread = threading.Thread(target=listen, daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
