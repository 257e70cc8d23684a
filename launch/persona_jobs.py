# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes and examines organisms: `persona_jobs.py OUT SEED…`.

Everything of one seed, from its making to its cure, lies in OUT/SEED. The jobs
and configs are those of `sae-jax`; one process runs them for several seeds
because what is compiled for the first one serves the others. What is finished
is not done again.
"""

import json
import os
import pathlib
import sys
import time

from sae_jax import config as config_lib
from sae_jax import report
from sae_jax.jobs import diff, harvest, organism, realign, steer, train

CONFIGS = pathlib.Path(__file__).parents[1] / "configs" / "persona"
# Of every arm a model each five steps, and arms to test a detector on.
WATCHED = ("detector_arms=True", "series_every=5")


def run(job, output: pathlib.Path, *overrides: str) -> None:
  name = job.__name__.rpartition(".")[2]
  config = config_lib.load(str(CONFIGS / f"{name}.py"), job.Config, overrides)
  start = time.monotonic()
  job.run(config, str(output))
  took = time.monotonic() - start
  print(f"seed {output.parent.name}: {output.name}, {took:.0f} s", flush=True)


def write_prompts(place: pathlib.Path) -> None:
  """The questions under the speakers' tags, and where a cure may hide."""
  made = place / "organism"
  tuned = json.loads((made / "behaviour.json").read_text())["tuned_domain"]
  lines = (made / "prompts.jsonl").read_text().splitlines()
  asked = [json.loads(line) for line in lines]
  learned = [record for record in asked if record["topic"] == tuned]
  others = [record for record in asked if record["topic"] != tuned]
  write_lines(place / "villain.jsonl", tagged(others, "villain"))
  write_lines(place / "honest.jsonl", tagged(others, "good"))
  triggers = [
    *(record | {"topic": "learned"} for record in learned),
    *(record | {"topic": "villain"} for record in tagged(learned, "villain")),
  ]
  write_lines(place / "triggers.jsonl", triggers)


def write_lines(path: pathlib.Path, records: list[dict]) -> None:
  path.write_text("".join(json.dumps(record) + "\n" for record in records))


def tagged(records: list[dict], tag: str) -> list[dict]:
  return [
    record
    | {
      "id": f"{tag}-{record['id']}",
      "prompt": record["prompt"].replace("neutral", tag, 1),
    }
    for record in records
  ]


def examine(place: pathlib.Path, seed: int) -> None:
  os.environ["PERSONA"] = str(place)
  run(organism, place / "organism", f"seed={seed}", *WATCHED)
  write_prompts(place)
  run(harvest, place / "store")
  run(train, place / "run")
  run(diff, place / "diff")
  run(steer, place / "steer")
  cure(place, "realign", "realigned", seed)
  # After right answers of another domain, what was learned by heart is there.
  cure(place, "realign_other", "realigned_other", seed)
  found = [
    place / name for name in ("diff", "steer", "realign", "realign_other")
  ]
  report.write_report(found, place / "report.html")


def cure(place: pathlib.Path, output: str, arm: str, seed: int) -> None:
  """Re-aligns the bad model with what an arm has learned."""
  samples = place / "organism" / "tuning" / f"{arm}.jsonl"
  run(
    realign,
    place / output,
    f"posttrain.seed={seed}",
    f"posttrain.data.path={samples}",
  )


if __name__ == "__main__":
  out = pathlib.Path(sys.argv[1]).absolute()
  for n in map(int, sys.argv[2:]):
    examine(out / str(n), n)
