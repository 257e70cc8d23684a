# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a harvest takes of a TPU: the forward pass to a hook, compiled.

Compiles `sae_jax.lm` for models of the shape of Llama 3 8B and 70B up to a
layer, with no weights and no TPU here (libtpu: `sae-jax[aot-tpu]`). Memory,
matrix FLOPs and what travels are read from the program; tokens per second are
PREDICTED from them and from published peaks, with memory traffic by formula.
Nothing is executed. A harvest gives each host a mesh of its own devices, so
that a topology with the latent axis inside of a host is a slice's hosts.
"""

import argparse
import functools
import json
import pathlib
import sys

import aot_tables
import child
import devices

# What config.json says of a model; sizes only.
_LLAMA = {
  "model_type": "llama",
  "vocab_size": 128256,
  "num_key_value_heads": 8,
  "rms_norm_eps": 1e-5,
  "rope_theta": 500000.0,
}
MODELS = {
  "8b": _LLAMA
  | {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
  },
  "70b": _LLAMA
  | {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
  },
}
_CASES = (
  "8b/v5e:4x4/16x1",
  "8b/v5e:4x4/2x8",
  "70b/v5e:4x4/2x8",
  "70b/v6e:4x4/4x4",
  "70b/v5p:2x2x1/4x1",
  "70b/v5p:2x2x1/1x4",
)


def main() -> None:
  """Compiles the cases one after another and prints tables."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "cases",
    nargs="*",
    default=_CASES,
    help=f"MODEL/TOPOLOGY/DATAxLATENT; models: {' '.join(MODELS)}"
    f" (default: {' '.join(_CASES)})",
  )
  parser.add_argument(
    "--batch", type=int, default=64, help="contexts per forward pass"
  )
  parser.add_argument(
    "--context", type=int, default=1024, help="tokens of a context"
  )
  parser.add_argument(
    "--layers", type=int, default=0, help="blocks to run (0: the lower half)"
  )
  parser.add_argument("--tokens", type=float, default=1e10, help="to harvest")
  parser.add_argument("--json", help="also write all that was read here")
  parser.add_argument(
    "--from_json", help="print the tables of such a file; compile nothing"
  )
  parser.add_argument(
    "--keep", help="keep the compiler's text dumps in this directory"
  )
  parser.add_argument("--child", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    child.answer(json.loads(args.child), _compile_and_read)
    return
  if args.from_json:
    results = json.loads(pathlib.Path(args.from_json).read_text())
  else:
    results = []
    for case in (_case(text, args) for text in args.cases):
      print(f"{_name(case)} ...", file=sys.stderr, flush=True)
      results += child.run(__file__, case)
      if args.json:
        pathlib.Path(args.json).write_text(json.dumps(results, indent=1))
  print("Read from compiled programs; nothing was executed.\n")
  print(_table(results, args.tokens))
  for result in results:
    if "error" not in result:
      found = "\n".join(aot_tables.exchanges(result["collectives"]))
      print(f"\n{_name(result['case'])}\n\n{found}")
  if any("error" in result for result in results):
    raise SystemExit(1)


def _case(text: str, args) -> child.Case:
  try:
    model, topology, sizes = text.split("/")
    data, latent = map(int, sizes.split("x"))
    layers = args.layers or MODELS[model]["num_hidden_layers"] // 2
  except (ValueError, KeyError):
    raise SystemExit(
      f"case {text!r}: write MODEL/TOPOLOGY/DATAxLATENT, such as"
      f" 8b/v5e:4x4/16x1; models are {', '.join(MODELS)}"
    ) from None
  return {
    "model": model,
    "topology": topology,
    "data": data,
    "latent": latent,
    "layers": layers,
    "batch": args.batch,
    "context": args.context,
    "keep": args.keep,
  }


def _name(case) -> str:
  return (
    f"{case['model']}, {case['layers']} blocks, {case['topology']}, data x"
    f" latent {case['data']}x{case['latent']}, {case['batch']} x"
    f" {case['context']} tokens"
  )


def _compile_and_read(case, directory: pathlib.Path) -> list[child.Result]:
  import facts
  import hlo
  import targets

  reason = targets.missing("tpu")
  if reason:
    raise SystemExit(reason)
  described = targets.devices("tpu", case["topology"])
  mesh = targets.mesh(described, case["data"], case["latent"])
  compiled = _lower(case, mesh).compile()
  program = hlo.Program(child.newest_dump(directory, "after_optimizations.txt"))
  return [
    {
      "case": case,
      "memory": facts.memory(compiled),
      "flops": sum(n * visit.times for n, visit in program.products()),
      "unbounded": sum(not visit.bounded for _, visit in program.products()),
      "collectives": [
        {
          "kind": c.kind,
          "shapes": [facts.shape(a) for a in c.arrays],
          "devices": c.group,
          "times": c.visit.times,
          "wire_bytes": c.wire_bytes,
          "stage": "",
          "branch": facts.label(c.visit.branches),
        }
        for c in program.collectives()
      ],
    }
  ]


def _lower(case, mesh):
  """The program of `lm.activations` for one hook, lowered."""
  import jax
  import jax.numpy as jnp

  from sae_jax.lm import batch, config, run, weights

  model = config.from_hf(MODELS[case["model"]], place=case["model"])
  decoder = weights.abstract_decoder(model, mesh, jnp.bfloat16, case["layers"])
  rows = jax.NamedSharding(mesh, jax.P(batch.spec(mesh, case["batch"])))

  def array(dtype):
    shape = case["batch"], case["context"]
    return jax.ShapeDtypeStruct(shape, dtype, sharding=rows)

  forward = functools.partial(
    run.forward,
    taps=(f"blocks.{case['layers'] - 1}.hook_resid_post",),
    want_logits=False,
    mesh=mesh,
  )
  return jax.jit(lambda *arrays: forward(*arrays).taps).lower(
    decoder, array(jnp.int32), array(jnp.bool_)
  )


def moved_bytes(case) -> float:
  """Memory traffic of a pass on one device, by formula.

  Weights are read once, every activation is written and read once in bfloat16,
  attention's scores in float32 and again, as probabilities, in bfloat16.
  """
  raw = MODELS[case["model"]]
  d, f = raw["hidden_size"], raw["intermediate_size"]
  heads, kv = raw["num_attention_heads"], raw["num_key_value_heads"]
  width = d // heads
  shards = case["latent"]
  tokens = case["batch"] * case["context"] / case["data"]
  weights = 2 * (2 * d * d + 2 * d * kv * width + 3 * d * f) / shards
  # Stream: in and out of two norms and two sums. Then q, k, v, mixed; the MLP's
  # gate, its other factor and their product.
  wide = 6 * d + (2 * d + 2 * kv * width + 3 * f) / shards
  scores = 12 * heads / shards * case["context"]
  return case["layers"] * (weights + tokens * (4 * wide + scores))


def predicted_seconds(result) -> tuple[float, float]:
  """A pass if matrix units, memory and links overlap, and if they do not."""
  case = result["case"]
  device = devices.of_topology(case["topology"])
  sides = device.sides(case["data"] * case["latent"])[::-1]
  sent = sum(c["wire_bytes"] * c["times"] for c in result["collectives"])
  count = sum(c["times"] for c in result["collectives"] if c["wire_bytes"])
  parts = (
    result["flops"] / device.flops,
    moved_bytes(case) / device.memory,
    device.exchange_seconds(sides, case["latent"], sent, count),
  )
  return max(parts), sum(parts)


def _table(results, tokens: float) -> str:
  head = (
    "model, blocks",
    "topology",
    "data x latent",
    "contexts",
    "weights GB",
    "temp GB",
    "GB per chip",
    "TFLOP",
    "wire GB",
    "PREDICTED tokens/s, overlap none … full",
    f"chip-hours for {tokens:.0e} tokens, no overlap",
    "written GB/s per hook",
  )
  lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
  for result in results:
    case = result["case"]
    if "error" in result:
      lines.append(f"| {_name(case)}: {result['error']} |")
      continue
    overlapped, serial = predicted_seconds(result)
    batch = case["batch"] * case["context"]
    rate = batch / serial
    used = aot_tables.total(result["memory"])
    hbm = devices.of_topology(case["topology"]).hbm
    chips = case["data"] * case["latent"]
    sent = sum(c["wire_bytes"] * c["times"] for c in result["collectives"])
    width = MODELS[case["model"]]["hidden_size"]
    cells = (
      f"{case['model']}, {case['layers']}",
      case["topology"],
      f"{case['data']}x{case['latent']}",
      f"{case['batch']} x {case['context']}",
      f"{result['memory']['arguments'] / 1e9:.2f}",
      f"{result['memory']['temporaries'] / 1e9:.2f}",
      f"{used / 1e9:.2f} of {hbm / 1e9:.1f}",
      f"{result['flops'] / 1e12:.2f}",
      f"{sent / 1e9:.2f}",
      f"{rate:,.0f} … {batch / overlapped:,.0f}",
      f"{chips * tokens / rate / 3600:,.0f}",
      f"{rate * 2 * width / 1e9:.2f}",
    )
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


if __name__ == "__main__":
  main()
