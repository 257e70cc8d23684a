# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page as a browser sees it: plots drawn, tokens shaded, no complaints."""

import json
import re
import shutil
import subprocess

import pytest

from sae_jax import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
  CHROMIUM is None,
  reason="no chromium on the PATH (Debian: apt-get install chromium)",
)


def browse(page, tmp_path, *arguments):
  """(stdout, console messages) of a headless browser on the page."""
  done = subprocess.run(
    [
      CHROMIUM,
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--disable-dev-shm-usage",
      "--enable-logging=stderr",
      "--virtual-time-budget=8000",
      f"--user-data-dir={tmp_path / 'profile'}",
      *arguments,
      page.as_uri(),
    ],
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  )
  return done.stdout, re.findall(r"CONSOLE.*", done.stderr)


@pytest.mark.slow
def test_a_browser_draws_it_all(run, evaluation, tmp_path):
  page = report.write_report([run, evaluation], tmp_path / "report.html")
  dom, console = browse(page, tmp_path, "--dump-dom")
  assert console == []
  figures = dom.count('class="spec"')
  # Plotly puts its own svg into every figure it has drawn.
  assert figures > 8
  assert len(re.findall(r'<svg class="main-svg"', dom)) >= figures
  assert len(re.findall(r'class="point"', dom)) > 30  # bars of the histogram
  assert len(re.findall(r'class="js-line"', dom)) >= 8
  assert "var(--c" not in re.sub(
    r"(?s)<script.*?</script>|<style.*?</style>", "", dom
  )
  assert re.search(r'<mark class="t at" data-v="9.50" style="--a:1.00">', dom)


# Written into the page's DOM, which the browser then prints.
PROBE = """<script>
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
const contrast = (node, ground) => {
  const style = getComputedStyle(node);
  const under = over(rgba(style.backgroundColor), ground);
  const [a, b] = [light(under), light(over(rgba(style.color), under))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
addEventListener("load", () => setTimeout(() => {
  const all = (q) => [...document.querySelectorAll(q)];
  const panel = rgba(getComputedStyle(
    document.querySelector(".card")).backgroundColor);
  const paper = rgba(getComputedStyle(document.body).backgroundColor);
  const root = document.documentElement;
  const strongest = document.querySelector('.card mark[data-v="9.50"]');
  strongest.scrollIntoView({behavior: "instant"});
  strongest.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  const tip = document.getElementById("tip");
  const out = document.createElement("output");
  out.textContent = JSON.stringify({
    overflow: root.scrollWidth - root.clientWidth,
    plots: all(".plot").map((p) => p.querySelectorAll(".main-svg").length),
    narrowest: Math.min(...all(".plot .main-svg").map(
      (p) => p.getBoundingClientRect().width)),
    marks: Math.min(...all(".card mark").map((m) => contrast(m, panel))),
    soft: Math.min(...all(".note, .lead, .tiles dt, figcaption span").map(
      (m) => contrast(m, paper))),
    paper: light(paper),
    tip: tip.hidden ? "" : tip.textContent,
  });
  document.body.append(out);
}, 500));
</script>"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(run, evaluation, tmp_path, width, scheme):
  page = report.write_report([run, evaluation], tmp_path / "report.html")
  page.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
  dom, _ = browse(
    page,
    tmp_path,
    "--dump-dom",
    f"--window-size={width},2400",
    f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
  )
  found = json.loads(re.search(r"<output>(.*)</output>", dom)[1])
  assert (found["paper"] > 0.5) == (scheme == "light")
  assert found["overflow"] == 0
  assert found["tip"] == "activation 9.50"
  assert found["plots"] and min(found["plots"]) > 0
  assert found["narrowest"] > 250
  # WCAG 2.1 level AA for text of normal size.
  assert found["marks"] >= 4.5 and found["soft"] >= 4.5
