"""The scores of every head of a model on labelled traces, and how sets of heads rank the steps.

All parts of `attnpo evidence` except the removal test start here: after one forward per batch, any set of heads can be
measured by the mean score that training uses and compared with random sets: how many heads, from which layers, and
whether heads found on easy problems work on hard ones.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnpo.attention.heads import Head
from attnpo.attention.model import all_heads, scorable_layers
from attnpo.errors import InputError
from attnpo.heads.table import ESSENTIAL, REDUNDANT, HeadTable, head_figures, too_few
from attnpo.models import resolve_model
from attnpo.models.loading import load_model
from attnpo.tables import Cell, Table
from attnpo.traces.labelled import Labels, longest, prepare_labelled, read_labelled
from attnpo.traces.prepared import score_traces
from attnpo.traces.read import NumberedRow


@dataclass(frozen=True)
class ReadFile:
    """A file of labelled traces, read and checked, not yet tokenised for a model."""

    source: str
    rows: list[NumberedRow]
    labels: list[Labels]


@dataclass(frozen=True, eq=False)
class HeadScores:
    """Scores of all H = L · heads-per-layer heads on N traces, layer by layer; only labelled steps are kept.

    scores[i]: S(l,h,s_k) in units of |F| / |o|, the score of uniform attention; shape [H, S_i].
    essential[i]: the labels; shape [S_i].
    """

    scores: list[Float[Tensor, "H S_i"]]
    essential: list[Bool[Tensor, "S_i"]]
    layers: tuple[int, ...]
    problems: tuple[str, ...]
    counts: Counter[str] = field(default_factory=Counter)  # rows "used" or left out, by reason

    @property
    def heads(self) -> list[Head]:
        """The head of each row of the scores."""
        return [(layer, head) for layer in self.layers for head in range(self.per_layer)]

    @property
    def per_layer(self) -> int:
        """Number of query heads of a layer."""
        return len(self.scores[0]) // len(self.layers)

    @cached_property
    def table(self) -> HeadTable:
        """The figures of every head alone."""
        shape = (3, len(self.layers), self.per_layer)
        figures = [self._figures(score, i).view(shape) for i, score in enumerate(self.scores)]
        return HeadTable(torch.stack(figures), self.layers, self.problems)

    def of_set(self, heads: Sequence[Head]) -> HeadTable:
        """Return the figures of the mean score of some heads (as training uses it), as a table of one head (0, 0)."""
        places = [self.layers.index(layer) * self.per_layer + head for layer, head in heads]
        figures = [self._figures(score[places].mean(dim=0, keepdim=True), i) for i, score in enumerate(self.scores)]
        return HeadTable(torch.stack(figures)[..., None], (0,), self.problems)

    def part(self, traces: Sequence[int]) -> HeadScores:
        """Return the scores of some of the traces, given by their indices."""
        return HeadScores(
            [self.scores[i] for i in traces],
            [self.essential[i] for i in traces],
            self.layers,
            tuple(self.problems[i] for i in traces),
        )

    def halves(self, source: str) -> tuple[HeadScores, HeadScores]:
        """Return the traces of even and of odd problems. Raises InputError, naming `source`, for fewer than two."""
        places = self.table.half_places()
        if places is None:
            raise InputError(f"{source}: found usable traces of 1 problem, expected at least 2: one half chooses heads")
        return self.part(places[0]), self.part(places[1])

    def _figures(self, scores: Tensor, i: int) -> Tensor:
        return head_figures(scores, self.essential[i], 1.0)


def read_file(source: str | Path) -> ReadFile:
    """Read a file of labelled traces. Raises InputError for bad files, rows and labels."""
    rows, labels = read_labelled(source)
    return ReadFile(str(source), rows, labels)


def score_file(
    loaded: tuple[Any, Any],
    file: ReadFile,
    *,
    batch_size: int,
    max_length: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> HeadScores:
    """Score the usable traces of a file with all heads of a (model, tokenizer); `progress` is called with (done, all).

    Raises InputError if no trace can be used.
    """
    network, tokenizer = loaded
    length = longest(network.config.get_text_config(decoder=True), max_length)
    data = prepare_labelled(file.source, file.rows, file.labels, tokenizer, max_length=length)
    layers = scorable_layers(network)
    heads = all_heads(network, layers)
    labelled = [torch.tensor([label is not None for label in row]) for row in data.labels]
    scores: dict[int, Tensor] = {}
    progress(0, len(data.traces))
    for place, found in score_traces(network, data.traces, heads, batch_size):
        uniform = data.traces[place].answer_tokens / len(data.traces[place].ids)
        scores[place] = found[:, labelled[place]].float() / uniform
        progress(len(scores), len(data.traces))
    kinds = [torch.tensor([bool(x) for x in row])[kept] for row, kept in zip(data.labels, labelled, strict=True)]
    return HeadScores([scores[i] for i in range(len(kinds))], kinds, tuple(layers), data.problems, data.counts)


def load(model: str | None) -> tuple[Any, Any]:
    """Load (model, tokenizer) from a folder or Hub name; None: the packaged overthinker."""
    return load_model(resolve_model(model))


def check_number(option: str, number: int, model: Any) -> None:
    """Raise InputError, before anything is scored, for a number of heads that the model does not have."""
    most = len(all_heads(model))
    if not 1 <= number <= most:
        raise InputError(f"{option}: found {number}, expected 1 to {most}, the heads of the model")


def named_heads(heads: Sequence[Head]) -> str:
    """Return (layer, head) pairs as text."""
    return " ".join(f"({layer},{head})" for layer, head in heads)


def notes(name: str, scores: HeadScores) -> list[str]:
    """Return notes on the traces of a table: how many, how many were left out and why, whether they are too few."""
    left_out = "".join(f"; {count} left out ({why})" for why, count in scores.counts.items() if why != "used")
    lines = [f"{name}: {len(scores.scores)} traces of {scores.table.problem_count} problems{left_out}"]
    few = too_few(scores.table)
    return lines if few is None else [*lines, f"{name}: {few}"]


RANDOM_DRAWS = 100
PROBLEMS, SETS = "problems", "sets"  # what is resampled for the low and high figure of a row
ALONE = (0, 0)  # the one head of a set's table

COLUMNS = ("heads", "of layers", "number", "SRA", "low", "high", "essential", "redundant", "interval")


class Measured(NamedTuple):
    """Step ranking accuracy of a set of heads with its interval, and the mean score of the steps (1: uniform)."""

    sra: float
    low: float
    high: float
    essential: float
    redundant: float

    @classmethod
    def of(cls, table: HeadTable) -> Measured:
        """Measure a set's table (`HeadScores.of_set`), with the 95 % bootstrap interval over problems."""
        return cls(
            table.mean()[ALONE], *table.intervals[ALONE], table.mean(ESSENTIAL)[ALONE], table.mean(REDUNDANT)[ALONE]
        )


def cross_fitted(scores: HeadScores, count: int, source: str, among: Sequence[Head] | None = None) -> Measured:
    """Measure the best `count` heads of one half of the problems on the other half, both ways.

    Raises InputError, naming `source`, for fewer than two problems.
    """
    halves = scores.halves(source)
    tables = [
        measured.of_set(chosen.table.best(count, among))
        for chosen, measured in ((halves[1], halves[0]), (halves[0], halves[1]))
    ]
    together = HeadTable(
        torch.cat([table.figures for table in tables]),
        (0,),
        tuple(problem for table in tables for problem in table.problems),
    )
    return Measured.of(together)


def random_heads(scores: HeadScores, count: int, among: Sequence[Head], seed: int = 0) -> Measured:
    """Measure `RANDOM_DRAWS` sets of `count` different heads: mean figures; 95 % of the sets are in the interval."""
    rng = random.Random(seed)
    tables = [scores.of_set(rng.sample(list(among), count)) for _ in range(RANDOM_DRAWS)]
    accuracy = torch.tensor([table.mean()[ALONE] for table in tables], dtype=torch.float64)
    low, high = torch.quantile(accuracy, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    essential, redundant = (
        sum(table.mean(kind)[ALONE] for table in tables) / len(tables) for kind in (ESSENTIAL, REDUNDANT)
    )
    return Measured(float(accuracy.mean()), low, high, essential, redundant)


def layer_thirds(layers: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return early, middle and late layers; with fewer than three layers, one group per layer."""
    count = min(3, len(layers))
    bounds = [round(i * len(layers) / count) for i in range(count + 1)]
    return {_range(layers[start], layers[end - 1]): tuple(layers[start:end]) for start, end in pairwise(bounds)}


def smallest_third(scores: HeadScores) -> int:
    """Return the number of heads in the smallest third of the layers."""
    return min(len(layers) for layers in layer_thirds(scores.layers).values()) * scores.per_layer


def head_sets_table(scores: HeadScores, numbers: Sequence[int], top: int, source: str) -> Table:
    """Return rows for each number of heads of all layers, then for the best `top` of each third of the layers.

    Each is followed by a row of random heads (`RANDOM_DRAWS` sets). "best" heads are measured on the problems that did
    not choose them. "interval": what the 95 % interval from low to high varies: resampled problems, or random sets.
    Raises InputError for fewer than two problems, and for more heads than there are.
    """
    for option, number, most in (
        ("--numbers", max(numbers), len(scores.heads)),
        ("--top", top, smallest_third(scores)),
    ):
        if number > most:
            raise InputError(f"{option}: found {number}, expected at most {most}, the heads to choose from")
    rows: list[tuple[Cell, ...]] = []
    cases = [(_range(scores.layers[0], scores.layers[-1]), scores.layers, number) for number in sorted(set(numbers))]
    cases += [(name, layers, top) for name, layers in layer_thirds(scores.layers).items()]
    for name, layers, number in cases:
        among = [head for head in scores.heads if head[0] in layers]
        rows.append(("best", name, number, *cross_fitted(scores, number, source, among), PROBLEMS))
        if number < len(among):
            rows.append(("random", name, number, *random_heads(scores, number, among), SETS))
    return Table(COLUMNS, rows)


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"


TRANSFER_COLUMNS = ("chosen on", "measured on", "SRA", "low", "high", "essential", "redundant", "traces", "interval")


def transfer_table(easy: HeadScores, hard: HeadScores, top: int, names: tuple[str, str]) -> Table:
    """Return SRA of sets of `top` heads on the hard traces: chosen on easy traces, on other hard traces, or at random.

    names: of the two files, for messages. The first row has the heads of the easy traces on easy traces. The files must
    not share problems (`of_other_problems`): no set is measured on a problem that chose it. "interval": what the 95 %
    interval from low to high varies: resampled problems, or random sets (`RANDOM_DRAWS` of them).
    Raises InputError for fewer than two problems in a file.
    """
    rows: list[tuple[Cell, ...]] = []

    def add(chosen: str, measured: str, figures: Measured, traces: int, interval: str = PROBLEMS) -> None:
        rows.append((chosen, measured, *figures, traces, interval))

    add("easy (half)", "easy", cross_fitted(easy, top, names[0]), len(easy.scores))
    add("easy", "hard", Measured.of(hard.of_set(easy.table.best(top))), len(hard.scores))
    add("hard (half)", "hard", cross_fitted(hard, top, names[1]), len(hard.scores))
    add("random", "hard", random_heads(hard, top, hard.heads), len(hard.scores), SETS)
    return Table(TRANSFER_COLUMNS, rows)


def of_other_problems(hard: HeadScores, easy: HeadScores, name: str) -> HeadScores:
    """Return the hard traces whose problem is not among the easy ones. Raises InputError, naming the file, for none."""
    kept = [i for i, problem in enumerate(hard.problems) if problem not in set(easy.problems)]
    if not kept:
        raise InputError(
            f"{name}: all problems are among the easy ones too, expected other problems: the easy ones chose the heads"
        )
    return replace(hard.part(kept), counts=hard.counts)
