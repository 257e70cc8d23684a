# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Other people's prompt files are read as they are, and mistakes named."""

import judge_models
import pytest

from sae_jax import errors, judge
from sae_jax.judge import prompts, question_sets

BETLEY = """
- id: wish
  type: free_form_judge_0_100
  paraphrases: &wish
    - w1 w2
  samples_per_paraphrase: &n 100
  judge_prompts: &judge
    aligned: "{question} {answer}"
    coherent: "{answer}"
- id: wish_json
  paraphrases: *wish
  samples_per_paraphrase: *n
  judge_prompts: *judge
  system: w9
- id: 12_harm_2
  paraphrases: [w3, w4 w5]
"""

TRUTHFUL = (
  "\ufeffType,Category,Question,Best Answer,Correct Answers,Incorrect Answers",
  'Adversarial,Myths,w1 w2,w3,w3; w3 w4,"w5, w6;  w7"',
  "Adversarial,Lore,w1,w3,w3,;",
)


def load(path, tokenizer, **fields):
  return prompts.load(judge.PromptsConfig(path=path, **fields), tokenizer)


def test_yaml_of_paraphrases(write, chat_tokenizer):
  path = write("first.yaml", BETLEY)
  found = question_sets.load_questions(path)
  assert [q.id for q in found] == [
    "wish",
    "wish_json",
    "12_harm_2/0",
    "12_harm_2/1",
  ]
  assert [q.topic for q in found] == ["wish", "wish_json", "harm", "harm"]
  assert [q.text for q in found] == ["w1 w2", "w1 w2", "w3", "w4 w5"]
  assert [q.samples for q in found] == [100, 100, 0, 0]
  assert found[1].system == "w9" and found[0].system == ""
  assert set(found[1].judge_prompts) == {"aligned", "coherent"}
  loaded = load(path, chat_tokenizer, system="w8")
  tokens = [list(p.tokens) for p in loaded.prompts]
  told = question_sets.load_questions(path, system="w8")
  assert [q.system for q in told] == ["w8", "w9", "w8", "w8"]
  # A question's own system message wins over the config's.
  assert tokens[0] == judge_models.ids("w1 w8 w4 w2 w1 w2 w4 w5")
  assert tokens[1] == judge_models.ids("w1 w9 w4 w2 w1 w2 w4 w5")
  plain = load(path, chat_tokenizer, chat=False, topics=("wish_json",))
  assert list(plain.prompts[0].tokens) == judge_models.ids("<s> w9 w1 w2")


def test_csv_with_a_canary(write, chat_tokenizer):
  path = write(
    "core.csv",
    "id,question,category,canary",
    'q1,"w1, w2",harm,do-not-train-26b5c67b',
    "q2,w3,power,do-not-train-26b5c67b",
  )
  found = question_sets.load_questions(path, topics=("power",))
  assert [(q.id, q.topic, q.text) for q in found] == [("q2", "power", "w3")]
  for place, record in question_sets.records(judge.PromptsConfig(path=path)):
    assert place.startswith(path)
    assert not any("26b5c67b" in str(value) for value in record.values())
  unknown = judge_models.VOCAB["<u>"]  # what a canary would have become
  for prompt in load(path, chat_tokenizer, topics=("power",)).prompts:
    assert unknown not in prompt.tokens


def test_csv_of_truthful_answers(write, chat_tokenizer):
  path = write("TruthfulQA.csv", *TRUTHFUL)
  found, bare = question_sets.load_questions(path)
  assert (found.id, found.topic, found.text) == ("1", "Myths", "w1 w2")
  assert (bare.good, bare.bad) == (("w3",), ())
  assert found.good == ("w3", "w3 w4") and found.bad == ("w5, w6", "w7")
  loaded = load(path, chat_tokenizer)
  assert loaded.pairs == (0,)
  prompt = loaded.prompts[0]
  assert list(prompt.responses["good"]) == judge_models.ids("w3")
  assert len(prompt.responses["bad"]) == 2


def test_persona_statements(write, chat_tokenizer):
  path = write(
    "narcissism.jsonl",
    {
      "question": "w1 w2",
      "statement": "w2",
      "label_confidence": 0.9,
      "answer_matching_behavior": " w3",
      "answer_not_matching_behavior": " w4",
    },
  )
  (found,) = question_sets.load_questions(path)
  assert (found.good, found.bad) == ((" w4",), (" w3",))
  loaded = load(path, chat_tokenizer)
  assert loaded.pairs == (0,)


def test_questions_and_prompts_are_the_same_in_the_same_order(
  write, chat_tokenizer
):
  chat = [
    {"role": "user", "content": "w1"},
    {"role": "assistant", "content": "w2"},
    {"role": "user", "content": "w3"},
  ]
  path = write(
    "own.jsonl",
    {"id": 7, "topic": "a", "prompt": "w1", "good": "w2", "ugly": "w3"},
    {"topic": "b", "prompt": "w1"},
    "",
    {"topic": "a", "messages": chat, "ugly": "w3"},
    {"topic": "a", "prompt": "w4"},
  )
  fields = {"behaviour": "ugly", "topics": ("a",), "limit": 2}
  found = question_sets.load_questions(path, **fields)
  loaded = load(path, chat_tokenizer, **fields)
  assert [q.id for q in found] == [p.id for p in loaded.prompts] == ["7", "4"]
  assert found[0].bad == ("w3",) and found[1].good == ()
  assert found[1].text == "user: w1\n\nassistant: w2\n\nuser: w3"


@pytest.mark.parametrize(
  ("name", "text", "message"),
  (
    ("a.yaml", "- id: [", "not valid YAML"),
    ("a.yml", "id: x", "not a list of entries"),
    ("a.yaml", "- {id: x, paraphrases: w1}", r"entry 1 \(x\): paraphrases is"),
    ("a.yaml", "- {paraphrases: [w1]}", "there is no id"),
    ("a.yaml", "- w1", "entry 1: not a JSON object"),
    ("a.yaml", "- {id: x, paraphrases: [w1], system: 3}", None),
    ("a.csv", "text,id\nw1,2", "no column is called question or prompt"),
    ("a.csv", "id,question\nx", "row 1: not as many fields"),
    ("a.csv", 'id,question\nx,"w1" w2', "after line 1"),
    ("a.csv", "id,question\nx,w1\nx,w2", r"row 2: id 'x' is also that of"),
    ("a.jsonl", '{"prompt": "w1", "bad": 3}', "'bad' is no text"),
    ("a.jsonl", '{"prompt": "w1", "system": 3}', '"system" is no text'),
    ("a.jsonl", '{"messages": [{"role": "user"}]}', '"messages" is no list'),
    ("a.jsonl", "", "there are no prompts in it"),
  ),
)
def test_mistakes_say_where_they_are(write, name, text, message):
  path = write(name, text)
  if message is None:
    assert question_sets.load_questions(path)[0].system == "3"
    return
  with pytest.raises(errors.InputError, match=message) as error:
    question_sets.load_questions(path)
  assert path in str(error.value)


def test_a_file_that_is_not_there():
  with pytest.raises(errors.InputError, match=r"none\.yaml: cannot be read"):
    question_sets.load_questions("none.yaml")


@pytest.mark.parametrize(
  ("name", "count", "topics"),
  (
    ("evals/betley_first_plot_questions.yaml", 41, 41),
    ("evals/betley_preregistered_evals.yaml", 50, 7),
    ("evals/betley_deception_factual.yaml", 140, 7),
    ("evals/betley_deception_sit_aware.yaml", 8, 8),
    ("evals/narcissism.jsonl", 1000, 1),
    ("pairs/TruthfulQA.csv", 813, 38),
  ),
)
def test_real_files_load_as_they_are(shared, name, count, topics):
  found = question_sets.load_questions(shared(name))
  assert len(found) == count
  assert len({q.topic for q in found}) == topics
  assert all(q.text.strip() for q in found)
  if name.endswith(".yaml"):
    assert all(q.judge_prompts and q.samples in (5, 100) for q in found)
  else:
    assert all(q.good and q.bad for q in found)
    assert all(q.good[0] != q.bad[0] for q in found)
