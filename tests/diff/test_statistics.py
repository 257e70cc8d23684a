# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Estimates, intervals and tests against plain float64, and on simulations."""

import tracemalloc

import numpy as np
import pytest
import scipy.stats

from sae_jax.diff import config, false_discovery, resampling, statistics


def settings(**fields):
  return config.StatisticsConfig(**{"resamples": 200, "top": 3, **fields})


def measure(*z_GF, n_G=None, noise_F=None, **fields):
  """Measures arrays [G, F], one per arm."""
  n_G = np.ones(len(z_GF[0])) if n_G is None else n_G
  return statistics.measure(
    [lambda a, b, z=z: z[:, a:b] for z in z_GF],
    n_G,
    z_GF[0].shape[1],
    settings(**fields),
    noise_F=noise_F,
  )


def make(groups=24, latents=9, seed=0, shift=0.3):
  rng = np.random.default_rng(seed)
  n_G = rng.integers(1, 30, groups).astype(float)
  z_GF = rng.standard_normal((groups, latents)) + shift * rng.random(latents)
  return z_GF * n_G[:, None], n_G


def plain(z_G, n_G):
  """Estimate and standard error of one latent: Σz/Σn and its residuals."""
  e = z_G.sum() / n_G.sum()
  g = len(z_G)
  residual_G = z_G - e * n_G
  return e, np.sqrt(g / (g - 1) * (residual_G**2).sum()) / n_G.sum()


def test_estimate_and_test_are_those_of_a_ratio_of_sums():
  z_GF, n_G = make()
  found = measure(z_GF, n_G=n_G).columns
  for f in range(z_GF.shape[1]):
    e, error = plain(z_GF[:, f], n_G)
    t = e / error
    p = 2 * scipy.stats.t.sf(abs(t), len(n_G) - 1)
    np.testing.assert_allclose(found["score"][f], e, rtol=1e-12)
    np.testing.assert_allclose(found["t"][f], t, rtol=1e-9)
    np.testing.assert_allclose(found["effect"][f], t / np.sqrt(24), rtol=1e-9)
    np.testing.assert_allclose(found["p"][f], p, rtol=1e-8)


def test_equal_groups_give_students_test_of_their_means():
  z_GF, _ = make()
  found = measure(z_GF).columns
  wanted = scipy.stats.ttest_1samp(z_GF, 0)
  np.testing.assert_allclose(found["t"], wanted.statistic, rtol=1e-9)
  np.testing.assert_allclose(found["p"], wanted.pvalue, rtol=1e-8)


def test_interval_is_the_hull_of_student_and_bootstrap_t():
  z_GF, n_G = make()
  found = measure(z_GF, n_G=n_G).columns
  groups = len(n_G)
  weights_RG = resampling.draw(0, groups, 1, 200).weight_RG.astype(float)
  for f in range(z_GF.shape[1]):
    e, error = plain(z_GF[:, f], n_G)
    t_R = []
    for w_G in weights_RG:
      each = np.repeat(np.arange(groups), w_G.astype(int))
      e_star, error_star = plain(z_GF[each, f], n_G[each])
      t_R.append((e_star - e) / error_star)
    t_R = np.sort(t_R)
    edge = scipy.stats.t.ppf(0.975, groups - 1)
    # 201 · 0.025 = 5.025: the fifth from each end.
    wanted_low = e - max(t_R[-5], edge) * error
    wanted_high = e + max(-t_R[4], edge) * error
    # Resamples are float32: a t of about 2 from sums of 24 terms.
    at_most = 1e-4 * error
    assert abs(found["ci_low"][f] - wanted_low) < at_most
    assert abs(found["ci_high"][f] - wanted_high) < at_most


def test_stability_counts_the_resamples_in_which_a_latent_leads():
  z_GF, n_G = make(latents=12, shift=0)
  found = measure(z_GF, n_G=n_G, top=3).columns
  weights_RG = resampling.draw(0, 24, 1, 200).weight_RG.astype(float)
  e_RF = weights_RG @ z_GF / (weights_RG @ n_G)[:, None]
  for f in range(12):
    sign = 1 if found["score"][f] > 0 else -1
    best_RN = np.argsort(-sign * e_RF, axis=1)[:, :3]
    inside = (best_RN == f).any(1) & (sign * e_RF[:, f] > 0)
    np.testing.assert_allclose(found["stability"][f], inside.mean(), atol=1e-12)


def test_family_wise_p_counts_flips_whose_largest_t_is_larger():
  z_GF, n_G = make(latents=6, shift=0.5)
  found = measure(z_GF, n_G=n_G).columns
  largest_R = []
  for sign_G in resampling.draw(0, 24, 1, 200).sign_RG.astype(float):
    flipped = [plain(sign_G * z_GF[:, f], n_G) for f in range(6)]
    largest_R.append(max(abs(e / error) for e, error in flipped))
  for f in range(6):
    above = np.sum(np.array(largest_R) >= abs(found["t"][f]))
    assert found["p_max"][f] == (1 + above) / 201


def test_q_values_are_benjamini_hochbergs():
  p_F = np.array([0.01, 0.2, 0.01, 1.0, 0.03, 0.9])
  tested_F = np.array([True, True, True, False, True, True])
  q_F = false_discovery.q_values(p_F, tested_F)
  # Sorted .01 .01 .03 .2 .9 of 5: steps .05 .025 .05 .25 .9.
  np.testing.assert_allclose(q_F, [0.025, 0.25, 0.025, 1, 0.05, 0.9])
  assert false_discovery.discoveries(p_F[tested_F], 5, 0.05) == 3
  assert false_discovery.discoveries(np.array([]), 5, 0.05) == 0


def test_several_arms_are_a_sample_too():
  z1_GF, n_G = make(seed=1)
  z2_GF, z3_GF = make(seed=2)[0], make(seed=3)[0]
  arms = [z1_GF, z2_GF, z3_GF]
  found = measure(*arms, n_G=n_G).columns
  groups = len(n_G)
  for f in range(z1_GF.shape[1]):
    each_A = np.array([plain(z[:, f], n_G)[0] for z in arms])
    e, error = plain(np.mean([z[:, f] for z in arms], axis=0), n_G)
    by_group, by_arm = error**2, each_A.var(ddof=1) / 3
    dof = (by_group + by_arm) ** 2 / (
      by_group**2 / (groups - 1) + by_arm**2 / 2
    )
    error = np.sqrt(by_group + by_arm)
    np.testing.assert_allclose(found["score"][f], each_A.mean(), rtol=1e-12)
    np.testing.assert_allclose(found["t"][f], e / error, rtol=1e-9)
    p = 2 * scipy.stats.t.sf(abs(e / error), dof)
    np.testing.assert_allclose(found["p"][f], p, rtol=1e-8)
    reach = scipy.stats.t.ppf(0.975, dof) * error
    # The pigeonhole bootstrap may reach further, never less far.
    assert found["ci_low"][f] <= e - reach + 1e-9 * error
    assert found["ci_high"][f] >= e + reach - 1e-9 * error


@pytest.mark.parametrize("size", [1, 5, 64])
def test_blocks_of_latents_change_nothing(monkeypatch, size):
  z_GF, n_G = make(latents=40, shift=1)
  z_GF[:, ::3] = 0
  whole = measure(z_GF, n_G=n_G)
  monkeypatch.setattr(statistics, "_BLOCK", size * 200)
  parts = measure(z_GF, n_G=n_G)
  assert parts.summary == whole.summary
  for name, values_F in whole.columns.items():
    # Products of other shapes may add up in another order.
    np.testing.assert_allclose(
      parts.columns[name], values_F, rtol=1e-5, atol=1e-6, err_msg=name
    )


def test_the_unit_does_not_matter():
  z_GF, n_G = make()
  one = measure(z_GF, n_G=n_G).columns
  for unit in (1e-30, 1e30):
    other = measure(z_GF * unit, n_G=n_G).columns
    for name in ("t", "p", "q", "p_max", "changed"):
      np.testing.assert_allclose(other[name], one[name], rtol=1e-5)
    np.testing.assert_allclose(
      other["ci_low"], one["ci_low"] * unit, rtol=1e-4, atol=1e-5 * unit
    )


def test_groups_without_rows_do_not_count():
  z_GF, n_G = make()
  pad = [(0, 3), (0, 0)]
  wanted = measure(z_GF, n_G=n_G)
  found = measure(np.pad(z_GF, pad), n_G=np.pad(n_G, (0, 3)))
  assert found.summary == wanted.summary
  for name, values_F in wanted.columns.items():
    np.testing.assert_array_equal(found.columns[name], values_F)


def test_a_latent_that_is_zero_says_nothing():
  z_GF, _ = make(shift=5)
  z_GF[:, 2] = 0
  found = measure(z_GF)
  row = {name: values[2] for name, values in found.columns.items()}
  assert row.pop("p") == row.pop("q") == row.pop("p_max") == 1
  assert not any(row.values())
  assert found.summary["tested"] == 8


def test_nothing_at_all_is_measured_without_a_warning():
  found = measure(np.zeros((30, 4)))
  assert not found.columns["changed"].any()
  assert (found.columns["p"] == 1).all()
  assert found.summary["shuffled"]["false_discovery_rate"] is None


def test_any_seed_draws_other_resamples():
  draws = [resampling.draw(seed, 9, 1, 30) for seed in (-1, 0, 1, 2**64)]
  first, second = draws[0].weight_RG, draws[1].weight_RG
  assert (first != second).any() and (first != draws[2].weight_RG).any()
  assert (first.sum(1) == 9).all() and (np.abs(draws[0].sign_RG) == 1).all()
  assert (second == draws[3].weight_RG).all()  # modulo 2⁶⁴


def test_few_groups_cannot_show_a_change():
  z_GF = np.zeros((44, 2))
  z_GF[:4, 0] = 100.0  # a burst in four prompts
  z_GF[:, 1] = 1 + 0.1 * np.random.default_rng(0).standard_normal(44)
  found = measure(z_GF)
  assert found.columns["changed"].tolist() == [False, True]
  assert found.columns["score"][0] > found.columns["score"][1]
  assert found.columns["q"][0] == found.columns["p"][0] == 1
  for groups in (1, 2, 4):
    few = measure(z_GF[-groups:])
    assert not few.columns["changed"].any()
    assert (few.columns["p"] == 1).all()
    assert f"{groups} groups" in few.summary["warnings"][0]
  assert np.isnan(measure(z_GF[:1]).columns["ci_low"][0])


def test_groups_that_agree_exactly():
  z_GF = np.full((12, 1), 0.25)
  found = measure(z_GF).columns
  assert found["score"] == found["ci_low"] == found["ci_high"] == 0.25
  assert found["changed"] and found["t"] == 1e6 and found["p"] > 0


def test_ties_get_the_same_values():
  z_GF, n_G = make(latents=3)
  z_GF[:, 1] = z_GF[:, 0]
  found = measure(z_GF, n_G=n_G).columns
  for name in ("score", "t", "q", "p_max", "ci_low", "ci_high"):
    assert found[name][0] == found[name][1]


def test_a_change_within_the_noise_is_none():
  z_GF = 1 + 0.1 * np.random.default_rng(0).standard_normal((30, 2))
  found = measure(z_GF, noise_F=np.array([0.5, 2.0]))
  assert found.columns["changed"].tolist() == [True, False]
  assert found.summary["significant"] == 2
  assert found.summary["changed"] == 1


def sparse(rng, groups, latents, share, spread, shift=0.0):
  """Activations that are 0 in most prompts and lognormal in the others."""
  n_G = rng.integers(10, 60, groups).astype(float)
  shape = (groups, latents)
  common_GF = rng.lognormal(0, spread, shape) * (rng.random(shape) < share)
  base_GF = common_GF * rng.lognormal(0, 0.3, shape)
  tuned_GF = common_GF * rng.lognormal(0, 0.3, shape) * (1 + shift)
  mean = share * np.exp(spread**2 / 2 + 0.045) * shift
  return (tuned_GF - base_GF) * n_G[:, None], n_G, mean


# The heavier the tail and the rarer the latent, the fewer prompts know of it.
@pytest.mark.parametrize(
  "groups, share, spread, least",
  [
    (44, 1.0, 0.5, 0.93),
    (44, 0.5, 0.5, 0.92),
    (44, 0.15, 0.5, 0.90),
    (44, 0.15, 1.0, 0.86),
    (120, 0.5, 0.5, 0.94),
    (120, 0.15, 0.5, 0.93),
    (120, 0.15, 1.0, 0.89),
  ],
)
def test_intervals_cover_the_mean(groups, share, spread, least):
  rng = np.random.default_rng(5)
  for shift in (0.0, 0.5):
    z_GF, n_G, mean = sparse(rng, groups, 1200, share, spread, shift)
    found = measure(z_GF, n_G=n_G, resamples=400).columns
    covered = (found["ci_low"] <= mean) & (mean <= found["ci_high"])
    # The standard error of a share of 1200 is 0.7 %: two of them.
    assert covered.mean() > least - 0.015
    assert covered.mean() < 0.995


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_null_is_called_changed_at_most_as_often_as_stated(share):
  rng = np.random.default_rng(6)
  with_any, shuffled = 0, []
  for _ in range(60):
    z_GF, n_G, _ = sparse(rng, 44, 300, share, 1.0)
    found = measure(z_GF, n_G=n_G, resamples=20, shuffles=20)
    with_any += found.summary["significant"] > 0
    shuffled.append(found.summary["shuffled"]["share_with_any"])
  # Under the complete null BH errs in 5 % of families: 3 ± 1.7 of 60.
  assert with_any <= 3 + 3 * 1.7
  assert np.mean(shuffled) < 0.05 + 3 * np.sqrt(0.05 / 1200)


def test_among_real_changes_few_are_false():
  rng = np.random.default_rng(7)
  false, found = [], []
  for _ in range(40):
    null_GF, n_G, _ = sparse(rng, 60, 270, 0.5, 0.5)
    real_GF, _, _ = sparse(rng, 60, 30, 0.8, 0.5, shift=0.5)
    z_GF = np.concatenate([null_GF / n_G[:, None], real_GF], axis=1)
    changed_F = measure(z_GF, resamples=50, shuffles=1).columns["changed"]
    false.append(changed_F[:270].sum() / max(changed_F.sum(), 1))
    found.append(changed_F[270:].mean())
  # 0.045 ± 0.006 is expected of BH: 5 % of the 90 % that are null.
  assert np.mean(false) < 0.045 + 3 * 0.008
  assert np.mean(found) > 0.9


def test_shuffled_labels_hide_a_real_change():
  rng = np.random.default_rng(8)
  z_GF = rng.standard_normal((44, 200))
  z_GF[:, :20] += 2
  found = measure(z_GF, shuffles=50).summary
  assert found["significant"] >= 20
  assert found["shuffled"]["mean_discoveries"] < 0.3
  assert found["shuffled"]["false_discovery_rate"] < 0.02


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_number_of_latents():
  rng = np.random.default_rng(9)
  part_GF = rng.standard_normal((64, 5000))

  def block(start, stop):
    return part_GF[:, np.arange(start, stop) % 5000]

  def peak(latents):
    tracemalloc.start()
    statistics.estimate(block, np.ones(64), latents, settings(resamples=400))
    top = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return top

  small, large = peak(20_000), peak(100_000)
  assert small < 400e6
  assert large - small < 80_000 * 200  # bytes per latent, of the columns
