// Formulas in the text of problems and responses, drawn as MathML by Temml. Each element marked data-maths has one text: no
// formula continues in another element, so steps keep their borders. Other text is unchanged.

const maths = (() => {
const { byId, make, unpack } = base;
const LONGEST = 2000; // characters of a formula; longer ones stay text
const MOST = 1500; // formulas of one response, so that a hostile text cannot keep the page busy
const DELIMITERS = [["$$", "$$", true], ["\\[", "\\]", true], ["\\(", "\\)", false], ["$", "$", false]];
const sources = new WeakMap(); // element → its text as the model wrote it

// Splits a text into parts: {text}, or {text, formula, display} for a formula. The texts joined are the original text.
function mathParts(text) {
  const parts = [];
  let [kept, at] = [0, 0];
  while (at < text.length) {
    const code = text[at] === "`" ? codeEnd(text, at) : 0;
    const found = code ? null : formulaAt(text, at) ?? boxedAt(text, at);
    if (found) {
      if (at > kept) parts.push({ text: text.slice(kept, at) });
      parts.push({ text: text.slice(at, found.end), formula: found.formula, display: found.display });
      kept = found.end;
    }
    at = found?.end ?? (code || at + (text[at] === "\\" && /[\\$]/.test(text[at + 1] ?? "") ? 2 : 1));
  }
  if (kept < text.length) parts.push({ text: text.slice(kept) });
  return parts;
}

// The end of the code that begins with the backticks at `at`; the end of these backticks if no equal run follows.
function codeEnd(text, at) {
  const runOf = (from) => {
    let end = from;
    while (text[end] === "`") end++;
    return end;
  };
  const start = runOf(at);
  for (let next = start; next < Math.min(text.length, start + LONGEST); ) {
    const end = text[next] === "`" ? runOf(next) : next + 1;
    if (text[next] === "`" && end - next === start - at) return end;
    next = end;
  }
  return start;
}

function formulaAt(text, at) {
  for (const [open, close, display] of DELIMITERS) {
    if (!text.startsWith(open, at)) continue;
    const start = at + open.length;
    const end = closing(text, start, close);
    const formula = end < 0 ? "" : text.slice(start, end);
    const taken = formula.trim() && !/\n\s*\n/.test(formula) && (open !== "$" || isInline(formula, text[end + 1] ?? ""));
    return taken ? { formula, display, end: end + close.length } : null; // an unclosed "$$" is not a "$" either
  }
  return null;
}

// A \boxed{} outside of any formula, as in most final answers.
function boxedAt(text, at) {
  if (!text.startsWith("\\boxed{", at)) return null;
  let depth = 0;
  for (let end = at + 6; end < Math.min(text.length, at + LONGEST); end++) {
    if (text[end] === "\\") end++;
    else depth += { "{": 1, "}": -1 }[text[end]] ?? 0;
    if (text[end] === "}" && !depth) return { formula: text.slice(at, end + 1), display: false, end: end + 1 };
  }
  return null;
}

// The position of the next `close` that no backslash precedes, or −1.
function closing(text, start, close) {
  const last = Math.min(text.length, start + LONGEST);
  for (let at = start; at < last; at++) {
    if (text.startsWith(close, at)) return at;
    if (text[at] === "\\") at++;
  }
  return -1;
}

// Whether the text between two dollars is a formula rather than two amounts of money: by pandoc's rule (no space inside
// at either end, no digit after it), and without two consecutive words of prose.
function isInline(formula, next) {
  if (/^\s|\s$/.test(formula) || /\d/.test(next)) return false;
  const bare = formula.replace(/\\(?:text|mbox|mathrm|operatorname|textbf|textit|mathbf)\s*\{[^{}]*\}|\\[a-zA-Z]+/g, " · ");
  return !/[A-Za-z]{2,}[,;:]?\s+[A-Za-z]{2,}/.test(bare) && !/^\d[\d,.]*[\s-]+[A-Za-z]{2,}/.test(bare);
}

let temmlRead = null; // the promise of the library, once a formula needs it
let asFormulas = true;

function loadTemml() {
  temmlRead ??= unpack("temml").then((text) => document.head.append(make("script", {}, text)));
  return temmlRead;
}

function formulaNode({ text, formula, display }) {
  const node = make("span", { class: display ? "formula display" : "formula", title: text });
  try {
    temml.render(formula, node, { displayMode: display, throwOnError: true, trust: false, maxExpand: 500, maxSize: [20, 20] });
  } catch (error) {
    if (!(error instanceof temml.ParseError || error instanceof RangeError || error instanceof TypeError)) throw error;
    return document.createTextNode(text); // not valid LaTeX
  }
  return node;
}

// Draw the formulas in `root` or restore their texts, depending on the reader's choice.
async function typeset(root) {
  if (!byId("temml")) return;
  const places = [...root.querySelectorAll("[data-maths]")];
  for (const place of places) {
    if (!sources.has(place)) sources.set(place, place.textContent);
    else if (!asFormulas) place.textContent = sources.get(place);
  }
  const wanted = asFormulas ? places.map((place) => [place, mathParts(sources.get(place))]).filter(([, parts]) => parts.some((part) => part.formula)) : [];
  if (!wanted.length) return;
  await loadTemml();
  if (!asFormulas) return;
  let left = MOST;
  for (const [place, parts] of wanted) {
    const nodes = parts.map((part) => (part.formula && left-- > 0 ? formulaNode(part) : part.text));
    // A displayed formula is a block: the line break after it would make an empty line.
    place.replaceChildren(...nodes.map((node, k) => (typeof node === "string" && parts[k - 1]?.display ? node.replace(/^[ \t]*\n?/, "") : node)));
  }
  // A formula that is wider than its line scrolls separately.
  const wide = wanted.flatMap(([place]) => [...place.querySelectorAll(".formula")].filter((node) => node.firstChild.getBoundingClientRect().width > place.clientWidth));
  for (const node of wide) node.classList.add("wide");
}

function toggleFormulas() {
  asFormulas = !asFormulas;
  byId("formulas").setAttribute("aria-pressed", String(asFormulas));
  for (const root of document.querySelectorAll("#reader, details.trimmed[open]")) typeset(root);
}

function startMaths() {
  if (!byId("temml")) return;
  byId("formulas").hidden = false;
  byId("formulas").addEventListener("click", toggleFormulas);
  for (const one of document.querySelectorAll("details.trimmed")) one.addEventListener("toggle", () => one.open && typeset(one));
}

return { mathParts, typeset, toggleFormulas, startMaths };
})();
