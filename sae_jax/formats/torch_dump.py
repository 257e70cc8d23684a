# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The pickle inside torch's files, written: plain values, and tensors.

With the instructions and names of `torch_pickle` alone.
"""

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from sae_jax.formats import torch_pickle


class Writer:
  """The pickle of nested values; gathers the arrays that it speaks of."""

  def __init__(self, transposed: tuple[str, ...]):
    self.storages: list[tuple[str, Any, np.dtype]] = []
    self._transposed = transposed

  def pickled(
    self, value: Any, name: str = "", outermost: bool = False
  ) -> bytes:
    if value is None:
      return b"N"
    if type(value) is bool:
      return b"\x88" if value else b"\x89"
    if type(value) is int:
      data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
      return b"\x8a" + bytes([len(data)]) + data
    if type(value) is float:
      return b"G" + struct.pack(">d", value)
    if type(value) is str:
      data = value.encode()
      return b"X" + struct.pack("<I", len(data)) + data
    if type(value) is tuple:
      return b"(" + b"".join(map(self.pickled, value)) + b"t"
    if isinstance(value, Mapping):
      entries = b"".join(
        self.pickled(key) + self.pickled(entry, f"{name}.{key}".lstrip("."))
        for key, entry in value.items()
      )
      # Modules give state dicts as ordered ones.
      start = b"ccollections\nOrderedDict\n)R" if outermost else b"}"
      return start + b"(" + entries + b"u"
    return self._tensor(value, name)

  def _tensor(self, array: Any, name: str) -> bytes:
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "iub":
      dtype = np.dtype("<f4")
    storage = torch_pickle.STORAGES[dtype].encode()
    key = str(len(self.storages))
    self.storages.append((name, array, dtype))
    shape = tuple(array.shape)
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    if name in self._transposed:
      shape, strides = shape[::-1], strides[::-1]
    identity = (
      b"("
      + self.pickled("storage")
      + b"ctorch\n%s\n" % storage
      + b"".join(map(self.pickled, (key, "cpu", math.prod(shape))))
      + b"tQ"
    )
    return (
      b"ctorch._utils\n_rebuild_tensor_v2\n("
      + identity
      + b"".join(map(self.pickled, (0, shape, strides, False)))
      + b"ccollections\nOrderedDict\n)RtR"
    )
