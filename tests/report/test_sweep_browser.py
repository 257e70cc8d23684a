# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A sweep's page in a browser: it fits, reads, sorts, hides and leads."""

import html
import json
import re

import pytest
import sweep_data
from test_browser import CHROMIUM, browse
from test_diff_browser import PROBE as DIFF_PROBE

from sae_jax import report

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    CHROMIUM is None,
    reason="no chromium on the PATH (Debian: apt-get install chromium)",
  ),
]

# What the diff's probe measures with; then this page's own questions.
TOOLS = DIFF_PROBE[: DIFF_PROBE.index("async function probe()")]
PROBE = (
  TOOLS
  + """
const column = (table, n) => [...table.tBodies[0].rows].map(
  (r) => r.cells[n].textContent.trim());

// Moves the mouse to a point of a trace.
const point = (plot, trace, i) => {
  const {xaxis, yaxis} = plot._fullLayout;
  const drag = plot.querySelector(".nsewdrag");
  const box = drag.getBoundingClientRect();
  const x = box.left + xaxis.d2p(trace.x[i]);
  const y = box.top + yaxis.d2p(trace.y[i]);
  mouse(drag, "mousemove", x, y);
  return [drag, x, y];
};

async function probe() {
  const root = document.documentElement;
  const paper = ground(document.body);
  const against = (colour) => {
    const [a, b] = [light(rgba(colour)), light(paper)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const found = {
    overflow: root.scrollWidth - root.clientWidth,
    wide: all("main *").filter((n) => !n.closest(".scroll, .plot, .hidden") &&
      n.getBoundingClientRect().right > root.clientWidth + 1).length,
    plots: all(".plot").filter((p) => !p.closest("details:not([open])")).map(
      (p) => p.querySelectorAll(".main-svg").length),
    narrow: Math.min(...all(".plot .main-svg").map(
      (p) => p.getBoundingClientRect().width)),
    texts: Object.fromEntries([".key span", ".key button", ".grid td",
      ".grid .quiet td", ".grid th", ".note", ".tiles dd span"].map(
      (q) => [q, least(q)])),
    // What is drawn: each of its colours against the page.
    drawn: Math.min(...all(".key button path").map(
      (p) => against(getComputedStyle(p).fill))),
    paper: light(paper),
  };
  const table = document.querySelector("table.grid");
  const heads = [...table.tHead.rows[1].cells];
  const fvu = heads.findIndex((h) => h.textContent === "FVU");
  heads[fvu].firstChild.click();
  heads[fvu].firstChild.click();
  found.sorted = column(table, fvu);
  found.members = column(table, 0);

  const plot = document.querySelector("#sweep0-frontier .plot");
  const seen = () => plot.data.filter((t) => t.visible !== false).length;
  found.before = seen();
  const key = document.querySelector("#sweep0-training .key button");
  key.click();
  await wait(200);
  found.after = seen();
  found.pressed = all(".key button").filter(
    (b) => b.ariaPressed === "false").map((b) => b.dataset.group);
  const curves = document.querySelector("#sweep0-training .plot");
  found.lines = curves.querySelectorAll(".js-line").length;
  key.click();
  await wait(200);
  found.again = seen();

  curves.scrollIntoView({behavior: "instant", block: "center"});
  await wait(100);
  point(curves, curves.data[0], curves.data[0].x.length - 1);
  await wait(300);
  const others = all("#sweep0-training .plot")[2];
  found.lit = [curves.querySelector(".hoverlayer").textContent,
    ...[curves, others].map((p) => p.querySelectorAll(".dim").length),
    getComputedStyle(others.querySelector(".dim")).opacity];

  plot.scrollIntoView({behavior: "instant", block: "center"});
  await wait(100);
  const [drag, x, y] = point(
    plot, plot.data.find((t) => t.mode === "markers"), 0);
  await wait(300);
  found.hover = plot.querySelector(".hoverlayer").textContent;
  mouse(drag, "mousedown", x, y);
  mouse(document.querySelector(".dragcover") ?? drag, "mouseup", x, y);
  await wait(300);
  found.hash = location.hash;
  const out = document.createElement("output");
  out.textContent = JSON.stringify(found);
  document.body.append(out);
}
addEventListener("load", () => setTimeout(probe, 400));
</script>
<style>html { scroll-behavior: auto !important; }</style>"""
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  at = tmp_path_factory.mktemp("page")
  run = sweep_data.make_sweep(at / "sweep", frozen={7: 140, 11: 301})
  sweep_data.make_evaluation(run / "eval" / "3", run, 3)
  return report.write_report([run], at / "page.html")


# Whether it fits is up to the width, whether it can be read to the scheme.
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (500, "dark")])
def test_it_fits_reads_sorts_hides_and_leads(written, tmp_path, width, scheme):
  page = tmp_path / "page.html"
  page.write_text(written.read_text().replace("</body>", PROBE + "</body>"))
  dom, console = browse(
    page,
    tmp_path,
    "--dump-dom",
    f"--window-size={width},1800",
    f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
  )
  assert console == []
  found = json.loads(html.unescape(re.search(r"<output>(.*)</output>", dom)[1]))
  assert (found["paper"] > 0.5) == (scheme == "light")
  assert found["overflow"] == 0 and found["wide"] == 0
  assert len(found["plots"]) > 8 and min(found["plots"]) > 0
  assert found["narrow"] > 250
  for name, (count, contrast) in found["texts"].items():
    # WCAG 2.1 level AA for text of normal size.
    assert count and contrast >= 4.5, (name, count, contrast)
  assert found["drawn"] >= 3  # the same, for what is not text
  # Pressed twice: the lowest FVU first, the diverged stay below.
  values = [float(text) for text in found["sorted"][:-2]]
  assert values == sorted(values)
  assert {text[:2] for text in found["members"][-2:]} == {"11", "7d"}
  # One press hides a learning rate in every figure, another shows it.
  assert (found["before"], found["after"], found["again"]) == (5, 4, 5)
  assert found["pressed"] == ["sweep0-g0"] * 3
  assert found["lines"] == 12
  # 15 other members, and two crosses.
  hover, here, there, opacity = found["lit"]
  assert hover.startswith("Member 0: k 16, lr 1e-4step 598: 0.3")
  assert (here, there) == (17, 17) and float(opacity) < 0.2
  assert found["hover"].startswith("Member 0: k 16, lr 1e-4FVU 0.")
  assert found["hash"] == "#sweep0-member-0"
