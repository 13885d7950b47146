"""The responses of evaluations: samples with the questions they answer, and which of them the page carries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attnpo.data.jsonl import number, read_unfinished_jsonl
from attnpo.errors import InputError
from attnpo.report.elements import plural
from attnpo.report.evaluation import Evaluation, is_exchanged
from attnpo.report.packing import Chunk, Flips, Shelf, count_flips, evenly, first_per_problem, fitting, flip
from attnpo.report.rollouts import Response, ScoredStep, response_of
from attnpo.steps.formats import Form, recorded_format
from attnpo.steps.response import split_response
from attnpo.steps.segment import segment_steps

CARRIED = 64  # problems of a benchmark
NO_TEXT = "(The text of this problem was not recorded: evaluate again to have questions.jsonl.)"


@dataclass(frozen=True)
class Sampled:
    """The responses of one evaluation by benchmark, in the order of its files, without steps."""

    evaluation: Evaluation
    responses: dict[str, list[Response]]
    notices: list[str]


def read_sampled(evaluation: Evaluation) -> Sampled:
    """Every sample of an evaluation. Raises InputError, with file, row and field, for rows that are no samples."""
    path, notices = evaluation.path, []
    if is_exchanged(path):
        from attnpo.evaluation.exchange import read_exchanged  # takes torch

        rows = {
            name: [(index, sample.as_json()) for index, sample in enumerate(samples, 1)]
            for name, samples in read_exchanged(path).samples.items()
        }
        files = dict.fromkeys(rows, path)
    else:
        files = {name: path / "samples" / f"{name}.jsonl" for name in evaluation.benchmarks}
        rows = {}
        for name, file in files.items():
            if file.is_file():
                rows[name], notice = read_unfinished_jsonl(file)
                notices += [notice] if notice else []
            else:
                notices.append(f"{evaluation.name}: no samples/{name}.jsonl: there are no responses of it to show.")
    problems, form = _problems(path / "questions.jsonl"), recorded_format(path / "environment.json")
    found: dict[str, list[Response]] = {}
    for name, numbered in rows.items():
        found[name] = []
        for index, row in numbered:
            where, problem = f"{files[name]}, row {index}", problems.get((name, str(row.get("id"))), NO_TEXT)
            found[name].append(response_of(_as_rollout(row, problem, form, where), where))
    return Sampled(evaluation, {name: responses for name, responses in found.items() if responses}, notices)


def _problems(file: Path) -> dict[tuple[str, str], str]:
    """The text of each question by benchmark and id, with its choices; empty where they were not recorded."""
    if not file.is_file():
        return {}
    found = {}
    for index, row in read_unfinished_jsonl(file)[0]:
        if not isinstance(row.get("problem"), str) or not isinstance(row.get("choices") or [], list):
            raise InputError(f"{file}, row {index}: expected a text as 'problem' and a list as 'choices'")
        choices = [f"({chr(ord('A') + place)}) {text}" for place, text in enumerate(row.get("choices") or [])]
        found[str(row.get("benchmark")), str(row.get("id"))] = "\n".join([row["problem"], *choices])
    return found


def _as_rollout(row: dict[str, Any], problem: str, form: Form, where: str) -> dict[str, Any]:
    """A sample as a row of rollouts, without steps."""
    text = row.get("text")
    if not isinstance(text, str):
        raise InputError(f"{where}: 'text' is {text!r:.80}, expected a text")
    counts = {name: number(row, f"{name}tokens", where) for name in ("", "prompt_", "thinking_", "answer_")}
    parts = split_response(text, form)
    start, end, answer = parts.thinking_start, parts.thinking_end, parts.answer_start
    if counts["thinking_"] == 0 and answer is None:
        start, end, answer = 0, 0, 0  # all of it is the answer of a model that does not think
    elif counts["answer_"] == 0 and counts["thinking_"] and not end - start:
        start, end, answer = 0, len(text), None  # thinking that was cut off before any mark
    return {
        **{"id": row.get("id", ""), "index": row.get("sample", 0), "problem": problem, "text": text},
        **{"reference": row.get("reference"), "verdict": row.get("verdict"), "truncated": row.get("truncated")},
        **{"thinking_start": start, "thinking_end": end, "answer_start": answer, "answer_end": parts.answer_end},
        "tokens": {
            **{"completion": counts[""], "prompt": counts["prompt_"]},
            **{"thinking": counts["thinking_"], "answer": counts["answer_"]},
        },
    }


def with_steps(response: Response) -> Response:
    """The response with its thinking cut into steps, as `attnpo segment` cuts it; they have no scores."""
    steps = segment_steps(response.thinking)
    return replace(response, steps=tuple(ScoredStep(s.start, s.end, s.kind, None, None, None) for s in steps))


def bases(sampled: list[Sampled]) -> dict[str, Sampled]:
    """Per benchmark the first evaluation that has responses to it: what the others are held against."""
    found: dict[str, Sampled] = {}
    for one in sampled:
        for name in one.responses:
            found.setdefault(name, one)
    return found


def flips_between(sampled: list[Sampled]) -> list[tuple[str, str, str, Flips]]:
    """(benchmark, first evaluation, another, counts) of every other evaluation that has problems of the first's."""
    return [
        (name, base.evaluation.name, one.evaluation.name, counts)
        for name, base in bases(sampled).items()
        for one in sampled
        if one is not base and name in one.responses
        if (counts := count_flips(base.responses[name], one.responses[name])).problems
    ]


def shelve(sampled: list[Sampled], budget: int) -> list[Shelf]:
    """One shelf per evaluation, with a chunk per benchmark: the same problems of each, those that flipped first."""
    chosen = {name: _chosen(name, base, sampled) for name, base in bases(sampled).items()}
    return [_shelf(one, chosen, budget // len(sampled)) for one in sampled]


def _chosen(name: str, base: Sampled, sampled: list[Sampled]) -> list[str]:
    """Problems: up to half of them such as changed their verdict, then others, both at even distances."""
    first = first_per_problem(base.responses[name])
    others = [first_per_problem(one.responses[name]) for one in sampled if one is not base and name in one.responses]
    changed = [key for key in first if any(key in other and flip(first[key], other[key]) for other in others)]
    flipped = [changed[index] for index in evenly(len(changed), CARRIED // 2)]
    rest = [key for key in first if key not in set(flipped)]
    return flipped + [rest[index] for index in evenly(len(rest), CARRIED - len(flipped))]


def _shelf(one: Sampled, chosen: dict[str, list[str]], budget: int) -> Shelf:
    chunks: list[Chunk] = []
    left_out = []
    for index, (name, responses) in enumerate(one.responses.items()):
        own = first_per_problem(responses)
        # What is not in the base has problems of its own.
        keys = [key for key in chosen[name] if key in own] or list(own)[:CARRIED]
        picked = [with_steps(own[key]) for key in keys]
        room = (budget - sum(len(chunk.data) for chunk in chunks)) // (len(one.responses) - index)
        chunk = fitting(f"bench-{index}", "bench", 0, picked, len(responses), room, name)
        if chunk is not None:
            chunks.append(chunk)
        shown = 0 if chunk is None else len(chunk.catalogue)
        left_out.append(f"{name}: {shown:,} of {plural(len(own), 'problem')}, of each the first response")
    return Shelf(one.evaluation.name, chunks, [], left_out, one.notices, "evaluation")
