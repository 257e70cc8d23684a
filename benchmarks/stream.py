# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How fast the stream feeds a device, and how well it mixes.

Compares rows/s of `sae_jax.stream` with `cat` of the same files and with a
memory copy, with the page cache warm and dropped; every arm runs once per
round and the table has medians. Mixing is the number of pairs of rows of one
document per batch, against the expectation under a global shuffle.
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import machine
import ml_dtypes
import numpy as np

from sae_jax import errors, mesh, store, stream

_DOCUMENT_TOKENS = 256  # of made stores


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  which = parser.add_mutually_exclusive_group(required=True)
  which.add_argument("--store", help="a finished store on a local disk")
  which.add_argument(
    "--make",
    nargs=2,
    type=int,
    metavar=("ROWS", "D"),
    help="make a store of so many random rows in a temporary directory",
  )
  parser.add_argument("--hook", help="default: the store's first")
  parser.add_argument(
    "--batch", type=int, default=4096, help="rows (default 4096)"
  )
  parser.add_argument(
    "--mix",
    type=int,
    nargs="+",
    default=[1, 4, 16, 64, 256],
    help="values of mix_chunks to compare (default 1 4 16 64 256)",
  )
  parser.add_argument(
    "--rounds", type=int, default=5, help="of every arm (default 5)"
  )
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as scratch:
    path = args.store or make_store(pathlib.Path(scratch) / "store", *args.make)
    try:
      source = store.open_store(path)
      hook = source.hook(args.hook or source.hooks[0])
    except errors.InputError as error:
      parser.error(str(error))
    if source.rows < 2 * args.batch:
      parser.error(f"{source.rows} rows are not two batches of {args.batch}")
    print(machine.line())
    print(
      f"Store: {source.rows} rows of D={source.d_model(hook)},"
      f" {source.rows * source.d_model(hook) * 2 / 1e9:.2f} GB, read chunks of"
      f" {source.read_rows} rows, write chunks of {source.write_rows}."
      f" Batch {args.batch}. Medians of {args.rounds} rounds.\n"
    )
    print_speed(source, hook, args)
    print()
    print_mixing(source, args)


def make_store(path: pathlib.Path, rows: int, d_model: int) -> pathlib.Path:
  rng = np.random.Generator(np.random.Philox(0))
  x_ND = np.empty((rows, d_model), ml_dtypes.bfloat16)
  for start in range(0, rows, 8192):
    block = x_ND[start : start + 8192]
    block[:] = rng.standard_normal(block.shape, np.float32)
  lengths = [_DOCUMENT_TOKENS] * (rows // _DOCUMENT_TOKENS)
  lengths += [rows % _DOCUMENT_TOKENS] * (rows % _DOCUMENT_TOKENS > 0)
  store.write_arrays(
    path,
    {"blocks.0.hook_resid_post": x_ND},
    documents=[np.zeros(length, np.int32) for length in lengths],
  )
  return path


def print_speed(source: store.Store, hook: str, args) -> None:
  folder = pathlib.Path(source.path) / "activations" / hook
  files = sorted(path for path in folder.rglob("*") if path.is_file())
  size = source.rows * source.d_model(hook) * 2
  # Ones: untouched zeros would all be one page, in the cache.
  copied = np.ones(min(size, 256 << 20), np.uint8)
  target = np.ones_like(copied)

  def copy() -> float:
    np.copyto(target, copied)
    return copied.nbytes / size

  # Each arm returns how much of the store it has moved.
  arms = {"memory copy": copy, "`cat`, warm": lambda: cat(files)}
  for mix in args.mix:
    arms[f"stream, mix_chunks={mix}, warm"] = functools.partial(
      drain, source, hook, args.batch, mix
    )
  mix = 64 if 64 in args.mix else args.mix[-1]
  cold = {
    "`cat`, cold": arms["`cat`, warm"],
    f"stream, mix_chunks={mix}, cold": arms[f"stream, mix_chunks={mix}, warm"],
  }
  seconds = {name: [] for name in arms | cold}
  cpu = {name: [] for name in arms | cold}
  for _ in range(args.rounds):
    cat(files)  # into the page cache
    for name, arm in (arms | cold).items():
      if name in cold:
        drop_cache(files)
      start, start_cpu = time.perf_counter(), machine.processor_seconds()
      moved = arm()
      seconds[name].append((time.perf_counter() - start) / moved)
      cpu[name].append((machine.processor_seconds() - start_cpu) / moved)
  fastest = statistics.median(seconds["`cat`, warm"])
  print("| arm | rows/s | GB/s | of warm `cat` | CPU s per GB |")
  print("|---|---:|---:|---:|---:|")
  for name, times in seconds.items():
    median = statistics.median(times)
    print(
      f"| {name} | {source.rows / median:,.0f} | {size / median / 1e9:.2f} |"
      f" {fastest / median:.2f} |"
      f" {statistics.median(cpu[name]) / size * 1e9:.2f} |"
    )


def cat(files) -> float:
  subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True)
  return 1.0


def drop_cache(files) -> None:
  for file in files:
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)  # dirty pages would stay
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def drain(source: store.Store, hook: str, batch: int, mix: int) -> float:
  """Takes an epoch, or 16 draws if that is more, onto the device.

  The first draw is waited for and up to three are read for nothing at the
  end; both are part of the figures.
  """
  draw = mix * source.read_rows
  steps = max(source.rows, 16 * draw) // batch
  config = stream.StreamConfig(batch_size=batch, mix_chunks=mix)
  batches = stream.open_stream(source, hook, config, mesh=mesh.single())
  for _ in range(steps):
    jax.block_until_ready(next(batches))
  batches.close()
  return steps * batch / source.rows


@dataclasses.dataclass(frozen=True)
class _RowNumbers:
  """Stands for a store: each row is its number, as the bits of two bf16."""

  source: store.Store

  def __getattr__(self, name):
    return getattr(self.source, name)

  def read_chunks(self, hook, chunks):
    step = self.source.read_rows
    found = []
    for chunk in chunks:
      stop = min((chunk + 1) * step, self.source.rows)
      row_N1 = np.arange(chunk * step, stop, dtype=np.uint32)[:, None]
      found.append(row_N1.view(ml_dtypes.bfloat16))
    return found


def print_mixing(source: store.Store, args) -> None:
  document_N = source.positions(0, source.rows)[:, 0]
  sizes = np.bincount(document_N).astype(np.float64)
  n, b = source.rows, args.batch
  ideal = b * (b - 1) / 2 * (sizes * (sizes - 1)).sum() / (n * (n - 1))
  steps = n // b
  found = {
    f"mix_chunks={mix}": [
      same_document_pairs(document_N[row_B])
      for row_B in row_batches(source, b, mix, steps)
    ]
    for mix in args.mix
  }
  in_order_NB = np.sort(document_N)[: steps * b].reshape(steps, b)
  found["text order"] = [same_document_pairs(each) for each in in_order_NB]
  print(
    f"Pairs of rows of one document per batch of {b}; {np.sum(sizes > 0)}"
    " documents.\n"
  )
  print("| order | pairs per batch | ± s.e. | of ideal | partners of a row |")
  print("|---|---:|---:|---:|---:|")
  print(
    f"| global shuffle (expected) | {ideal:.1f} | | 1 | {2 * ideal / b:.3f} |"
  )
  for name, pairs in found.items():
    mean = statistics.mean(pairs)
    error = statistics.stdev(pairs) / len(pairs) ** 0.5
    print(
      f"| {name} | {mean:.1f} | {error:.1f} | {mean / ideal:.3f} |"
      f" {2 * mean / b:.3f} |"
    )


def row_batches(source: store.Store, batch: int, mix: int, steps: int):
  """The row numbers of an epoch's batches."""
  batches = stream.open_stream(
    _RowNumbers(source),
    source.hooks[0],
    stream.StreamConfig(batch_size=batch, mix_chunks=mix),
    mesh=mesh.single(),
  )
  for _ in range(steps):
    yield np.asarray(next(batches)).view(np.uint32)[:, 0]
  batches.close()


def same_document_pairs(document_B: np.ndarray) -> float:
  counts = np.bincount(document_B).astype(np.float64)
  return float((counts * (counts - 1)).sum() / 2)


if __name__ == "__main__":
  sys.exit(main())
