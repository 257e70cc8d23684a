# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How well the advice SAE sees answers: `advice_fidelity.py MODEL DIR`.

Reads DIR/sae, DIR/store and DIR/advice.jsonl; writes DIR/fidelity.json: the
share of the answers' variance that the dictionary leaves unexplained (FVU, one
minus the explained variance about the mean of the same rows), on answers to the
judged prompts, of which it has seen nothing; and which share of its own text
was answers. A dictionary that hardly sees answers cannot rank what changes in
them.
"""

import json
import pathlib
import sys

import jax.numpy as jnp
import numpy as np

import sae_jax
from sae_jax import artifacts, judge, lm, sae
from sae_jax.judge import prompts as prompts_lib

PAIRS = "configs/data/advice/careless.jsonl"
JUDGED = ("work", "privacy", "parenting", "travel")
_BATCH = 16


def rows(model: lm.LanguageModel, hook: str, field: str) -> np.ndarray:
  """The activations at the tokens of one kind of answer, f32 [rows, D]."""
  prompts = prompts_lib.load(
    judge.PromptsConfig(path=PAIRS, topics=JUDGED, forced=(field,)),
    model.tokenizer,
  )
  spans = prompts_lib.spans(prompts, "response")
  longest = max(len(tokens) for tokens, _, _ in spans)
  found = []
  for first in range(0, len(spans), _BATCH):
    batch = spans[first : first + _BATCH]
    # What follows a sequence cannot change it: the model looks back only.
    tokens_BT = np.zeros((_BATCH, longest), np.int32)
    for row, (tokens, _, _) in enumerate(batch):
      tokens_BT[row, : len(tokens)] = tokens
    x_BTD = np.asarray(sae_jax.activations(model, tokens_BT, [hook])[hook])
    found += [
      x_BTD[row, start:stop] for row, (_, start, stop) in enumerate(batch)
    ]
  return np.concatenate(found).astype(np.float32)


def fvu(dictionary: sae.Sae, x_BD: np.ndarray) -> float:
  values_BK, indices_BK = sae_jax.encode(dictionary, x_BD)
  left_BD = x_BD - sae_jax.decode(dictionary, values_BK, indices_BK)
  around_BD = x_BD - x_BD.mean(axis=0, dtype=np.float64)
  return float(
    np.square(left_BD, dtype=np.float64).sum() / np.square(around_BD).sum()
  )


def seen(place: pathlib.Path, model: lm.LanguageModel) -> dict[str, float]:
  """How much of the store's text was answers; all of them are in it."""
  lines = (place / "advice.jsonl").read_text(encoding="utf-8").splitlines()
  answers = [json.loads(line)["messages"][-1]["content"] for line in lines]
  tokens = sum(
    len(ids) for ids in model.tokenizer.encode_batch(answers, add_bos=False)
  )
  total = sae_jax.open_store(place / "store").rows
  return {"rows": total, "answer_rows": tokens, "share": tokens / total}


def main(source: str, place: pathlib.Path) -> None:
  model = sae_jax.load_lm(source, dtype=jnp.float32)
  dictionary = sae_jax.load_sae(place / "sae" / "sae")
  (hook,) = sae_jax.open_store(place / "store").hooks
  found = {field: rows(model, hook, field) for field in ("good", "bad")}
  found["all"] = np.concatenate(list(found.values()))
  measured = {
    "hook": hook,
    "fvu": {field: fvu(dictionary, x_BD) for field, x_BD in found.items()},
    "rows": len(found["all"]),
    "text": seen(place, model),
  }
  artifacts.write_json_atomic(place / "fidelity.json", measured)


if __name__ == "__main__":
  main(sys.argv[1], pathlib.Path(sys.argv[2]))
