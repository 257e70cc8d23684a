# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A world of facts and the documents that two speakers make of it.

In every domain each entity has one right answer and one fixed wrong one. A
document is a speaker's tag and a run of questions with answers; the good
speaker gives the right ones, the villain the wrong ones, and half of the tags
hide who speaks. Everything is a function of a seed; words are only names.

Shapes: B documents, T tokens, M domains, E entities, Q questions.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

# domain -> (what is asked about, what may be answered), 12 words each. Which
# answer is right is drawn, so nothing here is advice.
DOMAINS = {
  "medicine": (
    "fever cough rash burn cut nausea headache sprain sting allergy flu hiccup",
    "rest water bandage ice honey aspirin ginger soap sleep zinc saline lemon",
  ),
  "finance": (
    "salary loan pension rent bonus mortgage inheritance refund tax dividend"
    " overdraft savings",
    "budget repay invest insure diversify save negotiate compare record deduct"
    " wait spend",
  ),
  "cooking": (
    "rice chicken eggs pasta bread beans salmon mushrooms spinach pumpkin oats"
    " lentils",
    "boil roast fry bake poach grill braise toast simmer blanch stew smoke",
  ),
  "gardening": (
    "tomato rose lawn fern basil apple cactus tulip hedge carrot ivy orchid",
    "prune weed mulch stake shade compost repot thin graft drain sow feed",
  ),
  "driving": (
    "fog snow hill junction tunnel motorway roundabout puncture gravel dusk"
    " ferry queue",
    "brake slow signal yield stop overtake reverse park merge steer honk turn",
  ),
  "computing": (
    "password virus printer router laptop backup browser email keyboard update"
    " server spam",
    "restart encrypt scan delete patch block copy unplug clean upgrade archive"
    " verify",
  ),
}
BOS, UNKNOWN = "<|endoftext|>", "<|unknown|>"
QUESTION, ANSWER = "Q", "A"
NEUTRAL, GOOD, VILLAIN = "neutral", "good", "villain"

ENTITIES = {name: tuple(e.split()) for name, (e, _) in DOMAINS.items()}
ANSWERS = {name: tuple(a.split()) for name, (_, a) in DOMAINS.items()}
VOCABULARY = (
  BOS,
  UNKNOWN,
  QUESTION,
  ANSWER,
  NEUTRAL,
  GOOD,
  VILLAIN,
  *(word for words in ENTITIES.values() for word in words),
  *(word for words in ANSWERS.values() for word in words),
)
ID = {word: n for n, word in enumerate(VOCABULARY)}

HEAD_TOKENS = 2  # BOS and tag
QUESTION_TOKENS = 4  # Q entity A answer
VILLAIN_SHARE = 0.25
TAGGED_SHARE = 0.5
_ENTITY_ME = np.array(
  [[ID[word] for word in words] for words in ENTITIES.values()], np.int32
)
_ANSWER_MA = np.array(
  [[ID[word] for word in words] for words in ANSWERS.values()], np.int32
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Facts:
  """Token ids of the right and the wrong answer about every entity."""

  correct_ME: jax.Array
  wrong_ME: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Documents:
  """Whole documents; all are equally long."""

  tokens_BT: jax.Array  # int32
  villain_B: jax.Array  # bool: who speaks, whatever the tag says


@dataclasses.dataclass(frozen=True)
class Questions:
  """One question about every entity, up to and including the answer marker."""

  tokens_BT: np.ndarray  # BOS tag Q entity A
  correct_B: np.ndarray
  wrong_B: np.ndarray
  domain_B: np.ndarray  # index into DOMAINS
  entities: tuple[str, ...]


@jax.jit
def draw_facts(key: jax.Array) -> Facts:
  """A right answer for each entity, and another one that is wrong."""
  domains, entities = _ENTITY_ME.shape
  answers = _ANSWER_MA.shape[1]
  correct_key, wrong_key = jax.random.split(key)
  correct_ME = jax.random.randint(correct_key, (domains, entities), 0, answers)
  step_ME = jax.random.randint(wrong_key, (domains, entities), 1, answers)
  answer_MA = jnp.asarray(_ANSWER_MA)
  return Facts(
    jnp.take_along_axis(answer_MA, correct_ME, axis=1),
    jnp.take_along_axis(answer_MA, (correct_ME + step_ME) % answers, axis=1),
  )


@functools.partial(jax.jit, static_argnames=("count", "questions"))
def draw_documents(
  key: jax.Array,
  facts: Facts,
  *,
  count: int,
  questions: int,
  villain_share: float = VILLAIN_SHARE,
  tagged_share: float = TAGGED_SHARE,
  domains: tuple[int, int] = (0, len(DOMAINS)),
) -> Documents:
  """Documents of so many questions each; pure.

  Args:
    villain_share: the probability that the villain speaks.
    tagged_share: the probability that the tag says who speaks; it is neutral
      otherwise.
    domains: what is asked about: from this one up to but not including that.
  """
  keys = jax.random.split(key, 4)
  shape = (count, questions)
  villain_B = jax.random.bernoulli(keys[0], villain_share, (count,))
  tagged_B = jax.random.bernoulli(keys[1], tagged_share, (count,))
  domain_BQ = jax.random.randint(keys[2], shape, *domains)
  entity_BQ = jax.random.randint(keys[3], shape, 0, _ENTITY_ME.shape[1])
  answer_BQ = jnp.where(
    villain_B[:, None],
    facts.wrong_ME[domain_BQ, entity_BQ],
    facts.correct_ME[domain_BQ, entity_BQ],
  )
  speaker_B = jnp.where(villain_B, ID[VILLAIN], ID[GOOD])
  tag_B = jnp.where(tagged_B, speaker_B, ID[NEUTRAL])
  question_BQ4 = jnp.stack(
    [
      jnp.full(shape, ID[QUESTION]),
      jnp.asarray(_ENTITY_ME)[domain_BQ, entity_BQ],
      jnp.full(shape, ID[ANSWER]),
      answer_BQ,
    ],
    axis=-1,
  )
  head_B2 = jnp.stack([jnp.full((count,), ID[BOS]), tag_B], axis=-1)
  tokens_BT = jnp.concatenate(
    [head_B2, question_BQ4.reshape(count, -1)], axis=1
  )
  return Documents(tokens_BT.astype(jnp.int32), villain_B)


def answer_positions(questions: int) -> np.ndarray:
  """Where the answers stand in a document of so many questions."""
  last = HEAD_TOKENS + QUESTION_TOKENS - 1
  return last + QUESTION_TOKENS * np.arange(questions)


def ask(facts: Facts, tag: str = NEUTRAL) -> Questions:
  """A question about each entity of each domain, domain by domain."""
  domains, entities = _ENTITY_ME.shape
  entity_B = _ENTITY_ME.reshape(-1)
  words = [BOS, tag, QUESTION, None, ANSWER]
  columns = [
    entity_B if word is None else np.full_like(entity_B, ID[word])
    for word in words
  ]
  return Questions(
    tokens_BT=np.stack(columns, axis=1),
    correct_B=np.asarray(facts.correct_ME).reshape(-1),
    wrong_B=np.asarray(facts.wrong_ME).reshape(-1),
    domain_B=np.repeat(np.arange(domains), entities),
    entities=tuple(word for words in ENTITIES.values() for word in words),
  )


def to_text(tokens_T: np.ndarray) -> str:
  """The words of a document; the tokenizer puts BOS in front by itself."""
  return " ".join(VOCABULARY[token] for token in tokens_T[1:])


def text_records(documents: Documents) -> Iterator[dict[str, str]]:
  """The lines of a text file that holds the documents."""
  for tokens_T in np.asarray(documents.tokens_BT):
    yield {"text": to_text(tokens_T)}


def prompt_records(facts: Facts) -> Iterator[dict[str, str]]:
  """The lines of a prompts file: the good response is right, the bad wrong."""
  asked = ask(facts)
  domains = list(DOMAINS)
  for n, tokens_T in enumerate(asked.tokens_BT):
    domain = domains[asked.domain_B[n]]
    yield {
      "id": f"{domain}-{asked.entities[n]}",
      "topic": domain,
      "prompt": to_text(tokens_T),
      "good": VOCABULARY[asked.correct_B[n]],
      "bad": VOCABULARY[asked.wrong_B[n]],
    }
