# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A training run on paper: which mesh, how much memory, how long, what disk.

For every way to spread a dictionary over a slice: bytes per chip by formula
(`benchmarks/aot.md` has what compilers say), the PREDICTED step of
`roofline.py` between full overlap and none, and what follows from it for a run.
Tokens per second and chip-hours are those without overlap. Nothing is measured.
"""

import argparse
import dataclasses
from collections.abc import Sequence

import devices
import roofline

_WRITE_ROWS = 32768  # rows of a write chunk, as harvests write them


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one device."""

  state: float  # parameters, both moments, counters
  work: float  # while a step runs

  @property
  def total(self) -> float:
    return self.state + self.work


def memory(s: roofline.Shapes) -> Memory:
  """By formula, of the largest dictionaries: compiled programs differ a little.

  A weight pair (one element of each matrix) has 24 bytes of parameters and
  moments and 8 of gradients. Beside the gradients AuxK holds one more product
  of float32 and both matrices in bfloat16 when it takes all latents. A batch
  has about six float32 arrays of its own size.
  """
  pairs = s.owned * s.d_model
  return Memory(
    state=24 * pairs + 16 * s.owned,
    work=(8 + 4 + 4) * pairs + 6 * 4 * s.rows * s.d_model,
  )


def read_share(device: devices.Device, s: roofline.Shapes) -> float:
  """The part of every batch that one host reads: that of its own chips.

  Where `stream.lanes` is a multiple of the hosts; else it reads all rows.
  """
  return min(device.host, s.chips) / s.chips


def run_seconds(
  device: devices.Device, s: roofline.Shapes
) -> tuple[float, float]:
  """A step and the gather of its rows, a program that runs before it."""
  gather = roofline.gather_of_rows(s).seconds(device, s)
  overlapped, serial = roofline.step_seconds(device, s)
  return overlapped + max(gather.values()), serial + sum(gather.values())


_HEAD = (
  "slice, data x latent",
  "latents per chip",
  "state GB",
  "work GB",
  "of HBM",
  "step ms, overlap … none",
  "tokens/s",
  "chip-hours",
  "read GB/s per host",
)


def table(rows: Sequence[str]) -> str:
  head = [f"| {' | '.join(_HEAD)} |", "|---|" + "---:|" * (len(_HEAD) - 1)]
  return "\n".join((*head, *rows))


def fastest(
  device: devices.Device, meshes: Sequence[roofline.Shapes]
) -> roofline.Shapes | None:
  """Of the meshes that fit, the one with the shortest step; None: none fits."""
  return min(
    (s for s in meshes if memory(s).total <= device.hbm),
    key=lambda s: run_seconds(device, s)[1],
    default=None,
  )


def row(
  device: devices.Device, s: roofline.Shapes, tokens: float, mark: str = ""
) -> str:
  """A mesh; `*` where a host's network brings less than it has to read."""
  need = memory(s)
  overlapped, serial = run_seconds(device, s)
  rate = s.batch / serial
  read = rate * 2 * s.d_model * read_share(device, s)
  cells = (
    f"{device.name}/{s.chips}, {mark}{s.data}x{s.latent}{mark}",
    f"{s.owned:,}",
    f"{need.state / 1e9:.2f}",
    f"{need.work / 1e9:.2f}",
    f"{need.total / device.hbm:.0%}",
    f"{overlapped * 1e3:.2f} … {serial * 1e3:.2f}",
    f"{rate:,.0f}",
    f"{s.chips * tokens / rate / 3600:,.0f}",
    f"{read / 1e9:.1f}{'*' if read > device.network else ''}",
  )
  return f"| {' | '.join(cells)} |"


def left_out(
  device: devices.Device, meshes: Sequence[roofline.Shapes]
) -> list[str]:
  """A sentence on what does not fit, if anything does not."""
  found = [s for s in meshes if memory(s).total > device.hbm]
  if not found:
    return []
  names = " ".join(f"{s.data}x{s.latent}" for s in found)
  least = min(memory(s).total for s in found)
  return [
    f"Do not fit in {device.hbm / 1e9:.1f} GB: {names} ({least / 1e9:.1f} GB or"
    " more)."
  ]


def storage(args) -> str:
  """Bytes on disk, by shapes alone."""
  row = 2 * args.d_model
  pairs = args.latents * args.d_model
  chunk = _WRITE_ROWS * row
  return (
    f"{args.tokens / args.batch:,.0f} steps. Stored whole"
    f" {args.tokens * row / 1e12:.1f} TB ({row:,} bytes a token); in a window,"
    f" {chunk / 1e9:.2f} GB per write chunk of {_WRITE_ROWS:,} rows. A"
    f" checkpoint {24 * pairs / 1e9:,.0f} GB, the dictionary"
    f" {8 * pairs / 1e9:,.1f} GB."
  )


def main() -> None:
  """Prints a table per slice."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "slices",
    nargs="+",
    help=f"DEVICE/CHIPS such as v5e/16; devices: {' '.join(devices.DEVICES)}",
  )
  parser.add_argument("--batch", type=int, default=8192, help="B")
  parser.add_argument("--d_model", type=int, default=4096, help="D")
  parser.add_argument("--latents", type=int, default=131072, help="F")
  parser.add_argument("--k", type=int, default=64, help="K")
  parser.add_argument(
    "--dead", type=float, default=0.0, help="share of latents that is dead"
  )
  parser.add_argument(
    "--best", action="store_true", help="only the fastest mesh of each slice"
  )
  parser.add_argument("--tokens", type=float, default=1e10, help="of the run")
  args = parser.parse_args()
  slices = [(case, *_parsed(case)) for case in args.slices]
  print(
    f"B={args.batch} D={args.d_model} F={args.latents} K={args.k}, dead:"
    f" {args.dead:.0%}, {args.tokens:.0e} tokens. PREDICTION, not a"
    f" measurement.\n\n{storage(args)}\n"
  )
  if args.best:
    found = [(d, meshes(args, chips)) for _, d, chips in slices]
    chosen = [(d, ms, fastest(d, ms)) for d, ms in found]
    print(table([row(d, s, args.tokens) for d, _, s in chosen if s]))
    for (case, *_), (d, ms, s) in zip(slices, chosen, strict=True):
      if s is None:
        print(f"\n{case}: {left_out(d, ms)[0]}")
    return
  for _, device, chips in slices:
    all_meshes = meshes(args, chips)
    best = fastest(device, all_meshes)
    rows = [
      row(device, s, args.tokens, "**" if s is best else "")
      for s in all_meshes
      if memory(s).total <= device.hbm
    ]
    print("\n\n".join((table(rows), *left_out(device, all_meshes))) + "\n")


def _parsed(case: str) -> tuple[devices.Device, int]:
  """DEVICE/CHIPS."""
  name, _, count = case.partition("/")
  try:
    device, chips = devices.DEVICES[name], int(count)
    device.sides(chips)
  except (ValueError, KeyError):
    raise SystemExit(
      f"slice {case!r}: write DEVICE/CHIPS with one of {[*devices.DEVICES]} and"
      " a power of two of TPU chips"
    ) from None
  return device, chips


def meshes(args, chips: int) -> list[roofline.Shapes]:
  """All that divide rows and latents, with the most latent shards first."""
  found = []
  for data in (n for n in range(1, chips + 1) if chips % n == 0):
    latent = chips // data
    if args.batch % data or args.latents % latent:
      continue
    owned = args.latents // latent
    found.append(
      roofline.Shapes(
        batch=args.batch,
        d_model=args.d_model,
        latents=args.latents,
        k=args.k,
        data=data,
        latent=latent,
        aux_k=args.d_model // 2,
        dead=compacted(round(args.dead * owned), owned),
      )
    )
  return found


def compacted(dead: int, owned: int) -> int:
  """AuxK's size for so many dead latents of a shard: owned over a 4^n."""
  if not dead:
    return 0
  size = owned
  while -(-size // 4) >= dead and size > 256:
    size = -(-size // 4)
  return size


if __name__ == "__main__":
  main()
