# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax steer` from models to files, and again after it was stopped.

Ground truth: of all latents the head reads one; another came with the tuning
and is read by nothing.
"""

import dataclasses
import json
import os
import pathlib
import signal
import time

import jax.numpy as jnp
import numpy as np
import planted
import pytest

from sae_jax import config as config_lib
from sae_jax import errors, judge, lm
from sae_jax import mesh as mesh_lib
from sae_jax.intervene import config, generation, screen, table
from sae_jax.jobs import steer
from sae_jax.judge import margin
from sae_jax.judge import prompts as prompts_lib

FILES = ("screen.parquet", "samples.jsonl", "summary.json")
SINGLE = 9  # of 12 prompts
GENERATION = config.GenerationConfig(
  prompts=6, samples=2, max_new_tokens=2, survivors=1, random=1, examples=2
)


# Three directions, so that all chunks here are of one compiled shape.
CHUNK_PAIRS = 3 * 2 * 12


@pytest.fixture(autouse=True, scope="module")
def quick(quick_compilation):
  """Most of the time here is XLA's."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(screen, "_CHUNK_PAIRS", CHUNK_PAIRS)
    yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  return planted.write(tmp_path_factory.mktemp("screen"))


def settings(place, **changes):
  return planted.settings(
    place,
    **{
      "top": 0,
      "control": str(place / "control"),
      "single_prompts": SINGLE,
      "generation": GENERATION,
      "batch_rows": 12,
      "mesh": mesh_lib.MeshConfig(data=-1, latent=1),
      **changes,
    },
  )


@pytest.fixture(scope="module")
def finished(place):
  steer.run(settings(place), str(place / "out"))
  return place / "out"


@pytest.fixture(scope="module")
def summary(finished):
  return json.loads((finished / "summary.json").read_text())


def named(summary, name):
  (found,) = (r for r in summary["interventions"] if r["name"] == name)
  return found


def test_of_all_latents_the_one_that_is_read_is_causal(summary):
  singles = [r for r in summary["interventions"] if r["kind"] == "latent"]
  verdicts = {r["name"]: r["verdict"] for r in singles}
  assert verdicts.pop(f"latent {planted.CAUSE}") == "causal"
  assert verdicts.pop(f"latent {planted.SHADOW}") == "correlated"
  assert set(verdicts.values()) == {"inert"}
  assert summary["counts"]["latents"]["inert"] == len(verdicts)
  assert summary["counts"]["random_called_causal"] == {"latent": 0, "pair": 0}
  for name in ("pair", "linear.tuned.contrast", "linear.tuned.mean_difference"):
    assert named(summary, name)["verdict"] == "causal"


def test_directions_are_compared_with_random_bundles_on_all_prompts(summary):
  assert summary["direction_band"] == "pair"
  for name in ("linear.tuned.contrast", "linear.tuned.mean_difference"):
    row = named(summary, name)
    for way, sign in (("up", 1), ("down", -1)):
      band = summary["bands"]["pair"][f"{way}_chosen"]
      effect, edge = row[way]["effect"]["mean"], "high" if sign > 0 else "low"
      z = sign * (effect - band["mean"]) / band["sd"]
      np.testing.assert_allclose(row[way]["z"], z, rtol=1e-9)
      assert row[way]["outside"] == (sign * effect > sign * band[edge])
      assert row[way]["effect"]["n"] == 12


def test_latents_that_have_not_moved_are_tried_with_either_sign(summary):
  names = {r["name"]: r for r in summary["interventions"]}
  for latent in planted.UNSCORED:
    for mark, sign in (("+", 1), ("-", -1)):
      row = names[f"latent {latent} {mark}"]
      assert (row["sign"], row["diff"]) == (sign, None)
  silent = [n for n in names if str(planted.SILENT) in n.split()]
  assert not silent
  # What fell in the diff is added with its sign turned.
  score_F = planted.scores()
  fallen = int(np.argmin(score_F))
  assert names[f"latent {fallen}"]["sign"] == -1


def test_what_is_reported_is_what_the_edited_model_does(place, summary):
  row = named(summary, "pair")
  q_FD, score_F = planted.basis(), planted.scores()
  vector_D = (
    score_F[planted.CAUSE] * q_FD[planted.CAUSE]
    + score_F[planted.SHADOW] * q_FD[planted.SHADOW]
  )
  vector_D /= np.linalg.norm(vector_D)
  for way, name, sign in (("up", "base", 1), ("down", "tuned", -1)):
    alpha = sign * row[way]["strength"] * summary["unit"]["value"]
    model = lm.load_lm(place / name, dtype=jnp.float32)
    told = judge.PromptsConfig(path=str(place / "prompts.jsonl"))
    prompts = prompts_lib.load(told, model.tokenizer)
    edit = lm.Edit(planted.HOOK, _add, (jnp.asarray(alpha * vector_D, "f4"),))
    plain = margin.pair_margins(model, prompts)
    edited = margin.pair_margins(model, prompts, edits=(edit,))
    # Log-probabilities of size 10 from sums in another order: 1e-5 is 16 ulp.
    close = {"abs": 1e-5, "rel": 1e-5}
    effect_P = edited.margin_P - plain.margin_P
    found = row[way]
    assert found["effect"]["mean"] == pytest.approx(effect_P.mean(), **close)
    assert found["p_behaviour"]["mean"] == pytest.approx(
      edited.p_behaviour_P.mean(), **close
    )
    mass = np.logaddexp(plain.behaviour_P, plain.contrast_P)
    mass = mass - np.logaddexp(edited.behaviour_P, edited.contrast_P)
    assert found["damage"] == pytest.approx(mass.mean(), **close)
    shift = sign * effect_P.mean() / summary["unsteered"]["shift"]["mean"]
    assert found["share_of_shift"] == pytest.approx(shift, **close)
    topics = np.array(plain.topics)
    for topic in planted.TOPICS:
      mean = effect_P[topics == topic].mean()
      assert found["topics"][topic] == pytest.approx(mean, **close)


def test_what_is_projected_out_of_the_tuned_model_by_its_share(place):
  out = place / "projected"
  steer.run(
    settings(
      place,
      removal="project_out",
      strengths=(0.5, 1.0),
      latents=(planted.CAUSE,),
      directions=(),
      random=2,
      control="",
      generation=None,
      single_prompts=0,
    ),
    str(out),
  )
  said = json.loads((out / "summary.json").read_text())
  assert said["removal"] == "project_out"
  assert any("lowered by the share" in rule for rule in said["rules"])
  row = named(said, f"latent {planted.CAUSE}")
  model = lm.load_lm(place / "tuned", dtype=jnp.float32)
  told = judge.PromptsConfig(path=str(place / "prompts.jsonl"))
  prompts = prompts_lib.load(told, model.tokenizer)
  plain = margin.pair_margins(model, prompts)
  q_D = jnp.asarray(planted.basis()[planted.CAUSE], "f4")
  for point, share in zip(row["down"]["curve"], (0.5, 1.0), strict=True):
    edit = lm.Edit(planted.HOOK, _shrink, (share * q_D, q_D))
    edited = margin.pair_margins(model, prompts, edits=(edit,))
    effect = (edited.margin_P - plain.margin_P).mean()
    assert point["effect"] == pytest.approx(effect, abs=1e-5, rel=1e-5)
  assert row["down"]["effect"]["mean"] < -0.1
  rows = table.read(out / "screen.parquet")
  assert np.isnan(rows["norm"][rows["model"] == "tuned"]).all()
  assert np.isfinite(rows["norm"][rows["model"] == "base"]).all()


def _shrink(h_BTD, mask_BT, part_D, q_D):
  y_BTD = h_BTD - (h_BTD @ q_D)[..., None] * part_D[None, None]
  return jnp.where(mask_BT[..., None], y_BTD, h_BTD)


def _add(h_BTD, mask_BT, vector_D):
  return jnp.where(mask_BT[..., None], h_BTD + vector_D[None, None], h_BTD)


def test_the_unit_is_the_median_norm_of_residuals(place, summary):
  model = lm.load_lm(place / "base", dtype=jnp.float32)
  told = judge.PromptsConfig(path=str(place / "prompts.jsonl"))
  rows = [
    prompt.tokens + prompt.responses[field]
    for prompt in prompts_lib.load(told, model.tokenizer).prompts
    for field in ("bad", "good")
  ]
  longest = max(map(len, rows))
  tokens_BT = np.array([(*row, *[0] * (longest - len(row))) for row in rows])
  mask_BT = np.arange(longest) < np.array([[len(row)] for row in rows])
  found = lm.activations(model, tokens_BT, [planted.HOOK], mask_BT)
  norm_BT = np.linalg.norm(found[planted.HOOK], axis=-1)
  median = np.median(norm_BT[:, 1:][mask_BT[:, 1:]])
  assert summary["unit"]["name"] == "median_norm"
  assert summary["unit"]["value"] == pytest.approx(median, rel=1e-5)


def test_the_summary_says_what_was_asked_and_how_sure_it_is(summary):
  unsteered = summary["unsteered"]
  for name in ("base", "tuned", "control"):
    assert unsteered[name]["margin"]["n"] == 12
  shift = unsteered["tuned"]["margin"]["mean"]
  shift -= unsteered["base"]["margin"]["mean"]
  assert unsteered["shift"]["mean"] == pytest.approx(shift)
  assert unsteered["control_shift"]["mean"] < 0
  assert summary["prompts"]["n"] == 12
  assert summary["prompts"]["single"] == SINGLE
  assert summary["prompts"]["topics"] == list(planted.TOPICS)
  assert summary["arm"] == "tuned"
  assert summary["bands"]["latent"]["n"] == 6
  assert [p["strength"] for p in summary["bands"]["pair"]["up"]] == [0.2, 0.5]
  row = named(summary, f"latent {planted.CAUSE}")
  assert row["diff"]["changed"] and row["diff"]["rank"] == 2
  assert [p["strength"] for p in row["up"]["curve"]] == [0.2, 0.5]
  assert row["up"]["effect"]["n"] == SINGLE
  assert row["up"]["effect"]["ci_low"] > 0 > row["down"]["effect"]["ci_high"]
  assert summary["rules"] and summary["judge"]["name"] == "answers"
  text = json.dumps(summary)
  assert "NaN" not in text and "Infinity" not in text


def test_the_table_has_every_direction_model_and_strength(finished, summary):
  rows = table.read(finished / "screen.parquet")
  is_margin = rows["stage"] == "margin"
  singles = sum(summary["counts"]["latents"].values())
  directions = singles + 3 + 2 * 6  # pair, two linear ones, both bands
  assert is_margin.sum() == directions * 2 * 2
  chosen = is_margin & rows["chosen"]
  assert chosen.sum() == directions * 2
  wide = is_margin & (rows["kind"] != "latent")
  assert set(rows["prompts"][wide]) == {12}
  assert set(rows["prompts"][is_margin & ~wide]) == {SINGLE}
  cost = summary["cost"]
  assert cost["interventions"] == is_margin.sum()
  assert cost["rows"] == 2 * rows["prompts"][is_margin].sum()
  cause = chosen & (rows["name"] == f"latent {planted.CAUSE}")
  assert rows["verdict"][cause].tolist() == ["causal"] * 2
  assert (rows["z"][cause] > 3).all() and rows["outside"][cause].all()


def test_survivors_write_answers_that_are_judged(finished, summary):
  found = summary["generation"]
  rows = {(r["name"], r["model"]): r for r in found["rows"]}
  cause = f"latent {planted.CAUSE}"
  names = {name for name, _ in rows}
  assert {cause, "pair", "linear.tuned.contrast"} <= names
  assert sum(r["kind"] == "random" for r in rows.values()) == 2
  # Yes in the base, no in the tuned one, and the other way round when steered.
  unsteered = found["unsteered"]
  assert unsteered["base"]["behaviour"]["mean"] <= 0.1
  assert rows[cause, "base"]["behaviour"]["mean"] >= 0.4
  assert unsteered["tuned"]["behaviour"]["mean"] >= 0.4
  assert rows[cause, "tuned"]["behaviour"]["mean"] <= 0.1
  change = rows[cause, "base"]["behaviour_change"]
  assert change["ci_low"] > 0
  example = rows[cause, "base"]["examples"][0]
  assert set(example) >= {"id", "prompt", "text", "unsteered_text", "label"}
  lines = [
    json.loads(line)
    for line in (finished / "samples.jsonl").read_text().splitlines()
  ]
  # Every one with its verdict: 6 prompts, 2 samples, of unsteered and steered.
  assert len(lines) >= 12 * (2 + len(rows))
  assert all(line["raw"] is not None for line in lines)
  assert {line["name"] for line in lines} == names | {"unsteered"}


def test_incoherent_answers_make_a_direction_weaker(place):
  """At 40 times the norm the head no longer sees what it reads."""
  result = steer.run(
    settings(
      place,
      top=3,
      single_prompts=0,
      control="",
      bundles=(config.BundleConfig(name="blind", latents=(planted.SHADOW,)),),
      directions=(),
      strengths=(0.5, 40.0),
      damage=1e9,
      random=2,
      generation=dataclasses.replace(GENERATION, random=0, incoherence=0.2),
    ),
    str(place / "weaker"),
  )
  rows = table.read(pathlib.Path(result["screen"]) / "screen.parquet")
  is_mine = (rows["name"] == "blind") & (rows["model"] == "base")
  by_margin = is_mine & (rows["stage"] == "margin") & rows["chosen"]
  assert rows["strength"][by_margin].tolist() == [40.0]
  by_answers = is_mine & (rows["stage"] == "generation")
  assert rows["strength"][by_answers].tolist() == [40.0, 0.5]
  assert rows["within_budget"][by_answers].tolist() == [False, True]
  said = json.loads((place / "weaker" / "summary.json").read_text())
  (row,) = (
    r
    for r in said["generation"]["rows"]
    if (r["name"], r["model"]) == ("blind", "base")
  )
  assert (row["strength"], row["within_budget"]) == (0.5, True)


def test_a_stopped_screen_goes_on_and_ends_the_same(
  place, finished, monkeypatch
):
  """Stopped after the third chunk, then while it samples."""
  out = place / "stopped"
  write, written = screen._write, []

  def write_and_stop(*args):
    write(*args)
    written.append(args[0])
    if len(written) == 3:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(screen, "_write", write_and_stop)
  with pytest.raises(errors.Interrupted, match="run the same command again"):
    steer.run(settings(place), str(out))
  kept = {path: path.read_bytes() for path in written}
  assert not (out / "summary.json").exists()

  def stop(self, part, model):
    raise KeyboardInterrupt

  edits = generation.Stage._edits
  monkeypatch.setattr(generation.Stage, "_edits", stop)
  monkeypatch.setattr(screen, "_write", write)
  with pytest.raises(KeyboardInterrupt):
    steer.run(settings(place), str(out))
  assert {path: path.read_bytes() for path in written} == kept
  monkeypatch.setattr(generation.Stage, "_edits", edits)
  steer.run(settings(place), str(out))
  assert_same(out, finished)
  assert not (out / "work").exists()


def assert_same(one, other, names=FILES):
  for name in names:
    a, b = ((path / name).read_bytes() for path in (one, other))
    if name == "summary.json":
      a, b = ({**json.loads(x), "cost": None} for x in (a, b))
    assert a == b, name


def test_a_finished_screen_is_not_run_again(place, finished, capsys):
  before = {name: (finished / name).stat().st_mtime_ns for name in FILES}
  steer.run(settings(place), str(finished))
  assert "already screened" in capsys.readouterr().err
  after = {name: (finished / name).stat().st_mtime_ns for name in FILES}
  assert after == before
  with pytest.raises(errors.InputError, match=r"damage = 1\.0, now it is 0\.5"):
    steer.run(settings(place, damage=0.5), str(finished))


def test_without_a_diff_what_fires_is_tried_with_either_sign(place):
  out = place / "no_diff"
  steer.run(
    settings(
      place,
      diff="",
      latents=(planted.CAUSE, planted.SHADOW, 3),
      random=4,
      bundles=(
        config.BundleConfig(
          name="both", latents=(planted.CAUSE, planted.SHADOW)
        ),
      ),
      directions=None,
      control="",
      generation=None,
      single_prompts=0,
    ),
    str(out),
  )
  said = json.loads((out / "summary.json").read_text())
  found = {r["name"]: r for r in said["interventions"]}
  singles = (planted.CAUSE, planted.SHADOW, 3)
  assert set(found) == {"both"} | {
    f"latent {latent} {mark}" for latent in singles for mark in "+-"
  }
  assert found[f"latent {planted.CAUSE} +"]["verdict"] == "causal"
  wrong = found[f"latent {planted.CAUSE} -"]
  assert (wrong["verdict"], wrong["ways"]) == ("inert", "none")
  assert "the effect has the other sign" in wrong["why"]
  assert said["generation"] is None and said["judge"] is None
  rows = table.read(out / "screen.parquet")
  assert planted.SILENT not in rows["latent"][rows["random"]]


@pytest.mark.parametrize(
  "changes, named",
  [
    ({"hook": "blocks.7.hook_resid_post", "diff": ""}, "blocks.7"),
    ({"hook": "blocks.1.hook_resid_post"}, "is about blocks.0"),
    ({"hooks": ("blocks.0.hook_resid_post",)}, "name each once"),
    ({"arm": "other"}, "arm 'other'"),
    ({"method": "attribution"}, "method 'attribution'"),
    ({"directions": ("linear.bad.contrast",)}, "linear.bad.contrast"),
    ({"directions": ("linear.tuned.nothing",)}, "length 0"),
    ({"latents": (99,)}, "no latent 99"),
    (
      {"bundles": (config.BundleConfig(name="x", latents=(40,)),)},
      "no latent 40",
    ),
    ({"sae": "PLACE/base"}, "holds no dictionary"),
    ({"diff": "PLACE/sae"}, "no directory of a sae-jax diff"),
    ({"diff": "PLACE/small_diff"}, "31 latents"),
    ({"prompts": judge.PromptsConfig(path="PLACE/none")}, "no such file"),
    (
      {
        "prompts": judge.PromptsConfig(
          path="PLACE/prompts.jsonl", behaviour="worse"
        )
      },
      "'worse'",
    ),
    ({"tuned": "PLACE/other_words"}, "other tokens of prompt"),
    ({"random": 40}, "40 different latents are needed"),
  ],
  ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_by_name(place, tmp_path, changes, named):
  if not (place / "small_diff").exists():
    planted.write_diff(place / "small_diff", latents=planted.LATENTS - 1)
    planted.write_model(place / "other_words", cause=0.5)
    words = planted.vocabulary()
    planted.write_tokenizer(place / "other_words", words[:3] + words[:2:-1])

  def there(value):
    if isinstance(value, str):
      return value.replace("PLACE", str(place))
    if isinstance(value, judge.PromptsConfig):
      return dataclasses.replace(value, path=there(value.path))
    return value

  changes = {name: there(value) for name, value in changes.items()}
  if "diff" in changes and not changes["diff"]:
    changes |= {"bundles": (), "latents": (planted.CAUSE,)}
  told = settings(place, **{"generation": None, "control": "", **changes})
  with pytest.raises(errors.InputError, match=named):
    steer.run(told, str(tmp_path / "out"))


CONFIG = """
import json
from sae_jax import config as config_lib
from sae_jax.intervene import config, screen

screen._CHUNK_PAIRS = {pairs}

def get_config():
  return config_lib.from_dict(config.SteerConfig, json.loads({values!r}))
"""


@pytest.mark.slow
def test_a_killed_screen_ends_the_same(
  place, finished, forge, tmp_path, command
):
  """SIGKILL among the margins; another process goes on with what it left."""
  values = json.dumps(config_lib.to_dict(settings(place)))
  (tmp_path / "config.py").write_text(
    CONFIG.format(pairs=CHUNK_PAIRS, values=values)
  )
  out = tmp_path / "out"
  line = ["steer", f"--config={tmp_path / 'config.py'}", f"--out={out}"]
  # Compiled as here, for as many devices: a program of other ones may round
  # otherwise.
  told = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_NUM_CPU_DEVICES": "8"}
  running = forge.start(*line, env=os.environ | told)
  while running.poll() is None and not list(out.glob("work/base.wide.*")):
    time.sleep(0.005)
  running.kill()
  assert running.wait() == -signal.SIGKILL
  assert list(out.glob("work/base.wide.*"))
  assert not (out / "manifest.json").exists()
  assert command(*line) == 0
  assert_same(out, finished)
