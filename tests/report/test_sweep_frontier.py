# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which dictionaries nothing beats, among what may be compared at all."""

import pytest
import report_data
import sweep_data
from diff_pages import anchors, edit, figures, write

from sae_jax.report import entries, frontier, groups, run_frontier


def test_sweeps_and_runs_share_a_page_and_a_frontier(tmp_path):
  runs = [
    sweep_data.make_sweep(tmp_path / name, sweep=[{"k": 16}, {"k": 64}])
    for name in ("one", "two")
  ]
  alone = report_data.make_run(tmp_path / "alone")
  page = write([*runs, alone], tmp_path)
  for words in ("one: Sweep of 2", "two: Sweep of 2", "Dictionary: SmolLM2"):
    assert words in page.text, words
  targets = anchors(page)
  assert len(targets) == len(set(targets))
  assert targets.index("all-frontier") < targets.index("sweep0-summary")
  text = (tmp_path / "r.html").read_text()
  together = text.split('id="all-frontier"')[1].split("</section>")[0]
  for name in ("one", "two", "trained one by one"):
    assert f"</svg>{name}</button>" in together


def drawn(runs):
  """The frontier of runs, without the rest of their page."""
  (section,) = run_frontier.sections(entries.read(runs))
  (figure,) = section.blocks[-1]["figures"]
  return figure.spec


def test_separate_runs_have_a_frontier(tmp_path):
  runs = [report_data.make_run(tmp_path / f"r{i}", seed=i) for i in range(3)]
  found = [
    sweep_data.make_evaluation(run / "eval", run, 0, fvu=fvu, l0=l0)
    for run, fvu, l0 in zip(runs, (0.3, 0.2, 0.4), (16, 32, 32), strict=True)
  ]
  line = drawn(runs)["data"][0]
  assert (line["x"], line["y"]) == ([16, 32], [0.3, 0.2])
  # Their page has it too.
  assert "FVU against L0" in figures(write(runs[1:], tmp_path))
  # Of another store: no better and no worse.
  edit(
    found[0] / "config.json",
    lambda config: config["inputs"].update(store="other"),
  )
  spec = drawn(runs)
  assert [len(t["x"]) for t in spec["data"] if "lines" in t["mode"]] == [1, 1]
  # One dictionary has nothing to be compared with.
  assert not run_frontier.sections(entries.read(runs[:1]))


def test_an_evaluation_of_a_run_that_is_not_given_is_no_other_s(tmp_path):
  given = report_data.make_run(tmp_path / "given")
  other = report_data.make_run(tmp_path / "other")
  sweep = sweep_data.make_sweep(tmp_path / "sweep", sweep=[{"k": 16}])
  of_other = report_data.make_evaluation(tmp_path / "e0", run=str(other))
  of_member = sweep_data.make_evaluation(tmp_path / "e1", sweep, 0)
  found = entries.read_all([given, of_other, of_member]).dictionaries
  assert [entry.name for entry in found] == ["given", "e0", "e1"]
  assert found[0].evaluation is None


def test_pareto_keeps_what_nothing_beats():
  found = [(0.3, 16), (0.2, 32), (0.2, 40), (0.25, 32), (0.1, 64), (0.3, 16)]
  measured = [frontier.Measured(fvu, l0, "") for fvu, l0 in found]
  front = frontier.pareto([(m, i) for i, m in enumerate(measured)])
  assert front == [0, 1, 4]


def test_numbers_of_different_kinds_are_not_laid_beside_each_other():
  group = groups.Group(id="g", text="", colour="")

  def point(*sources):
    found = {s: frontier.Measured(0.2, 32, "") for s in sources}
    return frontier.Point(name="+".join(sources), group=group, measured=found)

  two = [point("evaluation", "training"), point("training")]
  assert frontier.choose(two)[:2] == ("training", [0, 1])
  three = [point("evaluation"), point("evaluation"), point("training")]
  chosen = frontier.choose(three)
  assert chosen[:2] == ("evaluation", [0, 1])
  assert "lack of such numbers: training" in frontier.source_words(
    three, chosen
  )
  assert frontier.choose([point()]) == ("", [], [])


@pytest.mark.parametrize("count", [1, 2, 5, 8, 16])
def test_ordered_groups_are_told_apart(count):
  made = groups.ordered("", [str(i) for i in range(count)])
  looks = {(group.colour, group.dash) for group in made}
  assert len(looks) == count
  marks = {(group.colour, group.symbol) for group in made}
  assert len(marks) == count
