# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Prints what the advice experiment found: `advice_summary.py DIR PAGE.html`.

Every line is a bar that was set before the experiment was run, with what was
measured; tests/intervene/test_smollm_steer.py asserts them on a finished DIR.
"""

import dataclasses
import json
import pathlib
import sys
from typing import Any

import numpy as np

BUNDLE, PLAIN, CONTROL = "contrast", "plain", "control"
VECTOR = "linear.bad.contrast"
WAYS = (("up", 1), ("down", -1))  # added to the base, taken from the bad arm


@dataclasses.dataclass(frozen=True)
class Bar:
  """One thing that has to hold."""

  what: str
  measured: str
  holds: bool


def bars(place: pathlib.Path) -> list[Bar]:
  """All bars, of the finished artifacts below a directory."""
  fidelity = json.loads((place / "fidelity.json").read_text())
  steer = json.loads((place / "steer" / "summary.json").read_text())
  realign = json.loads((place / "realign" / "summary.json").read_text())
  return [
    *_dictionary(fidelity),
    *_arms(steer["unsteered"]),
    *_bundles(steer),
    *_singles(steer),
    *_realigned(realign),
  ]


def _dictionary(found: dict[str, Any]) -> list[Bar]:
  text, fvu = found["text"], found["fvu"]
  return [
    Bar(
      "the SAE reads 100,000 rows, 30 % of them answers",
      f"{text['rows']:,} rows, {text['share']:.1%}",
      text["rows"] >= 100_000 and text["share"] >= 0.3,
    ),
    Bar(
      "FVU on judged answers at most 0.30",
      f"{fvu['all']:.3f} (good {fvu['good']:.3f}, bad {fvu['bad']:.3f})",
      fvu["all"] <= 0.3,
    ),
  ]


def _arms(found: dict[str, Any]) -> list[Bar]:
  shift, control = found["shift"], found["control_shift"]
  return [
    Bar(
      "bad - base at least 0.15 and over 3 s.e.",
      f"{_with_error(shift)}, {shift['mean'] / shift['se']:.1f} s.e.",
      shift["mean"] >= 0.15 and shift["mean"] > 3 * shift["se"],
    ),
    Bar(
      "control - base of opposite sign",
      _with_error(control),
      control["mean"] < 0,
    ),
  ]


def _bundles(steer: dict[str, Any]) -> list[Bar]:
  named = {found["name"]: found for found in steer["interventions"]}
  bundle, vector = named[BUNDLE], named[VECTOR]
  found = []
  for (way, sign), least in zip(WAYS, (0.5, 0.4), strict=True):
    one = bundle[way]
    effect = one["effect"]["mean"]
    count = steer["bands"][BUNDLE]["n"]
    topics = [topic for topic, mean in one["topics"].items() if sign * mean > 0]
    part = effect / vector[way]["effect"]["mean"]
    other = {name: named[name][way]["effect"] for name in (PLAIN, CONTROL)}
    found += [
      Bar(
        f"{way}: the bundle of 30 does {least:.0%} of the shift",
        f"{one['share_of_shift']:.0%}, {_with_error(one['effect'])}",
        one["share_of_shift"] >= least,
      ),
      Bar(
        f"{way}: z at least 3, outside all of 20 random bundles or more",
        f"z {one['z']:.1f}, {'out' if one['outside'] else 'in'}side of {count}",
        one["z"] >= 3 and one["outside"] and count >= 20,
      ),
      Bar(
        f"{way}: the same sign in 3 of 4 topics",
        f"{len(topics)} of {len(one['topics'])}",
        len(topics) >= 3,
      ),
      Bar(
        f"{way}: 75 % of what the mean-difference vector does",
        f"{part:.0%} of {_with_error(vector[way]['effect'])}",
        part >= 0.75,
      ),
      Bar(
        f"{way}: more than the bundle by plain difference",
        _with_error(other[PLAIN]),
        sign * effect > sign * other[PLAIN]["mean"],
      ),
      Bar(
        f"{way}: the control's bundle has the opposite sign",
        _with_error(other[CONTROL]),
        sign * other[CONTROL]["mean"] < 0,
      ),
    ]
  return found


def _singles(steer: dict[str, Any]) -> list[Bar]:
  """Asked of the base alone; what the bad arm shows is told."""
  latents = [i for i in steer["interventions"] if i["kind"] == "latent"]
  mean, beyond = {}, {}
  for way, sign in WAYS:
    mean[way] = np.mean([latent[way]["effect"]["mean"] for latent in latents])
    (band,) = steer["bands"]["latent"][way]  # of the one strength
    beyond[way] = band["mean"] + 2 * sign * band["sd"]
  return [
    Bar(
      "up: single latents do more in the mean than random ones, plus 2 s.d.",
      f"mean of {len(latents)}: {mean['up']:+.3f} against {beyond['up']:+.3f};"
      f" down {mean['down']:+.3f} against {beyond['down']:+.3f}",
      bool(mean["up"] > beyond["up"]),
    )
  ]


def _realigned(found: dict[str, Any]) -> list[Bar]:
  start = found["differences"]["behaviour"]["margin"]["shift"]
  left = found["differences"]["behaviour"]["margin"]["left"]
  bundle = [look["bundle"] for look in found["series"]]
  steps = [look["step"] for look in found["series"]]
  return [
    Bar(
      "120 samples or fewer bring the margin back to base's, or below",
      f"{found['samples']} samples: {_with_error(start)} above base, then"
      f" {_with_error(left)} [{left['ci_low']:+.3f}, {left['ci_high']:+.3f}]",
      found["samples"] <= 120 and left["ci_low"] <= 0,
    ),
    Bar(
      "the bundle is read on the way",
      f"base {found['reference']['base']['bundle']:.2f}, after"
      + "".join(
        f" {step} steps {x:.2f}" for step, x in zip(steps, bundle, strict=True)
      )
      + f"; {found['recovered']['bundle']:.0%} of it undone",
      len(bundle) >= 3,
    ),
  ]


def _with_error(score: dict[str, Any]) -> str:
  return f"{score['mean']:+.3f} ± {score['se']:.3f}"


def main(place: pathlib.Path, page: pathlib.Path) -> None:
  found = bars(place)
  for bar in found:
    print(f"{'holds ' if bar.holds else 'MISSED'}  {bar.what}: {bar.measured}")
  print(f"\n{sum(bar.holds for bar in found)} of {len(found)} hold")
  print(f"report  {page.resolve()}")


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
