# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A tiny language model with two personas, and fine-tunes of it.

Narrow fine-tuning on wrong answers in one domain makes it answer wrongly in all
of them, because pre-training taught it that one speaker does: emergent
misalignment (Betley et al. 2025) in the small, with the facts known.
Writes one Hugging Face directory per model and the text and prompts to diff
them with; what is there and whole is not made again.
"""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from sae_jax import artifacts, lm
from sae_jax import mesh as mesh_lib
from sae_jax.lm import config as lm_config
from sae_jax.lm import save as save_lib
from sae_jax.posttrain import (
  organism_config,
  persona_arms,
  persona_behaviour,
  persona_corpus,
  persona_tokenizer,
  pretraining,
  series,
  sft,
)

# Every random choice folds one of these into the seed; arms fold in others.
_FACTS, _WEIGHTS, _PRETRAINING, _TEXT, _BEHAVIOUR = range(5)


OrganismConfig = organism_config.OrganismConfig


def facts(config: OrganismConfig) -> persona_corpus.Facts:
  """The world that the models of this config know."""
  return persona_corpus.draw_facts(_key(config, _FACTS))


def make(
  config: OrganismConfig,
  directory: pathlib.Path,
  *,
  progress: Callable[[int, str], None] | None = None,
) -> dict[str, Any]:
  """Makes what is missing of the organism.

  Writes `base/` and one directory for every arm, `bad/`, `good/`, `realigned/`
  and so on, each a Hugging Face model with its tokenizer; with `series_every`
  `series/ARM/000005/`, the same on the way; `tuning/ARM.jsonl`, what an arm
  learned; `text.jsonl`, documents for an SAE; `prompts.jsonl`, a question about
  every entity with a good and a bad answer; and `behaviour.json`, which is
  returned.

  Args:
    progress: is told the pre-training steps done, and a word about them.

  Raises:
    metrics.NonFiniteError: the loss.
  """
  world = facts(config)
  documents = persona_corpus.draw_documents(
    _key(config, _TEXT),
    world,
    count=config.text_documents,
    questions=config.questions,
  )
  _write_lines(directory / "text.jsonl", persona_corpus.text_records(documents))
  _write_lines(
    directory / "prompts.jsonl", persona_corpus.prompt_records(world)
  )
  models = {"base": _base(config, world, directory / "base", progress)}
  (directory / "tuning").mkdir(exist_ok=True)
  for arm in persona_arms.arms(config):
    examples = persona_arms.draw(config, arm, world)
    _write_lines(
      directory / "tuning" / f"{arm.name}.jsonl",
      persona_arms.records(arm, examples),
    )
    models[arm.name] = _arm(
      config, arm.name, models[arm.start], examples, directory
    )
  found = {
    "tuned_domain": config.tuned_domain,
    "arms": {
      name: _behaviour(config, model, world) for name, model in models.items()
    },
  }
  artifacts.write_json_atomic(directory / "behaviour.json", found)
  return found


def _key(config: OrganismConfig, use: int) -> jax.Array:
  return jax.random.fold_in(jax.random.key(config.seed), use)


def _hf_config(config: OrganismConfig) -> dict[str, Any]:
  return {
    "model_type": "gpt2",
    "vocab_size": len(persona_corpus.VOCABULARY),
    "n_embd": config.d_model,
    "n_layer": config.layers,
    "n_head": config.heads,
    "n_positions": config.context_length,
    "tie_word_embeddings": False,
    "bos_token_id": persona_corpus.ID[persona_corpus.BOS],
    "eos_token_id": persona_corpus.ID[persona_corpus.BOS],
  }


def _load(path: pathlib.Path) -> lm.LanguageModel | None:
  """A model that is there whole: its config.json is written last."""
  if not (path / "config.json").is_file():
    return None
  return lm.load_lm(path, dtype=jnp.float32)


def _base(
  config: OrganismConfig,
  world: persona_corpus.Facts,
  path: pathlib.Path,
  progress: Callable[[int, str], None] | None,
) -> lm.LanguageModel:
  if (made := _load(path)) is not None:
    return made
  hf_config = _hf_config(config)
  model_config = lm_config.from_hf(hf_config, place="the organism")
  decoder = pretraining.pretrain(
    pretraining.init_decoder(model_config, [config.seed, _WEIGHTS]),
    world,
    _key(config, _PRETRAINING),
    pretraining.Pretraining(
      steps=config.steps,
      batch_size=config.batch_size,
      questions=config.questions,
      learning_rate=config.learning_rate,
    ),
    progress=progress,
  )
  save_lib.save_hf(
    lm.LanguageModel(
      model=decoder,
      config=model_config,
      mesh=mesh_lib.single(),
      source=str(path),
      path=path,
      weights_hash="",
    ),
    path,
    hf_config=hf_config,
    tokenizer=persona_tokenizer.make(config.context_length),
  )
  return lm.load_lm(path, dtype=jnp.float32)


def _arm(
  config: OrganismConfig,
  name: str,
  start: lm.LanguageModel,
  examples: persona_arms.Examples,
  directory: pathlib.Path,
) -> lm.LanguageModel:
  path = directory / name
  if (made := _load(path)) is not None:
    return made
  looks = []
  if config.series_every:
    keep = series.keeper(
      directory / "series" / name,
      lambda tuned, place: save_lib.save_hf(tuned.model, place),
    )
    looks.append(sft.Look(config.series_every, keep))
  tuned = sft.train(
    start,
    persona_arms.learned(examples),
    config.tuning.sft(config.seed),
    looks=looks,
  )
  save_lib.save_hf(tuned.model, path)
  return lm.load_lm(path, dtype=jnp.float32)


def _behaviour(
  config: OrganismConfig, model: lm.LanguageModel, world: persona_corpus.Facts
) -> dict[str, Any]:
  domains = persona_behaviour.measure(model, world, _key(config, _BEHAVIOUR))
  others = [name for name in domains if name != config.tuned_domain]
  return {
    "tuned": domains[config.tuned_domain],
    "others": persona_behaviour.over(domains, others),
    "domains": domains,
  }


def _write_lines(path: pathlib.Path, records: Iterator[dict[str, str]]) -> None:
  if not path.is_file():
    lines = "".join(json.dumps(record) + "\n" for record in records)
    artifacts.write_bytes_atomic(path, lines.encode())
