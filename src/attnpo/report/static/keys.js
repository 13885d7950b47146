// One key each for what a reader does most; `?` lists them.

const KEYS = {
  j: () => currentView() === "responses" && move(1),
  k: () => currentView() === "responses" && move(-1),
  b: () => currentView() === "responses" && setPair(!chosen.pair),
  m: () => byId("temml") && setFormulas(!asFormulas),
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
