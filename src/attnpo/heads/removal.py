"""The removal test: which steps of a trace are removed, by which scores, and which traces can be used."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from attnpo.attention.heads import Head
from attnpo.attention.model import all_heads
from attnpo.data.jsonl import check_field, row_name
from attnpo.errors import InputError
from attnpo.steps.formats import BY_MARKS
from attnpo.steps.lexicon import load_lexicon
from attnpo.steps.response import thinking_of
from attnpo.traces.labelled import Labels, step_labels
from attnpo.traces.prepared import PreparedTrace, prepare_trace, score_traces
from attnpo.traces.read import NumberedRow, read_traces
from attnpo.traces.steps import check_tiling, steps_of

NOTHING, EVERYTHING = "nothing", "everything"
HIGHEST, LOWEST, LAST, RANDOM = "highest", "lowest", "last", "random"
RANDOM_HIGHEST, RANDOM_LOWEST = "highest, random heads", "lowest, random heads"
ARMS = (HIGHEST, LOWEST, LAST, RANDOM, RANDOM_HIGHEST, RANDOM_LOWEST)
"""The arms that remove a share of the steps; NOTHING and EVERYTHING are the common ends of all of them.

LAST is a control: a final answer often needs the last result above all, so heads that merely attend to nearby tokens do
well against random steps. The highest and lowest scores of random heads are optional controls."""


@dataclass(frozen=True)
class Removal:
    """The steps removed from one trace. `trace`: its index among those used.

    seed: of the random arm; in the arms of random heads, the index of their set; otherwise None.
    """

    trace: int
    arm: str
    share: float
    seed: int | None
    removed: tuple[int, ...]


def plan_removals(
    place: int,
    scores: Sequence[float],
    shares: Iterable[float],
    seeds: int,
    name: str | int,
    controls: Sequence[Sequence[float]] = (),
) -> list[Removal]:
    """Return all removals of one trace of at least two steps.

    name: seeds the random arm together with its seed (the row number), so that a trace loses the same steps whichever
    other traces are in the test. The random steps of a smaller share are a subset of those of a larger one.
    controls: the scores by each set of random heads.
    """
    steps, ranked = len(scores), ranking(scores)
    shuffled = [random.Random(f"{seed} {name}").sample(range(steps), steps) for seed in range(seeds)]
    plan = [Removal(place, NOTHING, 0.0, None, ())]
    for share in shares:
        count = removed_count(steps, share)
        plan += _both_ends(place, (HIGHEST, LOWEST), share, None, ranked, count)
        plan.append(Removal(place, LAST, share, None, tuple(range(steps - count, steps))))
        plan += [
            Removal(place, RANDOM, share, seed, tuple(sorted(order[:count]))) for seed, order in enumerate(shuffled)
        ]
        for heads, control in enumerate(controls):
            plan += _both_ends(place, (RANDOM_HIGHEST, RANDOM_LOWEST), share, heads, ranking(control), count)
    return [*plan, Removal(place, EVERYTHING, 1.0, None, tuple(range(steps)))]


def _both_ends(
    place: int, arms: tuple[str, str], share: float, seed: int | None, ranked: Sequence[int], count: int
) -> list[Removal]:
    """Return the removals of the first and of the last `count` ranked steps."""
    return [
        Removal(place, arm, share, seed, tuple(sorted(steps)))
        for arm, steps in zip(arms, (ranked[:count], ranked[-count:]), strict=True)
    ]


def ranking(scores: Sequence[float]) -> list[int]:
    """Return the steps from the highest score to the lowest; of equal ones, the earlier first."""
    return sorted(range(len(scores)), key=lambda step: (-scores[step], step))


def removed_count(steps: int, share: float) -> int:
    """Return the number of steps in a share of at least two: rounded, a half down; never none or all.

    A half is rounded down so that for shares up to one half no step is among both the highest- and the lowest-scored.
    The product is rounded first: 0.29 · 50 is 14.499… as a float.
    """
    assert steps >= 2
    return min(max(1, math.ceil(round(steps * share, 9) - 0.5)), steps - 1)


def remaining_text(thinking: str, steps: Sequence[Mapping[str, Any]], removed: Iterable[int]) -> str:
    """Return the thinking text without some of its steps, which cover it (`attnpo.traces.steps.check_tiling`).

    White space belongs to the step it follows, so the space between two kept neighbours stays. The space around the
    text belongs to no step: the model expects it after the opening and before the closing tag, whichever steps remain.
    """
    gone = set(removed)
    bounds = [step["start"] for step in steps] + [len(thinking)]
    bounds[0] = 0
    pieces = (thinking[start:end] for start, end in pairwise(bounds))
    kept = "".join(piece for index, piece in enumerate(pieces) if index not in gone)
    body = thinking.lstrip()
    before = thinking[: len(thinking) - len(body)]
    return before + kept.strip() + body[len(body.rstrip()) :]


def removed_share(spans: Sequence[tuple[int, int]], removed: Iterable[int]) -> float:
    """Return the share of the steps' tokens that the removed steps have."""
    sizes = [end - start for start, end in spans]
    return sum(sizes[step] for step in removed) / sum(sizes)


def removed_essential(labels: Sequence[bool | None], removed: Iterable[int]) -> float | None:
    """Return the share of the essential steps that is removed; None if no step is labelled essential."""
    essential = labels.count(True)
    return sum(labels[step] is True for step in removed) / essential if essential else None


def draw_random_heads(network: nn.Module, chosen: Sequence[Head], sets: int, seed: int = 0) -> list[list[Head]]:
    """Draw different sets of as many heads as chosen, without the chosen ones.

    Raises InputError if the model has too few other heads.
    """
    others = [head for head in all_heads(network) if head not in set(chosen)]
    most = math.comb(len(others), len(chosen))
    if sets > most:
        raise InputError(
            f"--random-heads is {sets}, expected at most {most}, the number of sets of {len(chosen)} heads among the "
            f"{len(others)} that are not chosen"
        )
    rng, found = random.Random(seed), []
    while len(found) < sets:
        drawn = sorted(rng.sample(others, len(chosen)))
        if drawn not in found:
            found.append(drawn)
    return found


def score_sets(
    network: nn.Module,
    traces: Sequence[PreparedTrace],
    sets: Sequence[Sequence[Head]],
    batch_size: int,
    progress: Callable[[int, int], None],
) -> list[list[list[float]]]:
    """Return scores by trace, set of heads and step: the mean over the heads of a set. No trace may be a skipped one.

    One forward per batch reads the heads of all sets. progress: called with (traces scored, all).
    """
    heads = list(dict.fromkeys(head for one in sets for head in one))
    rows = [[heads.index(head) for head in one] for one in sets]
    scores: list[list[list[float]]] = [[] for _ in traces]
    progress(0, len(traces))
    for done, (i, per_head) in enumerate(score_traces(network, traces, heads, batch_size), 1):
        scores[i] = [per_head[row].mean(dim=0).tolist() for row in rows]
        progress(done, len(traces))
    return scores


LEAST_ROOM = 64
"""Tokens that an answer may always have, however short the trace's own answer is."""


@dataclass(frozen=True)
class Options:
    """Options of the test; InputError names one that is out of range.

    max_traces: use the first ones; None: all. max_length: tokens of a trace; None: what the model allows.
    max_answer: tokens of an answer; None: twice those of the trace's own answer, at least `LEAST_ROOM`. With
    many more a model may think again after the closing tag, and the test then measures nothing about the steps.
    random_heads: number of sets of random heads whose highest- and lowest-scored steps are removed too.
    """

    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    random_seeds: int = 3
    max_traces: int | None = None
    batch_size: int = 32
    max_length: int | None = None
    max_answer: int | None = None
    lexicon: str = "paper"
    random_heads: int = 0

    def __post_init__(self) -> None:
        if not self.shares or len(set(self.shares)) < len(self.shares) or not all(0 < one < 1 for one in self.shares):
            found = ",".join(map(str, self.shares))
            raise InputError(f"--shares: found {found!r}, expected different shares above 0 and below 1")
        for name in ("random_seeds", "max_traces", "batch_size", "max_length", "max_answer"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}, expected at least 1")
        if self.random_heads < 0:
            raise InputError(f"--random-heads is {self.random_heads}, expected at least 0")
        load_lexicon(self.lexicon)

    def room(self, trace: PreparedTrace) -> int:
        """Return the number of tokens that a new answer of a trace may have."""
        return self.max_answer or max(LEAST_ROOM, 2 * trace.answer_tokens)


@dataclass(frozen=True)
class UsedTraces:
    """The traces used, in order, with their rows and labels, the number of tokens that an answer of each may have, and
    the number of rows "used" or left out, by reason."""

    rows: list[NumberedRow]
    traces: list[PreparedTrace]
    labels: list[Labels]
    rooms: list[int]
    counts: Counter[str]

    @property
    def problems(self) -> list[str]:
        """The problem of each trace."""
        return [row["problem"] for _, row in self.rows]


def read_rows(source: str | Path, lexicon: str = "paper") -> list[NumberedRow]:
    """Return the rows of a file after all checks that need no model.

    Raises InputError for bad files and rows, references and labels of a wrong type, and steps that do not cover the
    thinking text.
    """
    rows = []
    for number, row in read_traces(source, ("problem", "response")):
        where = row_name(source, number)
        if row.get("reference") is not None:
            check_field(row, "reference", where)
        steps = steps_of(row, lexicon, where=where)
        step_labels(steps, where)
        check_tiling(steps, thinking_of(row["response"], BY_MARKS), where)
        rows.append((number, row))
    if not any(row.get("reference") for _, row in rows):
        raise InputError(f"{source}: no row has a reference answer (field 'reference'), expected one to verify with")
    return rows


def choose_traces(
    source: str | Path,
    rows: Sequence[NumberedRow],
    tokenizer: PreTrainedTokenizerBase,
    *,
    unreadable: Collection[str],
    longest: int | None,
    options: Options,
) -> UsedTraces:
    """Return the first `max_traces` usable rows as tokens of a model. Raises InputError if there are none.

    unreadable: references that the verifier cannot read. longest: tokens of a trace, its new answer included.
    """
    traces = [
        prepare_trace(row, tokenizer, lexicon=options.lexicon, max_length=longest, where=row_name(source, number))
        for number, row in rows
    ]
    reasons = [
        _why_not(row, trace, unreadable) or _no_room(trace, longest, options)
        for (_, row), trace in zip(rows, traces, strict=True)
    ]
    counts = Counter(reason for reason in reasons if reason is not None)
    used = [place for place, reason in enumerate(reasons) if reason is None][: options.max_traces]
    if not used:
        found = ", ".join(f"{count} with {reason}" for reason, count in counts.items())
        raise InputError(f"{source}: no row can be used (found {found}), expected a reference, an answer and two steps")
    chosen = [traces[place] for place in used]
    labels = [step_labels(trace.steps, trace.where) for trace in chosen]
    rooms = [options.room(trace) for trace in chosen]
    return UsedTraces([rows[place] for place in used], chosen, labels, rooms, Counter(used=len(used)) + counts)


def _why_not(row: dict[str, Any], trace: PreparedTrace, unreadable: Collection[str]) -> str | None:
    """Return why a trace cannot be used; None if it can."""
    if not row.get("reference"):
        return "no reference answer"
    if row["reference"] in unreadable:
        return "a reference answer that cannot be read"
    if trace.skipped is None and sum(end > start for start, end in trace.spans) < 2:
        return "fewer than two steps"
    return trace.skipped


def _no_room(trace: PreparedTrace, longest: int | None, options: Options) -> str | None:
    """Return why a new answer after the complete thinking text might exceed the model's limit; None if it cannot."""
    if longest is None or len(trace.ids) - trace.answer_tokens + options.room(trace) <= longest:
        return None
    return f"no room for a new answer within {longest} tokens"
