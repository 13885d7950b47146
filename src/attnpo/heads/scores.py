"""The scores of every head of a model on labelled traces, and how sets of heads rank the steps.

What all tools but the removal of steps start from: one forward per batch, after which any set of heads can be judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnpo.attention.heads import Head
from attnpo.attention.model import all_heads, scorable_layers
from attnpo.errors import InputError
from attnpo.heads.table import HeadTable, head_figures, too_few
from attnpo.models import resolve_model
from attnpo.models.loading import load_model
from attnpo.traces.labelled import Labels, longest, prepare_labelled, read_labelled
from attnpo.traces.prepared import score_traces
from attnpo.traces.read import NumberedRow


@dataclass(frozen=True)
class ReadFile:
    """A file of labelled traces, read and checked, not yet in the tokens of any model."""

    source: str
    rows: list[NumberedRow]
    labels: list[Labels]


@dataclass(frozen=True, eq=False)
class HeadScores:
    """Scores of all H = L · heads-per-layer heads on N traces, layer by layer; only labelled steps are kept.

    scores[i]: S(l,h,s_k) in units of |F| / |o|, what uniform attention gives, of shape [H, S_i].
    essential[i]: the labels, of shape [S_i].
    """

    scores: list[Float[Tensor, "H S_i"]]
    essential: list[Bool[Tensor, "S_i"]]
    layers: tuple[int, ...]
    problems: tuple[str, ...]
    counts: Counter[str] = field(default_factory=Counter)  # rows "used" and, under the reason, left out

    @property
    def heads(self) -> list[Head]:
        """The head of each row of the scores."""
        return [(layer, head) for layer in self.layers for head in range(self.per_layer)]

    @property
    def per_layer(self) -> int:
        """Query heads of a layer."""
        return len(self.scores[0]) // len(self.layers)

    @cached_property
    def table(self) -> HeadTable:
        """The figures of every head by itself."""
        shape = (3, len(self.layers), self.per_layer)
        figures = [self._figures(score, i).view(shape) for i, score in enumerate(self.scores)]
        return HeadTable(torch.stack(figures), self.layers, self.problems)

    def of_set(self, heads: Sequence[Head]) -> HeadTable:
        """The figures of the mean score of some heads, which is what training uses, as a table of one head (0, 0)."""
        places = [self.layers.index(layer) * self.per_layer + head for layer, head in heads]
        figures = [self._figures(score[places].mean(dim=0, keepdim=True), i) for i, score in enumerate(self.scores)]
        return HeadTable(torch.stack(figures)[..., None], (0,), self.problems)

    def part(self, traces: Sequence[int]) -> HeadScores:
        """Some of the traces, given by their places."""
        return HeadScores(
            [self.scores[i] for i in traces],
            [self.essential[i] for i in traces],
            self.layers,
            tuple(self.problems[i] for i in traces),
        )

    def halves(self, source: str) -> tuple[HeadScores, HeadScores]:
        """The traces of the even and of the odd problems. Raises InputError, naming `source`, for fewer than two."""
        places = self.table.half_places()
        if places is None:
            raise InputError(f"{source}: found usable traces of 1 problem, expected at least 2: one half chooses heads")
        return self.part(places[0]), self.part(places[1])

    def _figures(self, scores: Tensor, i: int) -> Tensor:
        return head_figures(scores, self.essential[i], 1.0)


def read_file(source: str | Path) -> ReadFile:
    """Raises InputError for bad files, rows and labels."""
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
    """All heads of a (model, tokenizer) on the usable traces of a file; `progress` is told (done, of how many).

    Raises InputError where no trace can be used.
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
    """(model, tokenizer) of a folder or Hub name; None: the packaged overthinker."""
    return load_model(resolve_model(model))


def check_number(option: str, number: int, model: Any) -> None:
    """Raise InputError, before anything is scored, for a number of heads that the model cannot give."""
    most = len(all_heads(model))
    if not 1 <= number <= most:
        raise InputError(f"{option}: found {number}, expected 1 to {most}, the heads of the model")


def named_heads(heads: Sequence[Head]) -> str:
    """(layer, head) pairs as they are read by people."""
    return " ".join(f"({layer},{head})" for layer, head in heads)


def notes(name: str, scores: HeadScores) -> list[str]:
    """What has to be said of the traces behind a table: how many, what was left out, whether they are enough."""
    left_out = "".join(f"; {count} left out ({why})" for why, count in scores.counts.items() if why != "used")
    lines = [f"{name}: {len(scores.scores)} traces of {scores.table.problem_count} problems{left_out}"]
    few = too_few(scores.table)
    return lines if few is None else [*lines, f"{name}: {few}"]
