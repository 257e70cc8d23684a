# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""PREDICTED time of every stage of a training step on accelerators.

From shapes, formulas and published peaks; nothing is measured and nothing is
read from a compiler. A stage's prediction is the longest of its matrix units,
its memory and its links, each at its full published rate: a floor, which real
kernels miss by what they do not overlap. The step's prediction lies between the
longest resource (all stages overlap) and the sum of the stages (none does).
"""

import argparse
import dataclasses
import json

import devices

# One after another for a top-k: eight digits, ties, the k-th value, the redo.
_COUNT_EXCHANGES = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
  """A step and how it is spread; sizes of the whole mesh."""

  batch: int
  d_model: int
  latents: int
  k: int
  data: int
  latent: int
  aux_k: int
  dead: int  # latents that AuxK sees, per shard (its compacted capacity)

  @property
  def chips(self) -> int:
    return self.data * self.latent

  @property
  def rows(self) -> int:
    """Of a batch, per device."""
    return self.batch // self.data

  @property
  def owned(self) -> int:
    """Latents per device."""
    return self.latents // self.latent

  @property
  def pairs(self) -> int:
    """(row, latent) pairs per device, when winners spread evenly."""
    return self.rows * self.k // self.latent


@dataclasses.dataclass(frozen=True)
class Stage:
  """What one device does: matrix FLOPs, bytes of memory, bytes sent."""

  name: str
  flops: float
  moved: float
  sent: float
  axis: str = "latent"  # whose devices exchange
  exchanges: int = 0  # one after another

  def seconds(self, device: devices.Device, shapes: Shapes) -> dict[str, float]:
    """At full rate: `matrix`, `memory`, `links`.

    The latent axis fills the last sides of the slice, the data axis the first.
    An exchange crosses the group twice.
    """
    sides = device.sides(shapes.chips)
    if self.axis == "latent":
      sides = sides[::-1]
    group = getattr(shapes, self.axis)
    return {
      "matrix": self.flops / device.flops,
      "memory": self.moved / device.memory,
      "links": device.exchange_seconds(sides, group, self.sent, self.exchanges),
    }


def _all_reduce(size: float, devices: int) -> float:
  return 2 * size * (devices - 1) / devices


def gather_of_rows(s: Shapes) -> Stage:
  """Each chip gets its own rows from its host and the others' from them."""
  batch = 2 * s.rows * s.d_model  # bfloat16
  others = batch * (s.latent - 1) / s.latent
  return Stage("rows", 0, 2 * batch * (s.latent > 1), others, exchanges=1)


def stages(s: Shapes) -> list[Stage]:
  """The stages of `sae.losses` and `train.step`, float32 unless said.

  Memory counts every array once per stage that reads or writes it: the least
  that a stage can move when nothing stays in fast memory between stages.
  """
  b, d, f, p = s.rows, s.d_model, s.owned, s.pairs
  weights, batch = 4 * f * d, 4 * b * d
  # Eight times 15 counts per row find the k-th value of all shards.
  counts = 0 if s.latent == 1 else 4 * 15 * b
  made = [
    # Master weights are read, their bfloat16 copy is written and read.
    Stage("encode", 2 * b * d * f, weights * 2 + batch, 0),
    Stage(
      "exchange of counts",
      0,
      8 * (4 * b * min(s.k, f) + 2 * counts),
      8 * _all_reduce(counts, s.latent),
      exchanges=_COUNT_EXCHANGES,
    ),
    Stage("decode", 0, 4 * p * d + batch, 0),
    Stage(
      "sum of decoded",
      0,
      2 * batch,
      _all_reduce(batch, s.latent),
      exchanges=1,
    ),
    Stage("error, statistics", 0, 3 * batch, 0),
    # Of a pair: its row, its error and its decoder row.
    Stage("weight gradients", 0, 3 * 4 * p * d + 2 * weights, 0),
    Stage(
      "sum of gradients",
      0,
      0 if s.data == 1 else 4 * weights,
      _all_reduce(2 * weights, s.data),
      "data",
      1,
    ),
    # b_dec's gradient reads one matrix. Per matrix: weights, gradient and two
    # moments in; all but the gradient out.
    Stage("b_dec, Adam, projection", 0, weights + 2 * 7 * weights, 0),
  ]
  if s.dead:
    c = min(s.dead, f)
    # Scores, chosen values, their gradient: [B, C]. The k-th of a row is found
    # bit by bit.
    passes = 32 if s.latent * c > s.aux_k else 0
    made.append(
      Stage(
        f"AuxK, {c:,} dead per device",
        5 * 2 * b * d * c,
        4 * b * c * (6 + passes) + 6 * batch + 4 * c * d * 8,
        _all_reduce(batch, s.latent) + passes * _all_reduce(4 * b, s.latent),
        exchanges=1 + passes,
      )
    )
  return made


def step_seconds(device: devices.Device, s: Shapes) -> tuple[float, float]:
  """A step if all of its stages overlap, and if none does."""
  times = [stage.seconds(device, s) for stage in stages(s)]
  resources = (sum(t[name] for t in times) for name in times[0])
  return max(resources), sum(max(t.values()) for t in times)


def table(device: devices.Device, s: Shapes) -> str:
  """Milliseconds per stage and resource, and how far apart the bounds lie."""
  lines = [
    "| stage | GFLOP | MB moved | MB sent | matrix ms | memory ms | links ms |"
    " predicted ms |",
    "|---|---:|---:|---:|---:|---:|---:|---:|",
  ]
  totals: dict[str, float] = {}
  for stage in stages(s):
    seconds = stage.seconds(device, s)
    for name, value in seconds.items():
      totals[name] = totals.get(name, 0.0) + value
    values = *seconds.values(), max(seconds.values())
    times = " | ".join(f"{v * 1e3:.3f}" for v in values)
    lines.append(
      f"| {stage.name} | {stage.flops / 1e9:,.1f} | {stage.moved / 1e6:,.1f} |"
      f" {stage.sent / 1e6:,.1f} | {times} |"
    )
  overlapped, serial = step_seconds(device, s)
  cells = " | ".join(f"{v * 1e3:.3f}" for v in totals.values())
  lines.append(f"| **all** | | | | {cells} | **{serial * 1e3:.3f}** |")
  encode = 2 * s.rows * s.d_model * s.owned / device.flops
  lines += [
    "",
    f"PREDICTION, not a measurement: {overlapped * 1e3:.3f} ms if"
    f" everything overlaps, {serial * 1e3:.3f} ms if nothing does"
    f" ({serial / encode:.2f} times the encoder's product;"
    f" {s.batch / serial:,.0f} tokens per second of the whole mesh).",
  ]
  return "\n".join(lines)


def main() -> None:
  """Prints one table per case."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "cases",
    nargs="*",
    default=["v5e/1x16", "v5e/4x4", "v5p/1x64", "v5p/4x16", "h100/1x8"],
    help=f"DEVICE/DATAxLATENT; devices: {' '.join(devices.DEVICES)}",
  )
  parser.add_argument("--batch", type=int, default=8192, help="B")
  parser.add_argument("--d_model", type=int, default=4096, help="D")
  parser.add_argument("--latents", type=int, default=131072, help="F")
  parser.add_argument("--k", type=int, default=64, help="K")
  parser.add_argument("--aux_k", type=int, default=0, help="0: D / 2")
  parser.add_argument(
    "--dead", type=int, default=0, help="dead latents per device; 0: no AuxK"
  )
  parser.add_argument("--json", action="store_true", help="stages as JSON")
  args = parser.parse_args()
  for case in args.cases:
    name, _, sizes = case.partition("/")
    try:
      data, latent = map(int, sizes.split("x"))
      device = devices.DEVICES[name]
      device.sides(data * latent)
    except (ValueError, KeyError):
      raise SystemExit(
        f"case {case!r}: write DEVICE/DATAxLATENT with one of"
        f" {[*devices.DEVICES]} and a power of two of TPU chips"
      ) from None
    shapes = Shapes(
      batch=args.batch,
      d_model=args.d_model,
      latents=args.latents,
      k=args.k,
      data=data,
      latent=latent,
      aux_k=args.aux_k or args.d_model // 2,
      dead=args.dead,
    )
    if args.json:
      rows = [
        dataclasses.asdict(stage) | stage.seconds(device, shapes)
        for stage in stages(shapes)
      ]
      print(json.dumps({"case": case, "stages": rows}))
    else:
      print(f"### {case}: {dataclasses.asdict(shapes)}\n")
      print(f"{table(device, shapes)}\n")


if __name__ == "__main__":
  main()
