"""The answers of the removal test: generates final answers after a changed thinking text, and shows their accuracy as
tables with intervals and as a figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from attnpo.bootstrap import bootstrap_over_problems, number_problems
from attnpo.heads.figures import error_bars
from attnpo.heads.removal import (
    ARMS,
    EVERYTHING,
    HIGHEST,
    LAST,
    LOWEST,
    NOTHING,
    RANDOM,
    RANDOM_HIGHEST,
    RANDOM_LOWEST,
    Removal,
)
from attnpo.models.loading import GREEDY, end_tokens, pad_left, padding_token
from attnpo.rewards.verdict import REWARD_OF, Verdict
from attnpo.steps.formats import BY_MARKS, Form
from attnpo.steps.response import decode_completion, split_response
from attnpo.tables import Table
from attnpo.traces.prepared import prompt_ids


@dataclass(frozen=True)
class Answer:
    """The text that the model generated after the closing tag; `finished`: it ended with an end token."""

    text: str
    tokens: int
    finished: bool


def answer_context(
    problem: str, response: str, thinking: str, tokenizer: PreTrainedTokenizerBase, form: Form = BY_MARKS
) -> list[int]:
    """Return the tokens of the prompt, the response's own opening mark if it has one, another thinking text, and the
    mark that ended the thinking.

    The text ends with that mark: the model generates all that follows, white space too.
    """
    form = form.of(response)
    parts = split_response(response, form)
    opening, closing = response[: parts.thinking_start], response[parts.thinking_end : parts.answer_start]
    prompt = prompt_ids(problem, tokenizer, opens_itself=bool(opening), form=form)
    encoded: Any = tokenizer(opening + thinking + closing, add_special_tokens=False)
    return [*prompt, *encoded["input_ids"]]


@torch.inference_mode()
def generate_answers(
    network: Any,
    tokenizer: PreTrainedTokenizerBase,
    contexts: Sequence[Sequence[int]],
    *,
    rooms: Sequence[int],
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Answer]:
    """Return the greedy continuation of every context, in order. Equal contexts are continued once.

    rooms: the most tokens of each continuation; a longer one is cut off there. progress: called with
    (contexts continued, different contexts).
    """
    keys = [tuple(context) for context in contexts]
    widest: dict[tuple[int, ...], int] = {}
    for key, room in zip(keys, rooms, strict=True):
        widest[key] = max(room, widest.get(key, 0))
    # A batch runs until its largest room is used up, so similar rooms are batched together; then similar lengths.
    different = sorted(widest, key=lambda ids: (-widest[ids], -len(ids), ids))
    ends = end_tokens(network.generation_config, tokenizer)
    padding = padding_token(tokenizer, ends)
    found: dict[tuple[int, ...], list[int]] = {}
    progress(0, len(different))
    for first in range(0, len(different), batch_size):
        batch = different[first : first + batch_size]
        ids, mask = pad_left(batch, padding)
        output = network.generate(
            input_ids=ids.to(network.device),
            attention_mask=mask.to(network.device),
            max_new_tokens=max(widest[context] for context in batch),
            eos_token_id=ends,
            pad_token_id=padding,
            **GREEDY,
        )
        found.update(zip(batch, output[:, ids.shape[1] :].tolist(), strict=True))
        progress(len(found), len(different))
    return [_answer(found[key][:room], ends, tokenizer) for key, room in zip(keys, rooms, strict=True)]


def _answer(written: list[int], ends: list[int], tokenizer: PreTrainedTokenizerBase) -> Answer:
    length = next((place for place, token in enumerate(written) if token in ends), None)
    finished = length is not None
    ids = written[:length]
    return Answer(decode_completion(tokenizer, ids), len(ids) + finished, finished)


COLUMNS = (
    *("arm", "share", "steps removed", "tokens removed", "essential removed", "cut off"),
    *("accuracy", "low", "high", "traces"),
)
PAIRS = (
    *((HIGHEST, LOWEST), (LOWEST, RANDOM), (HIGHEST, RANDOM), (HIGHEST, LAST)),
    *((RANDOM_HIGHEST, RANDOM_LOWEST), (RANDOM_HIGHEST, LAST), (HIGHEST, RANDOM_HIGHEST), (LOWEST, RANDOM_LOWEST)),
)
DIFFERENCES = ("difference", "share", "accuracy", "low", "high", "traces")


@dataclass(frozen=True)
class Reanswer:
    """One answer of the test. tokens: share of the steps' tokens removed; essential: share of the essential steps."""

    removal: Removal
    tokens: float
    essential: float | None
    answer: Answer
    verdict: Verdict

    @property
    def right(self) -> float | None:
        """1 or 0; None if the verifier failed, which does not make the answer wrong."""
        return REWARD_OF[self.verdict]


FIGURES: tuple[Callable[[Reanswer], float | None], ...] = (
    lambda one: len(one.removal.removed),
    lambda one: one.tokens,
    lambda one: one.essential,
    lambda one: not one.answer.finished,
)
"""The columns between the share and the accuracy."""


def accuracy_table(answers: Sequence[Reanswer], problems: Sequence[str]) -> Table:
    """Return the accuracies, one row per arm and share; problems: of each trace, by its index."""
    kinds = _by_kind(answers)
    right = [trace_means(chosen, lambda one: one.right, len(problems)) for chosen in kinds.values()]
    rows = []
    for ((arm, share), chosen), estimate in zip(kinds.items(), _estimates(right, problems), strict=True):
        figures = [_mean(trace_means(chosen, figure, len(problems))) for figure in FIGURES]
        rows.append((arm, share, *figures, *estimate))
    return Table(COLUMNS, rows)


def difference_table(answers: Sequence[Reanswer], problems: Sequence[str]) -> Table:
    """Return paired differences of accuracy between arms, over the same traces."""
    of = {kind: trace_means(chosen, lambda one: one.right, len(problems)) for kind, chosen in _by_kind(answers).items()}
    compared = [
        (first, second, share)
        for first, second in PAIRS
        for share in dict.fromkeys(share for arm, share in of if arm == first)
        if (second, share) in of
    ]
    values = [of[first, share] - of[second, share] for first, second, share in compared]
    rows = [
        (f"{first} − {second}", share, *estimate)
        for (first, second, share), estimate in zip(compared, _estimates(values, problems), strict=True)
    ]
    return Table(DIFFERENCES, rows)


def trace_means(
    answers: Sequence[Reanswer], figure: Callable[[Reanswer], float | None], traces: int
) -> Float64[Tensor, "N"]:
    """Return the mean of a figure over the answers of each trace (one per seed); NaN if there is none."""
    sums, counts = torch.zeros(2, traces, dtype=torch.float64)
    for one in answers:
        if (value := figure(one)) is not None:
            sums[one.removal.trace] += value
            counts[one.removal.trace] += 1
    return sums / counts


def _by_kind(answers: Sequence[Reanswer]) -> dict[tuple[str, float], list[Reanswer]]:
    """Return the answers of each arm and share, in the order in which they are shown."""
    found: dict[tuple[str, float], list[Reanswer]] = {}
    for one in answers:
        found.setdefault((one.removal.arm, one.removal.share), []).append(one)
    order = (NOTHING, *ARMS, EVERYTHING)
    return {kind: found[kind] for kind in sorted(found, key=lambda kind: (order.index(kind[0]), kind[1]))}


def _estimates(values: Sequence[Float64[Tensor, "N"]], problems: Sequence[str]) -> list[tuple[float | None, ...]]:
    """Return mean, low, high and number of traces of each."""
    if not values:
        return []
    ends = bootstrap_over_problems(torch.stack([*values], dim=1), number_problems(problems))
    low, high = ([_known(value) for value in end.tolist()] for end in ends)
    traces = [int((~torch.isnan(one)).sum()) for one in values]
    return list(zip(map(_mean, values), low, high, traces, strict=True))


def _mean(values: Float64[Tensor, "N"]) -> float | None:
    return _known(float(values.nanmean()))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


LOOK = {
    HIGHEST: ("#b2182b", "o", "-"),
    LOWEST: ("#2166ac", "s", "-"),
    LAST: ("#b8860b", "v", ":"),
    RANDOM: ("#666666", "^", "--"),
    RANDOM_HIGHEST: ("#ef8a62", "o", ":"),
    RANDOM_LOWEST: ("#67a9cf", "s", ":"),
}
NAMES = {
    HIGHEST: "highest-scored steps",
    LOWEST: "lowest-scored steps",
    LAST: "last steps",
    RANDOM: "random steps",
    RANDOM_HIGHEST: "highest-scored, random heads",
    RANDOM_LOWEST: "lowest-scored, random heads",
}
COLUMNS_OF_LEGEND = 4


def draw_removal(table: Table, *, title: str) -> Figure:
    """Draw the same accuracies in two panels: against the share of steps and the share of thinking tokens removed.

    The second one shows whether an arm is worse only because its steps are longer.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    rows: list[dict[str, Any]] = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    arms = [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]
    for panel, (column, label) in zip(
        panels,
        (("share", "share of steps removed"), ("tokens removed", "share of thinking tokens removed")),
        strict=True,
    ):
        for arm in arms:
            # Every line starts where nothing and ends where everything is removed.
            points = [row for row in rows if row["arm"] in (NOTHING, arm, EVERYTHING) and row["accuracy"] is not None]
            points.sort(key=lambda row: row["share"])
            _draw_line(panel, arm, points, column)
        panel.set(xlabel=label, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("share of right answers")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(arms), COLUMNS_OF_LEGEND)
    )
    figure.suptitle(title)
    return figure


def _draw_line(panel: Any, arm: str, points: list[dict[str, Any]], column: str) -> None:
    color, marker, line = LOOK[arm]
    at, accuracy, low, high = ([row[name] for row in points] for name in (column, "accuracy", "low", "high"))
    bars = error_bars(accuracy, low, high)
    panel.errorbar(at, accuracy, yerr=bars, color=color, marker=marker, linestyle=line, capsize=3, label=NAMES[arm])
