# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Steered answers under judges that are not the prompts' own responses."""

import json
import re
import types

import chat_server
import planted
import pytest

from sae_jax import endpoint, errors, judge
from sae_jax import mesh as mesh_lib
from sae_jax.intervene import config, generation
from sae_jax.jobs import steer


@pytest.fixture(autouse=True, scope="module")
def quick(quick_compilation):
  """Most of the time here is XLA's."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  return planted.write(tmp_path_factory.mktemp("generation"))


def settings(place, judged, **changes):
  return planted.settings(
    place,
    latents=(planted.CAUSE,),
    bundles=(),
    directions=(),
    strengths=(0.5,),
    random=2,
    batch_rows=12,
    mesh=mesh_lib.MeshConfig(data=-1, latent=1),
    generation=config.GenerationConfig(
      judge=judged,
      prompts=6,
      samples=2,
      max_new_tokens=2,
      random=0,
      incoherence=1.0,
      **changes,
    ),
  )


def written(out):
  said = json.loads((out / "summary.json").read_text())["generation"]
  lines = (out / "samples.jsonl").read_text().splitlines()
  return said, [json.loads(line) for line in lines]


@pytest.mark.slow
def test_rules_judge_free_answers_beside_fluency(place):
  rules = place / "rules.json"
  rules.write_text(json.dumps({"behaviour": ["^no"], "contrast": ["^yes"]}))
  told = settings(place, judge.JudgeConfig(kind="rules", rules=str(rules)))
  steer.run(told, str(place / "rules"))
  said, lines = written(place / "rules")
  (up,) = (r for r in said["rows"] if r["model"] == "base")
  assert said["unsteered"]["base"]["behaviour"]["mean"] == 0
  assert up["behaviour"]["mean"] >= 0.4
  assert said["judge"]["name"] == "rules"
  # The limits are those of the model that is steered.
  models = [said["judges"][m]["fluency"]["model"] for m in ("base", "tuned")]
  assert models == [str(place / "base"), str(place / "tuned")]
  assert all("fluency" in line["raw"] for line in lines)
  rules.write_text(json.dumps({"behaviour": ["^nope"]}))
  with pytest.raises(errors.InputError, match="input rules"):
    steer.run(told, str(place / "rules"))


@pytest.mark.slow
def test_a_chat_model_judges_other_questions_and_is_asked_once(
  place, monkeypatch
):
  questions = place / "questions.jsonl"
  questions.write_text(
    "".join(
      json.dumps({"id": f"q{i}", "prompt": f"w{i} w3"}) + "\n" for i in range(4)
    )
  )
  asked = []

  def grade(body, headers):
    text = body["messages"][-1]["content"]
    if "Answer with: ok" in text:
      return chat_server.completion("ok")
    asked.append(text)
    found = re.search(
      r"===== ANSWER TO GRADE .* =====\n(.*)\n=====", text, re.S
    )
    bad = found[1].startswith("no")
    return chat_server.completion(f"ANSWER: {5 if bad else 1}")

  with chat_server.serve(grade) as server:
    judged = judge.JudgeConfig(
      kind="llm",
      endpoint=endpoint.EndpointConfig(
        base_url=server.url, model="tiny", concurrency=2
      ),
    )
    told = settings(
      place, judged, questions=judge.PromptsConfig(path=str(questions))
    )
    run, rounds = generation.Stage._verdicts, []

    def stop(self, model, *more):
      rounds.append(model)
      if len(rounds) == 3:  # the tuned model's
        raise KeyboardInterrupt
      return run(self, model, *more)

    monkeypatch.setattr(generation.Stage, "_verdicts", stop)
    with pytest.raises(KeyboardInterrupt):
      steer.run(told, str(place / "chat"))
    monkeypatch.undo()
    before = len(asked)
    steer.run(told, str(place / "chat"))
  said, lines = written(place / "chat")
  assert before > 0 and not set(asked[:before]) & set(asked[before:])
  assert said["judge"] | {"name": "llm", "model": "tiny"} == said["judge"]
  assert (said["prompts"], said["samples"]) == (4, 2)
  assert {line["id"] for line in lines} == {f"q{i}" for i in range(4)}
  assert all("ANSWER: " in json.dumps(line["raw"]) for line in lines)
  (up,) = (r for r in said["rows"] if r["model"] == "base")
  assert (
    up["behaviour"]["mean"] > said["unsteered"]["base"]["behaviour"]["mean"]
  )
  assert up["errors"] == 0


def test_a_judge_that_does_not_answer_stops_the_job_before_it_scores(
  place, monkeypatch
):
  judged = judge.JudgeConfig(
    kind="llm",
    endpoint=endpoint.EndpointConfig(
      base_url="http://127.0.0.1:9/v1", model="tiny", retries=0
    ),
  )
  monkeypatch.setattr("sae_jax.intervene.screen.measure", None)
  with pytest.raises(errors.InputError, match=r"127\.0\.0\.1:9"):
    steer.run(settings(place, judged), str(place / "down"))


def test_survivors_are_outside_their_band_and_the_strongest_first():
  def result(name, effect, outside, kind="latent", causal=False):
    return types.SimpleNamespace(
      candidate=types.SimpleNamespace(
        name=name, kind=kind, is_random=name.startswith("r")
      ),
      passed={
        way: types.SimpleNamespace(outside=outside) for way in ("up", "down")
      },
      curves={
        way: types.SimpleNamespace(chosen=i)
        for i, way in enumerate(("up", "down"))
      },
      order=(causal, effect),
    )

  shown = [
    result("bundle", 0.0, False, kind="bundle"),
    result("weak", 0.1, True),
    result("strong", 0.9, True),
    result("inside", 2.0, False),
    result("cause", 0.5, True, causal=True),
  ]

  random = [result(f"r{i}", 0.0, False) for i in range(3)]
  verdicts = types.SimpleNamespace(shown=shown, random=random)
  found = generation.targets(
    verdicts, config.GenerationConfig(survivors=2, random=1)
  )
  names = [target.result.candidate.name for target in found]
  assert names == ["bundle", "cause", "strong", "r0"]
  assert [target.kind for target in found][-1] == "random"
  assert found[0].first == {"base": 0, "tuned": 1}


@pytest.mark.parametrize(
  "changes, named",
  [
    ({"samples": 0}, "samples=0"),
    ({"samples": 3, "temperature": 0.0}, "would all be the same"),
    ({"temperature": -1.0}, "temperature"),
    ({"max_new_tokens": 0}, "max_new_tokens"),
    ({"incoherence": float("nan")}, "incoherence"),
  ],
)
def test_wrong_numbers_are_refused_by_name(changes, named):
  with pytest.raises(errors.InputError, match=named):
    config.GenerationConfig(**changes)
