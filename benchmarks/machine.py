# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks run on: its name, its limits, its memory and its clocks.

Imported by the scripts of this folder. Memory needs Linux's /proc.
"""

import ctypes
import dataclasses
import gc
import importlib.metadata
import os
import pathlib
import platform
import resource
import threading
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp


def line() -> str:
  """Processor, cores, load, device and versions, in one line."""
  model = platform.processor() or platform.machine()
  cpuinfo = pathlib.Path("/proc/cpuinfo")
  if cpuinfo.exists():
    for entry in cpuinfo.read_text().splitlines():
      if entry.startswith("model name"):
        model = entry.partition(":")[2].strip()
        break
  tunables = os.environ.get("GLIBC_TUNABLES")  # it changes every figure
  return (
    f"Machine: {model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f},"
    f" {platform.system()} {platform.release()};"
    f" {jax.device_count()} × {jax.devices()[0].device_kind}; Python"
    f" {platform.python_version()}, jax {jax.__version__}, torch"
    f" {version('torch') or 'absent'}{f'; {tunables}' if tunables else ''}."
  )


def version(package: str) -> str | None:
  """The installed version of a distribution, or None."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def processor_seconds() -> float:
  """User and system time of this process and of the children it waited for."""
  used = [
    resource.getrusage(who)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  ]
  return sum(each.ru_utime + each.ru_stime for each in used)


@dataclasses.dataclass(frozen=True)
class Peaks:
  """The best that this machine did, for rooflines."""

  bf16_flops: float  # per second, f32 accumulation
  f32_flops: float  # per second, full precision
  bytes: float  # per second, read plus written

  def __str__(self) -> str:
    return (
      f"Peaks measured here: {self.bf16_flops / 1e9:,.0f} GFLOP/s bfloat16,"
      f" {self.f32_flops / 1e9:,.0f} GFLOP/s float32 (square product),"
      f" {self.bytes / 1e9:,.1f} GB/s (array updated in place)."
    )

  def seconds(self, flops: float, size: float, dtype: str) -> float:
    """The roofline: no program of so many FLOPs and bytes is faster."""
    per_second = self.bf16_flops if dtype == "bfloat16" else self.f32_flops
    return max(flops / per_second, size / self.bytes)


def measure_peaks(rounds: int = 5, scale: float = 1.0) -> Peaks:
  """The fastest of some matrix products and updates of a large array.

  Args:
    rounds: how many of each.
    scale: of the sizes' edges; 1 takes a second on two cores.
  """
  large = jax.default_backend() != "cpu"
  edge = max(8, int((8192 if large else 2048) * scale))
  count = max(8, int(((1 << 28) if large else (1 << 26)) * scale))
  flops = {}
  for dtype in ("bfloat16", "float32"):
    a_NN = jnp.ones((edge, edge), dtype)
    product = jax.jit(
      lambda a, b: jnp.dot(
        a,
        b,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
      )
    )
    best = _fastest(
      lambda product=product, a=a_NN: product(a, a).block_until_ready(), rounds
    )
    flops[dtype] = 2 * edge**3 / best
  # In place: fresh pages would be timed otherwise, not the memory.
  held = {"a": jnp.ones((count,), jnp.float32)}
  update = jax.jit(lambda a: a + 1, donate_argnums=0)

  def copy():
    held["a"] = update(held["a"]).block_until_ready()

  return Peaks(
    flops["bfloat16"], flops["float32"], 2 * 4 * count / _fastest(copy, rounds)
  )


def _fastest(work: Callable[[], object], rounds: int) -> float:
  work()
  best = float("inf")
  for _ in range(rounds):
    start = time.perf_counter()
    work()
    best = min(best, time.perf_counter() - start)
  return best


class AnonymousMemory:
  """The most anonymous memory of this process above that at the start, in MB.

  Pages of mapped files are not counted: the system drops them at will. Sampled
  every 20 ms.
  """

  def __enter__(self):
    self.most = 0.0
    self._start = _status("RssAnon")
    self._stop = threading.Event()
    self._thread = threading.Thread(target=self._watch)
    self._thread.start()
    return self

  def __exit__(self, *_):
    self._stop.set()
    self._thread.join()

  def _watch(self):
    while not self._stop.wait(0.02):
      self.most = max(self.most, _status("RssAnon") - self._start)


def give_back() -> None:
  """Returns memory that is free but kept by malloc to the system."""
  gc.collect()
  ctypes.CDLL(None).malloc_trim(0)  # glibc's


def resident() -> float:
  """Resident memory of this process in MB."""
  return _status("VmRSS")


def peak_resident() -> float:
  """The most there was since `forget_peak`, in MB; kept by the kernel."""
  return _status("VmHWM")


def forget_peak() -> None:
  """Starts `peak_resident` anew from what is resident now."""
  pathlib.Path("/proc/self/clear_refs").write_text("5")


def available() -> float:
  """Memory that a process can still have, in bytes: the device's or Linux's."""
  found = jax.local_devices()[0].memory_stats()
  if found and "bytes_limit" in found:
    return found["bytes_limit"] - found["bytes_in_use"]
  return _field(pathlib.Path("/proc/meminfo"), "MemAvailable") * 1024


def _status(name: str) -> float:
  return _field(pathlib.Path("/proc/self/status"), name) * 1024 / 1e6


def _field(path: pathlib.Path, name: str) -> int:
  for entry in path.read_text().splitlines():
    if entry.startswith(f"{name}:"):
      return int(entry.split()[1])  # kB of 1024 bytes
  raise RuntimeError(f"{path} has no {name}; this needs Linux")
