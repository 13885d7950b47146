"""Dynamic sampling, as in DAPO (Yu et al. 2025, section 3.2): groups without signal are replaced before an update.

A group whose responses all have the same reward has advantage 0 everywhere and teaches nothing. Its prompt is replaced
by another one of the training set, whose responses are sampled and judged, in a limited number of rounds. DAPO samples
complete batches until enough groups remain; here only the groups without signal are sampled again.

Every process has n rows of the batch, row i of process r has number r·n + i, and G consecutive rows are a group, which
may be split over two processes. The groups to replace and their replacements follow from the rewards of all processes,
so that all decide equally; in a round each samples as many rows as the process with the most to replace, because a
gather needs the same number of rows from every process.

Shape legend: n rows of this process, m rows of a round on every process, M = processes · n, K reward functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnpo.credit.advantages import all_equal
from attnpo.errors import InputError

Row = dict[str, Any]
Generated = Sequence[Any]


@dataclass
class Sampled:
    """Responses sampled and judged for a batch before it is created.

    Attributes:
        rows: the data set rows of this process, with those of replaced groups exchanged.
        generated: the columns that TRL's `_generate` returned for them.
        rewards: of all processes, before a length reward.
        verdicts: the verifier's verdict on each row; None where another function decides.
        replaced: number of replacements; a group replaced twice counts twice.
        rounds: number of rounds.
    """

    rows: list[Row]
    generated: list[Any]
    rewards: Float[Tensor, "M K"]
    verdicts: list[Any]
    replaced: int = 0
    rounds: int = 0


@dataclass(frozen=True)
class Sampler:
    """The functions that `fill` uses.

    Attributes:
        generate: TRL's `_generate` for prompts of this process.
        judge: rewards of all processes (m of each) for rows and completions, and the verdicts of this process.
        worth: total rewards of all processes' rows, from their plain rewards, response lengths and this process's rows.
        gather: gathers one number per row from all processes.
        draw: draws `count` rows of the training set, the same on all processes.
        processes, process: number of processes, index of this one.
    """

    generate: Callable[[list[Any]], Generated]
    judge: Callable[[list[Row], Generated], tuple[Float[Tensor, "processes*m K"], list[Any]]]
    worth: Callable[[Float[Tensor, "M K"], Int[Tensor, " M"], list[Row]], Float[Tensor, " M"]]
    gather: Callable[[Tensor], Tensor]
    draw: Callable[[int, int], list[Row]]
    processes: int = 1
    process: int = 0


def fill(rows: Sequence[Row], group_size: int, limit: int, sampler: Sampler) -> Sampled:
    """Sample the responses of the rows and replace groups without signal in up to `limit` rounds.

    A group that has no signal after the last round stays.
    """
    n, rank = len(rows), sampler.process
    own = slice(rank * n, (rank + 1) * n)
    found = Sampled(list(rows), [], torch.empty(0), [None] * n)
    lengths = torch.zeros(sampler.processes * n, dtype=torch.long)
    missing = torch.ones(sampler.processes * n, dtype=torch.bool)  # rows that have to be sampled, of all processes
    while True:
        _sample(found, lengths, missing, sampler)
        dead = all_equal(sampler.worth(found.rewards, lengths, found.rows).view(-1, group_size)).cpu()
        if found.rounds == limit or not dead.any():
            return found
        found.rounds += 1
        drawn = sampler.draw(int(dead.sum()), found.rounds)
        found.replaced += len(drawn)
        missing = dead.repeat_interleave(group_size)
        numbers = (dead.cumsum(0) - 1).repeat_interleave(group_size)[own].tolist()
        for i in missing[own].nonzero().view(-1).tolist():
            found.rows[i] = drawn[numbers[i]]


def _sample(found: Sampled, lengths: Int[Tensor, " M"], missing: Bool[Tensor, " M"], sampler: Sampler) -> None:
    """Sample and judge the missing rows, into `found` and `lengths`."""
    n = len(found.rows)
    places = [part.nonzero().view(-1) for part in missing.view(sampler.processes, n)]
    most = max(len(part) for part in places)
    here = places[sampler.process].tolist()
    # Too few here: the first rows are sampled again to fill up. These are complete groups where no group is split.
    numbers = [*here, *range(most - len(here))]
    rows = [found.rows[i] for i in numbers]
    generated = sampler.generate([row["prompt"] for row in rows])
    rewards, verdicts = sampler.judge(rows, generated)
    counts = sampler.gather(torch.tensor([len(ids) for ids in generated[1]]))
    if not len(found.rewards):
        found.rewards = rewards.new_zeros(len(missing), rewards.shape[1])
        # A column that has no entry per row (no tools, no log-probabilities) stays unchanged.
        found.generated = [[None] * n if _per_row(column, numbers) else column for column in generated]
    for process, part in enumerate(places):
        to, start = process * n + part, process * most
        found.rewards[to.to(rewards.device)] = rewards[start : start + len(part)]
        lengths[to] = counts[start : start + len(part)].cpu()
    for j, i in enumerate(here):
        found.verdicts[i] = verdicts[j]
        for kept, column in zip(found.generated, generated, strict=True):
            if _per_row(column, numbers):
                kept[i] = column[j]


def _per_row(column: Any, numbers: list[int]) -> bool:
    return isinstance(column, list) and len(column) == len(numbers)


def drawing(dataset: Any, seed: int, batch: int, prompts: Sequence[Any]) -> Callable[[int, int], list[Row]]:
    """Return the `draw` of `Sampler` for one generation batch: the same on every process and in a resumed run.

    batch: its number in the run. prompts: its prompts, of all processes. Problems of the batch, and problems already
    drawn for it, are drawn only when there are no others.
    """
    taken = {_key(prompt) for prompt in prompts}

    def draw(count: int, round_number: int) -> list[Row]:
        generator = torch.Generator().manual_seed((seed * 1_000_003 + batch) * 101 + round_number)
        drawn, again = [], []
        for i in torch.randperm(len(dataset), generator=generator).tolist():
            if len(drawn) == count:
                break
            row = dataset[i]
            key = _key(row["prompt"])
            (again if key in taken else drawn).append(row)
            taken.add(key)
        again = again or drawn
        return [*drawn, *(again[i % len(again)] for i in range(count - len(drawn)))]

    return draw


def _key(prompt: Any) -> str:
    return json.dumps(prompt, sort_keys=True, default=str)


def check(limit: int, trainer: Any, rows_here: int) -> None:
    """Raise InputError where groups cannot be replaced: no data set to draw from, or text of tools in the responses."""
    if not limit:
        return
    if not (hasattr(trainer.train_dataset, "__len__") and hasattr(trainer.train_dataset, "__getitem__")):
        raise InputError("option dynamic_sampling: a streamed train_dataset has no prompts to draw; expected 0")
    if trainer.tools or trainer.environment_factories is not None or trainer.rollout_func is not None:
        raise InputError("option dynamic_sampling: expected 0 with tools, environments or rollout_func")
    columns = getattr(trainer.train_dataset, "column_names", None) or ()
    if trainer._is_vlm or {"image", "images"} & set(columns):
        raise InputError("option dynamic_sampling: expected 0 with prompts that have images")
    if trainer.use_vllm and rows_here % trainer.num_generations:
        raise InputError(
            f"option dynamic_sampling: vLLM samples complete groups, and a process has {rows_here} responses, expected "
            f"a multiple of num_generations ({trainer.num_generations})"
        )
