// The response explorer: what is selected, the list of the responses that match, and the reading pane. The address of
// the page holds the complete selection.

const explorer = (() => {
const { byId, make, known, count, plural, shelves, unpack, themed, draw, currentView } = base;
const { VERDICTS, CHANGES, MARKS, verdictOf, verdictClass, oneResponse, twoResponses } = responses;
const { typeset } = maths;

// --- chunks of responses

const opened = new Map(); // id of a chunk → the promise of its content

function openChunk(run, key) {
  const id = `chunk-${run}-${key}`;
  if (!opened.has(id)) opened.set(id, unpack(id).then(JSON.parse));
  return opened.get(id);
}

// A response with its entry in the catalogue: {id, group, index, verdict, tokens, marks, step, split, …}
async function readResponse(run, chunk, index) {
  const content = await openChunk(run, chunk.key);
  const response = content.responses[index];
  return { ...chunk.rows[index], ...response, problem: content.problems[response.problem], step: chunk.step, split: chunk.split, source: shelves[run].run };
}

// The searchable text of every response of a chunk, in lower case.
async function searchable(run, chunk) {
  const content = await openChunk(run, chunk.key);
  content.texts ??= content.responses.map((response) =>
    [content.problems[response.problem], ...response.pieces.map((piece) => piece.text ?? ""), response.answer].join("\n").toLowerCase());
  return content.texts;
}

// --- which responses there are, and which of them match the filters

const RIGHT = { right: true, wrong: false, no_answer: false }; // other verdicts are not about the answer
const chunkOf = (run, key) => shelves[run]?.chunks.find((chunk) => chunk.key === key);
const setName = (chunk) => chunk.title || `${chunk.split === "eval" ? "Held-out, after" : "Training,"} step ${chunk.step}`;

// "gained" (only right after), "lost" (only right before), or null (unchanged, or a verdict is missing).
function changeOf(pair) {
  const [before, after] = (pair ?? []).map((end) => RIGHT[end.chunk.rows[end.index].verdict]);
  if (!known(before) || !known(after) || before === after) return null;
  return after ? "gained" : "lost";
}

// Whether a response has one of the ticked verdicts, one of the ticked marks and one of the ticked changes; a group in
// which nothing is ticked accepts every response.
function fits(run, chunk, row, shown) {
  const marks = Object.keys(MARKS).filter((mark) => shown.has(mark));
  const verdicts = [...shown].filter((name) => name in VERDICTS);
  const changes = [...shown].filter((name) => name in CHANGES);
  if (changes.length && !changes.includes(changeOf(pairOf(run, chunk, row)))) return false;
  return (!verdicts.length || verdicts.includes(row.verdict)) && (!marks.length || marks.some((mark) => row.marks.includes(mark)));
}

// [{chunk, row, index}] of one step, or of every step ("all"), in the order of the run.
async function matching({ run, set, query, shown }) {
  const found = [];
  for (const chunk of shelves[run].chunks) {
    if (set !== "all" && set !== chunk.key) continue;
    const texts = query ? await searchable(run, chunk) : null;
    chunk.rows.forEach((row, index) => {
      if (fits(run, chunk, row, shown) && (!texts || texts[index].includes(query.toLowerCase()))) found.push({ chunk, row, index });
    });
  }
  return found;
}

// The pair of chunks that `chunk` belongs to: both ends of a run, or the first and another evaluation of one benchmark;
// null if there is none.
function endsOf(run, chunk) {
  const all = chunk.split === "eval"
    ? shelves[run].chunks.filter((other) => other.split === "eval").map((other) => ({ run, chunk: other }))
    : shelves.flatMap((shelf, place) => shelf.chunks.filter((other) => other.split === "bench" && other.title === chunk.title).map((other) => ({ run: place, chunk: other })));
  if (!["eval", "bench"].includes(chunk.split) || all.length < 2) return null;
  const here = all.find((end) => end.chunk === chunk);
  return here === all[0] ? [here, all.at(-1)] : [all[0], here];
}

// The same problem at the other end: [before, after] as {run, chunk, index}, or null.
function pairOf(run, chunk, row) {
  const ends = endsOf(run, chunk)?.map((end) => ({ ...end, index: end.chunk.rows.findIndex((other) => (end.chunk === chunk ? other === row : other.id === row.id)) }));
  return ends?.every((end) => end.index >= 0) ? ends : null;
}

// --- what is selected, and the list

const LISTED = 200; // entries of the list; more would be slow and unread

const chosen = { run: 0, set: "", key: "", index: 0, pair: true, query: "", shown: new Set() };
let listed = []; // the current list: [{chunk, row, index}]
let latest = 0; // the number of the latest request: results of older ones are dropped

function address() {
  const query = new URLSearchParams();
  if (chosen.set !== chosen.key) query.set("within", chosen.set);
  if (!chosen.pair) query.set("mode", "one");
  if (chosen.query) query.set("q", chosen.query);
  if (chosen.shown.size) query.set("show", [...chosen.shown].join(","));
  const asText = query.toString();
  return `#responses/${chosen.run}/${chosen.key}/${chosen.index}${asText ? `?${asText}` : ""}`;
}

function follow({ path, query }) {
  const [run, key, index] = path;
  if (shelves[run]?.chunks.length) chosen.run = Number(run);
  if (chunkOf(chosen.run, key)) {
    chosen.key = key;
    chosen.index = Number(index) || 0;
    chosen.set = query.get("within") === "all" ? "all" : key;
    chosen.pair = query.get("mode") !== "one";
    chosen.query = query.get("q") ?? "";
    chosen.shown = new Set((query.get("show") ?? "").split(",").filter((name) => name in VERDICTS || name in MARKS || name in CHANGES));
  }
  choose(chosen.run);
}

// Select a run: keep the step if the run has it, else take its last evaluation, or its last training step.
function choose(run) {
  const chunks = shelves[run].chunks;
  chosen.run = run;
  if (chosen.set !== "all" && !chunkOf(run, chosen.set)) {
    chosen.set = (chunks.findLast((chunk) => chunk.split === "eval") ?? chunks.at(-1))?.key ?? "all";
    chosen.index = 0;
  }
  if (!chunkOf(run, chosen.key)) chosen.key = chosen.set;
  fillControls();
  return refresh();
}

function fillControls() {
  byId("run").value = String(chosen.run);
  const options = [["all", shelves[chosen.run].kind === "run" ? "every step" : "all of it"], ...shelves[chosen.run].chunks.map((chunk) => [chunk.key, setName(chunk)])];
  byId("step").replaceChildren(...options.map(([value, name]) => make("option", { value }, name)));
  byId("step").value = chosen.set;
  if (byId("find").value !== chosen.query) byId("find").value = chosen.query;
  for (const box of document.querySelectorAll("#controls [type=checkbox]")) box.checked = chosen.shown.has(box.name);
}

async function refresh() {
  const request = ++latest;
  const found = await matching(chosen);
  if (request !== latest) return;
  const here = found.findIndex(({ chunk, index }) => chunk.key === chosen.key && index === chosen.index);
  // The selected response stays in the list, however long that is.
  const first = Math.max(0, Math.min(here - LISTED / 2, found.length - LISTED));
  listed = found.slice(first, first + LISTED);
  const more = found.length > listed.length ? `, ${count(listed.length)} listed` : "";
  byId("found").textContent = found.length ? `${plural(found.length, "response")}${more}` : "No response fits.";
  byId("list").replaceChildren(...listed.map(entry));
  await select(Math.max(0, here - first), request);
}

function entry({ chunk, row }, position) {
  const other = pairOf(chosen.run, chunk, row);
  const [before, after] = other ? other.map((end) => end.chunk.rows[end.index].tokens) : [];
  const length = other && known(before) && known(after) ? `${count(before)} → ${count(after)}` : known(row.tokens) ? count(row.tokens) : "–";
  const change = changeOf(other);
  const marks = [...row.marks.map((mark) => MARKS[mark]), ...(change ? [CHANGES[change]] : [])].join(" ");
  const place = chosen.set === "all" && !chunk.title ? `${chunk.split === "eval" ? "held-out" : "training"} ${chunk.step}` : `${row.id.slice(0, 40) || `group ${row.group}`}${chunk.split === "train" ? ` · ${row.index}` : ""}`;
  const item = make("li", { role: "option", id: `option-${position}`, "aria-selected": "false" },
    make("span", { class: verdictClass(row), "aria-label": verdictOf(row) }, verdictOf(row).split(" ")[0]),
    make("span", { class: "name" }, place), make("span", { class: "marks", "aria-label": [...row.marks, change ?? ""].join(" ") }, marks),
    make("span", { class: "length" }, `${length} tokens`));
  item.addEventListener("click", () => select(position));
  return item;
}

async function select(position, request = ++latest) {
  const list = byId("list");
  list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
  const item = list.children[position];
  if (!item) {
    list.removeAttribute("aria-activedescendant");
    byId("reader").replaceChildren(make("p", { class: "notice" }, "No response fits: take back a filter, or choose “every step”."));
    return;
  }
  item.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", item.id);
  list.scrollTop = Math.min(Math.max(list.scrollTop, item.offsetTop + item.offsetHeight - list.clientHeight), item.offsetTop);
  const { chunk, index } = listed[position];
  Object.assign(chosen, { key: chunk.key, index });
  if (currentView() === "responses") history.replaceState(null, "", address());
  await read(listed[position], request);
}

async function read({ chunk, row, index }, request) {
  const run = chosen.run;
  const both = pairOf(run, chunk, row);
  const wanted = both && chosen.pair ? both : [{ chunk, index }];
  const responses = await Promise.all(wanted.map((end) => readResponse(end.run ?? run, end.chunk, end.index)));
  if (request !== latest) return;
  const { node, figure } = responses.length === 2 ? { node: twoResponses(...responses), figure: null } : oneResponse(responses[0]);
  const title = make("h3", {}, responses.length === 2 && !chunk.title ? "Held-out problem" : chunk.split !== "train" ? setName(chunk) : `${setName(chunk)}, group ${row.group}, response ${row.index}`, " ", make("small", {}, row.id));
  const modes = both && make("div", { class: "modes", role: "group", "aria-label": "How to read" },
    mode(chunk.title ? "Side by side" : "Before and after", true), mode("This response", false));
  byId("reader").replaceChildren(make("header", {}, title, modes), make("blockquote", { class: "problem", "data-maths": true }, responses[0].problem), node);
  typeset(byId("reader"));
  byId("reader").dataset.at = `${chunk.key}/${index}`;
  if (figure) await draw(figure);
}

function mode(label, pair) {
  const button = make("button", { type: "button", "aria-pressed": String(chosen.pair === pair) }, label);
  button.addEventListener("click", () => setPair(pair));
  return button;
}

function setPair(pair) {
  chosen.pair = pair;
  refresh();
}

const selected = () => Number(byId("list").querySelector("[aria-selected=true]")?.id.split("-")[1] ?? 0);

function move(by) {
  const position = selected() + by;
  if (position >= 0 && position < listed.length) select(position);
}

function startExplorer() {
  if (!byId("controls")) return;
  let waiting = 0;
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("run").addEventListener("change", (event) => choose(Number(event.target.value)));
  byId("step").addEventListener("change", (event) => {
    Object.assign(chosen, { set: event.target.value, index: 0 });
    if (chosen.set !== "all") chosen.key = chosen.set;
    refresh();
  });
  byId("find").addEventListener("input", (event) => {
    chosen.query = event.target.value;
    clearTimeout(waiting);
    waiting = setTimeout(refresh, 150);
  });
  for (const box of document.querySelectorAll("#controls [type=checkbox]")) {
    box.addEventListener("change", () => {
      chosen.shown[box.checked ? "add" : "delete"](box.name);
      refresh();
    });
  }
  byId("list").addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    move(by);
  });
  themed.push(() => {
    if (byId("plot-scores") && listed.length) select(selected()); // its bars have the colours of the steps
  });
}

return { chosen, follow, move, setPair, startExplorer };
})();
