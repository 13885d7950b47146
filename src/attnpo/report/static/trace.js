// One response: its numbers, its steps as blocks coloured by score, its final answer, and the numbers of a step in focus.

const EFFECTS = { attenuated: "▽ attenuated", protected: "◆ protected", untouched: "= untouched" };

const fact = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));

function verdictLine(response) {
  const line = make("p", { class: "verdicts" }, make("span", { class: verdictClass(response) }, verdictOf(response)));
  if (response.marks.includes("truncated")) line.append(make("span", { class: "verdict other" }, "✂ cut off"));
  if (known(response.tokens)) line.append(make("strong", {}, plural(response.tokens, "token")));
  line.append([known(response.thinking) && `${count(response.thinking)} thinking`, plural(response.steps, "step")].filter(Boolean).join(", "));
  return line;
}

function factsOf(response) {
  const facts = make("dl", { class: "facts" });
  if (known(response.reference)) facts.append(fact("reference", response.reference));
  if (response.split === "train") {
    facts.append(fact("advantage", small(response.advantage, 3, true)), fact("reward", small(response.reward)));
    for (const [name, value] of Object.entries(response.rewards)) facts.append(fact(`reward: ${name}`, small(value, 3, true)));
    facts.append(fact("group accuracy", small(response.accuracy)));
    facts.append(fact("baseline B", known(response.baseline) ? small(response.baseline) : "not rescaled"));
  }
  facts.append(fact("even spread", small(response.even)));
  return facts;
}

// What the page says of one step, in the order it is read.
function numbersOf(step, response) {
  const tokenAdvantage = known(step.scale) && known(response.advantage) ? step.scale * response.advantage : null;
  return [
    ["kind", step.kind],
    ["tokens", count(step.tokens)],
    ["score", small(step.score)],
    ["score ÷ baseline", times(step.score, response.baseline)],
    ["score ÷ even spread", times(step.score, response.even)],
    ["scale γ", small(step.scale)],
    ["token advantage", response.split === "train" ? small(tokenAdvantage, 3, true) : "–"],
  ];
}

function stepBlock(step, response, number, readout, side) {
  const effect = response.split === "train" ? step.effect : null;
  const name = `${side}step ${number} of ${response.steps}`;
  const label = make("p", { class: "label" },
    make("span", { class: "kind" }, `${number} · ${step.kind}`),
    make("span", { class: "times" }, known(step.score) ? times(step.score, response.even) : ""),
    effect && make("span", { class: `effect ${effect}` }, `${EFFECTS[effect]}, γ = ${small(step.scale)}`));
  const shade = known(step.level) ? `s${step.level}` : "none";
  const block = make("div", { class: ["step", shade, effect].filter(Boolean).join(" "), tabindex: 0, "aria-label": `${name}, ${step.kind}` },
    label, make("div", { class: "words", "data-maths": true }, step.text));
  const show = () => {
    readout.replaceChildren(make("span", { class: "at" }, name), make("dl", { class: "facts" }, ...numbersOf(step, response).map(([key, value]) => fact(key, value))));
  };
  block.addEventListener("mouseenter", show);
  block.addEventListener("focus", show);
  return block;
}

const newReadout = () => make("div", { class: "readout", role: "status" },
  make("span", { class: "at" }, "Point at a step, or go to it with Tab, to see its numbers."));

// The blocks of a response in order: steps, text in no step, what was left out; `number` is null but for steps.
function blocksOf(response, readout, side = "") {
  let number = 0;
  const blocks = response.pieces.map((piece) => {
    if (piece.left_out) {
      number += piece.left_out[0];
      const note = `${plural(piece.left_out[0], "step")} (${count(piece.left_out[1])} characters) left out to keep this page small.`;
      return { words: null, node: make("p", { class: "aside" }, note) };
    }
    if (!("kind" in piece)) return { words: null, node: make("div", { class: "step none", "data-maths": true }, piece.text) };
    number += 1;
    return { words: piece.text, node: stepBlock(piece, response, number, readout, side) };
  });
  if (!response.steps && blocks.length) blocks.unshift({ words: null, node: make("p", { class: "aside" }, "Not split into steps.") });
  return blocks;
}

const scored = (response) => response.pieces.some((piece) => known(piece.score));
const notScored = (response) => (scored(response) ? null : make("p", { class: "aside" }, "This response was not scored: no colours."));

const answerBlock = (response) => (response.answer
  ? make("div", { class: "answer" }, make("p", { class: "label" }, "final answer"), make("div", { class: "words", "data-maths": true }, response.answer))
  : make("p", { class: "aside" }, "No final answer."));

// Scores over the steps, the baseline as a line: a plotly figure.
function scoreFigure(response) {
  const steps = response.pieces.filter((piece) => known(piece.score));
  if (steps.length < 2) return null;
  const numbered = response.pieces.filter((piece) => "kind" in piece);
  const level = known(response.baseline) ? ["baseline B", response.baseline] : ["even spread", response.even];
  const x = steps.map((step) => numbered.indexOf(step) + 1);
  const bars = {
    type: "bar", x, y: steps.map((step) => step.score), marker: { color: steps.map((step) => colour(`--s${step.level ?? 0}`)), line: { color: "--quiet", width: 1 } },
    hovertemplate: "step %{x}: score %{y:.3g}<extra></extra>",
  };
  const line = { x: [0.5, numbered.length + 0.5], y: [level[1], level[1]], mode: "lines", hoverinfo: "skip", line: { color: "--ink", dash: "dash", width: 1.5 } };
  const note = { x: 1, xref: "paper", xanchor: "right", y: level[1], yanchor: "bottom", text: level[0], showarrow: false };
  return {
    id: "plot-scores", traces: known(level[1]) ? [bars, line] : [bars],
    layout: { height: 150, bargap: 0.25, margin: { l: 44, r: 10, t: 8, b: 36 }, annotations: known(level[1]) ? [note] : [], xaxis: { title: { text: "step" }, showgrid: false, dtick: Math.ceil(numbered.length / 20) }, yaxis: { rangemode: "tozero" } },
  };
}

function oneResponse(response) {
  const readout = newReadout();
  const figure = scoreFigure(response);
  const blocks = blocksOf(response, readout).map((block) => block.node);
  const plot = figure && make("div", { class: "plot scores", id: "plot-scores", role: "img", "aria-label": "Scores of the steps; each step below has its own" });
  const node = make("article", { class: "response" }, verdictLine(response), factsOf(response), plot, readout, notScored(response), ...blocks, answerBlock(response));
  return { node, figure };
}
