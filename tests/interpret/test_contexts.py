# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Contexts found in one pass are those a dense search would find."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, sae, store
from sae_jax import mesh as mesh_lib
from sae_jax.interpret import contexts

HOOK = "blocks.0.hook_resid_post"
D, F, K, DOCUMENTS, LENGTH = 8, 24, 4, 20, 12


class Words:
  """Token 7 is " w7"."""

  def token_strings(self, ids):
    return [f" w{i}" for i in ids]


@pytest.fixture(scope="module")
def dictionary():
  rng = np.random.default_rng(0)
  w_FD = rng.normal(size=(F, D)).astype(np.float32)
  w_FD /= np.linalg.norm(w_FD, axis=1, keepdims=True)
  b_enc_F = rng.normal(-1, 0.5, F).astype(np.float32)
  b_enc_F[5] = -100  # never fires
  params = sae.Params(w_FD, w_FD.copy(), b_enc_F, np.zeros(D, np.float32))
  return sae.make_sae(params, K)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """20 documents of 12 tokens; position 0 is never a row."""
  rng = np.random.default_rng(1)
  documents = [rng.integers(0, 99, LENGTH) for _ in range(DOCUMENTS)]
  rows_N2 = np.array(
    [(d, t) for d in range(DOCUMENTS) for t in range(1, LENGTH)], np.int32
  )
  path = tmp_path_factory.mktemp("s") / "store"
  store.write_arrays(
    path,
    {HOOK: rng.normal(size=(len(rows_N2), D))},
    documents=documents,
    rows_N2=rows_N2,
    read_rows=16,
    write_rows=64,
  )
  return store.open_store(path)


@pytest.fixture(scope="module")
def truth(dictionary, source):
  """Every row's (document, position) and dense activations [N, F]."""
  x_ND = source.read(HOOK, 0, source.rows)
  f_NF = np.asarray(sae.encode_dense(dictionary, jnp.asarray(x_ND)))
  return source.positions(0, source.rows), f_NF


def collect(dictionary, source, latents, mesh=None, chunks=None, **config):
  return contexts.collect(
    dictionary,
    source,
    HOOK,
    chunks or range(source.num_chunks),
    [contexts.Choice(latent, "asked for") for latent in latents],
    Words(),
    mesh=mesh or mesh_lib.single(),
    config=contexts.ContextsConfig(
      **{"top": 3, "before": 3, "after": 2, "batch_rows": 32} | config
    ),
  )


def test_the_strongest_row_of_each_of_the_best_documents(
  dictionary, source, truth
):
  rows_N2, f_NF = truth
  found = collect(dictionary, source, range(F))
  assert found["rows"] == source.rows
  for shown in found["latents"]:
    f_N = f_NF[:, shown["latent"]]
    best = sorted((-f_N[rows_N2[:, 0] == d].max(), d) for d in range(DOCUMENTS))
    wanted = [(d, -v) for v, d in best[:3] if v < 0]
    top = [e for e in shown["examples"] if e["kind"] == "top"]
    assert [e["document"] for e in top] == [d for d, _ in wanted]
    np.testing.assert_allclose(
      [e["value"] for e in top], [v for _, v in wanted], rtol=1e-3
    )
    assert shown["fires"] == np.sum(f_N > 0)
    assert shown["density"] == np.mean(f_N > 0)
    assert shown["max"] == pytest.approx(f_N.max(), rel=1e-3)


def test_every_token_of_a_window_has_its_own_activation(
  dictionary, source, truth
):
  rows_N2, f_NF = truth
  row_of = {tuple(pair): row for row, pair in enumerate(rows_N2.tolist())}
  found = collect(dictionary, source, [0, 3, 9])
  for shown in found["latents"]:
    for e in shown["examples"]:
      tokens = source.document(e["document"])
      assert e["of"] == len(tokens) == LENGTH
      assert e["start"] == max(0, e["position"] - 3)
      stop = min(LENGTH, e["position"] + 3)
      assert e["tokens"] == [f" w{t}" for t in tokens[e["start"] : stop]]
      assert len(e["activations"]) == len(e["tokens"])
      for t, value in enumerate(e["activations"], e["start"]):
        if t == 0:
          assert value is None  # was filtered out of the store
        else:
          wanted = f_NF[row_of[e["document"], t], shown["latent"]]
          assert value == pytest.approx(wanted, rel=1e-3, abs=1e-6)
      assert e["activations"][e["position"] - e["start"]] == e["value"]


def test_quantile_examples_come_from_where_they_say(dictionary, source, truth):
  _, f_NF = truth
  latent = int(np.argmax(np.sum(f_NF > 0, 0)))
  found = collect(
    dictionary, source, [latent], top=1, quantiles=(0.9, 0.5, 0.1)
  )
  examples = found["latents"][0]["examples"][1:]
  assert [e["quantile"] for e in examples] == [0.9, 0.5, 0.1]
  on_N = np.sort(f_NF[f_NF[:, latent] > 0, latent])
  for e in examples:
    # Fewer hits than the sample holds: exact but for skipped documents.
    rank = np.searchsorted(on_N, e["value"]) / (len(on_N) - 1)
    assert abs(rank - e["quantile"]) < 0.15
  documents = [e["document"] for e in found["latents"][0]["examples"]]
  assert len(set(documents)) == len(documents)


def test_meshes_and_batch_sizes_agree(dictionary, source):
  wanted = collect(dictionary, source, [1, 2, 8])
  mesh = mesh_lib.make(mesh_lib.MeshConfig(data=4, latent=2))
  assert collect(dictionary, source, [1, 2, 8], mesh=mesh) == wanted
  assert collect(dictionary, source, [1, 2, 8], batch_rows=9999) == wanted
  json.dumps(wanted, allow_nan=False)


def test_only_the_asked_chunks_are_searched(dictionary, source, truth):
  _, f_NF = truth
  found = collect(dictionary, source, [3], chunks=range(4, 8))
  assert found["rows"] == 64
  assert found["latents"][0]["fires"] == np.sum(f_NF[64:128, 3] > 0)


@pytest.mark.parametrize(
  ("rows", "searched"), [(1, 28), (28, 28), (64, 28), (65, 92), (9999, 220)]
)
def test_a_large_store_is_searched_from_its_end(
  dictionary, source, rows, searched
):
  """220 rows are write chunks of 64, 64, 64 and 28."""
  found = collect(dictionary, source, [3], rows=rows)
  assert found["rows"] == searched
  # Write chunks are whole: the neighbours of a row inside them are rows too.
  for e in found["latents"][0]["examples"]:
    assert e["activations"][e["position"] - e["start"]] == e["value"]


def test_a_latent_that_never_fires_has_no_examples(dictionary, source):
  shown = collect(dictionary, source, [5])["latents"][0]
  assert shown["fires"] == 0 and shown["examples"] == []
  assert shown["histogram"] == []


def test_no_latents_at_all(dictionary, source):
  assert collect(dictionary, source, [])["latents"] == []


@pytest.mark.parametrize(
  ("latents", "message"), [([F], "0..23"), ([-1], "0..23"), ([2, 2], "twice")]
)
def test_wrong_latents_are_refused(dictionary, source, latents, message):
  with pytest.raises(errors.InputError, match=message):
    collect(dictionary, source, latents)


def test_choice_spans_the_ranking_of_living_latents():
  fires_F = np.array([0, 5, 900, 0, 1, 40, 300])
  choices = contexts.choose(fires_F, 3)
  assert [c.latent for c in choices] == [2, 5, 4]
  assert [c.reason for c in choices] == [
    "densest",
    "density quantile 0.50",
    "rarest that fired",
  ]
  assert [c.latent for c in contexts.choose(fires_F, 99)] == [2, 6, 5, 1, 4]
  assert contexts.choose(np.zeros(4, int), 3) == []
  assert [c.latent for c in contexts.choose(fires_F, 1)] == [2]
