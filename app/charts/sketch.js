// What a line chart shows until Plotly is there: its lines, its axes and their ends, in plain SVG.
(function () {
  "use strict";
  const NAMESPACE = "http://www.w3.org/2000/svg";

  function node(kind, facts, text) {
    const made = document.createElementNS(NAMESPACE, kind);
    for (const [name, value] of Object.entries(facts)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function place(axis, values, from, to) {
    const log = (axis || {}).type === "log";
    const shown = values.flat().filter((v) => Number.isFinite(v) && (!log || v > 0));
    const low = Math.min(...shown), high = Math.max(...shown), bend = log ? Math.log : (v) => v;
    const share = (v) => (bend(v) - bend(low)) / (bend(high) - bend(low) || 1);
    return { low, high, at: (v) => from + share(v) * (to - from), fits: (v) => Number.isFinite(v) && (!log || v > 0) };
  }

  window.zoSketch = function (box, figure) {
    const lines = figure.data.filter((t) => (t.mode || "").includes("lines") && !t.yaxis && t.x.length > 1);
    const { l, r, t, b } = figure.layout.margin, wide = box.clientWidth, high = box.clientHeight;
    if (!lines.length || !wide) return;
    const left = l, right = wide - r, top = t + 24, bottom = high - b;
    const x = place(figure.layout.xaxis, lines.map((line) => line.x), left, right);
    const y = place(figure.layout.yaxis, lines.map((line) => line.y), bottom, top);
    const svg = node("svg", { class: "zo-sketch", width: wide, height: high, "aria-hidden": "true" });
    for (const line of lines) {
      const points = line.x.map((v, i) => [v, line.y[i]]).filter(([v, w]) => x.fits(v) && y.fits(w));
      const { color = "ink", width = 2 } = line.line || {};
      const stroke = color === "ink" ? "currentColor" : color;
      const drawn = points.map(([v, w]) => x.at(v).toFixed(1) + "," + y.at(w).toFixed(1)).join(" ");
      svg.append(node("polyline", { points: drawn, fill: "none", stroke, "stroke-width": width, opacity: line.opacity ?? 1 }));
    }
    const short = (v) => String(Number(v.toPrecision(3)));
    const text = (facts, value) => svg.append(node("text", { "font-size": 12, fill: "currentColor", ...facts }, short(value)));
    text({ x: left - 6, y: top + 4, "text-anchor": "end" }, y.high);
    text({ x: left - 6, y: bottom, "text-anchor": "end" }, y.low);
    text({ x: left, y: bottom + 18 }, x.low);
    text({ x: right, y: bottom + 18, "text-anchor": "end" }, x.high);
    box.replaceChildren(svg);
  };
})();
