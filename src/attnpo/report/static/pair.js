// Two responses to one problem side by side, steps that say much the same in one row.

const SIMILAR = 0.15; // share of common words and neighbours from which two steps are taken for one
const NUMBER = 3; // what a number weighs among words: phrases vary, the numbers are what a step is about
const MOST_CELLS = 250_000; // of the table of the alignment: longer pairs are shown without one

// Words, numbers and signs of a text, and neighbours among them: "15 - 11" is more than a 15 and an 11.
function wordsOf(text) {
  const words = text.toLowerCase().match(/[\p{L}\p{N}]+|[-+*/=]/gu) ?? [];
  return new Set([...words, ...words.slice(1).map((word, k) => `${words[k]} ${word}`)]);
}

function likeness(one, other) {
  const weigh = (words) => words.reduce((sum, word) => sum + (/\d/.test(word) ? NUMBER : 1), 0);
  const common = weigh([...one].filter((word) => other.has(word)));
  return common / Math.max(1, weigh([...one, ...other]) - common);
}

// Rows [left, right, alike] of indices: the alignment of greatest total likeness. Between two rows that are alike the
// steps that have no counterpart stand side by side; null where one side has fewer.
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
  let from = [0, 0]; // what is not in a row yet
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
    grid.append(make("div", { class: "cell head" }, make("h3", {}, response.split === "bench" ? response.source : `${side}, step ${response.step}`), verdictLine(response), ...[notScored(response)].filter(Boolean)));
  }
  const said = (blocks) => blocks.map((block) => block.words ?? "");
  for (const [i, j, alike] of align(said(left), said(right))) {
    const note = alike && (left[i].words === right[j].words ? "= same" : "≈ similar");
    grid.append(cell(left[i], "before", note || `− only ${first}`), cell(right[j], "after", note || `+ only ${second}`));
  }
  grid.append(make("div", { class: "cell before" }, answerBlock(before)), make("div", { class: "cell after" }, answerBlock(after)));
  const facts = make("dl", { class: "facts" });
  if (known(before.reference)) facts.append(fact("reference", before.reference));
  return make("article", { class: "response two" }, facts, readout, grid);
}
