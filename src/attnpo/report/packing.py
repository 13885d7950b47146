"""The compact form of the responses in the page: gzipped JSON in base64, one chunk per rollout file."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from attnpo.report.elements import short, visible
from attnpo.report.rollouts import Response, ScoredStep

HEAD, TAIL = 30_000, 10_000  # characters kept from the start and the end of a long thinking text
PIECE = 10_000  # of one step, the problem or the answer
EDGES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0)  # of the seven colour levels, in multiples of an even spread

Json = dict[str, Any]


@dataclass(frozen=True)
class Chunk:
    """Responses of one rollout file: `catalogue` has what lists and filters need, `data` the rest."""

    key: str
    split: str
    step: int
    recorded: int
    catalogue: list[Json]
    data: str
    title: str = ""
    """The benchmark or the file, for chunks without a split and a step of a run."""


def fitting(
    key: str, split: str, step: int, responses: list[Response], recorded: int, room: int, title: str = ""
) -> Chunk | None:
    """Pack responses, fewer of them if the chunk exceeds `room` bytes; None if not even a few fit."""
    most = len(responses)
    while True:
        chunk = pack(key, split, step, responses[:most], recorded, title)
        if len(chunk.data) <= room:
            return chunk
        if most <= 4:
            return None
        most //= 2


def pack(key: str, split: str, step: int, responses: list[Response], recorded: int, title: str = "") -> Chunk:
    """Pack `responses`, which are in the order shown; `recorded` is how many the file has."""
    problems = list(dict.fromkeys(response.problem for response in responses))
    number = {problem: index for index, problem in enumerate(problems)}
    content = {
        "problems": [_clipped(problem) for problem in problems],
        "responses": [_packed(response, number[response.problem]) for response in responses],
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Level 9 and no time stamp: small, and the same for the same run. A lone surrogate becomes "?".
    data = base64.b64encode(gzip.compress(text.encode("utf-8", errors="replace"), 9, mtime=0)).decode("ascii")
    return Chunk(key, split, step, recorded, [_listed(response) for response in responses], data, title)


def level(response: Response, step: ScoredStep) -> int | None:
    """The colour level of a step: its score in multiples of an even spread, in seven classes; None without a score."""
    share = response.even_share
    if step.score is None or not share:
        return None
    return sum(step.score / share >= edge for edge in EDGES)


def _listed(response: Response) -> Json:
    effects = response.effects()
    marks = [name for name in ("attenuated", "protected") if name in effects]
    return {
        "id": visible(response.id),
        "group": response.group,
        "index": response.index,
        "verdict": visible(response.verdict or ""),
        "tokens": response.tokens,
        "marks": [*marks, *(["truncated"] if response.truncated else [])],
    }


def _packed(response: Response, problem: int) -> Json:
    return {
        "problem": problem,
        "reference": None if response.reference is None else _clipped(response.reference),
        "thinking": response.thinking_tokens,
        "reward": short(response.reward),
        "rewards": {visible(name): short(value) for name, value in response.rewards.items()},
        "advantage": short(response.advantage),
        "accuracy": short(response.group_accuracy),
        "baseline": short(response.baseline),
        "even": short(response.even_share),
        "steps": len(response.steps),
        "pieces": list(_pieces(response)),
        "answer": _clipped(response.answer),
    }


def _pieces(response: Response) -> Iterator[Json]:
    """Yield the thinking in order: steps, text outside of steps, and how much was left out of the middle."""
    left_out = [0, 0]
    for start, end, step in _spans(response):
        if end > HEAD and start < len(response.thinking) - TAIL and end - start <= len(response.thinking) - HEAD:
            left_out = [left_out[0] + (step is not None), left_out[1] + end - start]
            continue
        if left_out[1]:
            yield {"left_out": left_out}
            left_out = [0, 0]
        text = _clipped(response.thinking[start:end])
        if step is not None:
            yield _step(response, step, text)
        elif text.strip():
            yield {"text": text}
    if left_out[1]:
        yield {"left_out": left_out}


def _spans(response: Response) -> Iterator[tuple[int, int, ScoredStep | None]]:
    reached = 0
    for step in response.steps:
        if step.start > reached:
            yield reached, step.start, None
        yield step.start, step.end, step
        reached = step.end
    if reached < len(response.thinking):
        yield reached, len(response.thinking), None


def _step(response: Response, step: ScoredStep, text: str) -> Json:
    return {
        "text": text,
        "kind": visible(step.kind),
        "tokens": step.tokens,
        "score": short(step.score),
        "scale": short(step.scale),
        "level": level(response, step),
        "effect": response.effect(step),
    }


def _clipped(text: str) -> str:
    text = text.strip("\n ")
    if len(text) > PIECE:
        text = f"{text[:PIECE]} … [{len(text) - PIECE:,} characters left out]"
    return visible(text)
