# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What is shown of several models is what a dense encoding of each finds."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models

from sae_jax import errors, lm, sae, store
from sae_jax import mesh as mesh_lib
from sae_jax.interpret import compare, contexts

HOOK = "blocks.0.hook_resid_post"
D, F, K = tiny_models.WIDTH, 24, 4
DOCUMENTS, LENGTH = 18, 14
BEFORE, AFTER = 3, 2
NAMES = ("base", "bad")


class Words:
  def token_strings(self, ids):
    return [f" w{i}" for i in ids]


@pytest.fixture(scope="module")
def dictionary():
  rng = np.random.default_rng(0)
  w_FD = rng.normal(size=(F, D)).astype(np.float32)
  b_enc_F = rng.normal(-1, 0.5, F).astype(np.float32)
  b_enc_F[5] = -1000  # never fires
  return sae.make_sae(
    sae.Params(w_FD, w_FD.copy(), b_enc_F, np.zeros(D, np.float32)), K
  )


@pytest.fixture(scope="module")
def models(words_path):
  return {
    name: tiny_models.make_model(words_path, seed=seed)
    for seed, name in enumerate(NAMES)
  }


@pytest.fixture(scope="module")
def documents():
  rng = np.random.default_rng(1)
  lengths = rng.integers(LENGTH - 6, LENGTH + 1, DOCUMENTS)
  return [rng.integers(1, tiny_models.WORDS, n) for n in lengths]


@pytest.fixture(scope="module")
def acts(models, documents):
  """name -> [document][T, D] float32; what pads them comes after them."""
  padded_NT = np.array([np.resize(x, LENGTH) for x in documents])
  found = {}
  for name, model in models.items():
    x_NTD = np.asarray(lm.activations(model, padded_NT, (HOOK,))[HOOK])
    found[name] = [
      x_TD[: len(x)] for x_TD, x in zip(x_NTD, documents, strict=True)
    ]
  return found


@pytest.fixture(scope="module")
def stores(tmp_path_factory, documents, acts):
  """Both models' stores; position 0 is never a row."""
  rows_N2 = np.array(
    [(d, t) for d, x in enumerate(documents) for t in range(1, len(x))],
    np.int32,
  )
  found = {}
  for name in NAMES:
    path = tmp_path_factory.mktemp("s") / name
    x_ND = np.stack([acts[name][d][t] for d, t in rows_N2])
    store.write_arrays(
      path,
      {HOOK: x_ND},
      documents=documents,
      rows_N2=rows_N2,
      read_rows=16,
      write_rows=64,
    )
    found[name] = store.open_store(path)
  return found


@pytest.fixture(scope="module")
def truth(dictionary, acts):
  """name -> {(document, position): dense activations [F]}."""
  return {
    name: {
      (d, t): f_F
      for d, x_TD in enumerate(acts[name])
      for t, f_F in enumerate(
        np.asarray(sae.encode_dense(dictionary, jnp.bfloat16(x_TD)))
      )
    }
    for name in NAMES
  }


def collect(dictionary, view, latents=range(F), mesh=None, **config):
  config = {"top": 3, "quantiles": (0.5,), "batch_rows": 32} | config
  return compare.collect(
    dictionary,
    [view],
    latents,
    Words(),
    mesh=mesh or mesh_lib.single(),
    config=contexts.ContextsConfig(before=BEFORE, after=AFTER, **config),
  )[view.name]


def paired(stores, **fields):
  return compare.View(name="web", hook=HOOK, stores=stores, **fields)


def half(stores, models):
  """The base by its store, the other live."""
  return compare.View(
    name="web",
    hook=HOOK,
    stores={"base": stores["base"]},
    live={"bad": lambda: models["bad"]},
  )


def assert_activations(found, truth, documents):
  for shown in found["latents"]:
    for e in shown["examples"]:
      tokens_T = documents[e["document"]]
      assert e["of"] == len(tokens_T)
      assert e["start"] == max(0, e["position"] - BEFORE)
      stop = min(len(tokens_T), e["position"] + AFTER + 1)
      assert e["tokens"] == [f" w{t}" for t in tokens_T[e["start"] : stop]]
      assert tuple(e["activations"]) == NAMES
      for name, values_T in e["activations"].items():
        assert len(values_T) == len(e["tokens"])
        for t, value in enumerate(values_T, e["start"]):
          if t == 0:
            assert value is None  # not a row of the store
          else:
            wanted = truth[name][e["document"], t][shown["latent"]]
            # Four digits are kept.
            assert value == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_every_model_has_its_own_activations(
  dictionary, stores, truth, documents
):
  found = collect(dictionary, paired(stores))
  assert found["rows"] == stores["base"].rows
  assert_activations(found, truth, documents)
  json.dumps(found, allow_nan=False)


def test_a_live_model_shows_what_its_store_would(
  dictionary, stores, models, truth, documents
):
  found = collect(dictionary, half(stores, models))
  assert_activations(found, truth, documents)
  assert all(set(s["models"]) == {"base"} for s in found["latents"])
  both = collect(dictionary, paired({"base": stores["base"]}))
  for one, other in zip(found["latents"], both["latents"], strict=True):
    for e, f in zip(one["examples"], other["examples"], strict=True):
      assert e["activations"]["base"] == f["activations"]["base"]


def test_the_strongest_of_each_model_are_shown(dictionary, stores, truth):
  found = collect(dictionary, paired(stores))
  for shown in found["latents"]:
    latent, tops = shown["latent"], []
    for name in NAMES:
      peak = {}
      for (d, t), f_F in truth[name].items():
        if t and f_F[latent] > peak.get(d, (0,))[0]:
          peak[d] = (f_F[latent], t)
      best = sorted(peak.items(), key=lambda kv: -kv[1][0])[:3]
      for d, (value, t) in best:
        covering = [
          e
          for e in shown["examples"]
          if e["kind"] == "top"
          and e["document"] == d
          and -BEFORE <= t - e["position"] <= AFTER
        ]
        assert len(covering) == 1, "shown once, however many models chose it"
        assert name in covering[0]["by"]
        tops.append(value)
        at = t - covering[0]["start"]
        assert covering[0]["activations"][name][at] == pytest.approx(
          value, rel=1e-3
        )
    shown_tops = [e for e in shown["examples"] if e["kind"] == "top"]
    values = [e["value"] for e in shown_tops]
    assert values == sorted(values, reverse=True)
    for e in shown_tops:
      at = e["position"] - e["start"]
      assert e["value"] == max(e["activations"][name][at] for name in e["by"])
      assert e["by"] == [name for name in NAMES if name in e["by"]]
    if tops:
      assert values[0] == pytest.approx(max(tops), rel=1e-3)


def test_statistics_are_of_every_row(dictionary, stores, truth):
  for shown in collect(dictionary, paired(stores))["latents"]:
    for name in NAMES:
      f_N = np.array(
        [f_F[shown["latent"]] for (_, t), f_F in truth[name].items() if t]
      )
      model, on_N = shown["models"][name], f_N[f_N > 0]
      assert model["fires"] == len(on_N)
      assert model["density"] == len(on_N) / len(f_N)
      assert [q for q, _ in model["quantiles"]] == (
        [0.1, 0.5, 0.9, 0.99] if len(on_N) else []
      )
      for q, value in model["quantiles"]:
        assert value == pytest.approx(np.quantile(on_N, q), rel=1e-3)


def test_a_quantile_comes_from_a_model_in_which_it_fires(dictionary, stores):
  found = collect(dictionary, paired(stores), quantiles=(0.8, 0.4), top=1)
  for shown in found["latents"]:
    quantile = [e for e in shown["examples"] if e["kind"] == "quantile"]
    fires = {name: m["fires"] for name, m in shown["models"].items()}
    for e in quantile:
      assert e["by"] == (["base"] if fires["base"] else ["bad"])
    if sum(fires.values()) == 0:
      assert shown["examples"] == []
  assert found["latents"][5]["examples"] == []


def test_only_rows_that_count_are_searched(dictionary, stores, truth):
  def even(rows_R2):
    return rows_R2[:, 0] % 2 == 0

  found = collect(dictionary, paired(stores, keep=even))
  rows = [key for key in truth["base"] if key[1] and key[0] % 2 == 0]
  assert found["rows"] == len(rows)
  for shown in found["latents"]:
    assert all(e["document"] % 2 == 0 for e in shown["examples"])
    fires = sum(truth["base"][key][shown["latent"]] > 0 for key in rows)
    assert shown["models"]["base"]["fires"] == fires


def test_meshes_agree(dictionary, stores, models, words_path):
  mesh = mesh_lib.make(mesh_lib.MeshConfig(data=4, latent=2))
  bad = tiny_models.make_model(words_path, mesh=mesh, seed=1)
  wanted = collect(dictionary, half(stores, models), [1, 4, 8])
  found = collect(dictionary, half(stores, {"bad": bad}), [1, 4, 8], mesh)
  _assert_near(found, wanted)


def _assert_near(found, wanted):
  """Equal, but for reassociated sums in the model that is run."""
  assert type(found) is type(wanted)
  if isinstance(found, dict):
    assert found.keys() == wanted.keys()
    for key in found:
      _assert_near(found[key], wanted[key])
  elif isinstance(found, list):
    for one, other in zip(found, wanted, strict=True):
      _assert_near(one, other)
  elif isinstance(found, float):
    # bfloat16 may round to the other side: 2^-8 of inputs near 10.
    assert found == pytest.approx(wanted, rel=1e-2, abs=0.1)
  else:
    assert found == wanted


def test_a_model_with_a_short_table_of_positions(
  dictionary, words_path, tmp_path
):
  """Sequences are padded to 64 tokens where there are places for that."""
  model = tiny_models.make_model(words_path, "layer norm with bias, tied")
  tokens_T = np.random.default_rng(2).integers(
    1, tiny_models.WORDS, tiny_models.POSITIONS
  )
  x_TD = np.asarray(lm.activations(model, tokens_T[None], (HOOK,))[HOOK])[0]
  store.write_arrays(tmp_path / "s", {HOOK: x_TD}, documents=[tokens_T])
  view = compare.View(
    name="web",
    hook=HOOK,
    stores={"base": store.open_store(tmp_path / "s")},
    live={"bad": lambda: model},
  )
  for shown in collect(dictionary, view)["latents"]:
    for e in shown["examples"]:
      assert e["activations"]["bad"] == pytest.approx(
        e["activations"]["base"], rel=1e-2, abs=0.1
      )


def test_unpaired_stores_are_refused(stores, documents, tmp_path):
  x_ND = np.zeros((sum(map(len, documents)), D), np.float32)
  store.write_arrays(tmp_path / "s", {HOOK: x_ND}, documents=documents)
  other = store.open_store(tmp_path / "s")
  with pytest.raises(errors.InputError, match=r"'web'.*\(bad\).*tokens_of"):
    paired({"base": stores["base"], "bad": other})
  with pytest.raises(errors.InputError, match="no store"):
    paired({})


@pytest.mark.parametrize("latents", [[F], [2, 2]])
def test_wrong_latents_are_refused(dictionary, stores, latents):
  with pytest.raises(errors.InputError, match="latent"):
    collect(dictionary, paired(stores), latents)
