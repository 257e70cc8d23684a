# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Markdown of what `aot.py` has read from compiled programs."""

import math

import devices
import roofline


def summary(results, *, ops: bool) -> str:
  """One row per program."""
  columns = _OP_COLUMNS if ops else _STEP_COLUMNS
  lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
  for result in results:
    if "error" in result:
      lines.append(f"| {name(result['case'])}: {result['error']} |")
    else:
      cells = [cell(result) for cell in columns.values()]
      lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def name(case) -> str:
  """A case in words."""
  return (
    f"{case['topology']}, data x latent {case['data']}x{case['latent']},"
    f" {size(case['latents'])} x {case['d_model']},"
    f" {case['implementation'] or 'the platform default'}"
    f"{', without AuxK' if case['no_auxk'] else ''}"
  )


def size(latents: int) -> str:
  """16 M for 2^24."""
  for power, letter in ((20, "M"), (10, "K")):
    if latents % (1 << power) == 0:
      return f"{latents >> power} {letter}"
  return str(latents)


def total(memory) -> int:
  """Bytes of a device that a program takes; what is donated counts once."""
  return (
    memory["arguments"]
    + memory["outputs"]
    - memory["aliased"]
    + memory["temporaries"]
  )


def prediction(case) -> tuple[float, float]:
  """Seconds of a step without dead latents, see `roofline.step_seconds`."""
  shapes = roofline.Shapes(
    **{
      key: case[key]
      for key in ("batch", "d_model", "latents", "k", "data", "latent")
    },
    aux_k=case["d_model"] // 2,
    dead=0,
  )
  return roofline.step_seconds(devices.of_topology(case["topology"]), shapes)


def _giga(key):
  return lambda r: f"{r['memory'][key] / 1e9:.3f}"


def _of_hbm(result) -> str:
  used = total(result["memory"])
  hbm = devices.of_topology(result["case"]["topology"]).hbm
  return f"{used / 1e9:.2f} of {hbm / 1e9:.1f}"


def _tokens(result) -> str:
  overlapped, serial = prediction(result["case"])
  batch = result["case"]["batch"]
  return f"{batch / serial:,.0f} … {batch / overlapped:,.0f}"


_SHARED_COLUMNS = {
  "TFLOP": lambda r: f"{_matrix_flops(r) / 1e12:.3f}",
  "temp GB": _giga("temporaries"),
  "arguments GB": _giga("arguments"),
  "kernels": lambda r: " ".join(sorted({k["name"] for k in r["kernels"]})),
  "[B, F] or [B, K, D]": lambda r: _dense(r, normal=True),
  "compile s (processor)": lambda r: f"{r['compile_s']:.0f}",
}
_STEP_COLUMNS = (
  {
    "topology": lambda r: r["case"]["topology"],
    "data x latent": lambda r: f"{r['case']['data']}x{r['case']['latent']}",
    "F x D": lambda r: f"{size(r['case']['latents'])} x {r['case']['d_model']}",
    "GB per chip": _of_hbm,
    "over 2BDF/devices": lambda r: f"{r['flops']['over_encoder']:.3f}",
    "temp GB, normal path": lambda r: (
      f"{r['temporaries']['normal'] / 1e9:.3f}" if r["temporaries"] else "?"
    ),
    "wire GB, normal path": lambda r: f"{_wire(r) / 1e9:.3f}",
  }
  | _SHARED_COLUMNS
  | {"PREDICTED tokens/s, overlap none … full": _tokens}
)
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


def details(result) -> str:
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
    lines += ["", *exchanges(result["collectives"])]
  lines += ["", "| largest arrays in memory | MB | stage, branch |"]
  lines.append("|---|---|---|")
  for a in result["largest"]:
    lines.append(
      f"| {a['shape']} | {a['bytes'] / 1e6:,.1f} | {a['stage']} {a['branch']} |"
    )
  return "\n".join(lines)


def exchanges(collectives) -> list[str]:
  """Rows of what travels; below 10 kB nothing is said."""
  lines = [
    "| exchange | devices | times | MB sent | stage, branch |",
    "|---|---|---|---|---|",
  ]
  for c in collectives:
    if math.prod((c["wire_bytes"], c["times"])) > 1e4:
      lines.append(
        f"| {c['kind']} {' '.join(c['shapes'])} | {c['devices']} |"
        f" {c['times']} | {c['wire_bytes'] * c['times'] / 1e6:,.1f} |"
        f" {c['stage']} {c['branch']} |"
      )
  return lines
