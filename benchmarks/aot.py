# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the real compilers make of the training step, with no accelerator here.

Compiles the step, or each operation alone, for TPU topologies (libtpu: install
`sae-jax[aot-tpu]`) or for H100s of one node (`sae-jax[aot-gpu]`), and prints of
one device: matrix FLOPs of the path that normally runs, memory, what travels
between devices, kernels, and dense arrays that should not be there. Nothing is
executed and nothing is timed. Every case has a process of its own; TPU cases
wait for one another, as libtpu admits one process at a time.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

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
    f" --platform=cuda (default: {' '.join(_TPU)})",
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
  parser.add_argument("--json", help="also write all that was read here")
  parser.add_argument(
    "--keep", help="keep the compiler's text dumps in this directory"
  )
  parser.add_argument("--child", help=argparse.SUPPRESS)
  return parser


def main() -> None:
  """Runs the cases one after another and prints tables."""
  args = _arguments().parse_args()
  if args.child:
    print(json.dumps(_child(json.loads(args.child))))
    return
  results = []
  for case in _cases(args):
    print(f"{_name(case)} ...", file=sys.stderr, flush=True)
    results += _spawn(case)
    if args.json:
      pathlib.Path(args.json).write_text(json.dumps(results, indent=1))
  print(f"B={args.batch} D={args.d_model} F={args.latents} K={args.k}.", end="")
  print(" Read from compiled programs; nothing was executed.\n")
  print(_table(results, _STEP_COLUMNS if args.ops is None else _OP_COLUMNS))
  for result in results:
    if "error" not in result:
      what = result["op"] or "step"
      print(f"\n{_name(result['case'])} {what}\n\n{_details(result)}")
  if any("error" in result for result in results):
    raise SystemExit(1)


def _cases(args) -> list[dict]:
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
  cases = []
  for case in args.cases or (_TPU if args.platform == "tpu" else _CUDA):
    topology, _, sizes = case.rpartition("/")
    try:
      data, latent = map(int, sizes.split("x"))
    except ValueError:
      raise SystemExit(
        f"case {case!r}: write TOPOLOGY/DATAxLATENT, such as v5e:4x4/1x16"
      ) from None
    cases.append(
      {
        **common,
        "topology": topology,
        "data": data,
        "latent": latent,
        "ops": None,
      }
    )
  return cases


def _name(case) -> str:
  return (
    f"{case['topology']}, data x latent {case['data']}x{case['latent']},"
    f" {case['implementation'] or 'the platform default'}"
    f"{', without AuxK' if case['no_auxk'] else ''}"
  )


def _spawn(case) -> list[dict]:
  """One case in a process of its own, whose memory is freed with it."""
  started = time.monotonic()
  done = subprocess.run(
    [sys.executable, __file__, "--child", json.dumps(case)],
    capture_output=True,
    text=True,
  )
  if done.returncode:
    print(done.stderr[-4000:], file=sys.stderr)
    lines = done.stderr.strip().splitlines()
    return [{"case": case, "error": lines[-1] if lines else "killed"}]
  wall = {"wall_s": round(time.monotonic() - started, 1)}
  return [r | wall for r in json.loads(done.stdout.splitlines()[-1])]


def _child(case) -> list[dict]:
  """Compiles one case's programs and reads them."""
  with tempfile.TemporaryDirectory() as scratch:
    directory = pathlib.Path(case["keep"] or scratch)
    # v5p's and v6e's programs cannot be printed by jaxlib ("async-update
    # instruction should have 1 operands"), but the compiler dumps them.
    os.environ["XLA_FLAGS"] = " ".join(
      (
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_dump_to={directory}",
        "--xla_dump_hlo_as_text",
      )
    )
    import programs

    return programs.compile_and_read(case, directory)


def _giga(key):
  return lambda r: f"{r['memory'][key] / 1e9:.3f}"


_SHARED_COLUMNS = {
  "TFLOP": lambda r: f"{_matrix_flops(r) / 1e12:.3f}",
  "temp GB": _giga("temporaries"),
  "arguments GB": _giga("arguments"),
  "kernels": lambda r: " ".join(sorted({k["name"] for k in r["kernels"]})),
  "[B, F] or [B, K, D]": lambda r: _dense(r, normal=True),
  "compile s (processor)": lambda r: f"{r['compile_s']:.0f}",
}
_STEP_COLUMNS = {
  "topology": lambda r: r["case"]["topology"],
  "data x latent": lambda r: f"{r['case']['data']}x{r['case']['latent']}",
  "over 2BDF/devices": lambda r: f"{r['flops']['over_encoder']:.3f}",
  "temp GB, normal path": lambda r: (
    f"{r['temporaries']['normal'] / 1e9:.3f}" if r["temporaries"] else "?"
  ),
  "wire GB, normal path": lambda r: f"{_wire(r) / 1e9:.3f}",
} | _SHARED_COLUMNS
_OP_COLUMNS = {
  "topology": lambda r: r["case"]["topology"],
  "op": lambda r: r["op"],
} | _SHARED_COLUMNS


def _matrix_flops(result) -> float:
  return result["flops"]["normal"] + result["flops"]["kernels"]


def _wire(result) -> int:
  return sum(
    c["wire_bytes"] * c["times"] for c in result["collectives"] if c["normal"]
  )


def _dense(result, *, normal) -> str:
  found = [d for d in result["dense"] if d["normal"] == normal]
  return ", ".join(sorted({d["shape"] for d in found})) or "none"


def _table(results, columns) -> str:
  lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
  for result in results:
    if "error" in result:
      lines.append(f"| {_name(result['case'])}: {result['error']} |")
    else:
      cells = [cell(result) for cell in columns.values()]
      lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def _details(result) -> str:
  """Everything of one case that a reader of the table asks next."""
  lines = ["| matrix FLOPs | G |", "|---|---|"]
  stages = result["flops"]["by_stage"]
  for stage, count in sorted(stages.items(), key=lambda item: -item[1]):
    if count > 1e6:
      lines.append(f"| {stage} | {count / 1e9:,.1f} |")
  for stage, count in result["flops"]["per_turn"].items():
    lines.append(
      f"| {stage}, each turn of a loop of unknown length | {count / 1e9:,.1f} |"
    )
  for kernel in result["kernels"]:
    flops = kernel["flops"]
    count = "?" if flops is None else f"{flops * kernel['times'] / 1e9:,.1f}"
    where = f", in {kernel['branch']}" if kernel["branch"] else ""
    lines.append(f"| kernel {kernel['name']}{where} | {count} |")
  for branch, count in result["flops"]["by_branch"].items():
    if branch and count > 1e6:
      lines.append(f"| only in {branch} | {count / 1e9:,.1f} |")
  if result["collectives"]:
    lines += ["", "| exchange | devices | times | MB sent | stage, branch |"]
    lines.append("|---|---|---|---|---|")
  for c in result["collectives"]:
    if math.prod((c["wire_bytes"], c["times"])) > 1e4:
      lines.append(
        f"| {c['kind']} {' '.join(c['shapes'])} | {c['devices']} |"
        f" {c['times']} | {c['wire_bytes'] * c['times'] / 1e6:,.1f} |"
        f" {c['stage']} {c['branch']} |"
      )
  lines += ["", "| largest arrays in memory | MB | stage, branch |"]
  lines.append("|---|---|---|")
  for a in result["largest"]:
    lines.append(
      f"| {a['shape']} | {a['bytes'] / 1e6:,.1f} | {a['stage']} {a['branch']} |"
    )
  return "\n".join(lines)


if __name__ == "__main__":
  main()
