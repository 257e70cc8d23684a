# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A label is tested on other documents than those it was made from."""

import pytest
import word_latents

from sae_jax import mesh as mesh_lib
from sae_jax.interpret import contexts, trials

LATENTS = [word_latents.DENSE, word_latents.RARE, word_latents.SILENT, 4, 5, 6]
SHOWN, HELD_OUT = 6, 8


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  return word_latents.write(tmp_path_factory.mktemp("s") / "store")


def draw(stores, mesh=None, latents=LATENTS, **changes):
  config = {"before": 2, "after": 2, "batch_rows": 64} | changes
  keep = config.pop("keep", None)
  drawn = trials.draw(
    word_latents.dictionary(),
    stores,
    word_latents.HOOK,
    latents,
    word_latents.Words(),
    shown=SHOWN,
    held_out=HELD_OUT,
    mesh=mesh or mesh_lib.single(),
    config=contexts.ContextsConfig(**config),
    keep=keep,
  )
  return {trial.latent: trial for trial in drawn}


@pytest.fixture(scope="module")
def drawn(source):
  return draw({"base": source})


def documents_of(source, samples):
  """Per context the documents that hold these words in a row."""
  texts = {
    d: "".join(word_latents.Words().token_strings(source.document(d))) + " "
    for d in range(word_latents.DOCUMENTS)
  }
  return [
    {d for d, text in texts.items() if "".join(s.tokens) + " " in text}
    for s in samples
  ]


@pytest.mark.parametrize("latent", word_latents.COMMON)
def test_no_document_is_in_two_lists(source, drawn, latent):
  trial = drawn[latent]
  # One may be dropped as a copy of another.
  assert len(trial.shown) >= SHOWN - 1 and len(trial.held_out) >= HELD_OUT - 2
  assert len(trial.silent) == HELD_OUT
  samples = [*trial.shown, *trial.held_out, *trial.silent]
  texts = [s.text() for s in samples]
  assert len(set(texts)) == len(texts)
  # Some texts at the edges are of several documents.
  places = documents_of(source, samples)
  known = [min(p) for p in places if len(p) == 1]
  assert len(known) > len(places) // 2 and len(set(known)) == len(known)


def test_copies_of_a_context_are_dropped(tmp_path):
  source = word_latents.write(tmp_path / "s")
  trial = draw({"base": source}, latents=[4], before=0, after=0)[4]
  # A context is the word itself, so that all of them are alike.
  assert len(trial.shown) == 1 and trial.held_out == []


def test_contexts_fire_where_they_should(drawn):
  for latent, trial in drawn.items():
    word = f" w{latent}"
    for sample in (*trial.shown, *trial.held_out):
      assert sample.on
      fired = [t for t, token in enumerate(sample.tokens) if token == word]
      assert set(sample.on) <= set(fired)  # position 0 is no row
      assert sorted(sample.on + sample.off) == list(range(len(sample.tokens)))
    for sample in trial.silent:
      assert sample.on == []


def test_the_strongest_are_shown_and_all_strengths_are_tested(source, drawn):
  for latent in word_latents.COMMON:
    trial = drawn[latent]
    peaks = [max(s.activations) for s in trial.shown]
    assert trial.highest == pytest.approx(peaks[0])
    tests = [max(s.activations) for s in trial.held_out]
    # The activations are spread over 1 to 9; so are those held out.
    assert min(tests) < 4 and max(tests) > 6


def test_few_contexts_are_shared_fairly_and_none_is_no_error(drawn):
  rare = drawn[word_latents.RARE]  # 5 documents: 3 strongest, 2 left
  assert len(rare.shown) == 4 and len(rare.held_out) == 1
  silent = drawn[word_latents.SILENT]
  assert silent.shown == silent.held_out == []
  assert len(silent.silent) == HELD_OUT and silent.highest == 0
  # Every context of 5 tokens has a third token.
  assert len(drawn[word_latents.DENSE].silent) <= 2


def test_the_model_in_which_it_fires_most_is_shown(source, tmp_path):
  mute = word_latents.write(tmp_path / "mute", gain=0.0)
  drawn = draw({"base": mute, "bad": source})
  assert {t.model for t in drawn.values() if t.highest} == {"bad"}
  assert drawn[word_latents.SILENT].model == "base"
  drawn = draw({"base": source, "bad": source})
  assert {trial.model for trial in drawn.values()} == {"base"}


def test_only_rows_that_count_are_drawn(source):
  drawn = draw({"base": source}, keep=lambda rows_R2: rows_R2[:, 0] < 30)
  for trial in drawn.values():
    samples = [*trial.shown, *trial.held_out, *trial.silent]
    assert all(min(p) < 30 for p in documents_of(source, samples))


def test_meshes_agree(source, drawn):
  mesh = mesh_lib.make(mesh_lib.MeshConfig(data=4, latent=2))
  assert draw({"base": source}, mesh) == drawn
  assert draw({"base": source}, latents=[]) == {}


def test_marks_are_around_tokens_and_on_one_line():
  sample = trials.Sample(["a", "\n", "b", " c"], [0.0, 2.0, 1.0, 0.0])
  assert sample.text() == "a\\nb c"
  assert sample.text(sample.on) == "a«\\nb» c"
  assert sample.text([0, 3]) == "«a»\\nb« c»"
