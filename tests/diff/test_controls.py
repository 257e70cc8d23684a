# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Controls say what the rule finds where there is nothing to find."""

import json

import fake_evidence as fake
import numpy as np
import pytest

from sae_jax.diff import config, controls, frozen, table

ARMS = (
  config.Arm(name="bad", store="/stores/bad"),
  config.Arm(name="good", store="/stores/good", role="control"),
  config.Arm(name="same", store="/stores/same", role="null"),
)


def run(work, arrays, group_N, *arms):
  """The parts as the job has them: written and read back."""
  problem = fake.make_problem(
    work, arrays, group_N, config=fake.make_config(*(arms or ARMS))
  )
  names = []
  for part in frozen.run(problem):
    table.write_part(work / "parts", part)
    names.append((part.method, part.arm))
  parts = [table.read_part(work / "parts", *name) for name in names]
  found = controls.summary(problem, parts)
  json.dumps(found, allow_nan=False)
  return found, {(p.method, p.arm): p for p in parts}


def make_arrays(seed=0, rows=600, groups=30):
  rng = np.random.default_rng(seed)
  x_ND = rng.standard_normal((rows, 8))
  drift_D = 0.5 * rng.standard_normal(8)
  w_FD = np.asarray(fake.make_dictionary().params.w_dec_FD)
  push_ND = (rng.random(rows) < 0.5)[:, None] * 3 * w_FD[11]
  arrays = {
    "base": x_ND,
    "bad": x_ND + drift_D + push_ND,
    "good": x_ND + drift_D,
    "same": x_ND + 0.01 * rng.standard_normal(x_ND.shape),
  }
  return arrays, np.repeat(np.arange(groups), rows // groups)


def test_what_the_control_also_changed_is_counted(tmp_path):
  found, parts = run(tmp_path / "work", *make_arrays())
  row = found["benign"]["bad"]
  plain = parts["frozen_plain", "bad"].columns
  good = parts["frozen_plain", "good"].columns
  shared_F = plain["changed"] & good["changed"]
  shared_F &= plain["score"] * good["score"] > 0
  assert row["control"] == "good"
  assert row["plain"] == plain["changed"].sum() > 0
  assert row["control_changed"] == good["changed"].sum() > 0
  assert row["shared"] == shared_F.sum() > 0
  assert row["false_discovery_rate"] == shared_F.sum() / row["plain"]
  assert row["contrast_false_discovery_rate"] < row["false_discovery_rate"]


def test_equal_models_leave_the_null_arm_empty(tmp_path):
  found, _ = run(tmp_path / "work", *make_arrays())
  row = found["null"]["same"]
  assert row["changed"] == 0 and row["top"] == []
  assert row["false_discovery_rate"] == 0
  assert row["tested"] > 0 and row["largest"] > 0
  assert found["warnings"] == []
  assert found["rule"] == {
    "q": 0.05,
    "confidence": 0.95,
    "numerical_noise": False,
  }


def test_a_null_arm_that_is_none_is_told(tmp_path):
  arrays, group_N = make_arrays()
  arrays["same"] = arrays["bad"]
  found, parts = run(tmp_path / "work", arrays, group_N)
  row = found["null"]["same"]
  changed = parts["frozen_plain", "same"].columns["changed"].sum()
  assert row["changed"] == changed > 0
  assert len(row["top"]) == min(changed, 10)
  assert any("null arm 'same'" in text for text in found["warnings"])


def test_shuffled_labels_and_stability_are_per_part(tmp_path):
  found, parts = run(tmp_path / "work", *make_arrays())
  assert set(found["shuffled"]) == {p.name for p in parts.values()}
  for name, row in found["shuffled"].items():
    part = parts[tuple(name.split("/"))]
    passes = (part.columns["q"] <= 0.05).sum()
    assert row["shuffles"] == 50 and row["significant"] == passes
    assert row["mean_discoveries"] < 0.5  # 0.05 families err, few latents each
  stability = found["stability"]["frozen/bad"]
  assert stability["top"] == 5 and 0.5 < stability["risen"] <= 1


def test_without_controls_that_is_told(tmp_path):
  arrays, group_N = make_arrays()
  found, _ = run(tmp_path / "work", arrays, group_N, ARMS[0])
  assert found["null"] == found["benign"] == {}
  assert any("no null arm" in text for text in found["warnings"])


def test_a_diff_without_the_frozen_method_has_no_controls():
  problem = fake.FakeProblem(fake.make_config(), fake_names(), None, None, None)
  found = controls.summary(problem, [])
  assert found["shuffled"] == found["null"] == found["benign"] == {}
  assert found["warnings"] == []


def fake_names():
  return type("Evidence", (), {"names": ("base", "bad")})


@pytest.mark.parametrize("empty", [True, False])
def test_ranks_that_cannot_be_shared(tmp_path, empty):
  """Nothing changed at all: no rate divides by zero."""
  arrays, group_N = make_arrays()
  arrays = {name: arrays["base"] for name in arrays} if empty else arrays
  found, _ = run(tmp_path / "work", arrays, group_N)
  rate = found["benign"]["bad"]["false_discovery_rate"]
  assert (rate is None) == empty
