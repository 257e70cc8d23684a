"use strict";
// Figures take their colours from the page's CSS variables, so that they
// follow the reader's light or dark setting, also when it changes.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function resolve(value, style) {
    if (typeof value === "string" && value.startsWith("var(")) {
      return style.getPropertyValue(value.slice(4, -1)).trim();
    }
    if (Array.isArray(value)) return value.map((v) => resolve(v, style));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(
        Object.entries(value).map(([k, v]) => [k, resolve(v, style)]));
    }
    return value;
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    for (const plot of document.querySelectorAll(".plot")) {
      const text = plot.parentElement.querySelector(".spec").textContent;
      const spec = resolve(JSON.parse(text), style);
      Plotly.react(plot, spec.data, spec.layout,
        {responsive: true, displaylogo: false, displayModeBar: false});
    }
  }

  // A mark that stands for something with an anchor leads there.
  function target(plot, point) {
    return document.getElementById(`${plot.dataset.jump}${point.customdata}`);
  }

  function link() {
    for (const plot of document.querySelectorAll(".plot[data-jump]")) {
      plot.on("plotly_click", ({points: [point]}) => {
        if (target(plot, point)) {
          location.hash = `${plot.dataset.jump}${point.customdata}`;
        }
      });
      plot.on("plotly_hover", ({points: [point]}) => {
        plot.classList.toggle("leads", target(plot, point) !== null);
      });
      plot.on("plotly_unhover", () => plot.classList.remove("leads"));
    }
  }

  if (typeof Plotly !== "undefined") {
    draw();
    link();
    dark.addEventListener("change", draw);
  }

  const tip = document.getElementById("tip");
  document.addEventListener("pointerover", (event) => {
    const token = event.target.closest(".contexts .t");
    if (!token) {
      tip.hidden = true;
      return;
    }
    tip.textContent = token.classList.contains("out")
      ? "not in the store" : `activation ${token.dataset.v ?? "0"}`;
    tip.hidden = false;
    const box = token.getClientRects()[0];
    const left = Math.min(box.left, innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 4;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above > 0 ? above : box.bottom + 4}px`;
  });
  document.addEventListener("scroll", () => { tip.hidden = true; },
    {passive: true});
})();
