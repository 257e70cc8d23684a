# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Recovery of known features: ours beside the peers', the cells of quality.py.

Rows are sums of a few of 10 D unit vectors with positive sizes, plus noise.
Half of the features fire on their own, with frequencies that fall like 1 / rank
over a factor of 20; a quarter in groups of 8 that share their occasions; a
quarter are trees, where one of 4 children can fire only with its parent.
Every library trains on the same rows, stored like a language model's.

Reported over the features, by kind: the mean over features of the largest
cosine with any decoder row, and the share that a one-to-one assignment (the one
with the largest sum of cosines) gives a row of cosine above 0.9.

  python benchmarks/synthetic.py --store STORE --cache CACHE
"""

import argparse
import dataclasses
import json
import pathlib
import statistics

import machine
import numpy as np
import quality
import quality_cells
import quality_learners
import quality_table
from scipy import optimize

from sae_jax import artifacts, formats, store

HOOK = "blocks.0.hook_resid_post"  # a store's name for it; there is no model
KINDS = ("alone", "grouped", "parent", "child")
_GROUP, _CHILDREN = 8, 4
_FOUND = 0.9  # cosine
_WRITE_ROWS = 16_384


@dataclasses.dataclass(frozen=True)
class Truth:
  """Features and how often they fire.

  `rate_G` is the probability of features of the kind "alone" and "parent"; of
  grouped ones that of the group, where each member then fires with
  probability 1/2; a parent's one child fires with probability 0.8.
  """

  features_GD: np.ndarray  # float32 unit rows
  kind_G: np.ndarray  # index into KINDS
  rate_G: np.ndarray


def make_truth(d_model: int, seed: int) -> Truth:
  """10 D features: 5 D alone, 2.5 D in groups, 2.5 D in trees."""
  trees = round(2.5 * d_model) // (1 + _CHILDREN)
  groups = round(2.5 * d_model) // _GROUP
  counts = (
    10 * d_model - groups * _GROUP - trees * (1 + _CHILDREN),
    groups * _GROUP,
    trees,
    trees * _CHILDREN,
  )
  rng = np.random.default_rng([seed, 0])
  features_GD = rng.normal(size=(sum(counts), d_model))
  features_GD /= np.linalg.norm(features_GD, axis=1, keepdims=True)
  # Alone: 4 of them a row; the most frequent is 20 times the rarest.
  alone_N = np.geomspace(20, 1, counts[0])
  alone_N *= 4 / alone_N.sum()
  rate_G = np.concatenate(
    [
      alone_N,
      np.full(counts[1], 0.6 / groups),  # 0.6 groups, 2.4 features a row
      np.full(counts[2], 2 / trees),  # 2 parents and 1.6 children a row
      np.zeros(counts[3]),
    ]
  )
  return Truth(
    features_GD.astype(np.float32),
    np.repeat(np.arange(4), counts),
    rate_G,
  )


def make_rows(truth: Truth, count: int, seed: int) -> np.ndarray:
  """x_ND float32; features' sizes are 1 on average, noise has norm 0.1."""
  rng = np.random.default_rng([seed, 1])
  d_model = truth.features_GD.shape[1]
  parts = []
  for start in range(0, count, _WRITE_ROWS):
    size = min(_WRITE_ROWS, count - start)
    on_NG = _firing(truth, size, rng)
    value_NG = on_NG * rng.gamma(8.0, 1 / 8.0, size=on_NG.shape)
    noise_ND = rng.normal(scale=0.1 / d_model**0.5, size=(size, d_model))
    x_ND = value_NG.astype(np.float32) @ truth.features_GD
    parts.append(x_ND + noise_ND.astype(np.float32))
  return np.concatenate(parts)


def _firing(truth: Truth, count: int, rng: np.random.Generator) -> np.ndarray:
  kind, rate_G = truth.kind_G, truth.rate_G
  on_NG = rng.random((count, len(rate_G)), np.float32) < rate_G[None, :]
  grouped = np.flatnonzero(kind == 1)
  groups = grouped.reshape(-1, _GROUP)
  group_on = rng.random((count, len(groups))) < rate_G[groups[:, 0]][None, :]
  member_on = rng.random((count, len(grouped))) < 0.5
  on_NG[:, grouped] = np.repeat(group_on, _GROUP, axis=1) & member_on
  parents = np.flatnonzero(kind == 2)
  which = rng.integers(0, _CHILDREN, size=(count, len(parents)))
  has = on_NG[:, parents] & (rng.random((count, len(parents))) < 0.8)
  one = which[:, :, None] == np.arange(_CHILDREN)[None, None, :]
  on_NG[:, kind == 3] = (has[:, :, None] & one).reshape(count, -1)
  return on_NG


def recovery(features_GD: np.ndarray, w_dec_FD: np.ndarray) -> np.ndarray:
  """[2, G]: the largest cosine with a row; the assigned row's, or 0."""
  norm_F1 = np.linalg.norm(w_dec_FD, axis=1, keepdims=True)
  cosine_GF = features_GD @ (w_dec_FD / np.maximum(norm_F1, 1e-12)).T
  assigned_G = np.zeros(len(features_GD))
  rows, columns = optimize.linear_sum_assignment(cosine_GF, maximize=True)
  assigned_G[rows] = cosine_GF[rows, columns]
  return np.stack([cosine_GF.max(axis=1), assigned_G])


def scores(truth: Truth, w_dec_FD: np.ndarray) -> dict[str, float]:
  """`cosine` and `found` over all features, and of each kind."""
  largest_G, assigned_G = recovery(truth.features_GD, w_dec_FD)
  found = {
    "cosine": float(largest_G.mean()),
    "found": float((assigned_G > _FOUND).mean()),
  }
  for i, kind in enumerate(KINDS):
    of_kind = truth.kind_G == i
    found[f"cosine/{kind}"] = float(largest_G[of_kind].mean())
    found[f"found/{kind}"] = float((assigned_G[of_kind] > _FOUND).mean())
  return found


def open_store(options: argparse.Namespace, truth: Truth) -> store.Store:
  if not (pathlib.Path(options.store) / "manifest.json").exists():
    x_ND = make_rows(truth, options.rows, options.truth_seed)
    store.write_arrays(options.store, {HOOK: x_ND}, write_rows=_WRITE_ROWS)
  return store.open_store(options.store)


def score_cells(
  cells: list[quality_cells.Cell], source: store.Store, truth: Truth, options
) -> list[quality_table.Result]:
  """Results of all finished cells, with `recovery`, which is kept too."""
  results = []
  for cell in cells:
    place = quality_cells.place(options.cache, source, cell)
    found = quality_cells.result(place)
    if found is None:
      continue
    recovered = artifacts.read_json(place / "recovery.json")
    if recovered is None:
      w_dec_FD = np.asarray(formats.load_sae(place / "sae").params.w_dec_FD)
      recovered = scores(truth, w_dec_FD)
      artifacts.write_json_atomic(place / "recovery.json", recovered)
    results.append(found | {"recovery": recovered})
  return results


def markdown(entries: list[quality_table.Entry]) -> str:
  """One problem's table of recoveries."""
  lines = [
    "| library | learning rate | seeds | found | ours − it |"
    + "".join(f" {kind} |" for kind in KINDS)
    + " mean largest cosine | FVU | CPU s |",
    "|---|---|" + "---:|" * (6 + len(KINDS)),
  ]
  for entry in entries:
    results = list(entry.by_seed.values())
    against = quality_table.reference(entries, entry)
    by_kind = [
      quality_table.mean(
        [r["recovery"][f"found/{kind}"] for r in results], ".1%"
      )
      for kind in KINDS
    ]
    seconds = statistics.fmean(r["clock"]["processor_s"] for r in results)
    cells = [
      f"{entry.system} {results[0]['version']}",
      entry.recipe,
      str(len(results)),
      quality_table.mean([r["recovery"]["found"] for r in results], ".1%"),
      quality_table.mean(
        quality_table.differences(
          against, entry, lambda r: r["recovery"]["found"]
        ),
        "+.1%",
      ),
      *by_kind,
      quality_table.mean([r["recovery"]["cosine"] for r in results], ".3f"),
      quality_table.mean([quality_table.fvu(r) for r in results], ".4f"),
      f"{seconds:,.0f}",
    ]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--store", required=True, help="store of the rows; made if missing")
  add("--cache", type=pathlib.Path, required=True, help="directory of cells")
  add("--d_model", type=int, default=128, help="a tenth of the features")
  add("--rows", type=int, default=540_672)
  add("--truth_seed", type=int, default=0, help="of features and rows")
  add("--k", nargs="+", type=int, default=[10], help="10 fire in a row")
  add("--activations", nargs="+", default=["topk"], help="topk batch_topk")
  add("--seeds", nargs="+", type=int, default=[0, 1, 2])
  add("--systems", nargs="+", default=list(quality_learners.LEARNERS))
  add("--rates", nargs="+", default=["default"], help="default, or peaks")
  add("--warmup", type=int, default=100, help="steps, with a given rate")
  add("--batch", type=int, default=256)
  add("--steps", type=int, default=2000)
  add("--held_out", type=int, default=16_384, help="rows")
  add("--minutes", type=float, default=1e9, help="start no cell after these")
  add("--in_process", action="store_true", help="no process for each cell")
  add("--table", action="store_true", help="train nothing")
  options = parser.parse_args()
  options.hooks = [HOOK]
  options.latents = [10 * options.d_model]
  return options


def main() -> None:
  options = _parse()
  truth = make_truth(options.d_model, options.truth_seed)
  source = open_store(options, truth)
  cells = quality.grid(options)
  if not options.table:
    quality.train_missing(cells, source, options)
  results = score_cells(cells, source, truth, options)
  print(machine.line())
  print(
    f"{len(truth.features_GD):,} features in {options.d_model} dimensions,"
    f" {source.rows:,} rows; {len(results)} of {len(cells)} cells."
  )
  for problem, entries in quality_table.entries(results).items():
    _, latents, k, activation, batch, steps = problem
    print(
      f"\n### {activation}, F={latents:,}, K={k}: {steps:,} steps of"
      f" {batch:,} rows\n\n{markdown(entries)}"
    )
  print(json.dumps({"cells": len(results)}))


if __name__ == "__main__":
  main()
