"""Recorded responses with their steps: of rollouts/*.jsonl.gz, and of files of `attnpo score` and `attnpo segment`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attnpo.data.jsonl import number, read_numbered_jsonl, read_unfinished_jsonl, row_name, whole
from attnpo.errors import InputError
from attnpo.steps.formats import BY_MARKS
from attnpo.steps.response import CLOSE_TAG, split_response

Effect = Literal["attenuated", "protected", "untouched"]


@dataclass(frozen=True, slots=True)
class ScoredStep:
    """A step; `start` and `end` are character offsets into the thinking text. None: the method gave no such value."""

    start: int
    end: int
    kind: str
    tokens: float | None
    score: float | None
    scale: float | None


@dataclass(frozen=True, slots=True)
class Response:
    """A sampled response. `prompt_tokens` … are counts; None: not recorded."""

    id: str
    step: int
    group: int
    index: int
    problem: str
    text: str
    reference: str | None
    verdict: str | None
    rewards: dict[str, float | None]
    reward: float | None
    advantage: float | None
    truncated: bool
    prompt_tokens: float | None
    tokens: float | None
    thinking_tokens: float | None
    answer_tokens: float | None
    group_accuracy: float | None
    baseline: float | None
    thinking: str
    answer: str
    steps: tuple[ScoredStep, ...]

    @property
    def even_share(self) -> float | None:
        """|F| / |o|: the score of every step if attention were spread evenly (paper section 3.3)."""
        if not self.answer_tokens or self.tokens is None or self.prompt_tokens is None:
            return None
        return self.answer_tokens / (self.prompt_tokens + self.tokens)

    @property
    def scored(self) -> bool:
        return any(step.score is not None for step in self.steps)

    def effect(self, step: ScoredStep) -> Effect | None:
        """How rescaling changed `step`; None if the method produced no scale."""
        if step.scale is None:
            return None
        if step.scale >= 1 or not self.advantage:
            return "untouched"
        return "attenuated" if self.advantage > 0 else "protected"

    def effects(self) -> set[Effect]:
        return {effect for step in self.steps if (effect := self.effect(step)) is not None}


def read_responses(path: Path) -> tuple[list[Response], str | None]:
    """Read all responses of one rollout file; also return a notice if the end of the file is missing.

    Raises InputError with file, row and field for malformed rows.
    """
    rows, notice = read_unfinished_jsonl(path)
    return [response_of(row, f"{path}, row {index}") for index, row in rows], notice


def _text(row: dict[str, Any], key: str, where: str) -> str:
    if not isinstance(row.get(key), str):
        raise InputError(f"{where}: {key!r} is {row.get(key)!r}, expected a text")
    return row[key]


def _mapping(row: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = row.get(key) or {}
    if not isinstance(value, dict):
        raise InputError(f"{where}: {key!r} is {value!r}, expected an object")
    return value


def response_of(row: dict[str, Any], where: str) -> Response:
    """Convert one row to a Response. Raises InputError, with a message that begins with `where`."""
    text = _text(row, "text", where)
    start, end = whole(row, "thinking_start", where), whole(row, "thinking_end", where)
    if not start <= end <= len(text):
        raise InputError(f"{where}: thinking is [{start}, {end}), expected to lie in a text of {len(text)} characters")
    counts, rewards = _mapping(row, "tokens", where), _mapping(row, "rewards", where)
    return Response(
        id=str(row.get("id", "")),
        step=whole({"step": row.get("step", 0)}, "step", where),
        group=whole({"group": row.get("group", 0)}, "group", where),
        index=whole({"index": row.get("index", 0)}, "index", where),
        problem=str(row.get("problem") or row.get("prompt") or ""),
        text=text,
        reference=None if row.get("reference") is None else str(row["reference"]),
        verdict=None if row.get("verdict") is None else str(row["verdict"]),
        rewards={str(key): number(rewards, key, where) for key in rewards},
        reward=number(row, "reward", where),
        advantage=number(row, "advantage", where),
        truncated=bool(row.get("truncated")),
        prompt_tokens=number(counts, "prompt", where),
        tokens=number(counts, "completion", where),
        thinking_tokens=number(counts, "thinking", where),
        answer_tokens=number(counts, "answer", where),
        group_accuracy=number(row, "group_accuracy", where),
        baseline=number(row, "baseline", where),
        thinking=text[start:end],
        answer=_answer(row, text, end, where).strip(),
        steps=_steps(row, end - start, where),
    )


def _answer(row: dict[str, Any], text: str, end: int, where: str) -> str:
    """The final answer; in runs that did not record its offsets, the text after ``</think>``."""
    if "answer_start" not in row:
        return text[end:].lstrip().removeprefix(CLOSE_TAG)
    if row["answer_start"] is None:
        return ""
    start = whole(row, "answer_start", where)
    return text[start:] if row.get("answer_end") is None else text[start : whole(row, "answer_end", where)]


def _steps(row: dict[str, Any], length: int, where: str) -> tuple[ScoredStep, ...]:
    steps: list[ScoredStep] = []
    for position, item in enumerate(row.get("steps") or []):
        here = f"{where}, step {position}"
        if not isinstance(item, dict):
            raise InputError(f"{here}: found {item!r}, expected an object")
        start, end = whole(item, "start", here), whole(item, "end", here)
        if not (steps[-1].end if steps else 0) <= start <= end <= length:
            raise InputError(
                f"{here}: [{start}, {end}) overlaps the step before it or leaves the {length} characters of thinking"
            )
        values = (number(item, key, here) for key in ("tokens", "score", "scale"))
        steps.append(ScoredStep(start, end, str(item.get("kind", "step")), *values))
    return tuple(steps)


@dataclass(frozen=True)
class TracedFile:
    """A file of traces. `skipped`: how many could not be scored, by the recorded reason."""

    name: str
    traces: list[Response]
    skipped: dict[str, int]


def read_traced(path: Path) -> TracedFile:
    """Read a file of `attnpo score` or `attnpo segment`. Raises InputError, with row and field, for any other rows."""
    traces: list[Response] = []
    skipped: dict[str, int] = {}
    for index, row in read_numbered_jsonl(path, required=("response", "steps")):
        where = row_name(path, index)
        traces.append(response_of(_trace_as_rollout(row, index, where), where))
        if row.get("skipped") is not None:
            skipped[str(row["skipped"])] = skipped.get(str(row["skipped"]), 0) + 1
    return TracedFile(path.name, traces, skipped)


def _trace_as_rollout(row: dict[str, Any], index: int, where: str) -> dict[str, Any]:
    """Convert a trace to a row of a rollout file. Its only token counts are those of the final answer and the total."""
    text = row["response"]
    parts = split_response(text, BY_MARKS)
    answer, total = number(row, "answer_tokens", where), number(row, "total_tokens", where)
    if answer is not None and total is None:
        raise InputError(f"{where}: 'answer_tokens' without 'total_tokens', expected both, as `attnpo score` has them")
    return {
        **{"id": row.get("id", f"row {index}"), "index": index, "problem": row.get("problem"), "text": text},
        **{"reference": row.get("reference"), "verdict": row.get("verdict"), "steps": row["steps"]},
        **{"thinking_start": parts.thinking_start, "thinking_end": parts.thinking_end},
        **{"answer_start": parts.answer_start, "answer_end": parts.answer_end, "baseline": row.get("baseline")},
        "tokens": {"answer": answer, "prompt": None if total is None else 0, "completion": total},
    }
