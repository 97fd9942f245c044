// Live charts: whole figures and new rows from the server, theme colours, a data table and a CSV file for each.
(function () {
  "use strict";
  const charts = new Set(), waiting = new Set();
  const source = document.currentScript.dataset.plotly;
  let plotly = null; // our own reference: other parts of the page may load another version

  // Plotly is large. It comes once the page stands; until then charts are sketches, then they are drawn one a task.
  function fetchPlotly() {
    const script = document.createElement("script");
    script.src = source;
    script.onload = () => { plotly = window.Plotly; drawNext(); };
    document.head.append(script);
  }

  function drawNext() {
    const [chart] = waiting;
    if (!chart) return;
    chart.draw();
    setTimeout(drawNext, 0);
  }

  function ink(box) {
    const style = getComputedStyle(box);
    return { ink: style.color, grid: style.getPropertyValue("--zo-grid").trim() || "rgba(128,128,128,.2)" };
  }

  function coloured(value, look) {
    if (value === "ink") return look.ink;
    if (Array.isArray(value)) return value.map((part) => coloured(part, look));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, coloured(part, look)]));
    }
    return value;
  }

  // On the dark page lines are lighter, so that each has a contrast of at least 4.5 to it, and faint ones 3.
  const LIGHTER = { "#0072B2": "#4DAFEA", "#56B4E9": "#C2E4FA", "#D55E00": "#F28A45", "#009E73": "#2FC79C", "#9A8B00": "#C9B92E", "#7F7F7F": "#A0A7B0", "#8C564B": "#D09A8E", "#AA3377": "#EA85BC" };
  const FAINT = 0.7;

  function lighter(value) {
    if (typeof value === "string") return LIGHTER[value] || value;
    if (Array.isArray(value)) return value.map(lighter);
    if (value && typeof value === "object") {
      const named = Object.entries(value).map(([name, part]) => [name, name === "x" || name === "y" ? part : lighter(part)]);
      return Object.fromEntries(named);
    }
    return value;
  }

  function themed(figure, box) {
    const look = ink(box);
    if (document.body.classList.contains("dark")) {
      figure = lighter(figure);
      for (const trace of figure.data) if (trace.opacity) trace.opacity = Math.max(trace.opacity, FAINT);
    }
    const layout = coloured(figure.layout, look);
    layout.font = { ...layout.font, color: look.ink };
    layout.hoverlabel = { font: { size: 12 } };
    layout.autosize = true;
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      layout[name] = { gridcolor: look.grid, linecolor: look.grid, ...layout[name] };
    }
    return { data: coloured(figure.data, look), layout };
  }

  function quoted(cell) {
    const text = cell === null || cell === undefined ? "" : String(cell);
    return /[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  }

  function table(box) {
    const lines = [];
    for (const trace of box.data || []) {
      const xs = trace.x || [], ys = trace.y || [];
      for (let i = 0; i < xs.length; i++) lines.push([trace.name || "", xs[i], ys[i]]);
    }
    return lines;
  }

  function dataPart(box, title) {
    const details = document.createElement("details");
    details.className = "zo-data";
    details.innerHTML = "<summary>Data</summary><button type='button'>Download CSV</button><div class='zo-table' tabindex='0'></div>";
    details.querySelector("summary").setAttribute("aria-label", "Data of the chart: " + title);
    details.addEventListener("toggle", () => {
      const shown = table(box).slice(-200);
      const rows = shown.map((row) => "<tr>" + row.map((c) => "<td></td>").join("") + "</tr>").join("");
      const place = details.querySelector(".zo-table");
      place.setAttribute("aria-label", "Last rows of " + title);
      place.innerHTML = "<table><thead><tr><th>series</th><th>x</th><th>y</th></tr></thead><tbody>" + rows + "</tbody></table>";
      place.querySelectorAll("td").forEach((cell, i) => { cell.textContent = shown[Math.floor(i / 3)][i % 3] ?? ""; });
    });
    details.querySelector("button").addEventListener("click", () => {
      const text = "series,x,y\n" + table(box).map((row) => row.map(quoted).join(",")).join("\n") + "\n";
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      link.download = title.toLowerCase().replace(/[^a-z0-9]+/g, "-") + ".csv";
      link.click();
      URL.revokeObjectURL(link.href);
    });
    return details;
  }

  function append(figure, parts) {
    for (const { trace, x, y } of parts) {
      figure.data[trace].x.push(...x);
      figure.data[trace].y.push(...y);
    }
  }

  window.zoChart = function (element, props, watch, title) {
    const box = element.querySelector(".zo-plot");
    if (!box) return;
    if (!charts.size) setTimeout(fetchPlotly, 50); // after the sketches were painted
    const options = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], displayModeBar: matchMedia("(hover: none)").matches ? false : "hover" };
    const chart = { box, figure: null };
    charts.add(chart);

    chart.draw = function () {
      waiting.delete(chart);
      const shown = themed(chart.figure, box);
      box.querySelector(".zo-sketch")?.remove();
      plotly.react(box, shown.data, shown.layout, options);
    };

    function take() {
      const message = props.value && JSON.parse(JSON.stringify(props.value)); // ours: the page watches its own copy
      if (message && message.figure) {
        chart.figure = message.figure;
        box.closest(".zo-panel")?.classList.toggle("zo-absent", Boolean(chart.figure.absent)); // of no use to the method
        if (plotly && box.data) return chart.draw();
        waiting.add(chart);
        if (plotly) setTimeout(drawNext, 0);
        else zoSketch(box, chart.figure);
      } else if (message && message.rows && chart.figure) {
        const parts = message.rows.flatMap(([traces, x, ys]) => traces.map((trace, i) => ({ trace, x, y: ys[i] })));
        append(chart.figure, parts);
        if (box.data && parts.length) {
          plotly.extendTraces(box, { x: parts.map((p) => p.x), y: parts.map((p) => p.y) }, parts.map((p) => p.trace));
        }
      }
    }

    take();
    watch("value", take);
    element.appendChild(dataPart(box, title));
    new ResizeObserver(() => { if (box.data && box.offsetParent) plotly.Plots.resize(box); }).observe(box);
  };

  new MutationObserver(() => charts.forEach((chart) => (!chart.box.isConnected ? charts.delete(chart) : chart.box.data && chart.draw())))
    .observe(document.body || document.documentElement, { attributes: true, attributeFilter: ["class"] });
})();
