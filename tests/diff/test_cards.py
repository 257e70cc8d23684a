# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Cards show what the models do, and are tested by asking a chat model."""

import dataclasses
import json

import chat_server
import diff_models
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import endpoint, errors, formats, judge, lm, sae, store
from sae_jax import mesh as mesh_lib
from sae_jax.diff import capture, cards, cards_config, config, job, table
from sae_jax.interpret import logit_lens
from sae_jax.judge import prompts as prompts_lib

HOOK, D, F = diff_models.HOOK, diff_models.D, diff_models.F
PLANTED = diff_models.PLANTED
NAMES = ("base", "bad", "good")


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """base; bad: a planted direction and a drift; good: the drift alone."""
  place = tmp_path_factory.mktemp("models")
  planted_D = 4 * diff_models.directions()[PLANTED]
  diff_models.write_model(place / "base")
  diff_models.write_model(place / "bad", push_D=planted_D, noise=0.01)
  diff_models.write_model(place / "good", noise=0.01)
  diff_models.write_prompts(place / "prompts.jsonl", count=11)
  diff_models.write_sae(place / "sae")
  return place


def settings(place, **changes):
  return config.DiffConfig(
    **{
      "base": str(place / "base"),
      "arms": (
        config.Arm(name="bad", model=str(place / "bad")),
        config.Arm(name="good", model=str(place / "good"), role="control"),
      ),
      "sae": str(place / "sae"),
      "prompts": judge.PromptsConfig(path=str(place / "prompts.jsonl")),
      "scope": "all",
      "batch_size": 8,
      "null_arm": False,
      "mesh": mesh_lib.MeshConfig(data=4, latent=2),
      **changes,
    }
  )


@pytest.fixture(scope="module")
def problem(place, tmp_path_factory):
  told = settings(place)
  return job.open_problem(
    told, formats.load_sae(told.sae), tmp_path_factory.mktemp("problem")
  )


@pytest.fixture(scope="module")
def web(place, problem, tmp_path_factory):
  """Stores of other text: of the base, and of the bad model."""
  path = tmp_path_factory.mktemp("web")
  rng = np.random.default_rng(4)
  sequences = [
    prompts_lib.Sequence(i, tuple(rng.integers(1, 24, 9).tolist()), 9)
    for i in range(30)
  ]
  for name in ("base", "bad"):
    capture.capture(
      problem.model(name), sequences, HOOK, path / name, batch_size=8
    )
  return path


def parts(latents=(PLANTED, 3, 11)):
  """Rankings that name these latents, by a test and by a cosine."""
  rng = np.random.default_rng(0)
  score_F = np.zeros(F)
  score_F[list(latents)] = np.arange(len(latents), 0, -1)
  return [
    table.Part(
      method="frozen",
      arm="bad",
      control="good",
      columns={
        "score": score_F,
        "changed": score_F > 2,
        "q": rng.random(F),
        "effect": np.where(score_F > 0, np.nan, 1),
      },
    ),
    table.Part(
      method="linear",
      arm="bad",
      columns={"score": -score_F, "tags": np.array(["x"] * F, object)},
    ),
  ]


def with_cards(problem, **fields):
  fields = {"latents": 3, "top": 2, "before": 3, "after": 2} | fields
  told = dataclasses.replace(
    problem.config, cards=cards_config.CardsConfig(**fields)
  )
  return dataclasses.replace(problem, config=told)


@pytest.fixture(scope="module")
def made(problem):
  return cards.collect(with_cards(problem), parts())


def test_a_card_has_what_the_table_says(made):
  assert made["notes"] == []
  json.dumps(made, allow_nan=False)
  card = made["cards"][0]
  assert (card["dictionary"], card["arm"]) == ("sae", "")
  assert [c["latent"] for c in made["cards"]] == [PLANTED, 3, 11]
  assert [(w["method"], w["direction"]) for w in card["why"]] == [
    ("frozen", "risen"),
    ("linear", "fallen"),
  ]
  row = card["rows"]["frozen/bad"]
  assert row["score"] == 3 and row["rank"] == row["rank_up"] == 1
  assert row["changed"] is True and "effect" not in row  # it is not known
  linear = card["rows"]["linear/bad"]
  assert linear["rank_down"] == 1 and linear["tags"] == "x"


def dense(problem, name, tokens):
  """Activations [T, F] of a model that reads nothing but these tokens."""
  padded_1T = np.resize(tokens, (1, 16))  # what comes after does not matter
  x_1TD = lm.activations(problem.model(name), padded_1T, (HOOK,))[HOOK]
  f_TF = sae.encode_dense(problem.dictionary, x_1TD[0].astype(jnp.bfloat16))
  return np.asarray(f_TF)[: len(tokens)]


def assert_live(problem, contexts, latent, source):
  """Every number is that of the model run on the whole document."""
  for shown in contexts:
    assert tuple(shown["activations"]) == NAMES
    tokens = source.document(shown["document"])
    for name, values in shown["activations"].items():
      f_TF = dense(problem, name, tokens)
      at = slice(shown["start"], shown["start"] + len(values))
      # Another batch, so other sums; bfloat16 may round to the other side.
      np.testing.assert_allclose(values, f_TF[at, latent], rtol=0.02, atol=0.02)


def test_contexts_are_of_all_models_side_by_side(problem, made):
  evidence = problem.evidence
  for card in made["cards"]:
    assert list(card["contexts"]) == ["prompts"]
    shown = card["contexts"]["prompts"]
    assert shown
    for context in shown:
      place = np.array([[context["document"], context["position"]]], np.int32)
      assert evidence.groups_of(place)[0] >= 0  # it counts
    assert_live(problem, shown[:2], card["latent"], evidence.store("base"))


def test_quantiles_and_counts_are_of_the_rows_that_count(problem, made):
  evidence = problem.evidence
  source = evidence.store("bad")
  rows_N2 = source.positions(0, source.rows)
  keep_N = evidence.groups_of(rows_N2) >= 0
  x_ND = jnp.asarray(source.read(HOOK, 0, source.rows))
  f_NF = np.asarray(sae.encode_dense(problem.dictionary, x_ND))[keep_N]
  for card in made["cards"]:
    f_N = f_NF[:, card["latent"]]
    found = card["statistics"]["prompts"]["bad"]
    assert found["fires"] == (f_N > 0).sum()
    assert found["density"] == pytest.approx((f_N > 0).mean())
    quantiles = card["quantiles"]["bad"]
    assert list(quantiles) == ["0.1", "0.5", "0.9", "0.99", "1"]
    for q, value in quantiles.items():
      assert value == pytest.approx(np.quantile(f_N[f_N > 0], float(q)), 1e-3)


def test_directions_are_those_of_the_decoder(problem, made):
  w_FD = diff_models.directions()
  rows_ND = w_FD[[card["latent"] for card in made["cards"]]]
  words = logit_lens.read(rows_ND, problem.model("base"), 10)
  for card, lens in zip(made["cards"], words, strict=True):
    for kind, pairs in card["logit_lens"].items():
      assert [t for t, _ in pairs] == [t for t, _ in lens[kind]]
    cos_F = w_FD @ w_FD[card["latent"]]
    cos_F[card["latent"]] = -1
    near = [latent for latent, _ in card["neighbours"]]
    assert near == np.argsort(-cos_F)[:5].tolist()


def test_other_text_comes_from_stores_or_from_models(problem, web):
  view = cards_config.ViewConfig(
    name="web", base=str(web / "base"), stores={"bad": str(web / "bad")}
  )
  made = cards.collect(with_cards(problem, views=(view,)), parts())
  for card in made["cards"]:
    assert list(card["contexts"]) == ["prompts", "web"]
    shown = card["contexts"]["web"]
    # good has no store here: it was run, and nothing was searched in it.
    assert list(card["statistics"]["web"]) == ["base", "bad"]
    assert {by for c in shown for by in c["by"]} <= {"base", "bad"}
    ordered = [
      c | {"activations": {n: c["activations"][n] for n in NAMES}}
      for c in shown[:2]
    ]
    assert_live(
      problem, ordered, card["latent"], store.open_store(web / "base")
    )


def test_stores_without_models_show_token_ids(place, problem, tmp_path):
  told = dataclasses.replace(
    problem.config,
    base="",
    base_store="/stores/base",
    prompts=None,
    methods=("frozen",),
    arms=tuple(
      config.Arm(name=a.name, store=f"/stores/{a.name}", role=a.role)
      for a in problem.config.arms
    ),
  )
  path = tmp_path / "s"
  documents = [np.arange(1, 9), np.arange(2, 7)]
  x_ND = np.random.default_rng(0).normal(size=(13, D))
  stores = {}
  for name in NAMES:
    store.write_arrays(path / name, {HOOK: x_ND}, documents=documents)
    stores[name] = store.open_store(path / name)
  bare = dataclasses.replace(
    with_cards(dataclasses.replace(problem, config=told)),
    evidence=problem.evidence.replaced(stores),
    models=type(problem.models)(told, problem.mesh),
  )
  made = cards.collect(bare, parts())
  assert "ids" in made["notes"][0] and "give base" in made["notes"][0]
  shown = [c for card in made["cards"] for c in card["contexts"]["prompts"]]
  assert shown and all(t[0] == "<" for c in shown for t in c["tokens"])
  assert all(card["logit_lens"] is None for card in made["cards"])
  assert all(len(card["neighbours"]) == 5 for card in made["cards"])


def test_nothing_that_moved_is_no_cards(problem):
  still = [
    table.Part(method="frozen", arm="bad", columns={"score": np.zeros(F)})
  ]
  empty = {"cards": [], "notes": []}
  assert cards.collect(with_cards(problem), still) == empty
  assert cards.collect(with_cards(problem, latents=0), parts()) == empty


def test_a_delta_latent_is_shown_on_differences(problem, tmp_path):
  """Its dictionary reads tuned − base; so do its contexts."""
  w_FD = diff_models.directions()
  params = sae.Params(w_FD, w_FD.copy(), np.zeros(F), np.zeros(D))
  formats.save_sae(sae.make_sae(params, 4, {"hook_name": HOOK}), tmp_path / "d")
  part = dataclasses.replace(
    parts()[0],
    method="delta",
    dictionary="delta",
    summary={"run": str(tmp_path / "d")},
  )
  (card,) = cards.collect(with_cards(problem, latents=1), [part])["cards"]
  assert (card["dictionary"], card["arm"]) == ("delta", "bad")
  assert card["latent"] == PLANTED and card["rows"].keys() == {"delta/bad"}
  assert card["logit_lens"]["promoted"] and card["neighbours"]
  evidence = problem.evidence
  both = store.difference(evidence.store("bad"), evidence.store("base"))
  x_ND = jnp.asarray(both.read(HOOK, 0, both.rows))
  dictionary = formats.load_sae(tmp_path / "d")
  f_N = np.asarray(sae.encode_dense(dictionary, x_ND))[:, PLANTED]
  places = {tuple(p): i for i, p in enumerate(both.positions(0, both.rows))}
  shown = card["contexts"]["prompts"]
  assert shown and list(shown[0]["activations"]) == ["bad", "good"]
  for context in shown:
    for t, value in enumerate(context["activations"]["bad"], context["start"]):
      wanted = f_N[places[context["document"], t]]
      assert value == pytest.approx(wanted, rel=1e-3, abs=1e-6)
  # The control has no such difference.
  assert card["statistics"]["prompts"]["good"]["max"] < values_max(shown) / 4


def values_max(shown):
  return max(max(c["activations"]["bad"]) for c in shown)


def labelled(problem, server, **fields):
  chat = endpoint.EndpointConfig(
    **{"base_url": server.url, "model": "m", "retries": 0} | fields
  )
  labels = cards_config.LabelsConfig(endpoint=chat, shown=4, held_out=4)
  return with_cards(problem, labels=labels)


def chat(body, headers):
  if len(body["messages"]) == 1:
    return chat_server.completion("ok")
  if "LABEL" in body["messages"][0]["content"]:
    return chat_server.completion("LABEL: the trigger")
  count = body["messages"][1]["content"].count("\n") + 1
  return chat_server.completion(
    json.dumps([1, 0] * count)[: 3 * count - 1] + "]"
  )


def test_labels_are_asked_for_once(problem, tmp_path):
  """What a killed job was told is there when it goes on."""
  fresh = dataclasses.replace(problem, work=tmp_path)
  with chat_server.serve(chat) as server:
    made = cards.collect(labelled(fresh, server), parts())
    asked = len(server.bodies)
    again = cards.collect(labelled(fresh, server), parts())
    assert asked > 3 and len(server.bodies) == asked
  assert again == made
  json.dumps(made, allow_nan=False)
  for card in made["cards"]:
    label = card["label"]
    assert label["text"] == "the trigger" and label["failure"] is None
    assert label["model"] == "tiny-2026" and label["view"] == "prompts"
    for kind in ("detection", "fuzzing"):
      test = label[f"{kind}_test"]
      assert (label[kind] is None) == (test["failure"] is not None)
      assert label[kind] is None or 0 <= label[kind] <= 1


def test_a_label_that_fails_leaves_a_card_that_says_why(problem, tmp_path):
  fresh = dataclasses.replace(problem, work=tmp_path)
  with chat_server.serve(lambda *_: (500, {"error": "no memory"})) as server:
    made = cards.collect(labelled(fresh, server), parts())
  for card in made["cards"]:
    assert card["contexts"]["prompts"] and card["label"]["text"] == ""
    assert card["label"]["failure"]
  assert "no memory" in made["cards"][0]["label"]["failure"]


def test_without_an_endpoint_nothing_is_asked(made):
  assert all(card["label"] is None for card in made["cards"])


def view_of(web, **fields):
  return cards_config.ViewConfig(
    **{"name": "web", "base": str(web / "base")} | fields
  )


def test_a_check_accepts_what_fits(problem, web):
  with chat_server.serve(chat) as server:
    fits = labelled(problem, server)
    told = dataclasses.replace(fits.config.cards, views=(view_of(web),))
    fits = dataclasses.replace(fits.config, cards=told)
    cards.check(fits, HOOK, D)
    assert len(server.bodies) == 1
  assert cards.inputs(fits) == {
    "view web base": store.open_store(web / "base").identity
  }
  # No cards: nothing is opened or asked.
  none = dataclasses.replace(fits, cards=dataclasses.replace(told, latents=0))
  cards.check(none, HOOK, D)
  assert cards.inputs(none) == {}
  with pytest.raises(errors.InputError, match="endpoint"):
    closed = dataclasses.replace(
      told.labels.endpoint, retries=0, key_variable="NO_SUCH_KEY"
    )
    labels = dataclasses.replace(told.labels, endpoint=closed)
    told = dataclasses.replace(told, labels=labels)
    cards.check(dataclasses.replace(fits, cards=told), HOOK, D)


@pytest.mark.parametrize(
  ("fields", "hook", "width", "message"),
  [
    ({"base": "/nowhere"}, HOOK, D, "/nowhere"),
    ({"stores": {"worse": "x"}}, HOOK, D, "'worse'.*arms are bad, good"),
    ({}, "blocks.0.hook_resid_post", D, "no hook"),
    ({}, HOOK, D + 1, f"width {D} .*takes {D + 1}"),
  ],
)
def test_a_check_finds_what_does_not_fit(
  problem, web, fields, hook, width, message
):
  told = with_cards(problem, views=(view_of(web, **fields),)).config
  with pytest.raises(errors.InputError, match=message):
    cards.check(told, hook, width)


def test_a_check_finds_unpaired_stores(problem, web):
  other = problem.evidence.store("bad").path
  told = with_cards(problem, views=(view_of(web, stores={"bad": other}),))
  with pytest.raises(errors.InputError, match="not paired"):
    cards.check(told.config, HOOK, D)


def test_a_job_refuses_before_it_runs_a_model(place, tmp_path):
  told = settings(
    place,
    cards=cards_config.CardsConfig(
      views=(cards_config.ViewConfig(name="web", base="/nowhere"),)
    ),
  )
  with pytest.raises(errors.InputError, match="/nowhere"):
    job.open_problem(told, formats.load_sae(told.sae), tmp_path)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: cards_config.CardsConfig(latents=-1), "cards.latents=-1"),
    (lambda: cards_config.CardsConfig(top=0), "cards.top=0"),
    (lambda: cards_config.ViewConfig(name="prompts", base="x"), "'prompts'"),
    (lambda: cards_config.ViewConfig(name="web", base=""), "base is empty"),
    (
      lambda: cards_config.CardsConfig(
        views=(cards_config.ViewConfig(name="a", base="x"),) * 2
      ),
      "same name",
    ),
    (
      lambda: cards_config.LabelsConfig(
        endpoint=endpoint.EndpointConfig(base_url="http://h", model="m"),
        held_out=1,
      ),
      "held_out=1",
    ),
  ],
)
def test_a_wrong_config_is_refused(make, message):
  with pytest.raises(errors.InputError, match=message):
    make()
