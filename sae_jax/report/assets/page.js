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

  // Groups of curves and marks that the reader has put out of sight.
  const hidden = new Set();

  // What is folded away has no width yet: it is drawn when it is opened.
  function draw(within, wanted = () => true) {
    const style = getComputedStyle(document.documentElement);
    for (const plot of within.querySelectorAll(".plot")) {
      if (plot.closest("details:not([open])") || !wanted(plot)) continue;
      const text = plot.parentElement.querySelector(".spec").textContent;
      const spec = resolve(JSON.parse(text), style);
      for (const trace of spec.data) {
        if (hidden.has(trace.legendgroup)) trace.visible = false;
      }
      const first = !plot.data;
      Plotly.react(plot, spec.data, spec.layout,
        {responsive: true, displaylogo: false, displayModeBar: false});
      if (first && plot.dataset.jump !== undefined) link(plot);
      if (first && spec.data.some((t) => t.meta !== undefined)) light(plot);
    }
  }

  // What is pointed at is lit in every figure that has it: the rest steps back.
  function light(plot) {
    plot.on("plotly_hover", ({points: [point]}) => dim(point.data.meta));
    plot.on("plotly_unhover", () => dim());
  }

  function dim(except) {
    for (const plot of document.querySelectorAll(".plot")) {
      for (const {meta, uid} of plot.data ?? []) {
        if (meta === undefined) continue;
        plot.querySelector(`.trace${uid}`)?.classList.toggle(
          "dim", except !== undefined && meta !== except);
      }
    }
  }

  function anchor(plot, point) {
    const name = `${point.customdata}`;
    return name.startsWith("#") ? name.slice(1) : plot.dataset.jump + name;
  }

  // A mark that stands for something with an anchor leads there.
  function target(plot, point) {
    return document.getElementById(anchor(plot, point));
  }

  function link(plot) {
    plot.on("plotly_click", ({points: [point]}) => {
      if (target(plot, point)) {
        location.hash = anchor(plot, point);
      }
    });
    plot.on("plotly_hover", ({points: [point]}) => {
      plot.classList.toggle("leads", target(plot, point) !== null);
    });
    plot.on("plotly_unhover", () => plot.classList.remove("leads"));
  }

  function toggle(group) {
    if (!hidden.delete(group)) hidden.add(group);
    for (const button of document.querySelectorAll(".key button")) {
      button.ariaPressed = !hidden.has(button.dataset.group);
    }
    draw(document, (plot) => plot.data?.some((t) => t.legendgroup === group));
  }

  if (typeof Plotly !== "undefined") {
    draw(document);
    dark.addEventListener("change", () => draw(document));
    for (const fold of document.querySelectorAll("details")) {
      fold.addEventListener("toggle", () => fold.open && draw(fold));
    }
    for (const button of document.querySelectorAll(".key button")) {
      button.addEventListener("click", () => toggle(button.dataset.group));
    }
  }

  // A table is sorted by the heading that is pressed, numbers downwards
  // first; what a row has no value for, and its baselines, stay below.
  function value(row, column) {
    const {sort} = row.cells[column].dataset;
    return sort === undefined ? row.cells[column].textContent : Number(sort);
  }

  function compare(a, b) {
    const numbers = [a, b].filter((v) => typeof v === "number").length;
    if (numbers === 1) return typeof a === "number" ? -1 : 1;
    return numbers ? b - a : a.localeCompare(b);
  }

  function sort(table, head) {
    const column = head.cellIndex, body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [value(row, column), row]);
    const first = rows.some(([v]) => typeof v === "number")
      ? "descending" : "ascending";
    const back = head.ariaSort === first;
    const known = ([v]) => (typeof v === "number" || first === "ascending");
    rows.sort(([a, r], [b, s]) => r.classList.contains("last")
      - s.classList.contains("last") || (back && known([a]) && known([b])
        ? compare(b, a) : compare(a, b)));
    for (const other of head.parentElement.cells) other.ariaSort = null;
    head.ariaSort = back
      ? (first === "descending" ? "ascending" : "descending") : first;
    body.append(...rows.map(([, row]) => row));
    cut(table);
  }

  function cut(table) {
    const first = Number(table.dataset.first ?? Infinity);
    [...table.tBodies[0].rows].forEach((row, i) => { row.hidden = i >= first; });
  }

  for (const table of document.querySelectorAll("table.grid")) {
    for (const button of table.querySelectorAll(".sort")) {
      button.addEventListener("click", () => sort(table, button.parentElement));
    }
    if (!table.dataset.first) continue;
    const all = document.createElement("button");
    all.type = "button";
    all.className = "all";
    all.textContent = `Show all ${table.tBodies[0].rows.length}`;
    all.addEventListener("click", () => {
      delete table.dataset.first;
      cut(table);
      all.remove();
    });
    table.parentElement.after(all);
    cut(table);
  }

  // Where a page is about several things, the nav follows the reader.
  const nav = document.querySelector("nav");
  const sections = [...document.querySelectorAll("main > section")];

  function spy() {
    const line = nav.getBoundingClientRect().bottom + 80;
    const read = sections.filter(
      (s) => s.getBoundingClientRect().top <= line).at(-1) ?? sections[0];
    for (const group of nav.querySelectorAll(".group")) {
      group.classList.toggle("current",
        group.querySelector(`[href="#${read.id}"]`) !== null);
    }
  }

  if (nav.querySelector(".group")) {
    nav.classList.add("spied");
    addEventListener("scroll", () => requestAnimationFrame(spy),
      {passive: true});
    spy();
  }

  const tip = document.getElementById("tip");
  document.addEventListener("pointerover", (event) => {
    const token = event.target.closest(".contexts .t, [data-tip]");
    if (!token) {
      tip.hidden = true;
      return;
    }
    tip.textContent = token.dataset.tip ?? (token.classList.contains("out")
      ? "not in the store" : `activation ${token.dataset.v ?? "0"}`);
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
