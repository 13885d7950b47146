// The data of the page: a catalogue that is read at once, and packed parts that are unpacked when they are wanted.

const { figures, shelves } = JSON.parse(byId("data").textContent);

async function unpack(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const opened = new Map(); // id of a chunk → the promise of its content

function openChunk(run, key) {
  const id = `chunk-${run}-${key}`;
  if (!opened.has(id)) opened.set(id, unpack(id).then(JSON.parse));
  return opened.get(id);
}

// A response with what the catalogue says of it: {id, group, index, verdict, tokens, marks, step, split, …}
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
