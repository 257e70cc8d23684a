# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""From text to a diff with dictionaries trained on the way, job by job.

Ground truth: one direction was added to one word's embedding.
"""

import json

import diff_models
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, formats, harvest, mesh, sae, store, stream
from sae_jax import evaluate as evaluate_lib
from sae_jax.diff import cards_config, stagewise_runs, table
from sae_jax.diff import config as diff_config
from sae_jax.interpret import contexts
from sae_jax.jobs import diff as diff_job
from sae_jax.jobs import evaluate as evaluate_job
from sae_jax.jobs import train as train_job
from sae_jax.lm import text as text_lib
from sae_jax.train import config as train_config
from sae_jax.train import optimizer

ALL = mesh.MeshConfig(data=4, latent=2)
LATENTS = 16


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """Models, and stores of them on the same tokens."""
  place = tmp_path_factory.mktemp("trained")
  push_D = 4 * diff_models.directions()[diff_models.PLANTED]
  diff_models.write_model(place / "base")
  diff_models.write_model(place / "bad", push_D=push_D, noise=0.01)
  diff_models.write_model(place / "good", noise=0.01)
  diff_models.write_sae(place / "sae")
  rng = np.random.default_rng(0)
  words = diff_models.words()[1:]  # the trigger is one of them
  with open(place / "text.jsonl", "w") as file:
    for _ in range(120):
      text = " ".join(rng.choice(words, rng.integers(8, 30)))
      file.write(json.dumps({"text": text}) + "\n")
  config = harvest.HarvestConfig(
    model=str(place / "base"),
    hooks=(diff_models.HOOK,),
    text=text_lib.TextConfig(
      path=str(place / "text.jsonl"), context_length=24, packed=False
    ),
    rows=1536,
    read_rows=32,
    write_rows=256,
    dtype="float32",
    lanes=2,
  )
  harvest.harvest(config, place / "store-base")
  for name in ("bad", "good"):
    again = harvest.HarvestConfig(
      model=str(place / name),
      hooks=(diff_models.HOOK,),
      tokens_of=str(place / "store-base"),
      dtype="float32",
    )
    harvest.harvest(again, place / f"store-{name}")
  return place


@pytest.fixture(scope="module")
def delta_run(place):
  config = train_config.TrainConfig(
    store=str(place / "store-bad"),
    minus=str(place / "store-base"),
    hook=diff_models.HOOK,
    sae=sae.SaeConfig(latents=LATENTS, k=2, matmul_dtype="float32"),
    optimizer=optimizer.OptimizerConfig(learning_rate=1e-2, warmup_steps=10),
    stream=stream.StreamConfig(batch_size=128, mix_chunks=8),
    steps=150,
    held_out_rows=256,
    mesh=ALL,
  )
  train_job.run(config, str(place / "delta"))
  return place / "delta"


def evaluate(delta_run, out, **fields):
  return evaluate_job.run(
    evaluate_job.Config(
      run=str(delta_run),
      evaluate=evaluate_lib.EvaluateConfig(contexts=4),
      contexts=contexts.ContextsConfig(latents=2),
      mesh=ALL,
      **fields,
    ),
    str(out),
  )


@pytest.mark.slow
def test_a_run_on_differences_is_evaluated_on_differences(
  place, delta_run, tmp_path
):
  result = evaluate(delta_run, tmp_path / "own")
  assert result["eval/fvu"] < 0.3
  assert "eval/ce_clean" not in result  # it reconstructs no model's activations
  shown = json.loads((tmp_path / "own" / "contexts.json").read_text())
  assert shown
  given = {
    "store": str(place / "store-good"),
    "minus": str(place / "store-base"),
  }
  other = evaluate(delta_run, tmp_path / "other", **given)
  assert other["eval/fvu"] > result["eval/fvu"]
  for fields, message in (
    ({"store": given["store"]}, "give --config.minus"),
    ({"minus": given["minus"]}, "config.store, which is empty"),
  ):
    with pytest.raises(errors.InputError, match=message):
      evaluate(delta_run, tmp_path / "refused", **fields)


@pytest.mark.slow
def test_the_job_runs_all_trained_methods(place, delta_run, tmp_path):
  planted_D = diff_models.directions()[diff_models.PLANTED]
  w_FD = diff_models.directions()
  rng = np.random.default_rng(1)
  order_F = rng.permutation(len(w_FD))
  write_rows(tmp_path / "other", w_FD[order_F])
  turned_FD = w_FD.copy()
  turned_FD[diff_models.PLANTED] = np.roll(planted_D, 1)
  little_FD = w_FD + 0.01 * rng.normal(size=w_FD.shape)
  for name, rows_FD in (
    ("data_first", little_FD),
    ("data_then_model", turned_FD),
    ("model_first", turned_FD),
    ("model_then_data", turned_FD + 0.01 * rng.normal(size=w_FD.shape)),
  ):
    write_rows(tmp_path / name, rows_FD)
  write_crosscoder(tmp_path / "both", w_FD)
  steps = ("data_first", "data_then_model", "model_first", "model_then_data")
  config = diff_config.DiffConfig(
    base_store=str(place / "store-base"),
    arms=(
      diff_config.Arm(
        name="bad", store=str(place / "store-bad"), control="good"
      ),
      diff_config.Arm(
        name="good", store=str(place / "store-good"), role="control"
      ),
    ),
    sae=str(place / "sae"),
    methods=("frozen", "delta", "crosscoder", "stagewise", "match"),
    delta=(str(delta_run),),
    crosscoder=(str(tmp_path / "both"),),
    stagewise=stagewise_runs.StagewiseRuns(
      start=str(place / "sae"),
      **{name: str(tmp_path / name) for name in steps},
    ),
    match=str(tmp_path / "other"),
    statistics=diff_config.StatisticsConfig(resamples=100, shuffles=5, top=5),
    cards=cards_config.CardsConfig(latents=0),
    mesh=ALL,
  )
  result = diff_job.run(config, str(tmp_path / "out"))
  assert result["risen"]["frozen/bad"][0] == diff_models.PLANTED
  assert result["risen"]["stagewise/bad"][0] == diff_models.PLANTED
  path = tmp_path / "out" / "latents.parquet"
  found = table.read(path, method="delta")
  assert (
    set(found["dictionary"]) == {"delta"} and len(found["score"]) == LATENTS
  )
  best = int(np.argmax(found["score"]))
  dictionary = formats.load_sae(delta_run)
  assert dictionary.params.w_dec_FD[best] @ planted_D > 0.9
  assert found["changed"][best] and found["explained"][best] > 0.3
  found = table.read(path, method="crosscoder")
  assert np.argmax(found["score"]) == 0 and found["score"][0] > 0.3
  assert found["delta_norm"][0] == 1 and found["cos_mean_difference"][0] > 0.9
  np.testing.assert_allclose(found["delta_norm"][1:], 0.5, atol=0.05)
  found = table.read(path, method="match")
  np.testing.assert_array_equal(np.argsort(order_F), found["partner"])
  summary = json.loads((tmp_path / "out" / "summary.json").read_text())
  assert {p["method"] for p in summary["parts"]} >= {
    "delta",
    "stagewise",
    "match",
  }
  differences = store.difference(
    store.open_store(config.arm("bad").store),
    store.open_store(config.base_store),
  )
  identities = differences.identities
  assert dictionary.metadata["sae_jax_minus"] == identities["minus"]


def write_crosscoder(path, w_FD):
  """The difference along the planted direction; all else is in both."""
  planted_D = w_FD[diff_models.PLANTED]
  rest_FD = w_FD - np.outer(w_FD @ planted_D, planted_D)
  rest_FD = np.delete(rest_FD, diff_models.PLANTED, axis=0)
  both_FD = np.concatenate([rest_FD, rest_FD], axis=1)
  apart_D = np.concatenate([-planted_D, planted_D])
  alone_D = np.concatenate([0 * planted_D, planted_D])
  params = sae.Params(
    w_enc_FD=jnp.float32(np.concatenate([apart_D[None], both_FD])),
    w_dec_FD=jnp.float32(np.concatenate([alone_D[None], both_FD])),
    b_enc_F=jnp.zeros(len(w_FD)),
    b_dec_D=jnp.zeros(2 * diff_models.D),
  )
  formats.save_sae(sae.make_sae(params, 8, sources=2), path)


def write_rows(path, w_FD):
  w_FD = jnp.asarray(w_FD / np.linalg.norm(w_FD, axis=1, keepdims=True))
  w_FD = w_FD.astype(jnp.float32)
  params = sae.Params(
    w_enc_FD=w_FD,
    w_dec_FD=w_FD,
    b_enc_F=jnp.zeros(diff_models.F),
    b_dec_D=jnp.zeros(diff_models.D),
  )
  formats.save_sae(sae.make_sae(params, 8), path)
