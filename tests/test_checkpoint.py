# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: asynchronous, atomic, and skipped when damaged."""

import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import checkpoint, errors, mesh, sae
from sae_jax import stream as stream_lib
from sae_jax.train import config as train_config


def make_state(value, config=None):
  made = mesh.make(config or mesh.MeshConfig(data=2))
  rows = jax.NamedSharding(made, jax.P("latent", None))
  whole = jax.NamedSharding(made, jax.P())
  w_FD = value + np.arange(1024, dtype=np.float32).reshape(64, 16)
  return {
    "w_FD": jax.device_put(w_FD, rows),
    "step": jax.device_put(np.int32(value), whole),
  }


increment = jax.jit(
  lambda state: jax.tree.map(lambda a: a + 1, state), donate_argnums=0
)


def save_three(directory):
  """Checkpoints 0, 5, 10 of a state that is donated right after each save."""
  checkpoints = checkpoint.Checkpoints(directory)
  state = make_state(0)
  for step in range(11):
    if step % 5 == 0:
      checkpoints.save(step, state, {"at": step})
    state = increment(state)
  checkpoints.wait()
  checkpoints.close()


def restore(directory, config=None):
  checkpoints = checkpoint.Checkpoints(directory)
  found = checkpoints.restore_latest(make_state(0, config))
  checkpoints.close()
  return found


def test_what_was_saved_comes_back_though_the_state_was_donated(tmp_path):
  save_three(tmp_path / "c")
  state, stream = restore(tmp_path / "c")
  assert stream == {"at": 10}
  np.testing.assert_array_equal(state["w_FD"], make_state(10)["w_FD"])
  assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["10", "5"]


@pytest.mark.parametrize("sizes", [(1, 8), (8, 1), (4, 2)])
def test_a_checkpoint_loads_on_another_mesh(tmp_path, sizes):
  save_three(tmp_path / "c")
  config = mesh.MeshConfig(data=sizes[0], latent=sizes[1])
  state, _ = restore(tmp_path / "c", config)
  expected = make_state(10, config)
  assert state["w_FD"].sharding == expected["w_FD"].sharding
  np.testing.assert_array_equal(state["w_FD"], expected["w_FD"])


# orbax leaves coroutines of a failed read to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["delete", "truncate", "flip"])
def test_a_damaged_checkpoint_is_skipped_with_a_message(tmp_path, how, capsys):
  save_three(tmp_path / "whole")
  data = sorted((tmp_path / "whole" / "10" / "state" / "d").iterdir())
  names = [p.relative_to(tmp_path / "whole") for p in data]
  names.append(
    (tmp_path / "whole" / "10" / "stream" / "metadata").relative_to(
      tmp_path / "whole"
    )
  )
  for i, name in enumerate(names):
    copy = tmp_path / f"{how}{i}"
    shutil.copytree(tmp_path / "whole", copy)
    content = bytearray((copy / name).read_bytes())
    if how == "delete":
      (copy / name).unlink()
    elif how == "truncate":
      (copy / name).write_bytes(content[: len(content) // 2])
    else:
      content[len(content) // 2] ^= 0x10
      (copy / name).write_bytes(content)
    state, stream = restore(copy)
    assert stream == {"at": 5}
    np.testing.assert_array_equal(state["w_FD"], make_state(5)["w_FD"])
    assert "checkpoint 10" in capsys.readouterr().err
    assert (copy / "damaged-10").is_dir()


def test_a_step_that_is_there_is_not_saved_again(tmp_path):
  save_three(tmp_path / "c")
  checkpoints = checkpoint.Checkpoints(tmp_path / "c")
  checkpoints.save(10, make_state(10), {"at": 10})
  checkpoints.wait()
  assert checkpoints.steps() == [5, 10]
  checkpoints.close()


def test_a_save_that_was_cut_off_does_not_count(tmp_path):
  save_three(tmp_path / "c")
  aside = tmp_path / "c" / "15.orbax-checkpoint-tmp"
  shutil.copytree(tmp_path / "c" / "10" / "state", aside)
  _, stream = restore(tmp_path / "c")
  assert stream == {"at": 10}


def test_an_empty_directory_has_nothing_to_restore(tmp_path):
  assert restore(tmp_path / "c") is None


def test_the_fingerprint_sees_swapped_values():
  def fingerprint(values):
    return checkpoint._fingerprint({"x": jnp.asarray(values, jnp.float32)})

  assert fingerprint([1, 2, 3]) != fingerprint([2, 1, 3])
  assert fingerprint([1, 2, 3]) == fingerprint([1, 2, 3])


def test_the_newest_and_every_so_many_steps_are_kept(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=2, keep_every=10)
  for step in range(5, 40, 5):
    checkpoints.save(step, make_state(step), {})
  checkpoints.close()
  assert checkpoint.Checkpoints(tmp_path).steps() == [10, 20, 30, 35]


def test_what_waits_for_a_checkpoint_runs_when_it_is_on_disk(tmp_path):
  seen = []
  checkpoints = checkpoint.Checkpoints(tmp_path)
  state = make_state(0)

  def look():
    seen.append((tmp_path / "5" / "state").is_dir())

  checkpoints.save(5, state, {}, saved=look)
  checkpoints.wait()
  assert seen == [True]
  checkpoints.save(5, state, {}, saved=look)  # it is there already
  checkpoints.close()
  assert seen == [True, True]


def test_what_fails_after_a_save_is_raised_by_the_next_call(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)

  def fail():
    raise errors.InputError("no permission to release")

  checkpoints.save(5, make_state(5), {}, saved=fail)
  with pytest.raises(errors.InputError, match="no permission to release"):
    checkpoints.wait()
  checkpoints.close()


def test_a_save_that_fails_does_not_count_as_saved(tmp_path, monkeypatch):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  called = []
  plain = checkpoints._manager.wait_until_finished

  def wait():
    if threading.current_thread() is threading.main_thread():
      return plain()
    raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

  monkeypatch.setattr(checkpoints._manager, "wait_until_finished", wait)
  checkpoints.save(5, make_state(5), {}, saved=lambda: called.append(5))
  checkpoints.close()
  assert not called


def test_a_checkpoint_that_cannot_be_reached_stays_where_it_is(
  tmp_path, monkeypatch
):
  save_three(tmp_path)
  checkpoints = checkpoint.Checkpoints(tmp_path)

  def refuse(*args, **kwargs):
    raise ValueError("PERMISSION_DENIED: Error opening file")

  monkeypatch.setattr(checkpoints._manager, "restore", refuse)
  with pytest.raises(errors.InputError, match="cannot be read now"):
    checkpoints.restore_latest(make_state(0))
  checkpoints.close()
  assert sorted(p.name for p in tmp_path.iterdir()) == ["10", "5"]


def test_one_of_several_processes_gives_up_rather_than_go_on_alone(
  tmp_path, monkeypatch
):
  save_three(tmp_path)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(errors.Interrupted, match="run the same command again"):
    checkpoints._set_aside(10, "short file")
  monkeypatch.undo()
  checkpoints.close()
  assert sorted(p.name for p in tmp_path.iterdir()) == ["5", "damaged-10"]


def test_the_fingerprint_sees_swapped_rows():
  x_ND = np.arange(12, dtype=np.float32).reshape(4, 3)
  turned = checkpoint._fingerprint({"x": jnp.asarray(x_ND[::-1])})
  assert turned != checkpoint._fingerprint({"x": jnp.asarray(x_ND)})


def test_places_that_cannot_hold_checkpoints_are_refused(monkeypatch):
  with pytest.raises(errors.InputError, match=r"s3://b/run: give a path"):
    checkpoint.Checkpoints("s3://b/run")
  monkeypatch.setattr(checkpoint.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(errors.InputError, match=r"pip install 'sae-jax\[gcs\]'"):
    checkpoint.Checkpoints("gs://b/run")


def test_checkpoints_of_another_run_are_refused(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, run="a")
  checkpoints.save(5, make_state(5), {})
  checkpoints.close()
  other = checkpoint.Checkpoints(tmp_path, run="b")
  with pytest.raises(errors.InputError, match="of another run"):
    other.restore_latest(make_state(0))
  other.close()


def test_what_was_set_aside_before_stays(tmp_path):
  save_three(tmp_path)
  (tmp_path / "damaged-10").mkdir()
  (tmp_path / "10" / "stream" / "metadata").unlink()
  _, stream = restore(tmp_path)
  assert stream == {"at": 5}
  assert (tmp_path / "damaged-10+" / "state").is_dir()


def test_only_what_is_saved_can_be_kept():
  fields = {
    "store": "s",
    "hook": "h",
    "sae": sae.SaeConfig(latents=8, k=2),
    "stream": stream_lib.StreamConfig(batch_size=8),
    "steps": 100,
    "checkpoint_every": 10,
  }
  assert train_config.TrainConfig(**fields, keep_every=50).keep_every == 50
  with pytest.raises(
    errors.InputError, match="keep_every=25 is not a multiple"
  ):
    train_config.TrainConfig(**fields, keep_every=25)
