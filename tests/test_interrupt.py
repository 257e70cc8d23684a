# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A signal becomes an answer, which all processes of a run get at one step."""

import signal
import time

import jax
import pytest
from jax.experimental import multihost_utils

from sae_jax import interrupt


@pytest.fixture
def sigterms():
  """Counts SIGTERMs, as JAX's own handler does among several processes."""
  seen = []
  before = signal.signal(signal.SIGTERM, lambda *_: seen.append("SIGTERM"))
  yield seen
  signal.signal(signal.SIGTERM, before)


@pytest.fixture
def two_processes(monkeypatch):
  """The numbers that JAX is asked about; it says yes to number `agreed`."""

  class Service:
    agreed = -1

    def __init__(self):
      self.asked = []

    def reached(self, number):
      self.asked.append(number)
      return number == self.agreed

  service = Service()
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(
    multihost_utils, "reached_preemption_sync_point", service.reached
  )
  monkeypatch.setattr(interrupt, "_given", 0)
  return service


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_one_process_stops_at_the_next_step(name, sigterms):
  number = signal.Signals[name]
  before = signal.getsignal(number)
  with interrupt.catch() as stop:
    assert stop.due(7) == ""
    signal.raise_signal(number)
    assert stop.due(8) == stop.due(9) == stop.requested == name
    # The second one acts as it always did.
    assert signal.getsignal(number) is before
  assert signal.getsignal(number) is before
  assert not sigterms


def test_a_job_that_cannot_be_resumed_leaves_signals_as_they_are(sigterms):
  with interrupt.catch(resumable=False) as stop:
    signal.raise_signal(signal.SIGTERM)
    assert stop.due(1) == "" and sigterms == ["SIGTERM"]


def test_processes_stop_at_the_number_that_jax_agreed_on(two_processes):
  two_processes.agreed = 3
  with interrupt.catch() as stop:
    assert [stop.due(step) for step in (40, 41, 42)] == ["", "", "SIGTERM"]
  # From 1 on, wherever the run begins: that is what JAX agrees on when the
  # signal came before the first step.
  assert two_processes.asked == [1, 2, 3]


def test_the_numbers_grow_through_all_loops_of_a_process(two_processes):
  for first in (5, 0):
    with interrupt.catch() as stop:
      for step in range(first, first + 2):
        assert stop.due(step) == stop.due(step) == ""
  assert two_processes.asked == [1, 1, 2, 2, 3, 3, 4, 4]


def test_ctrl_c_in_one_of_several_is_told_to_jax(two_processes, sigterms):
  with interrupt.catch() as stop:
    signal.raise_signal(signal.SIGINT)
    assert sigterms == ["SIGTERM"]
    assert stop.due(0) == stop.requested == ""  # not before the others
    two_processes.agreed = 2
    assert stop.due(1) == "SIGINT"


def test_processes_that_do_not_step_together_hear_of_a_signal(
  two_processes, monkeypatch
):
  monkeypatch.setattr(interrupt, "_TICK_SECONDS", 1e-3)
  two_processes.agreed = 5
  with interrupt.catch(in_step=False) as stop:
    deadline = time.monotonic() + 60
    while not stop.requested:
      assert time.monotonic() < deadline
      time.sleep(1e-3)
  assert stop.requested == "SIGTERM"
  assert two_processes.asked == [1, 2, 3, 4, 5]


def test_one_process_asks_nobody(monkeypatch):
  def reached(number):
    raise AssertionError

  monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", reached)
  for in_step in (True, False):
    with interrupt.catch(in_step=in_step) as stop:
      assert stop.due(0) == ""
