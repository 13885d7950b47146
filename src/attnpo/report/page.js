// Draws the curves and the maps of heads. Without this script the tables beneath them hold their numbers.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 40rem)");

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function painted(trace) {
    const copy = structuredClone(trace);
    for (const part of [copy.line, copy.marker, copy.error_y]) {
      if (part) part.color = colour(part.color);
    }
    return copy;
  }

  function layout(figure) {
    const axis = { color: colour("--quiet"), gridcolor: colour("--rule"), zeroline: false, fixedrange: true, automargin: true };
    return {
      height: narrow.matches ? 230 : 270,
      margin: { l: 44, r: 10, t: 8, b: 40 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink") },
      showlegend: false,
      hovermode: "x unified",
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--rule"), font: { color: colour("--ink") } },
      dragmode: false,
      xaxis: { ...axis, title: { text: "training step", font: { size: 13, color: colour("--quiet") } }, showgrid: false },
      yaxis: { ...axis, tickformat: figure.tick, rangemode: figure.range },
    };
  }

  function drawMap(figure) {
    const rows = figure.layers.map(String);
    const cells = {
      type: "heatmap", z: figure.map, y: rows, zmin: 0, zmax: 1, colorscale: "RdBu", reversescale: true, xgap: 1, ygap: 1,
      hovertemplate: "layer %{y}, head %{x}: %{z:.3f}<extra></extra>", colorbar: { thickness: 12, outlinewidth: 0 },
    };
    const ring = (size, color, width) => ({
      x: figure.chosen.map(([, head]) => head), y: figure.chosen.map(([layer]) => String(layer)), mode: "markers",
      hoverinfo: "skip", marker: { symbol: "circle-open", size, color, line: { width } },
    });
    const base = layout({ tick: "", range: "normal" });
    const wanted = {
      ...base, hovermode: "closest", height: Math.max(230, 60 + 18 * rows.length),
      xaxis: { ...base.xaxis, title: { text: "head" }, dtick: Math.ceil(figure.map[0].length / 16) },
      yaxis: { ...base.yaxis, title: { text: "layer" }, type: "category", showgrid: false },
    };
    Plotly.react(figure.id, [cells, ring(16, "#ffffff", 5), ring(16, "#000000", 2)], wanted, { displayModeBar: false, responsive: true });
  }

  function draw() {
    for (const figure of figures) {
      if (figure.map) {
        drawMap(figure);
        continue;
      }
      Plotly.react(figure.id, figure.traces.map(painted), layout(figure), { displayModeBar: false, responsive: true });
    }
  }

  draw();
  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
})();
