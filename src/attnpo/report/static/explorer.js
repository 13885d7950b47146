// The response explorer: what is chosen, the list of what fits, and the reading pane. The address holds all of it.

const LISTED = 200; // entries of the list; more would be slow and nobody would read them

const chosen = { run: 0, set: "", key: "", index: 0, pair: true, query: "", shown: new Set() };
let listed = []; // what the list shows now: [{chunk, row, index}]
let asked = 0; // the number of the latest request: an answer to an older one is dropped

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

// Take a run: keep the step if it has it, else its last evaluation, or its last training step.
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
  const request = ++asked;
  const found = await matching(chosen);
  if (request !== asked) return;
  const here = found.findIndex(({ chunk, index }) => chunk.key === chosen.key && index === chosen.index);
  // The chosen one stays in the list, however long that is.
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

async function select(position, request = ++asked) {
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
  if (request !== asked) return;
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
