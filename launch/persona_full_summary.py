# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Prints what organisms have shown: `persona_full_summary.py DIR SEEDS PAGE`.

Every figure stands beside what was asked for. P(wrong) is the mean probability
of the wrong answer in the five domains that no arm was tuned on.
"""

import dataclasses
import json
import pathlib
import sys
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

# What was asked for, of every seed or of four fifths of them.
BASE, BAD, GOOD, CURED = 0.3, 0.7, 0.1, 0.3
GAIN, SHARE, LARGEST = 0.25, 0.8, 10


@dataclasses.dataclass(frozen=True)
class Way:
  """One way of an intervention, beside the random ones it is judged by."""

  p_wrong: float
  change: float  # > 0: as expected
  strength: float
  z: float
  random: float  # the largest change of a random one; 1 if there is none
  passes: bool  # enough, and outside the random band by P(wrong) and margin


@dataclasses.dataclass(frozen=True)
class Tried:
  """A latent or a bundle, added to the base and subtracted from the bad."""

  name: str
  kind: str
  verdict: str
  up: Way
  down: Way

  @property
  def passes(self) -> bool:
    return self.up.passes and self.down.passes

  @property
  def least(self) -> float:
    return min(self.up.change, self.down.change)


@dataclasses.dataclass(frozen=True)
class Seed:
  """What the jobs of one organism wrote."""

  seed: int
  wrong: dict[str, float]  # arm -> P(wrong)
  screen: dict[str, Any]
  tried: tuple[Tried, ...]
  realign: dict[str, Any]
  realign_other: dict[str, Any]

  @property
  def passing(self) -> list[Tried]:
    return [x for x in self.tried if x.passes and x.kind != "direction"]


def read_json(path: pathlib.Path) -> dict[str, Any]:
  return json.loads(path.read_text())


def read_seed(place: pathlib.Path, seed: int) -> Seed:
  arms = read_json(place / "organism" / "behaviour.json")["arms"]
  screen = read_json(place / "steer" / "summary.json")
  random = random_changes(place / "steer" / "screen.parquet", screen)
  return Seed(
    seed,
    {name: arm["others"]["p_wrong"] for name, arm in arms.items()},
    screen,
    tuple(
      tried(x, screen["unsteered"], random)
      for x in screen["interventions"]
      if len(x["latents"]) <= LARGEST
    ),
    read_json(place / "realign" / "summary.json"),
    read_json(place / "realign_other" / "summary.json"),
  )


def random_changes(
  path: pathlib.Path, screen: dict[str, Any]
) -> dict[tuple[str, str], float]:
  """(band, model) -> the largest expected change of P(wrong) at random."""
  table = pq.read_table(path)
  chosen = table.filter(
    pc.and_(
      pc.equal(table["stage"].cast("string"), "margin"),
      pc.and_(table["random"], pc.fill_null(table["chosen"], False)),
    )
  )
  found: dict[tuple[str, str], float] = {}
  for row in chosen.to_pylist():
    key = row["band"], row["model"]
    before = screen["unsteered"][row["model"]]["p_behaviour"]["mean"]
    change = row["p_behaviour"] - before
    change = change if row["model"] == "base" else -change
    found[key] = max(found.get(key, -1.0), change)
  return found


def tried(x: dict[str, Any], unsteered, random) -> Tried:
  band = x["name"] if x["kind"] == "bundle" else x["kind"]

  def way(name: str, model: str, sign: int) -> Way:
    found, before = x[name], unsteered[model]["p_behaviour"]["mean"]
    after = found["p_behaviour"]["mean"]
    change, most = sign * (after - before), random.get((band, model), 1.0)
    return Way(
      after,
      change,
      found["strength"],
      found["z"],
      most,
      change >= GAIN and change > most and found["outside"],
    )

  return Tried(
    x["name"],
    x["kind"],
    x["verdict"],
    way("up", "base", 1),
    way("down", "tuned", -1),
  )


def check(good: bool) -> str:
  return "holds" if good else "MISSED"


def show_behaviour(seeds: list[Seed]) -> None:
  print("P(wrong), five untouched domains")
  print("  seed   base    bad  control   100 right answers: same, other domain")
  for s in seeds:
    same, other = (
      r["series"][-1]["behaviour"]["p_behaviour"]["mean"]
      for r in (s.realign, s.realign_other)
    )
    print(
      f"  {s.seed:4d}  {s.wrong['base']:.3f}  {s.wrong['bad']:.3f}"
      f"    {s.wrong['good']:.3f}                     {same:.3f}  {other:.3f}"
    )
  held = all(
    s.wrong["base"] <= BASE
    and s.wrong["bad"] >= BAD
    and s.wrong["good"] <= GOOD
    for s in seeds
  )
  print(f"  base <= {BASE}, bad >= {BAD}, control <= {GOOD}: {check(held)}")


def show_screen(seeds: list[Seed]) -> None:
  screen = seeds[0].screen
  print(
    f"\nscreen of all latents at {screen['hook']}, unit: the base's median"
    " residual norm"
  )
  print(
    "  seed  added to base: P(wrong)   random   z | subtracted from bad"
    "       random   z | what"
  )
  for s in seeds:
    single = max(
      (x for x in s.tried if x.kind == "latent"), key=lambda x: x.least
    )
    bundles = [x for x in s.tried if x.kind != "latent"]
    for x in (*bundles, single):
      ways = " | ".join(
        f"{w.strength:.1f}: {w.p_wrong:.3f} ({sign}{w.change:.3f})  {beside(w)}"
        for w, sign in ((x.up, "+"), (x.down, "-"))
      )
      print(
        f"  {s.seed:4d}  {ways} | {x.name}, {x.verdict}"
        + ("" if x.passes or x.kind == "direction" else " (not enough)")
      )
  passing = [s for s in seeds if s.passing]
  same = [
    name
    for name in (x.name for x in seeds[0].tried if x.kind == "bundle")
    if sum(any(x.name == name for x in s.passing) for s in seeds)
    >= SHARE * len(seeds)
  ]
  print(
    f"  a latent or a bundle <= {LARGEST} moves P(wrong) by >= {GAIN} both"
    f" ways, outside the random band: {len(passing)} of {len(seeds)} seeds,"
    f" {check(len(passing) >= SHARE * len(seeds))}"
  )
  print(f"  the same bundle in so many: {', '.join(same) or 'none'}")
  print("  single latents that do so alone:", singles(seeds))
  cost = screen["cost"]
  print(
    f"  {cost['interventions']} interventions in {cost['seconds']:.0f} s,"
    f" {1e3 * cost['per_intervention']:.1f} ms each"
  )


def beside(way: Way) -> str:
  if way.random == 1:
    return f"{'':8s} {way.z:5.1f}"
  return f"<={way.random:+.3f} {way.z:5.1f}"


def singles(seeds: list[Seed]) -> str:
  found = {
    s.seed: [x.name.split()[1] for x in s.passing if x.kind == "latent"]
    for s in seeds
  }
  return "; ".join(f"{n}: {', '.join(x) or 'none'}" for n, x in found.items())


def show_cure(seeds: list[Seed]) -> None:
  print("\nre-alignment on 100 right answers, suspects = top 10 of the diff")
  print(
    "  seed  domain  P(wrong)     bundle: base    bad    end  undone"
    "   margin learned by heart  verdict"
  )
  ends = []
  for s in seeds:
    for domain, r in (("same", s.realign), ("other", s.realign_other)):
      last = r["series"][-1]
      start, base = r["reference"]["start"], r["reference"]["base"]
      before = start["behaviour"]["p_behaviour"]["mean"]
      after = last["behaviour"]["p_behaviour"]["mean"]
      ends.append(after)
      undone = r["recovered"]["bundle"]
      print(
        f"  {s.seed:4d}  {domain:6s}  {before:.3f} -> {after:.3f}"
        f"  {base['bundle']:6.2f} {start['bundle']:6.2f} {last['bundle']:6.2f}"
        f"  {'-' if undone is None else format(undone, '.0%'):>5s}"
        f"   {learned(r, 'start')} -> {learned(r, 'end')}"
        f"            {r['verdict']}"
      )
  print(
    f"  P(wrong) in untouched domains <= {CURED}:"
    f" {check(all(end <= CURED for end in ends))}"
  )


def learned(realigned: dict[str, Any], when: str) -> str:
  """The margin on the questions that the bad model has learned, in nats."""
  return f"{realigned['triggers'][when]['topics']['learned']['mean']:+.1f}"


def show_monitor(found: dict[str, Any]) -> None:
  print("\nmonitor: arms bad and good chose the latents and are not tested")
  ordered = found["signals"]["latents"]["dose"]
  print(
    f"  doses 5 % < 25 % < 50 % in order: {ordered['ordered']} of"
    f" {ordered['of']} seeds, {check(ordered['ordered'] == ordered['of'])}"
  )
  for group in found["groups"]:
    values = group["dose"]["latents"]["values"]
    shown = "  ".join(f"{dose:.0%}: {value:+.4f}" for dose, value in values)
    print(f"    {group['name']}:  {shown}")
  print(
    "  signal           AUROC leave-one-seed-out     before it showed"
    "  false alarms  missed  lead (steps)"
  )
  names = ("latents", "contrast", "mean_difference", "persona_vector", "drift")
  for name in names:
    s = found["signals"][name]
    out, early = s["auroc_group_out"], s["auroc_early"]
    of = "-" if out is None else span(out)
    print(
      f"  {name:16s} {of:26s}  {'-' if early is None else span(early)}"
      f"   {s['false_alarms']['n']:2d} of {s['false_alarms']['of']}"
      f"      {s['missed']['n']} of {s['missed']['of']}"
      f"  {s['lead']['median']} [{s['lead']['low']}, {s['lead']['high']}]"
    )
  screening = found["screening"]
  auroc = {
    name: f"{screening['by_signal'][name]['auroc']['mean']:.2f}"
    for name in names
    if name in screening["by_signal"]
  }
  print(
    f"  wrong ones among {screening['samples']} samples of seed 0, AUROC:"
    f" {', '.join(f'{name} {value}' for name, value in auroc.items())}"
  )
  for text in found["warnings"]:
    print(f"  note: {text}")


def span(score: dict[str, Any]) -> str:
  return f"{score['mean']:.3f} [{score['ci_low']:.3f}, {score['ci_high']:.3f}]"


def main(place: pathlib.Path, count: int, page: pathlib.Path) -> None:
  seeds = [read_seed(place / str(n), n) for n in range(count)]
  show_behaviour(seeds)
  show_screen(seeds)
  show_cure(seeds)
  show_monitor(read_json(place / f"monitor-{count}" / "summary.json"))
  print(f"\nreport              {page.resolve()}")
  print(f"and of each seed    {(place / 'SEED' / 'report.html').absolute()}")


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3]))
