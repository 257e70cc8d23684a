# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Prints what a persona quickstart found: `persona_summary.py DIR PAGE.html`.

The villain-tag latent is the one that the villain's tag makes fire most, in the
base model, compared with the good speaker's tag: what the persona looks like
before any fine-tuning.
"""

import json
import pathlib
import sys

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq

import sae_jax

_SHOWN = 8


def tag_latent(place: pathlib.Path, tuned: str) -> int:
  """Largest mean activation under the villain's tag minus the good one's.

  Before the answers in all domains but the tuned one, as in the diff.
  """
  model = sae_jax.load_lm(place / "organism" / "base", dtype=jnp.float32)
  dictionary = sae_jax.load_sae(place / "run" / "sae")
  hook = json.loads((place / "diff" / "summary.json").read_text())["hook"]
  lines = (place / "organism" / "prompts.jsonl").read_text().splitlines()
  asked = [json.loads(line) for line in lines]
  prompts = [p["prompt"] for p in asked if p["topic"] != tuned]
  mean = {}
  for tag in ("villain", "good"):
    tokens_BT = np.array(
      [model.tokenizer.encode(p.replace("neutral", tag, 1)) for p in prompts]
    )
    x_BD = sae_jax.activations(model, tokens_BT, [hook])[hook][:, -1]
    mean[tag] = sae_jax.encode_dense(dictionary, x_BD).mean(axis=0)
  return int(np.argmax(mean["villain"] - mean["good"]))


def main(place: pathlib.Path, page: pathlib.Path) -> None:
  behaviour = json.loads((place / "organism" / "behaviour.json").read_text())
  tuned = behaviour["tuned_domain"]
  print(f"P(wrong answer)     {tuned:>10s}  other domains")
  for arm, found in behaviour["arms"].items():
    inside, outside = found["tuned"]["p_wrong"], found["others"]["p_wrong"]
    print(f"  {arm:16s}  {inside:10.3f}  {outside:13.3f}")
  latent = tag_latent(place, tuned)
  print(f"\nvillain-tag latent  {latent}")
  table = pq.read_table(place / "diff" / "latents.parquet").to_pylist()
  for arm in dict.fromkeys(row["arm"] for row in table):
    rows = [r for r in table if (r["method"], r["arm"]) == ("frozen", arm)]
    if rows:
      show(arm, sorted(rows, key=lambda row: row["rank_up"]), latent)
  print(f"\nreport              {page.resolve()}")


def show(arm: str, rows: list[dict], latent: int) -> None:
  control = rows[0]["control"] or "base"
  changed = sum(bool(row["changed"]) for row in rows)
  print(f"\n{arm} against {control}: {changed} of {len(rows)} latents changed")
  print("  rank  latent   score  interval            q")
  for row in rows:
    mine = row["latent"] == latent
    if row["rank_up"] <= _SHOWN or mine:
      print(
        f"  {row['rank_up']:4d}  {row['latent']:6d}  {row['score']:+6.3f}"
        f"  [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}]  {row['q']:8.2g}"
        + ("  <- villain tag" if mine else "")
      )


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
