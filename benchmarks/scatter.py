# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Ways to sum the reconstruction over all chips of a TPU slice, compiled.

Every chip has decoded its own latents' part of all rows, [B, D] in float32, and
needs x̂ − x of all rows, of which the loss takes sums. One all-reduce does; a
scatter of rows, the sums of a chip's own rows, and a gather of their errors
would compute on fewer rows. Prints what a chip sends and moves through memory
in each way, read from programs that libtpu has compiled; nothing is executed.
"""

import argparse
import json

import child


def main() -> None:
  """Compiles the ways for every topology and prints a table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("topologies", nargs="*", default=["v5e:4x4", "v5p:4x4x4"])
  parser.add_argument("--batch", type=int, default=8192, help="B")
  parser.add_argument("--d_model", type=int, default=4096, help="D")
  parser.add_argument("--child", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    child.answer(json.loads(args.child), _compile_and_read)
    return
  print(f"B={args.batch} D={args.d_model}, float32. Per chip, in MB.\n")
  print("| topology | way | sent | moved | temporary | collectives |")
  print("|---|---|---:|---:|---:|---|")
  for topology in args.topologies:
    case = {
      "topology": topology,
      "batch": args.batch,
      "d_model": args.d_model,
      "keep": None,
    }
    for r in child.run(__file__, case):
      if "error" in r:
        raise SystemExit(f"{topology}: {r['error']}")
      sizes = " | ".join(
        f"{r[name] / 1e6:,.1f}" for name in ("sent", "moved", "temporary")
      )
      print(
        f"| {topology} | {r['way']} | {sizes} | {', '.join(r['collectives'])} |"
      )


def _compile_and_read(case, directory):
  import scatter_programs

  return scatter_programs.compile_and_read(case, directory)


if __name__ == "__main__":
  main()
