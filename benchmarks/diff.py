# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the frozen-dictionary diff costs against latents and rows.

Makes two paired stores of random rows, compares them with a random dictionary,
each case in a process of its own, and prints a markdown table: rows/s of the
encoding with its sums, microseconds per latent of the statistics, the most
anonymous memory above that of the loaded dictionary, and the files of sums.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import machine

HOOK = "blocks.0.hook_resid_post"
DOCUMENT = 128  # tokens of a made document


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--latents",
    type=int,
    nargs="+",
    default=[1 << 12, 1 << 14, 1 << 16, 1 << 18],
    help="numbers of latents, all with the first number of rows",
  )
  parser.add_argument(
    "--rows",
    type=int,
    nargs="+",
    default=[8192, 32768, 131072],
    help="numbers of rows, all with the second number of latents",
  )
  parser.add_argument("--width", type=int, default=64, help="D (default 64)")
  parser.add_argument("--k", type=int, default=32, help="K (default 32)")
  parser.add_argument("--groups", type=int, default=64, help="default 64")
  parser.add_argument("--case", nargs=2, type=int, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.case:
    print(json.dumps(measure(*args.case, args)))
    return
  cases = [(latents, args.rows[0]) for latents in args.latents]
  middle = args.latents[min(1, len(args.latents) - 1)]
  cases += [(middle, rows) for rows in args.rows[1:]]
  print(machine.line())
  print(
    f"D={args.width}, K={args.k}, {args.groups} groups, 1000 resamples, two"
    " models.\n"
  )
  print(
    "| latents | rows | rows/s | statistics | µs per live latent | anonymous"
    " memory: sums | statistics | files |"
  )
  print("|---:|---:|---:|---:|---:|---:|---:|---:|")
  for latents, rows in cases:
    command = [sys.executable, __file__, "--case", str(latents), str(rows)]
    for name in ("width", "k", "groups"):
      command += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(
      f"| {latents:,} | {rows:,} | {found['rows_per_s']:,.0f}"
      f" | {found['statistics_s']:.1f} s"
      f" | {1e6 * found['statistics_s'] / max(found['live'], 1):,.0f}"
      f" | {found['sums_mb']:,.0f} MB | {found['statistics_mb']:,.0f} MB"
      f" | {found['files_mb']:,.0f} MB |",
      flush=True,
    )


def measure(latents: int, rows: int, args) -> dict[str, float]:
  """Runs one case; memory is above what there was before its stage."""
  from sae_jax import mesh, store
  from sae_jax.diff import config, evidence, frozen, sums
  from sae_jax.diff import problem as problem_lib

  with tempfile.TemporaryDirectory() as scratch:
    place = pathlib.Path(scratch)
    make_stores(place, rows, args)
    one = mesh.single()
    settings = config.DiffConfig(
      base_store=str(place / "base"),
      arms=(config.Arm(name="tuned", store=str(place / "tuned")),),
      sae="random",
      methods=("frozen",),
      groups=args.groups,
    )
    problem = problem_lib.Problem(
      config=settings,
      evidence=evidence.from_stores(
        {name: store.open_store(place / name) for name in ("base", "tuned")},
        HOOK,
        skip=1,
        groups=args.groups,
        batch_rows=settings.batch_rows,
        mesh=one,
      ),
      dictionary=make_dictionary(latents, args),
      mesh=one,
      work=place / "work",
      prompts=None,
      models=problem_lib.Models(settings, one),
    )
    problem.work.mkdir()
    with machine.AnonymousMemory() as sums_memory:
      start = time.perf_counter()
      for name in ("base", "tuned"):
        sums.latent_sums(problem, name)
        sums.activation_sums(problem, name)
      encoded = time.perf_counter() - start
    with machine.AnonymousMemory() as statistics_memory:
      start = time.perf_counter()
      (part,) = frozen.run(problem)
      tested = time.perf_counter() - start
    live_F = (part.columns["mean_base"] > 0) | (part.columns["mean_tuned"] > 0)
    files = sum(p.stat().st_size for p in problem.work.rglob("*.npy"))
  return {
    "rows_per_s": 2 * rows / encoded,
    "statistics_s": tested,
    "live": int(live_F.sum()),
    "sums_mb": sums_memory.most,
    "statistics_mb": statistics_memory.most,
    "files_mb": files / 1e6,
  }


def make_stores(place: pathlib.Path, rows: int, args) -> None:
  import numpy as np

  from sae_jax import store

  rng = np.random.Generator(np.random.Philox(0))
  base_ND = rng.standard_normal((rows, args.width), np.float32)
  noise_ND = 0.1 * rng.standard_normal(base_ND.shape, np.float32)
  documents = [np.zeros(DOCUMENT, np.int32)] * (rows // DOCUMENT)
  for name, x_ND in (("base", base_ND), ("tuned", base_ND + noise_ND)):
    store.write_arrays(place / name, {HOOK: x_ND}, documents=documents)


def make_dictionary(latents: int, args):
  import jax
  import jax.numpy as jnp

  from sae_jax import sae

  w_FD = jax.random.normal(jax.random.key(0), (latents, args.width))
  w_FD /= jnp.linalg.norm(w_FD, axis=1, keepdims=True)
  params = sae.Params(
    w_enc_FD=w_FD,
    w_dec_FD=w_FD,
    b_enc_F=jnp.zeros(latents),
    b_dec_D=jnp.zeros(args.width),
  )
  return jax.block_until_ready(sae.make_sae(params, args.k))


if __name__ == "__main__":
  main()
