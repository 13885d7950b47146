// Draws the curves. Without this script the tables beneath them hold the same numbers.
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

  function draw() {
    for (const figure of figures) {
      Plotly.react(figure.id, figure.traces.map(painted), layout(figure), { displayModeBar: false, responsive: true });
    }
  }

  draw();
  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
})();
