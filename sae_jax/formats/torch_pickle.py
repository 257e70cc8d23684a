# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The pickle inside torch's files, read without running anything.

A pickle is a program for a stack machine. This one has the instructions that
build plain values, and the few names that torch's state dicts mention stand for
what is done here; nothing is ever looked up or called by name.
"""

import pickletools
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

DTYPES = {
  "DoubleStorage": np.dtype("<f8"),
  "FloatStorage": np.dtype("<f4"),
  "HalfStorage": np.dtype("<f2"),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "LongStorage": np.dtype("<i8"),
  "IntStorage": np.dtype("<i4"),
  "ShortStorage": np.dtype("<i2"),
  "CharStorage": np.dtype("i1"),
  "ByteStorage": np.dtype("u1"),
  "BoolStorage": np.dtype("?"),
}
STORAGES = {dtype: name for name, dtype in DTYPES.items()}
_ORDERED_DICT = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_SIZE = "torch.Size"
_NAMES = {_ORDERED_DICT, _TENSOR, _PARAMETER, _SIZE} | {
  f"torch.{name}" for name in DTYPES
}

_VALUES = {
  *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
  *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = {"BINPUT", "LONG_BINPUT"}
_GETS = {"BINGET", "LONG_BINGET"}


class Refused(Exception):
  """The pickle names something that is no tensor and no plain value."""


class Malformed(Exception):
  """The bytes are no such pickle."""


class Name(NamedTuple):
  """One of the names that are allowed."""

  name: str


class Storage(NamedTuple):
  """Numbers in a record of their own."""

  dtype: np.dtype
  key: str
  count: int


# (storage, offset, shape, strides), the latter three in numbers.
Tensor = Callable[[Storage, int, tuple, tuple], Any]


def loads(data: bytes, tensor: Tensor) -> Any:
  """What was pickled: dicts, lists, tuples, plain values, and tensors.

  Args:
    data: the pickle.
    tensor: makes a tensor of what is said of it.

  Raises:
    Refused: see there.
    Malformed: see there.
  """
  machine = _Machine(tensor)
  try:
    for opcode, argument, _ in pickletools.genops(data):
      if opcode.name == "STOP":
        return machine.stack.pop()
      machine.do(opcode.name, argument)
  except (
    # What genops raises, and what instructions find of the wrong kind.
    *(ValueError, IndexError, KeyError, TypeError, AttributeError),
    *(OverflowError, RecursionError, struct.error),
  ) as error:
    raise Malformed(f"{type(error).__name__}: {error}") from None
  raise Malformed("it has no end")


class _Machine:
  """The stack, and what instructions do with it."""

  def __init__(self, tensor: Tensor):
    self.stack: list[Any] = []
    self._outer: list[list[Any]] = []  # the stacks below marks
    self._memo: dict[int, Any] = {}
    self._tensor = tensor

  def do(self, opcode: str, argument: Any) -> None:
    stack = self.stack
    if opcode in _VALUES:
      stack.append(argument)
    elif opcode in _CONSTANTS:
      stack.append(_CONSTANTS[opcode])
    elif opcode in _EMPTY:
      stack.append(_EMPTY[opcode]())
    elif opcode in _TUPLES:
      count = _TUPLES[opcode]
      if len(stack) < count:
        raise IndexError("the stack is empty")
      stack[-count:] = [tuple(stack[-count:])]
    elif opcode in _PUTS:
      self._memo[argument] = stack[-1]
    elif opcode == "MEMOIZE":
      self._memo[len(self._memo)] = stack[-1]
    elif opcode in _GETS:
      stack.append(self._memo[argument])
    elif opcode == "MARK":
      self._outer.append(stack)
      self.stack = []
    elif opcode in ("TUPLE", "APPENDS", "SETITEMS"):
      self._since_mark(opcode)
    elif opcode == "APPEND":
      item = stack.pop()
      _fill_list(stack[-1], [item])
    elif opcode == "SETITEM":
      value, key = stack.pop(), stack.pop()
      _fill_dict(stack[-1], [key, value])
    elif opcode == "GLOBAL":
      stack.append(_name(*argument.split(" ")))
    elif opcode == "STACK_GLOBAL":
      name, module = stack.pop(), stack.pop()
      stack.append(_name(module, name))
    elif opcode == "BINPERSID":
      stack.append(_storage(stack.pop()))
    elif opcode == "REDUCE":
      arguments, name = stack.pop(), stack.pop()
      stack.append(self._call(name, arguments))
    elif opcode == "BUILD":
      stack.pop()
      if type(stack[-1]) is not dict:
        raise TypeError(f"a state for a {type(stack[-1]).__name__}")
      # The attributes of a state dict: versions of modules.
    elif opcode not in ("PROTO", "FRAME"):
      raise Refused(f"the instruction {opcode}")

  def _since_mark(self, opcode: str) -> None:
    items, self.stack = self.stack, self._outer.pop()
    if opcode == "TUPLE":
      self.stack.append(tuple(items))
    elif opcode == "APPENDS":
      _fill_list(self.stack[-1], items)
    else:
      _fill_dict(self.stack[-1], items)

  def _call(self, name: Any, arguments: Any) -> Any:
    if not isinstance(name, Name) or type(arguments) is not tuple:
      raise TypeError(f"a call of {name!r}")
    if name.name == _ORDERED_DICT:
      found: dict[Any, Any] = {}
      for pair in arguments[0] if arguments else ():
        _fill_dict(found, list(pair))
      return found
    if name.name == _SIZE:
      return tuple(*arguments)
    if name.name == _PARAMETER:
      return arguments[0]
    if name.name == _TENSOR:
      storage, offset, shape, strides = arguments[:4]
      if not isinstance(storage, Storage):
        raise TypeError(f"a tensor of {storage!r}")
      return self._tensor(storage, offset, shape, strides)
    raise Refused(f"a call of {name.name}")


def _name(module: Any, name: Any) -> Name:
  if f"{module}.{name}" not in _NAMES:
    raise Refused(f"{module}.{name}")
  return Name(f"{module}.{name}")


def _storage(identity: Any) -> Storage:
  kind, of, key, _, count = identity
  dtype = DTYPES.get(of.name.removeprefix("torch."))
  if kind != "storage" or dtype is None or type(key) is not str:
    raise TypeError(f"a storage called {identity!r}")
  return Storage(dtype, key, _natural(count))


def _natural(value: Any) -> int:
  if type(value) is not int or value < 0:
    raise TypeError(f"{value!r} where a number >= 0 belongs")
  return value


def _fill_list(target: Any, items: list[Any]) -> None:
  if type(target) is not list:
    raise TypeError(f"items for a {type(target).__name__}")
  target.extend(items)


def _fill_dict(target: Any, items: list[Any]) -> None:
  # Other keys are nobody's, and hashing deep tuples overflows C's stack.
  if type(target) is not dict or not {type(k) for k in items[::2]} <= {
    str,
    int,
  }:
    raise TypeError(f"entries for a {type(target).__name__}")
  target.update(zip(items[::2], items[1::2], strict=True))
