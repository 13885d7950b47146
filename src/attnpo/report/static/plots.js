// Plots, drawn by plotly when they come into sight. Without this script the tables beneath them hold their numbers.

const narrow = matchMedia("(max-width: 40rem)");
const drawn = new Map(); // id → figure
let plotly = null; // the promise of the library, once a plot wants it

function loadPlotly() {
  plotly ??= unpack("plotly").then((text) => document.head.append(make("script", {}, text)));
  return plotly;
}

// A copy of part of a figure with the theme's colours in place of their names.
function painted(part) {
  if (Array.isArray(part)) return part.map(painted);
  if (part === null || typeof part !== "object") return part;
  return Object.fromEntries(Object.entries(part).map(([key, value]) =>
    [key, key === "color" && typeof value === "string" && value.startsWith("--") ? colour(value) : painted(value)]));
}

function layoutOf(figure) {
  const { xaxis, yaxis, ...rest } = figure.layout;
  const axis = { color: colour("--quiet"), gridcolor: colour("--rule"), zeroline: false, fixedrange: true, automargin: true };
  const titled = ({ title, ...others } = {}) =>
    ({ ...axis, ...others, ...(title && { title: { ...title, font: { size: 13, color: colour("--quiet") }, standoff: 8 } }) });
  return {
    height: narrow.matches ? 230 : 270,
    margin: { l: 44, r: 10, t: 8, b: 40 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink") },
    showlegend: false,
    hovermode: "closest",
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--rule"), font: { color: colour("--ink") } },
    dragmode: false,
    ...painted(rest),
    xaxis: painted(titled(xaxis)),
    yaxis: painted(titled(yaxis)),
  };
}

async function draw(figure) {
  drawn.set(figure.id, figure);
  await loadPlotly();
  const place = byId(figure.id);
  if (!place || drawn.get(figure.id) !== figure) return;
  await Plotly.react(place, painted(figure.traces), layoutOf(figure), { displayModeBar: false, responsive: true });
  place.dataset.drawn = "true";
}

const drawAll = () => figures.filter((figure) => !drawn.has(figure.id)).map(draw);
const drawAgain = () => [...drawn.values()].filter((figure) => byId(figure.id)).map(draw);

function startPlots() {
  const wanted = new Map(figures.map((figure) => [figure.id, figure]));
  const watch = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      draw(wanted.get(target.id));
    }
  }, { rootMargin: "400px" });
  for (const id of wanted.keys()) watch.observe(byId(id));
  themed.push(drawAgain);
  narrow.addEventListener("change", drawAgain);
  addEventListener("beforeprint", drawAll);
}
