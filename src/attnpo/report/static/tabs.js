// Views as tabs, and keys. The address names the view and what it shows: #heads, #responses/0/eval-30/2?mode=one

(() => {
const { byId, tabs, viewOf, currentView, nextTheme, startTheme, startPlots, startCues } = base;
const { chosen, follow, move, setPair, startExplorer } = explorer;
const { toggleFormulas, startMaths } = maths;

function parsed(hash) {
  const [before, after = ""] = hash.replace(/^#/, "").split("?");
  const [view, ...path] = before.split("/");
  return { view, path, query: new URLSearchParams(after) };
}

function showView(id) {
  const changed = currentView() !== id;
  for (const tab of tabs) {
    const here = viewOf(tab) === id;
    tab.setAttribute("aria-selected", String(here));
    tab.tabIndex = here ? 0 : -1;
    byId(viewOf(tab)).hidden = !here;
  }
  if (changed) scrollTo(0, 0);
}

function route() {
  const wanted = parsed(location.hash);
  const id = tabs.some((tab) => viewOf(tab) === wanted.view) ? wanted.view : viewOf(tabs[0]);
  showView(id);
  if (id === "responses" && byId("controls")) follow(wanted);
}

function goTo(tab) {
  if (!tab) return;
  location.hash = viewOf(tab);
  tab.focus();
}

function startTabs() {
  byId("tabs").setAttribute("role", "tablist");
  for (const tab of tabs) {
    const panel = byId(viewOf(tab));
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", panel.id);
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
  }
  byId("tabs").addEventListener("keydown", (event) => {
    const here = tabs.indexOf(document.activeElement);
    const to = { ArrowRight: (here + 1) % tabs.length, ArrowLeft: (here + tabs.length - 1) % tabs.length, Home: 0, End: tabs.length - 1 }[event.key];
    if (here < 0 || to === undefined) return;
    event.preventDefault();
    goTo(tabs[to]);
  });
  document.documentElement.classList.add("tabbed");
  addEventListener("hashchange", route);
  route();
}

// --- keyboard shortcuts; `?` lists them

const KEYS = {
  j: () => currentView() === "responses" && move(1),
  k: () => currentView() === "responses" && move(-1),
  b: () => currentView() === "responses" && setPair(!chosen.pair),
  m: () => byId("temml") && toggleFormulas(),
  t: nextTheme,
  "?": () => byId("help").showModal(),
  "/": () => {
    if (!byId("find")) return;
    if (currentView() !== "responses") location.hash = "responses";
    requestAnimationFrame(() => byId("find").focus());
  },
};

function onKey(event) {
  const typing = event.target.closest("input:not([type=checkbox]), select, textarea, dialog");
  if (event.key === "Escape" && event.target.id === "find") {
    event.target.value = "";
    event.target.dispatchEvent(new Event("input"));
    event.target.blur();
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const view = /^[1-9]$/.test(event.key) ? tabs[Number(event.key) - 1] : null;
  if (view) goTo(view);
  else if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
}

function startKeys() {
  byId("help-open").hidden = false;
  byId("help-open").addEventListener("click", KEYS["?"]);
  document.addEventListener("keydown", onKey);
}

startTheme();
startMaths();
startCues();
startPlots();
startExplorer();
startTabs();
startKeys();
})();
