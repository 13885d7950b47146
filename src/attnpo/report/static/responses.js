// How responses are drawn. One: its numbers, its steps as blocks coloured by score, its final answer, and the numbers of
// the step in focus. Two to one problem: side by side, similar steps in one row.

const responses = (() => {
const { make, known, count, plural, small, times, colour } = base;

const VERDICTS = { right: "✓ right", wrong: "✗ wrong", no_answer: "∅ no answer", unverifiable: "? unverifiable", timed_out: "… timed out" };
const CHANGES = { gained: "✗→✓", lost: "✓→✗" };
const MARKS = { attenuated: "▽", protected: "◆", truncated: "✂" };
const verdictOf = (row) => VERDICTS[row.verdict] ?? (row.verdict ? `· ${row.verdict}` : "not checked");
const verdictClass = (row) => `verdict ${row.verdict === "right" || row.verdict === "wrong" ? row.verdict : "other"}`;

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

// The numbers of one step, in reading order.
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

// The blocks of a response in order: steps, text outside of steps, and omissions; `words` is null for all but steps.
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

// A plotly figure: scores over the steps, with the baseline as a line.
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

// --- two responses side by side

const SIMILAR = 0.15; // share of common words and pairs of words from which two steps count as similar
const NUMBER = 3; // weight of a number, relative to a word: phrases vary, numbers carry the content of a step
const MOST_CELLS = 250_000; // cells of the alignment's table; longer pairs are shown unaligned

// The words, numbers and signs of a text and pairs of adjacent ones, since "15 - 11" is more than a 15 and an 11.
function wordsOf(text) {
  const words = text.toLowerCase().match(/[\p{L}\p{N}]+|[-+*/=]/gu) ?? [];
  return new Set([...words, ...words.slice(1).map((word, k) => `${words[k]} ${word}`)]);
}

function likeness(one, other) {
  const weigh = (words) => words.reduce((sum, word) => sum + (/\d/.test(word) ? NUMBER : 1), 0);
  const common = weigh([...one].filter((word) => other.has(word)));
  return common / Math.max(1, weigh([...one, ...other]) - common);
}

// Rows [left, right, alike] of indices: the alignment of greatest total similarity. Steps without a counterpart fill the
// rows between two similar ones from both sides; null on the side that has fewer.
function align(left, right) {
  if (left.length * right.length > MOST_CELLS) {
    return unlike(0, left.length, 0, right.length);
  }
  const [a, b] = [left.map(wordsOf), right.map(wordsOf)];
  const like = a.map((one) => b.map((other) => likeness(one, other)));
  const best = Array.from({ length: a.length + 1 }, () => new Float64Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const both = like[i][j] >= SIMILAR ? like[i][j] + best[i + 1][j + 1] : 0;
      best[i][j] = Math.max(best[i + 1][j], best[i][j + 1], both);
    }
  }
  const rows = [];
  let [i, j] = [0, 0];
  let from = [0, 0]; // the first steps without a row
  while (i < a.length && j < b.length) {
    if (like[i][j] >= SIMILAR && best[i][j] === like[i][j] + best[i + 1][j + 1]) {
      rows.push(...unlike(from[0], i, from[1], j), [i++, j++, true]);
      from = [i, j];
    } else if (best[i][j] === best[i + 1][j]) i++;
    else j++;
  }
  return [...rows, ...unlike(from[0], a.length, from[1], b.length)];
}

function unlike(i, lefts, j, rights) {
  const rows = Math.max(lefts - i, rights - j);
  return Array.from({ length: rows }, (_, k) => [i + k < lefts ? i + k : null, j + k < rights ? j + k : null, false]);
}

function cell(block, side, note) {
  const node = make("div", { class: `cell ${side}` });
  if (!block) return node;
  node.append(make("span", { class: "change" }, note), block.node);
  return node;
}

function twoResponses(before, after) {
  const readout = newReadout();
  const [first, second] = before.split === "bench" ? ["first", "second"] : ["before", "after"];
  const [left, right] = [blocksOf(before, readout, `${first}, `), blocksOf(after, readout, `${second}, `)];
  const grid = make("div", { class: "pair" });
  for (const [side, response] of [["Before", before], ["After", after]]) {
    grid.append(make("div", { class: "cell head" }, make("h3", {}, response.split === "bench" ? response.source : `${side}, step ${response.step}`), verdictLine(response), notScored(response)));
  }
  const texts = (blocks) => blocks.map((block) => block.words ?? "");
  for (const [i, j, alike] of align(texts(left), texts(right))) {
    const note = alike && (left[i].words === right[j].words ? "= same" : "≈ similar");
    grid.append(cell(left[i], "before", note || `− only ${first}`), cell(right[j], "after", note || `+ only ${second}`));
  }
  grid.append(make("div", { class: "cell before" }, answerBlock(before)), make("div", { class: "cell after" }, answerBlock(after)));
  const facts = make("dl", { class: "facts" });
  if (known(before.reference)) facts.append(fact("reference", before.reference));
  return make("article", { class: "response two" }, facts, readout, grid);
}

return { VERDICTS, CHANGES, MARKS, verdictOf, verdictClass, oneResponse, twoResponses };
})();
