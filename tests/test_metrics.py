# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The metrics file reads like that of one uninterrupted run."""

import jax.numpy as jnp
import pytest

from sae_jax import metrics


def test_resume_cuts_what_comes_again_and_torn_lines(tmp_path):
  writer = metrics.Writer(tmp_path, 0)
  for step in range(5):
    writer.write(step, {"train/loss": 1.0 / (step + 1)})
  writer.close()
  path = tmp_path / "metrics.jsonl"
  path.write_text(path.read_text() + '{"step": 5, "train/lo')
  writer = metrics.Writer(tmp_path, 3)
  writer.write(3, {"train/loss": 0.25})
  writer.close()
  lines = metrics.read(path)
  assert [line["step"] for line in lines] == [0, 1, 2, 3]
  assert lines[2]["train/loss"] == 1.0 / 3


def test_scalars_are_read_one_step_late_and_checked(tmp_path):
  writer = metrics.Writer(tmp_path, 0)
  late = metrics.OneStepLate(writer, every=2, watch="train/loss")
  for step in range(4):
    late(step, {"train/loss": jnp.float32(step)}, {"perf/x": 1.0})
    written = metrics.read(tmp_path / "metrics.jsonl")
    assert all(line["step"] < step for line in written)
  late(4, {"train/loss": jnp.float32("nan")}, {})
  with pytest.raises(metrics.NonFiniteError, match="nan at step 4"):
    late.flush()
  writer.close()
  assert [x["step"] for x in metrics.read(tmp_path / "metrics.jsonl")] == [0, 2]


def test_a_non_finite_number_is_valid_json(tmp_path):
  writer = metrics.Writer(tmp_path, 0)
  writer.write(0, {"eval/kl": float("inf")})
  writer.close()
  assert metrics.read(tmp_path / "metrics.jsonl") == [
    {"step": 0, "eval/kl": None}
  ]


def test_progress_prints_plain_lines_off_a_terminal(capsys):
  bar = metrics.Progress(10, "rows", seconds=0.0)
  bar.update(5, "loss 0.1")
  bar.close()
  assert "5/10 rows" in capsys.readouterr().err


def test_tensorboard_files_are_read_by_tensorboardx(tmp_path):
  from tensorboardX.proto import event_pb2

  writer = metrics.Writer(tmp_path, 3)
  writer.write(3, {"train/loss": 0.5})
  writer.close()
  (file,) = (tmp_path / "tensorboard").iterdir()
  data, events = file.read_bytes(), []
  while data:  # length (8), its crc (4), event, its crc (4)
    length = int.from_bytes(data[:8], "little")
    events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
    data = data[16 + length :]
  assert events[0].file_version == "brain.Event:2"
  assert events[1].session_log.status == event_pb2.SessionLog.START
  assert events[1].step == 3
  value = events[2].summary.value[0]
  assert (value.tag, value.simple_value) == ("train/loss", 0.5)
