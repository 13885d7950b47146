// Which responses there are, and which of them fit the filters.

const VERDICTS = { right: "✓ right", wrong: "✗ wrong", no_answer: "∅ no answer", unverifiable: "? unverifiable", timed_out: "… timed out" };
const MARKS = { attenuated: "▽", protected: "◆", truncated: "✂" };
const verdictOf = (row) => VERDICTS[row.verdict] ?? (row.verdict ? `· ${row.verdict}` : "not checked");
const verdictClass = (row) => `verdict ${row.verdict === "right" || row.verdict === "wrong" ? row.verdict : "other"}`;

const chunkOf = (run, key) => shelves[run]?.chunks.find((chunk) => chunk.key === key);
const setName = (chunk) => `${chunk.split === "eval" ? "Held-out, after" : "Training,"} step ${chunk.step}`;

// Of verdicts any of those ticked, and of marks any of those ticked: none ticked is all.
function fits(row, shown) {
  const marks = Object.keys(MARKS).filter((mark) => shown.has(mark));
  const verdicts = [...shown].filter((name) => name in VERDICTS);
  return (!verdicts.length || verdicts.includes(row.verdict)) && (!marks.length || marks.some((mark) => row.marks.includes(mark)));
}

// [{chunk, row, index}] of one step, or of every step ("all"), in the order of the run.
async function matching({ run, set, query, shown }) {
  const found = [];
  for (const chunk of shelves[run].chunks) {
    if (set !== "all" && set !== chunk.key) continue;
    const texts = query ? await searchable(run, chunk) : null;
    chunk.rows.forEach((row, index) => {
      if (fits(row, shown) && (!texts || texts[index].includes(query.toLowerCase()))) found.push({ chunk, row, index });
    });
  }
  return found;
}

// The same held-out problem at the other end of the run: [before, after] as {chunk, index}, or null.
function pairOf(run, chunk, row) {
  const evaluations = shelves[run].chunks.filter((other) => other.split === "eval");
  if (chunk.split !== "eval" || evaluations.length < 2) return null;
  const first = evaluations[0];
  const other = chunk === first ? evaluations.at(-1) : first;
  const index = other.rows.findIndex((candidate) => candidate.id === row.id);
  if (index < 0) return null;
  const here = { chunk, index: chunk.rows.indexOf(row) };
  return chunk === first ? [here, { chunk: other, index }] : [{ chunk: other, index }, here];
}
