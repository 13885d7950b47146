// Which responses there are, and which of them fit the filters.

const VERDICTS = { right: "✓ right", wrong: "✗ wrong", no_answer: "∅ no answer", unverifiable: "? unverifiable", timed_out: "… timed out" };
const RIGHT = { right: true, wrong: false, no_answer: false }; // other verdicts say nothing of an answer
const CHANGES = { gained: "✗→✓", lost: "✓→✗" };
const MARKS = { attenuated: "▽", protected: "◆", truncated: "✂" };
const verdictOf = (row) => VERDICTS[row.verdict] ?? (row.verdict ? `· ${row.verdict}` : "not checked");
const verdictClass = (row) => `verdict ${row.verdict === "right" || row.verdict === "wrong" ? row.verdict : "other"}`;

const chunkOf = (run, key) => shelves[run]?.chunks.find((chunk) => chunk.key === key);
const setName = (chunk) => chunk.title || `${chunk.split === "eval" ? "Held-out, after" : "Training,"} step ${chunk.step}`;

// "gained" or "lost": not right before and right after, or the other way; null where neither is known.
function changeOf(pair) {
  const [before, after] = (pair ?? []).map((end) => RIGHT[end.chunk.rows[end.index].verdict]);
  if (!known(before) || !known(after) || before === after) return null;
  return after ? "gained" : "lost";
}

// Of verdicts any of those ticked, of marks any of those ticked, of changes any: none ticked is all.
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

// The two chunks that `chunk` is one of: the ends of a run, or the first and another evaluation of one benchmark; or null.
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
