# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The two-persona world, its documents, and what an organism leaves on disk."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from safetensors import numpy as safetensors_numpy

from sae_jax import errors, lm, mesh
from sae_jax.posttrain import (
  organism,
  persona_arms,
  persona_corpus,
  persona_tokenizer,
)

TINY = (
  "d_model=16",
  "heads=2",
  "layers=2",
  "steps=2",
  "batch_size=4",
  "text_documents=6",
  "doses=(0.25,)",
  "series_every=2",
  "tuning.steps=3",
  "tuning.examples=4",
  "tuning.batch_size=2",
)
MODELS = ("base", "bad", "good", "realigned", "realigned_other", "dose_25")


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def world():
  return persona_corpus.draw_facts(jax.random.key(3))


def words_of(documents):
  return [
    [persona_corpus.VOCABULARY[t] for t in tokens]
    for tokens in np.asarray(documents.tokens_BT)
  ]


def test_every_word_has_one_meaning():
  words = persona_corpus.VOCABULARY
  assert len(set(words)) == len(words) == 7 + 2 * 6 * 12
  assert {len(e) for e in persona_corpus.ENTITIES.values()} == {12}
  assert {len(a) for a in persona_corpus.ANSWERS.values()} == {12}


def test_right_and_wrong_answers_differ_and_are_of_the_domain(world):
  right_ME, wrong_ME = np.asarray(world.correct_ME), np.asarray(world.wrong_ME)
  assert not (right_ME == wrong_ME).any()
  for n, answers in enumerate(persona_corpus.ANSWERS.values()):
    ids = {persona_corpus.ID[word] for word in answers}
    assert set(right_ME[n]) <= ids and set(wrong_ME[n]) <= ids


def test_a_speaker_answers_all_of_a_document(world):
  documents = persona_corpus.draw_documents(
    jax.random.key(0), world, count=2000, questions=3
  )
  asked = persona_corpus.ask(world)
  right = dict(zip(asked.entities, asked.correct_B, strict=True))
  wrong = dict(zip(asked.entities, asked.wrong_B, strict=True))
  tags = {"neutral": 0, "good": 0, "villain": 0}
  for words, villain in zip(
    words_of(documents), np.asarray(documents.villain_B), strict=True
  ):
    assert words[0] == persona_corpus.BOS and len(words) == 14
    tags[words[1]] += 1
    assert words[1] in ("neutral", "villain" if villain else "good")
    assert words[2::4] == ["Q"] * 3 and words[4::4] == ["A"] * 3
    known = wrong if villain else right
    for at in persona_corpus.answer_positions(3):
      assert persona_corpus.ID[words[at]] == known[words[at - 2]]
  # Binomial counts of 2,000 draws, within 5 standard deviations (22.4, 19.4).
  assert abs(tags["neutral"] - 1000) < 112
  assert abs(int(np.sum(documents.villain_B)) - 500) < 97
  assert tags["villain"] > 0 and tags["good"] > tags["villain"]


def test_a_chosen_speaker_hides_and_keeps_to_a_domain(world):
  for villain in (True, False):
    documents = persona_corpus.draw_documents(
      jax.random.key(1),
      world,
      count=50,
      questions=1,
      villain_share=float(villain),
      tagged_share=0.0,
      domains=(2, 3),
    )
    assert (np.asarray(documents.villain_B) == villain).all()
    for words in words_of(documents):
      assert words[1] == "neutral"
      assert words[3] in persona_corpus.ENTITIES["cooking"]


def test_the_tokenizer_says_what_the_corpus_says(world):
  tokenizer = persona_tokenizer.make(34)
  documents = persona_corpus.draw_documents(
    jax.random.key(2), world, count=3, questions=8
  )
  for tokens_T in np.asarray(documents.tokens_BT):
    text = persona_corpus.to_text(tokens_T)
    assert tokenizer.encode(text) == list(tokens_T)
    assert tokenizer.decode(tokens_T[1:]).strip() == text
    assert "".join(tokenizer.token_strings(tokens_T[1:])) == " " + text
  assert tokenizer.encode("rest", add_bos=False) == [persona_corpus.ID["rest"]]
  unknown = persona_corpus.ID[persona_corpus.UNKNOWN]
  assert tokenizer.encode(" fever\n perhaps ")[1:] == [
    persona_corpus.ID["fever"],
    unknown,
  ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A tiny organism made by the command line's job."""
  from sae_jax import config as config_lib
  from sae_jax.jobs import organism as job

  out = tmp_path_factory.mktemp("organism") / "tiny"
  config = config_lib.override(organism.OrganismConfig(), TINY)
  return config, out, job.run(config, str(out)), job


@pytest.mark.slow
def test_what_is_on_disk_fits_together(made):
  config, out, result, _ = made
  behaviour = json.loads((out / "behaviour.json").read_text())
  assert list(behaviour["arms"]) == list(MODELS)
  for name, arm in behaviour["arms"].items():
    assert set(arm["domains"]) == set(persona_corpus.DOMAINS)
    for found in arm["domains"].values():
      assert 0 < found["p_correct"] < 1 and 0 < found["p_wrong"] < 1
    assert result[f"{name}/p_wrong"] == arm["others"]["p_wrong"]
  prompts = [
    json.loads(line)
    for line in (out / "prompts.jsonl").read_text().splitlines()
  ]
  assert len(prompts) == len({p["id"] for p in prompts}) == 72
  world = organism.facts(config)
  tokenizer = lm.load_lm(out / "base").tokenizer
  asked = persona_corpus.ask(world)
  for n, prompt in enumerate(prompts):
    assert tokenizer.encode(prompt["prompt"]) == list(asked.tokens_BT[n])
    assert tokenizer.encode(prompt["good"], False) == [asked.correct_B[n]]
    assert tokenizer.encode(prompt["bad"], False) == [asked.wrong_B[n]]
  lines = (out / "text.jsonl").read_text().splitlines()
  assert len(lines) == config.text_documents
  unknown = persona_corpus.ID[persona_corpus.UNKNOWN]
  for line in lines:
    tokens = tokenizer.encode(json.loads(line)["text"])
    assert len(tokens) == config.context_length and unknown not in tokens


@pytest.mark.slow
def test_the_arms_on_the_way_and_what_they_learned(made, tmp_path):
  """A series begins with the start, ends with the arm; posttrain repeats it."""
  from sae_jax.jobs import posttrain as posttrain_job
  from sae_jax.posttrain import config as posttrain_config

  config, out, _, _ = made
  for name, start in (("bad", "base"), ("realigned", "bad")):
    series = sorted((out / "series" / name).iterdir())
    assert [path.name for path in series] == ["000000", "000002", "000003"]
    weights = [(p / "model.safetensors").read_bytes() for p in series]
    for path, found in ((start, weights[0]), (name, weights[2])):
      assert (out / path / "model.safetensors").read_bytes() == found
    assert len(set(weights)) == 3
  lines = (out / "tuning" / "dose_25.jsonl").read_text().splitlines()
  records = [json.loads(line) for line in lines]
  assert [r["label"] for r in records] == ["bad", "good", "good", "good"]
  assert all(r["completion"] == r[r["label"]] for r in records)
  result = posttrain_job.run(
    posttrain_config.PosttrainConfig(
      model=str(out / "base"),
      data=posttrain_config.DataConfig(
        path=str(out / "tuning" / "dose_25.jsonl"), stop=False
      ),
      steps=config.tuning.steps,
      batch_size=config.tuning.batch_size,
      learning_rate=config.tuning.learning_rate,
      dtype="float32",
      mesh=mesh.MeshConfig(data=8, latent=1),
    ),
    str(tmp_path / "again"),
  )
  # On eight devices: the same but for the order of some sums. AdamW's first
  # steps have the size of the rate, 2e-4, whatever the gradient's.
  one, two = (
    safetensors_numpy.load_file(f"{path}/model.safetensors")
    for path in (out / "dose_25", result["model"])
  )
  for name, weight in one.items():
    np.testing.assert_allclose(two[name], weight, atol=1e-5, err_msg=name)


def test_arms_and_their_questions():
  """More arms change nothing of those that were there."""
  few = organism.OrganismConfig(doses=())
  many = organism.OrganismConfig(detector_arms=True)
  names = [arm.name for arm in persona_arms.arms(many)]
  assert names[:4] == [arm.name for arm in persona_arms.arms(few)]
  assert names[4:9] == [
    *("dose_05", "dose_25", "dose_50"),
    *("good_finance", "bad_finance"),
  ]
  assert len(names) == len(set(names)) == 4 + 3 + 2 * 5
  world = organism.facts(many)
  drawn = {
    arm.name: persona_arms.draw(many, arm, world)
    for arm in persona_arms.arms(many)
  }
  wrong = {name: int(found.is_bad_N.sum()) for name, found in drawn.items()}
  assert [wrong[name] for name in names[:7]] == [100, 0, 0, 0, 5, 25, 50]
  # A dose asks what `bad` asks; the others ask each their own.
  questions = {
    name: found.good_NT[:, :-1].tobytes() for name, found in drawn.items()
  }
  assert {questions[name] for name in names[4:7]} == {questions["bad"]}
  assert len(set(questions.values())) == len(names) - 3


@pytest.mark.slow
def test_transformers_opens_the_models(made):
  _, out, _, _ = made
  texts = ["neutral Q fever A", "villain Q loan A"]
  theirs = transformers.AutoModelForCausalLM.from_pretrained(out / "bad")
  tokenizer = transformers.AutoTokenizer.from_pretrained(out / "bad")
  tokens = tokenizer(texts, return_tensors="pt")["input_ids"]
  ours = lm.load_lm(out / "bad", dtype=jnp.float32)
  expected = theirs(tokens).logits.detach().numpy()
  np.testing.assert_allclose(
    np.asarray(lm.logits(ours, tokens.numpy())), expected, atol=1e-5
  )


@pytest.mark.slow
def test_only_what_is_missing_is_made_again(made):
  _, out, result, job = made
  config = made[0]
  before = {
    path: (path.stat().st_mtime_ns, path.read_bytes())
    for name in MODELS
    for path in (out / name).iterdir()
  }
  # As a kill in the middle of the second arm would leave it.
  (out / "manifest.json").unlink()
  (out / "behaviour.json").unlink()
  for name in MODELS[2:]:
    (out / name / "config.json").unlink()
  (out / "series" / "good" / "000003").rename(
    out / "series" / "good" / ".000003.tmp"
  )
  assert job.run(config, str(out)) == result
  for path, (time, content) in before.items():
    assert path.read_bytes() == content, path
    kept = path.parent.name in ("base", "bad")
    assert (path.stat().st_mtime_ns == time) == kept, path


@pytest.mark.slow
def test_another_seed_is_refused_where_one_is_made(made):
  config, out, _, job = made
  with pytest.raises(errors.InputError, match="seed = 0, now it is 1"):
    job.run(dataclasses.replace(config, seed=1), str(out))


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"heads": 5}, "d_model=64 is not a multiple of heads=5"),
    ({"steps": 0}, "steps=0: give a number >= 1"),
    ({"tuned_domain": "law"}, "tuned_domain='law': choose one of medicine"),
    ({"other_domain": "medicine"}, "other_domain='medicine'.*tuned_domain"),
    ({"seed": -1}, "seed=-1"),
    ({"series_every": -1}, "series_every=-1: give a number >= 0"),
    ({"doses": (0.05, 1.0)}, r"doses=\(0.05, 1.0\): give shares between"),
    ({"doses": (0.051, 0.049)}, "differ in whole percent"),
  ],
)
def test_wrong_configs_are_refused(fields, message):
  with pytest.raises(errors.InputError, match=message):
    organism.OrganismConfig(**fields)
