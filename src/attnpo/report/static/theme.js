// Light, dark, or as the system has it; and colours as the theme has them now.

const THEMES = { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" };
const dark = matchMedia("(prefers-color-scheme: dark)");
const themed = []; // what has to be done again when colours change
const probe = make("span", { hidden: true });
let theme = "auto";

function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function remembered(value) {
  try { // a browser may refuse to keep anything for a file
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
