// Shared by the other files: elements made from data (text is always text, never markup), formatted numbers, the data of
// the page, theme, plots, and the current view. Each file is one function, which returns the names that others use.

const base = (() => {
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const known = (value) => value !== null && value !== undefined;
const count = (value) => (known(value) ? Math.round(value).toLocaleString("en-US") : "–");
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

// A few significant digits with a true minus sign.
function small(value, digits = 3, signed = false) {
  if (!known(value)) return "–";
  const text = String(Number(Math.abs(value).toPrecision(digits)));
  return (value < 0 ? "−" : signed && value > 0 ? "+" : "") + text;
}

const times = (value, unit) => (known(value) && unit ? `${small(value / unit, 2)}×` : "–");

// --- the data of the page: a catalogue that is read at once, and packed parts that are unpacked on demand

const { figures, shelves } = JSON.parse(byId("data").textContent);

async function unpack(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// --- light, dark, or the system's choice; and the theme's current colours

const THEMES = { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" };
const dark = matchMedia("(prefers-color-scheme: dark)");
const themed = []; // functions to call when colours change
const probe = make("span", { hidden: true });
let theme = "auto";

function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function remembered(value) {
  try { // a browser may refuse storage to a page opened from disk
    if (value) localStorage.setItem("attnpo-theme", value);
    return localStorage.getItem("attnpo-theme");
  } catch (error) {
    if (error instanceof DOMException) return null;
    throw error;
  }
}

function setTheme(name) {
  theme = name in THEMES ? name : "auto";
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = THEMES[theme];
  byId("theme").setAttribute("aria-label", `Colours: ${theme}. Change them`);
  for (const again of themed) again();
}

function nextTheme() {
  const names = Object.keys(THEMES);
  setTheme(names[(names.indexOf(theme) + 1) % names.length]);
  remembered(theme);
}

function startTheme() {
  document.body.append(probe);
  byId("theme").hidden = false;
  byId("theme").addEventListener("click", nextTheme);
  dark.addEventListener("change", () => setTheme(theme));
  setTheme(remembered() ?? "auto");
}

// --- plots, drawn by plotly when they come into sight; without this script the tables below them have their numbers

const narrow = matchMedia("(max-width: 40rem)");
const drawn = new Map(); // id → figure
let plotly = null; // the promise of the library, once a plot needs it

function loadPlotly() {
  plotly ??= unpack("plotly").then((text) => document.head.append(make("script", {}, text)));
  return plotly;
}

// A copy of part of a figure with the theme's colours in place of the names of colours.
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

// --- a note under a table that is wider than its box, until the reader has seen all of it

function cue(box) {
  const wide = box.scrollWidth > box.clientWidth + 1;
  let note = box.nextElementSibling?.classList.contains("cue") ? box.nextElementSibling : null;
  if (!wide) {
    note?.remove();
    return;
  }
  if (!note) {
    note = make("p", { class: "cue", "aria-hidden": true });
    box.after(note);
  }
  const [left, right] = [box.scrollLeft > 1, box.scrollLeft + box.clientWidth < box.scrollWidth - 1];
  box.classList.toggle("moved", !right);
  note.textContent = right ? `${left ? "← " : ""}more columns: scroll sideways →` : "← scroll back";
}

function startCues() {
  const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => cue(target)));
  for (const box of document.querySelectorAll(".scroll")) {
    sizes.observe(box);
    box.addEventListener("scroll", () => cue(box), { passive: true });
  }
}

// --- views: the tabs name them

const tabs = [...document.querySelectorAll("#tabs a")];
const viewOf = (tab) => tab.hash.slice(1);
const currentView = () => tabs.map(viewOf).find((id) => !byId(id).hidden);

return {
  byId, make, known, count, plural, small, times, shelves, unpack, themed, colour, nextTheme, draw,
  tabs, viewOf, currentView, startTheme, startPlots, startCues,
};
})();
