# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a diff looks at: prompts as tokens, captured stores, groups of rows."""

import json

import diff_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, judge, lm, mesh, store
from sae_jax.diff import capture, config, evidence
from sae_jax.judge import prompts


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  path = diff_models.write_model(tmp_path_factory.mktemp("lm") / "base")
  return lm.load_lm(path, dtype=jnp.float32)


@pytest.fixture
def file(tmp_path):
  return diff_models.write_prompts(tmp_path / "prompts.jsonl", count=11)


def load(file, base, **changes):
  return prompts.load(
    judge.PromptsConfig(path=str(file), **changes), base.tokenizer
  )


def captured(base, found, scope, path, **changes):
  capture.capture(
    base,
    found.sequences(scope),
    diff_models.HOOK,
    path,
    **{"batch_size": 4} | changes,
  )
  return store.open_store(path)


def open_evidence(stores, found, scope, **changes):
  arguments = dict(skip=1, groups=256, batch_rows=256, mesh=mesh.single())
  return evidence.from_prompts(
    stores,
    diff_models.HOOK,
    found,
    found.sequences(scope),
    scope=scope,
    **arguments | changes,
  )


@pytest.mark.parametrize("scope", ["prompt", "prompt_last", "response", "all"])
def test_rows_in_scope_are_the_models_activations(base, file, tmp_path, scope):
  found = load(file, base)
  source = captured(base, found, scope, tmp_path / "st")
  seen = open_evidence({"base": source}, found, scope)
  assert seen.groups == 11 and seen.group_topics[:2] == ["with", "without"]
  sums_GD, count_G = np.zeros((11, diff_models.D)), np.zeros(11, int)
  for batch in seen.batches("base"):
    group_B = np.asarray(batch.group_B)
    x_BD = np.asarray(batch.x_BD, np.float64)
    for group in range(11):
      sums_GD[group] += x_BD[group_B == group].sum(0)
      count_G[group] += (group_B == group).sum()
  for group, prompt in enumerate(found.prompts):
    n, expected, rows = len(prompt.tokens), np.zeros(diff_models.D), 0
    tails = [()] if "prompt" in scope else prompt.responses.values()
    for tail in tails:
      tokens = np.array([prompt.tokens + tuple(tail)])
      x_TD = lm.activations(base, tokens, (diff_models.HOOK,))
      x_TD = np.asarray(
        x_TD[diff_models.HOOK][0].astype(jnp.bfloat16), np.float64
      )
      part = {
        "prompt": slice(1, n),
        "prompt_last": slice(n - 1, n),
        "response": slice(n, None),
        "all": slice(1, None),
      }[scope]
      expected += x_TD[part].sum(0)
      rows += len(x_TD[part])
    assert count_G[group] == seen.group_rows_G[group] == rows
    # One bfloat16 ulp per row where another batch shape rounds differently.
    np.testing.assert_allclose(
      sums_GD[group], expected, atol=rows * 4 * 2**-8, rtol=0
    )


def test_pairs_of_names_give_the_same_rows(base, file, tmp_path):
  found = load(file, base)
  stores = {
    "base": captured(base, found, "all", tmp_path / "base"),
    "null": captured(
      base, found, "all", tmp_path / "null", batch_size=3, left=True
    ),
  }
  seen = open_evidence(stores, found, "all", groups=4, batch_rows=256)
  assert seen.groups == 4 and seen.names == ("base", "null")
  assert "p0, p4, p8" in seen.group_names
  for a, b in zip(seen.batches("base"), seen.batches("null"), strict=True):
    np.testing.assert_array_equal(a.group_B, b.group_B)
    # The same tokens: other roundings at most, far below their distances.
    difference = np.abs(np.float32(a.x_BD) - np.float32(b.x_BD)).max()
    assert difference < 0.05 and np.abs(np.float32(a.x_BD)).max() > 1
  later = list(seen.batches("base", start=seen.num_batches))
  assert later == []


def test_a_capture_that_was_cut_off_is_made_again(base, file, tmp_path):
  found = load(file, base)
  path = tmp_path / "st"
  whole = captured(base, found, "all", path)
  (path / "manifest.json").unlink()
  assert captured(base, found, "all", path).identity == whole.identity


def test_stores_from_outside_have_to_be_paired(tmp_path):
  rng = np.random.default_rng(0)
  documents = [np.arange(5), np.arange(3)]
  x_ND = rng.normal(size=(8, 4))
  sizes = dict(read_rows=4, write_rows=4)
  hook = {diff_models.HOOK: x_ND}
  store.write_arrays(tmp_path / "a", hook, documents=documents, **sizes)
  store.write_arrays(tmp_path / "b", hook, documents=documents[::-1], **sizes)
  a, b = (store.open_store(tmp_path / name) for name in "ab")
  arguments = dict(skip=1, groups=9, batch_rows=4, mesh=mesh.single())
  seen = evidence.from_stores({"base": a}, diff_models.HOOK, **arguments)
  assert seen.kind == "documents" and seen.group_rows_G.tolist() == [4, 2]
  with pytest.raises(errors.InputError, match="not paired with"):
    evidence.from_stores({"base": a, "bad": b}, diff_models.HOOK, **arguments)
  with pytest.raises(errors.InputError, match=r"no token .* is in scope"):
    evidence.from_stores(
      {"base": a}, diff_models.HOOK, **arguments | {"skip": 9}
    )


def test_a_sharded_batch_is_the_same(base, file, tmp_path):
  found = load(file, base)
  source = captured(base, found, "all", tmp_path / "st")
  one = next(open_evidence({"base": source}, found, "all").batches("base"))
  eight = mesh.make(mesh.MeshConfig(sae=2, data=2, latent=2), jax.devices())
  split = open_evidence({"base": source}, found, "all", mesh=eight)
  many = next(split.batches("base"))
  np.testing.assert_array_equal(one.x_BD, many.x_BD)
  np.testing.assert_array_equal(one.group_B, many.group_B)


def lines(tmp_path, *records):
  path = tmp_path / "prompts.jsonl"
  path.write_text(
    "\n".join(r if isinstance(r, str) else json.dumps(r) for r in records)
  )
  return path


def test_prompts_say_where_a_line_is_wrong(base, tmp_path):
  good = {"id": "a", "prompt": "w1 w2", "good": "w3"}
  for record, message in (
    ("{", "prompts.jsonl:2: not JSON"),
    ("[1]", "prompts.jsonl:2: not a JSON object"),
    ({"text": "w1"}, 'neither a "prompt" .* nor "messages"'),
    ({"id": "a", "prompt": "w1"}, r"id 'a' is also that of .*prompts.jsonl:1"),
    ({"id": "b", "prompt": "w1", "bad": 3}, "'bad' is no text"),
    ({"id": "b", "messages": []}, "or an empty one"),
    (
      {"id": "b", "messages": [{"role": "user", "content": "w1"}]},
      "no chat template",
    ),
  ):
    with pytest.raises(errors.InputError, match=message):
      load(lines(tmp_path, good, record), base)
  with pytest.raises(errors.InputError, match="no prompts of topics tea"):
    load(lines(tmp_path, good), base, topics=("tea",))
  with pytest.raises(errors.InputError, match="cannot be read"):
    load(tmp_path / "none.jsonl", base)


def test_prompts_with_and_without_responses(base, tmp_path):
  path = lines(
    tmp_path,
    {"prompt": "w1 w2", "good": "w3", "bad": "w4 w5"},
    {"prompt": "w1"},
    {"prompt": "w2", "good": "w3"},
  )
  found = load(path, base)
  assert found.pairs == (0,)
  assert [p.id for p in found.prompts] == ["1", "2", "3"]
  assert found.prompts[0].tokens == (0, 3, 4)
  assert found.prompts[0].responses == {"good": (5,), "bad": (6, 7)}
  shown = [(s.prompt, s.response_start) for s in found.sequences("response")]
  assert shown == [(0, 3), (0, 3), (2, 2)]
  assert len(found.sequences("prompt")) == 3
  none = load(lines(tmp_path, {"prompt": "w1"}), base)
  with pytest.raises(errors.InputError, match="needs responses"):
    none.sequences("response")


def test_a_diff_config_is_checked():
  arm = config.Arm(name="bad", model="m")
  base = dict(base="m", sae="s", prompts=judge.PromptsConfig(path="p"))
  for change, message in (
    (dict(arms=()), "name at least one model"),
    (dict(arms=(arm, arm)), "same name"),
    (dict(arms=(arm,), methods=("frozn",)), "'frozn' is none of"),
    (dict(arms=(arm,), methods=("match",)), "needs the field match"),
    (dict(arms=(arm,), base_store="st"), "'bad' has no store"),
    (dict(arms=(arm,), prompts=None), "give prompts"),
    (dict(arms=(arm,), groups=0), "groups=0"),
  ):
    with pytest.raises(errors.InputError, match=message):
      config.DiffConfig(**base | change)
  with pytest.raises(errors.InputError, match="arm 'null'"):
    config.Arm(name="null", model="m")
  with pytest.raises(errors.InputError, match="neither a model nor a store"):
    config.Arm(name="bad")
  good = config.Arm(name="good", model="m", role="control")
  found = config.DiffConfig(**base | dict(arms=(arm, good)))
  assert found.control_of(arm) == good and found.control_of(good) is None
