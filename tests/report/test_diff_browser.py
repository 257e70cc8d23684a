# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A diff's page in a browser: drawn, legible, and its marks lead to cards."""

import html
import json
import re

import pytest
from test_browser import CHROMIUM, browse

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    CHROMIUM is None,
    reason="no chromium on the PATH (Debian: apt-get install chromium)",
  ),
]

# Written into the page's DOM, which the browser then prints.
PROBE = """<script>
const all = (q) => [...document.querySelectorAll(q)];
const rgba = (s) => (s.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
const over = (top, under) => {
  const a = top[3] ?? 1;
  return [0, 1, 2].map((i) => a * top[i] + (1 - a) * under[i]);
};
const light = (c) => {
  const [r, g, b] = c.map((v) => v / 255).map(
    (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (node) => {
  const grounds = [];
  for (let n = node; n; n = n.parentElement) {
    grounds.push(rgba(getComputedStyle(n).backgroundColor));
  }
  return grounds.reverse().reduce((under, top) => over(top, under), [0, 0, 0]);
};
const contrast = (node) => {
  const under = ground(node);
  const text = over(rgba(getComputedStyle(node).color), under);
  const [a, b] = [light(under), light(text)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
const least = (q) => {
  const nodes = all(q);
  return [nodes.length, Math.min(...nodes.map(contrast))];
};
const mouse = (node, kind, x, y) => node.dispatchEvent(new MouseEvent(kind,
  {bubbles: true, cancelable: true, view: window, clientX: x, clientY: y}));
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function probe() {
  const root = document.documentElement;
  const found = {
    overflow: root.scrollWidth - root.clientWidth,
    wide: all("main *").filter((n) => !n.closest(".scroll, .plot, .hidden") &&
      n.getBoundingClientRect().right > root.clientWidth + 1).length,
    plots: all(".plot").map((p) => p.querySelectorAll(".main-svg").length),
    texts: Object.fromEntries([
      ".card mark", ".shaded td", ".verdict span", ".beside", ".head th",
      ".bounds", ".quiet td", ".why", ".tok", ".tok i", ".card .model",
      ".lens .name", ".near small", ".ledger th span", "td", "th", "a",
    ].map((q) => [q, least(q)])),
    paper: light(ground(document.body)),
  };
  const token = document.querySelector('.card mark[data-v="9.50"]');
  token.scrollIntoView({behavior: "instant"});
  token.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  const tip = document.getElementById("tip");
  found.tip = tip.hidden ? "" : tip.textContent;

  const plot = document.querySelector(".plot[data-jump]");
  plot.scrollIntoView({behavior: "instant"});
  await wait(100);
  const trace = plot.data.findIndex((t) => t.name === "risen");
  const at = plot.data[trace].customdata.indexOf(11);
  const {xaxis, yaxis} = plot._fullLayout;
  const drag = plot.querySelector(".nsewdrag");
  const box = drag.getBoundingClientRect();
  const x = box.left + xaxis.d2p(plot.data[trace].x[at]);
  const y = box.top + yaxis.d2p(plot.data[trace].y[at]);
  mouse(drag, "mousemove", x, y);
  await wait(300);
  found.hover = plot.querySelector(".hoverlayer").textContent;
  found.links = plot.querySelectorAll(".hoverlayer a, .hoverlayer img").length;
  found.cursor = getComputedStyle(drag).cursor;
  mouse(drag, "mousedown", x, y);
  mouse(document.querySelector(".dragcover") ?? drag, "mouseup", x, y);
  await wait(500);
  found.hash = location.hash;
  found.target = document.querySelector(".card:target")?.id ?? "";
  const card = document.getElementById("d-sae-11").getBoundingClientRect();
  const nav = document.querySelector("nav").getBoundingClientRect();
  found.visible = card.top >= nav.bottom - 1 && card.top < innerHeight;
  const out = document.createElement("output");
  out.textContent = JSON.stringify(found);
  document.body.append(out);
}
addEventListener("load", () => setTimeout(probe, 400));
</script>
<style>html { scroll-behavior: auto !important; }</style>"""


def test_a_browser_draws_it_without_a_word(written_diff, tmp_path):
  dom, console = browse(written_diff, tmp_path, "--dump-dom")
  assert console == []
  figures = dom.count('class="spec"')
  assert figures >= 7
  assert len(re.findall(r'<svg class="main-svg"', dom)) >= figures
  assert len(re.findall(r'class="point', dom)) > 1000
  bare = re.sub(r"(?s)<script.*?</script>|<style.*?</style>", "", dom)
  assert "var(--c" not in bare


# Whether it fits is up to the width, whether it can be read to the scheme.
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (500, "dark")])
def test_it_fits_reads_and_leads(written_diff, tmp_path, width, scheme):
  page = tmp_path / "page.html"
  page.write_text(
    written_diff.read_text().replace("</body>", PROBE + "</body>")
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
  assert found["plots"] and min(found["plots"]) > 0
  for name, (count, contrast) in found["texts"].items():
    # WCAG 2.1 level AA for text of normal size.
    assert count and contrast >= 4.5, (name, count, contrast)
  assert found["tip"] == "activation 9.50"
  # The label holds markup, which is shown as it is.
  assert found["hover"].startswith('latent 11dismissive phrases <a href="http')
  assert found["links"] == 0
  assert found["cursor"] == "pointer"
  assert found["hash"] == "#d-sae-11" and found["target"] == "d-sae-11"
  assert found["visible"]
