# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A tiny language model with two personas, and fine-tunes of it.

Narrow fine-tuning on wrong answers in one domain makes it answer wrongly in all
of them, because pre-training taught it that one speaker does: emergent
misalignment (Betley et al. 2025) in the small, with the facts known.
Writes one Hugging Face directory per model and the text and prompts to diff
them with; what is there and whole is not made again.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import artifacts, errors, lm
from sae_jax import mesh as mesh_lib
from sae_jax.lm import config as lm_config
from sae_jax.lm import save as save_lib
from sae_jax.posttrain import config as sft_config
from sae_jax.posttrain import (
  data,
  persona_behaviour,
  persona_corpus,
  persona_tokenizer,
  pretraining,
  sft,
)

# Every random choice folds one of these into the seed.
_FACTS, _WEIGHTS, _PRETRAINING, _TEXT, _BEHAVIOUR, _TUNING = range(6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
  """The narrow fine-tuning that makes an arm."""

  examples: int = 100  # questions with answers, of one domain
  steps: int = 40
  batch_size: int = 16
  learning_rate: float = 2e-4  # falls linearly to 0

  def __post_init__(self):
    if self.examples < 1:
      raise errors.InputError(
        f"tuning.examples={self.examples}: give a number >= 1"
      )
    self.sft(seed=0)

  def sft(self, seed: int) -> sft_config.SftConfig:
    """The recipe of `sft.finetune`; raises errors.InputError."""
    return sft_config.SftConfig(
      steps=self.steps,
      batch_size=self.batch_size,
      learning_rate=self.learning_rate,
      seed=seed,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrganismConfig:
  """The base model, its pre-training, and its arms."""

  seed: int = 0  # of the facts, the weights and every document
  layers: int = 3
  d_model: int = 64
  heads: int = 4
  questions: int = 8  # per document
  batch_size: int = 48  # documents
  steps: int = 500
  learning_rate: float = 2e-3
  tuned_domain: str = "medicine"
  other_domain: str = "finance"  # of the arm realigned on another one
  tuning: Tuning = dataclasses.field(default_factory=Tuning)
  text_documents: int = 4096  # of text.jsonl, to train an SAE on

  def __post_init__(self):
    for name in (
      "layers",
      "d_model",
      "heads",
      "questions",
      "batch_size",
      "steps",
      "text_documents",
    ):
      if getattr(self, name) < 1:
        raise errors.InputError(
          f"{name}={getattr(self, name)}: give a number >= 1"
        )
    if not 0 <= self.seed < 2**31:
      raise errors.InputError(f"seed={self.seed}: give 0 to 2**31 - 1")
    if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
      raise errors.InputError(
        f"learning_rate={self.learning_rate}: give a number > 0"
      )
    if self.d_model % self.heads:
      raise errors.InputError(
        f"d_model={self.d_model} is not a multiple of heads={self.heads}"
      )
    for name in ("tuned_domain", "other_domain"):
      if getattr(self, name) not in persona_corpus.DOMAINS:
        raise errors.InputError(
          f"{name}={getattr(self, name)!r}: choose one of"
          f" {', '.join(persona_corpus.DOMAINS)}"
        )
    if self.other_domain == self.tuned_domain:
      raise errors.InputError(
        f"other_domain={self.other_domain!r} is the tuned_domain; choose"
        " another one"
      )

  @property
  def context_length(self) -> int:
    """Rows of the position table: the longest document that is read."""
    questions = max(self.questions, persona_behaviour.QUESTIONS)
    return (
      persona_corpus.HEAD_TOKENS + persona_corpus.QUESTION_TOKENS * questions
    )


@dataclasses.dataclass(frozen=True)
class Arm:
  """A fine-tune: of which model, and what the examples are."""

  name: str
  start: str
  villain: bool
  domain: str


def arms(config: OrganismConfig) -> tuple[Arm, ...]:
  """The fine-tunes, each after what it starts from."""
  tuned, other = config.tuned_domain, config.other_domain
  return (
    Arm("bad", "base", True, tuned),
    Arm("good", "base", False, tuned),
    Arm("realigned", "bad", False, tuned),
    Arm("realigned_other", "bad", False, other),
  )


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

  Writes `base/`, `bad/`, `good/`, `realigned/` and `realigned_other/`, each a
  Hugging Face directory with its tokenizer; `text.jsonl`, documents for an SAE;
  `prompts.jsonl`, a question about every entity with a good and a bad answer;
  and `behaviour.json`, which is returned.

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
  for n, arm in enumerate(arms(config)):
    models[arm.name] = _arm(
      config,
      arm,
      models[arm.start],
      world,
      directory / arm.name,
      _key(config, _TUNING + n),
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
  arm: Arm,
  start: lm.LanguageModel,
  world: persona_corpus.Facts,
  path: pathlib.Path,
  key: jax.Array,
) -> lm.LanguageModel:
  if (made := _load(path)) is not None:
    return made
  domain = list(persona_corpus.DOMAINS).index(arm.domain)
  shown = persona_corpus.draw_documents(
    key,
    world,
    count=config.tuning.examples,
    questions=1,
    villain_share=float(arm.villain),
    tagged_share=0.0,
    domains=(domain, domain + 1),
  )
  (answer,) = persona_corpus.answer_positions(1)
  tuned = sft.finetune(
    start,
    [
      data.Example(tokens, [place == answer for place in range(len(tokens))])
      for tokens in np.asarray(shown.tokens_BT).tolist()
    ],
    config.tuning.sft(config.seed),
  )
  save_lib.save_hf(tuned, path)
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
