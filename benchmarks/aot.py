# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the real compilers make of the training step, with no accelerator here.

Compiles the step, or each operation alone, for TPU topologies (libtpu: install
`sae-jax[aot-tpu]`) or for H100s of one node (`sae-jax[aot-gpu]`), and prints of
one device: matrix FLOPs of the path that normally runs, memory, what travels
between devices, kernels, and dense arrays that should not be there. Nothing is
executed and nothing is timed; tokens per second are predictions, see
`roofline.py`. Every case has a process of its own; TPU cases wait for one
another, as libtpu admits one process at a time.
"""

import argparse
import json
import pathlib
import sys

import aot_tables
import child

_TPU = ("v5e:4x4/1x16", "v5e:4x4/4x4", "v5p:4x4x4/1x64", "v5p:4x4x4/4x16")
_CUDA = ("8/1x8", "8/2x4")
_CHIPS = {
  "tpu": ("v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"),
  "cuda": ("1",),
}
_OPS = ("topk_encode", "sparse_decode", "row_dots", "pair_grads", "sphere_adam")


def _arguments() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "cases",
    nargs="*",
    help="TOPOLOGY/DATAxLATENT such as v5e:4x4/1x16; GPUs/DATAxLATENT with"
    " --platform=cuda; /LATENTSxD after it stands for --latents and --d_model"
    f" (default: {' '.join(_TPU)})",
  )
  parser.add_argument("--platform", choices=("tpu", "cuda"), default="tpu")
  parser.add_argument(
    "--ops",
    nargs="*",
    metavar="OP",
    help="each operation alone, on one device of every generation or of the"
    f" topologies given with --topologies (none named: {' '.join(_OPS)})",
  )
  parser.add_argument(
    "--topologies", nargs="+", help="of --ops, such as v5e:2x2"
  )
  parser.add_argument(
    "--implementation", help="of the ops (default: the platform's own)"
  )
  parser.add_argument("--batch", type=int, default=8192, help="B")
  parser.add_argument("--d_model", type=int, default=4096, help="D")
  parser.add_argument(
    "--latents", type=int, default=131072, help="F; of one device with --ops"
  )
  parser.add_argument("--k", type=int, default=64, help="K")
  parser.add_argument(
    "--no_auxk", action="store_true", help="leave AuxK out of the step"
  )
  parser.add_argument(
    "--brief", action="store_true", help="print the table, not the details"
  )
  parser.add_argument("--json", help="also write all that was read here")
  parser.add_argument(
    "--from_json",
    nargs="+",
    help="print the tables of such files; compile nothing",
  )
  parser.add_argument(
    "--keep", help="keep the compiler's text dumps in this directory"
  )
  parser.add_argument("--child", help=argparse.SUPPRESS)
  return parser


def main() -> None:
  """Runs the cases one after another and prints tables."""
  args = _arguments().parse_args()
  if args.child:
    _child(json.loads(args.child))
    return
  if args.from_json:
    read = (json.loads(pathlib.Path(f).read_text()) for f in args.from_json)
    results = [result for file in read for result in file]
  else:
    results = _compile(args)
  cases = [result["case"] for result in results]
  print(
    " ".join(sorted({f"B={c['batch']} K={c['k']}." for c in cases})), end=""
  )
  print(" Read from compiled programs; nothing was executed.\n")
  print(aot_tables.summary(results, ops=cases[0]["ops"] is not None))
  for result in () if args.brief else results:
    if "error" not in result:
      what = f"{aot_tables.name(result['case'])} {result['op'] or 'step'}"
      print(f"\n{what}\n\n{aot_tables.details(result)}")
  if any("error" in result for result in results):
    raise SystemExit(1)


def _compile(args) -> list[child.Result]:
  results = []
  for case in _cases(args):
    print(f"{aot_tables.name(case)} ...", file=sys.stderr, flush=True)
    results += child.run(__file__, case)
    if args.json:
      pathlib.Path(args.json).write_text(json.dumps(results, indent=1))
  return results


def _cases(args) -> list[child.Case]:
  common = {
    name: getattr(args, name)
    for name in (
      "platform",
      "batch",
      "d_model",
      "latents",
      "k",
      "implementation",
      "no_auxk",
      "keep",
    )
  }
  if args.ops is not None:
    common |= {"data": 1, "latent": 1, "ops": args.ops or _OPS}
    topologies = args.topologies or _CHIPS[args.platform]
    return [{**common, "topology": topology} for topology in topologies]
  return [
    {**common, "ops": None, **_parsed(case)}
    for case in args.cases or (_TPU if args.platform == "tpu" else _CUDA)
  ]


def _parsed(case: str) -> child.Case:
  """TOPOLOGY/DATAxLATENT, or TOPOLOGY/DATAxLATENT/LATENTSxD."""
  topology, *sizes = case.split("/")
  names = (("data", "latent"), ("latents", "d_model"))
  try:
    if len(sizes) not in (1, 2):
      raise ValueError
    found: child.Case = {"topology": topology}
    for pair, text in zip(names, sizes, strict=False):
      found |= zip(pair, map(int, text.split("x")), strict=True)
  except ValueError:
    raise SystemExit(
      f"case {case!r}: write TOPOLOGY/DATAxLATENT, such as v5e:4x4/1x16, or"
      " TOPOLOGY/DATAxLATENT/LATENTSxD"
    ) from None
  return found


def _child(case) -> None:
  """Compiles one case's programs and reads them."""

  def compile_and_read(case, directory):
    import programs

    return programs.compile_and_read(case, directory)

  child.answer(case, compile_and_read)


if __name__ == "__main__":
  main()
