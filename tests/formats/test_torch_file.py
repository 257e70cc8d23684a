# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""torch's files are read and written without torch, and nothing is run."""

import collections
import io
import os
import pickle
import zipfile

import jax
import numpy as np
import pytest

from sae_jax import errors, mesh
from sae_jax.formats import streamed, torch_file, torch_pickle

torch = pytest.importorskip("torch")


def _saved(path, value, **options):
  torch.save(value, path, **options)
  return path


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_torch_saves_is_read(tmp_path, protocol):
  torch.manual_seed(0)
  module = torch.nn.Linear(5, 3)
  x = torch.randn(4, 6)
  state = {
    **module.state_dict(),
    "view": x[1:, ::2],
    "turned": x.T,
    "number": torch.tensor(3, dtype=torch.int32),
    "nothing": torch.zeros(0, 3),
    "parameter": torch.nn.Parameter(x[0]),
    **{
      str(dtype): x.to(dtype)
      for dtype in (
        *(torch.float64, torch.float16, torch.bfloat16, torch.int64),
        *(torch.int16, torch.int8, torch.uint8, torch.bool),
      )
    },
    "plain": {"k": 3, "name": "relu", "list": [1, 2.5, None], "t": (True, ())},
    "large": 2**70,
    "size": torch.Size([1, 2]),
  }
  found = torch_file.read(
    _saved(tmp_path / "a.pt", state, pickle_protocol=protocol)
  )
  assert list(found) == list(state)
  for name, value in state.items():
    if not isinstance(value, torch.Tensor):
      assert found[name] == value
      continue
    assert found[name].shape == tuple(value.shape)
    assert str(found[name].dtype) == str(value.dtype).removeprefix("torch.")
    np.testing.assert_array_equal(
      np.asarray(found[name], np.float64), value.detach().double().numpy()
    )
  assert torch_file.names(tmp_path / "a.pt") == set(state)


def test_a_modules_state_dict_is_read_and_opened_by_it(tmp_path):
  module = torch.nn.Linear(5, 3)  # its state dict is ordered, with attributes
  found = torch_file.read(_saved(tmp_path / "a.pt", module.state_dict()))
  torch_file.write(tmp_path / "b.pt", {k: 2 * v for k, v in found.items()})
  other = torch.nn.Linear(5, 3)
  other.load_state_dict(torch.load(tmp_path / "b.pt", weights_only=True))
  np.testing.assert_array_equal(
    other.weight.detach().numpy(), 2 * module.weight.detach().numpy()
  )


def test_torch_opens_what_is_written(tmp_path):
  w_FD = np.arange(6, dtype=np.float32).reshape(2, 3)
  values = {
    "w": w_FD,
    "half": w_FD.astype(np.float16),
    "k": np.asarray(5, np.int32),
    "ids": np.arange(3),
    "mask": np.asarray([True, False]),
    "jax": jax.numpy.asarray(w_FD),
    "empty": np.zeros((0, 3), np.float32),
    "plain": {"k": 3, "far": -(2**40), "name": "relu", "f": 0.5, "none": None},
  }
  torch_file.write(tmp_path / "a.pt", values)
  for mmap in (False, True):
    found = torch.load(tmp_path / "a.pt", weights_only=True, mmap=mmap)
    assert isinstance(found, collections.OrderedDict)
    assert found["plain"] == values["plain"]
    for name in values.keys() - {"plain"}:
      np.testing.assert_array_equal(found[name].numpy(), values[name])
    assert found["half"].dtype == torch.float32
    assert found["k"].dtype == torch.int32
  first = (tmp_path / "a.pt").read_bytes()
  torch_file.write(tmp_path / "b.pt", values)
  assert (tmp_path / "b.pt").read_bytes() == first


def test_matrices_are_written_block_by_block_and_turned(tmp_path, monkeypatch):
  w_FD = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
  on = mesh.make(mesh.MeshConfig(data=2, latent=4))
  split = jax.device_put(w_FD, jax.NamedSharding(on, jax.P("latent", None)))
  monkeypatch.setattr(streamed, "BLOCK_BYTES", 4 * 4 * 5)
  seen = []
  file = io.BytesIO()
  torch_file.write_to(
    file,
    {"decoder.weight": split},
    transposed=("decoder.weight",),
    check=lambda name, rows: seen.append((name, rows.shape)),
  )
  assert set(seen) == {("decoder.weight", (4, 5)), ("decoder.weight", (2, 5))}
  file.seek(0)
  found = torch.load(file, weights_only=True)["decoder.weight"]
  assert found.shape == (5, 24)
  np.testing.assert_array_equal(found.numpy(), w_FD.T)


def _with_pickle(path, data):
  """A torch file with this pickle."""
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", data)
    archive.writestr("archive/version", "3\n")
  return path


class _Attack:
  def __init__(self, *call):
    self._call = call

  def __reduce__(self):
    return self._call[0], self._call[1:]


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_an_attack_is_refused_and_not_run(tmp_path, protocol):
  ran = tmp_path / "ran"
  attack = {"w": _Attack(os.system, f"touch {ran}")}
  path = _with_pickle(
    tmp_path / "a.pt", pickle.dumps(attack, protocol=protocol)
  )
  with pytest.raises(errors.InputError, match=r"system|instruction"):
    torch_file.read(path)
  assert torch_file.names(path) == frozenset()
  assert not ran.exists()


@pytest.mark.parametrize(
  ("pickled", "named"),
  [
    (b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "builtins.eval"),
    # Names that are allowed are no way to others.
    (b"\x80\x02ctorch\nload\n.", "torch.load"),
    (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "instruction NEWOBJ"),
    (b"\x80\x02(ios\nsystem\n.", "instruction INST"),
    (b"\x80\x02ctorch\nFloatStorage\n)R.", "a call of torch.FloatStorage"),
    # No call of what is no name; no attributes of what is no dict.
    (b"\x80\x02}(X\x01\x00\x00\x001tR.", "a call of"),
    (b"\x80\x02]}b.", "a state for a list"),
    (b"\x80\x02]}X\x01\x00\x00\x001Ks}s.", "entries for a"),
    (b"\x80\x02}))s.", "entries for a dict"),  # keys are names or numbers
    (b"\x80\x02h\x05.", "KeyError"),
    (b"\x80\x02\x85.", "stack is empty"),
    (b"\x80\x02}", "exhausted before seeing STOP"),
    (b"", "exhausted before seeing STOP"),
    (b"\x80\x02\xff.", "opcode"),
    (b"\x80\x02K\x01.", "no dict of names and values but a int"),
    (b"\x80\x02}K\x01K\x02s.", "no dict of names"),
  ],
)
def test_pickles_that_are_not_a_state_dict_are_refused(
  tmp_path, pickled, named
):
  with pytest.raises(errors.InputError, match=named):
    torch_file.read(_with_pickle(tmp_path / "a.pt", pickled))


def test_other_files_are_refused_by_name(tmp_path):
  path = tmp_path / "a.pt"
  state = {"w": torch.ones(3)}
  _saved(path, state, _use_new_zipfile_serialization=False)
  with pytest.raises(errors.InputError, match=r"before 1\.6.*torch\.save"):
    torch_file.read(path)
  _saved(path, torch.nn.Linear(2, 2))
  with pytest.raises(errors.InputError, match=r"torch\.nn\.modules\.linear\."):
    torch_file.read(path)
  _saved(path, {"w": torch.ones(3, dtype=torch.complex64)})
  with pytest.raises(errors.InputError, match=r"torch\.ComplexFloatStorage"):
    torch_file.read(path)
  _saved(path, torch.ones(3))
  with pytest.raises(errors.InputError, match="a ndarray: save a state dict"):
    torch_file.read(path)
  path.write_text("hello")
  with pytest.raises(errors.InputError, match=r"not a file of torch\.save"):
    torch_file.read(path)
  with pytest.raises(errors.InputError, match="no such file"):
    torch_file.read(tmp_path / "absent.pt")
  with pytest.raises(errors.InputError, match="is a directory"):
    torch_file.read(tmp_path)
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("a/data.pkl", b"\x80\x02}.")
    archive.writestr("a/constants.pkl", b"\x80\x02).")
  with pytest.raises(errors.InputError, match="a TorchScript program"):
    torch_file.read(path)
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("a/data.pkl", b"\x80\x02}.")
  with pytest.raises(errors.InputError, match="compressed"):
    torch_file.read(path)
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("a/data.pkl", b"\x80\x02}.")
    archive.writestr("a/byteorder", b"big")
  with pytest.raises(errors.InputError, match="big-endian"):
    torch_file.read(path)


def test_damage_is_found(tmp_path):
  """Any byte that changes is noticed, or is one that does not matter."""
  whole = _saved(tmp_path / "a.pt", {"w": torch.arange(40.0)}).read_bytes()
  path = tmp_path / "b.pt"
  path.write_bytes(whole[:-30])
  with pytest.raises(errors.InputError, match="is damaged"):
    torch_file.read(path)
  rng = np.random.default_rng(0)
  refused = 0
  for place in rng.permutation(len(whole))[:200]:
    data = bytearray(whole)
    data[place] ^= 1 << rng.integers(8)
    path.write_bytes(data)
    try:
      found = torch_file.read(path)
    except errors.InputError:
      refused += 1
    else:  # a date, an attribute, padding
      np.testing.assert_array_equal(found["w"], np.arange(40.0))
  assert refused > 50


@pytest.mark.parametrize(
  ("offset", "shape", "strides"),
  [
    *((2, (3,), (1,)), (0, (2, 3), (3, 1)), (0, (2,), (4,))),
    *((-1, (1,), (1,)), (0, (-1,), (1,)), (0, (2,), (-1,)), (0, (2,), ())),
    *((0, ("2",), (1,)), (0, (2,), (2**70,))),
  ],
)
def test_no_tensor_leaves_its_storage(tmp_path, offset, shape, strides):
  file = _saved(tmp_path / "a.pt", {"w": torch.arange(4.0)})
  with zipfile.ZipFile(file) as archive:
    records = {info.filename: info for info in archive.infolist()}
  reader = torch_file._Reader(file, records, True)
  reader.pickle()
  storage = torch_pickle.Storage(np.dtype("<f4"), "0", 4)
  with pytest.raises((ValueError, TypeError)):
    reader.tensor(storage, offset, shape, strides)
  assert reader.tensor(storage, 1, (2,), (2,)).tolist() == [1, 3]
  for bad in (storage._replace(count=5), storage._replace(key="1")):
    with pytest.raises(ValueError, match=r"record|too few"):
      reader.tensor(bad, 0, (1,), (1,))


def test_a_pickle_that_nests_deeply_ends_in_an_error(tmp_path):
  """Not in an overflow of C's stack."""
  deep = b")" + b"\x85" * 5_000
  for rest in (deep + b".", deep + b"Q.", b"}" + deep + b"K\x01s."):
    with pytest.raises(errors.InputError):
      torch_file.read(_with_pickle(tmp_path / "a.pt", b"\x80\x02" + rest))
