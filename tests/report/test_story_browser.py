# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page about everything in a browser: drawn, legible, and it answers."""

import html
import json
import re

import pytest
from test_browser import CHROMIUM, browse
from test_diff_browser import PROBE as DIFF_PROBE

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
const column = (table, n) => [...table.tBodies[0].rows].filter(
  (r) => !r.hidden).map((r) => r.cells[n].textContent.trim());

async function probe() {
  const root = document.documentElement;
  const found = {
    overflow: root.scrollWidth - root.clientWidth,
    wide: all("main *").filter((n) => !n.closest(".scroll, .plot, .hidden") &&
      n.getBoundingClientRect().right > root.clientWidth + 1).length,
    plots: all(".plot").filter((p) => !p.closest("details:not([open])")).map(
      (p) => p.querySelectorAll(".main-svg").length),
    narrow: Math.min(...all(".plot .main-svg").map(
      (p) => p.getBoundingClientRect().width)),
    texts: Object.fromEntries([
      ".chip", ".chip.causal", ".chip.inert", ".grid td", ".grid .quiet td",
      ".grid th span", ".grid th a", ".samples .name", ".samples i",
      ".outcome span", ".panel dt", ".rules li", ".story span", ".story a",
      "nav b a", ".topics td", ".verdict span", ".beside",
    ].map((q) => [q, least(q)])),
    paper: light(ground(document.body)),
  };

  // The nav lists the sections of what is read.
  document.getElementById("realign1-curves").scrollIntoView(
    {behavior: "instant"});
  await wait(200);
  found.nav = all("nav .group").filter(
    (g) => getComputedStyle(g).display !== "none").map(
    (g) => g.querySelector("a").getAttribute("href"));
  const top = document.getElementById("realign1-curves-title")
    .getBoundingClientRect().top;
  found.clear = top >= document.querySelector("nav")
    .getBoundingClientRect().bottom - 1;

  // A table is cut, shows all, and sorts up and down.
  const table = document.querySelector("table.grid[data-first]");
  found.first = column(table, 0).length;
  const heads = [...table.tHead.rows[1].cells];
  const margin = heads.findIndex((h) => h.textContent === "margin");
  heads[margin].firstChild.click();
  found.down = column(table, margin).slice(0, 3);
  found.sorted = heads[margin].ariaSort;
  heads[margin].firstChild.click();
  found.up = column(table, margin).slice(0, 3);
  table.parentElement.nextElementSibling.click();
  found.all = column(table, 0).length;
  // What chance does stays below the others.
  const beside = document.querySelector("#steer0-verdict table.grid");
  beside.tHead.rows[1].cells[2].firstChild.click();
  found.last = column(beside, 0).at(-1);

  const dot = document.querySelector("#d-sae-11 .sketch circle.chosen");
  dot.scrollIntoView({behavior: "instant", block: "center"});
  dot.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  const tip = document.getElementById("tip");
  found.tip = tip.hidden ? "" : tip.textContent;

  // What was folded away is drawn when it is opened.
  const fold = document.querySelector("#monitor2-runs details");
  found.folded = fold.querySelectorAll(".main-svg").length;
  fold.open = true;
  await wait(300);
  found.opened = fold.querySelectorAll(".plot").length <=
    fold.querySelectorAll(".main-svg").length;

  const plot = document.querySelector("#steer0-scatter .plot");
  plot.scrollIntoView({behavior: "instant", block: "center"});
  await wait(100);
  const trace = plot.data.findIndex((t) => t.name === "causal");
  const at = plot.data[trace].customdata.indexOf("#d-sae-11");
  const {xaxis, yaxis} = plot._fullLayout;
  const drag = plot.querySelector(".nsewdrag");
  const box = drag.getBoundingClientRect();
  const x = box.left + xaxis.d2p(plot.data[trace].x[at]);
  const y = box.top + yaxis.d2p(plot.data[trace].y[at]);
  mouse(drag, "mousemove", x, y);
  await wait(300);
  found.hover = plot.querySelector(".hoverlayer").textContent;
  mouse(drag, "mousedown", x, y);
  mouse(document.querySelector(".dragcover") ?? drag, "mouseup", x, y);
  await wait(500);
  found.hash = location.hash;
  const out = document.createElement("output");
  out.textContent = JSON.stringify(found);
  document.body.append(out);
}
addEventListener("load", () => setTimeout(probe, 400));
</script>
<style>html { scroll-behavior: auto !important; }</style>"""
)


# Whether it fits is up to the width, whether it can be read to the scheme.
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (500, "dark")])
def test_it_fits_reads_sorts_and_leads(written_story, tmp_path, width, scheme):
  page = tmp_path / "page.html"
  page.write_text(
    written_story.read_text().replace("</body>", PROBE + "</body>")
  )
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
  assert len(found["plots"]) > 15 and min(found["plots"]) > 0
  assert found["narrow"] > 250
  for name, (count, contrast) in found["texts"].items():
    # WCAG 2.1 level AA for text of normal size.
    assert count and contrast >= 4.5, (name, count, contrast)
  assert found["nav"] == ["#realign1-verdict"] and found["clear"]
  assert (found["first"], found["all"]) == (20, 60)
  assert found["down"][0] == "+0.116" and found["sorted"] == "descending"
  values = [float(text.replace("−", "-")) for text in found["up"]]
  assert values == sorted(values) and values[0] < 0
  assert found["last"].startswith("20 random")
  assert found["tip"].startswith("strength 0.4: margin +0.116")
  assert found["folded"] == 0 and found["opened"]
  # The label holds markup, which is shown as it is.
  assert found["hover"].startswith('latent 11dismissive phrases <a href="http')
  assert "added at 0.4: +0.116" in found["hover"]
  assert found["hash"] == "#d-sae-11"
