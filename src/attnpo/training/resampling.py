"""Dynamic sampling, as in DAPO (Yu et al. 2025, section 3.2): groups without signal are replaced before an update.

A group whose responses are all worth the same has advantage 0 everywhere and teaches nothing. Its prompt is replaced by
another one of the training set, whose responses are sampled and judged, up to a number of rounds. DAPO samples whole
batches until enough groups are left; here only the groups without signal are sampled again.

Every process has n rows of the batch, row i of process r is number r·n + i, and G rows in a row are a group, which may
lie on two processes. What is dead, and what it is replaced by, follows from the rewards of all processes, so that all
decide alike; each samples as many rows in a round as the one that has most to replace, because a gather needs as many
rows of every process.

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
    """What was sampled and judged for a batch before it is made.

    Attributes:
        rows: the data set rows of this process, those of replaced groups exchanged.
        generated: what TRL's `_generate` returned for them, column by column.
        rewards: of all processes, before a length reward.
        verdicts: the verifier's verdict on each row; None where another function decides.
        replaced: groups that were exchanged, once for each time.
        rounds: how often that was done.
    """

    rows: list[Row]
    generated: list[Any]
    rewards: Float[Tensor, "M K"]
    verdicts: list[Any]
    replaced: int = 0
    rounds: int = 0


@dataclass(frozen=True)
class Sampler:
    """What a batch is filled with.

    Attributes:
        generate: TRL's `_generate` for some prompts of this process.
        judge: rewards of all processes (m of each) for those rows and completions, and the verdicts of this process.
        worth: total rewards of all processes' rows, from their plain rewards, response lengths and this process's rows.
        gather: one number per row, of all processes.
        draw: `count` rows of the training set, the same on all processes.
        processes, process: how many there are, and the number of this one.
    """

    generate: Callable[[list[Any]], Generated]
    judge: Callable[[list[Row], Generated], tuple[Float[Tensor, "processes*m K"], list[Any]]]
    worth: Callable[[Float[Tensor, "M K"], Int[Tensor, " M"], list[Row]], Float[Tensor, " M"]]
    gather: Callable[[Tensor], Tensor]
    draw: Callable[[int, int], list[Row]]
    processes: int = 1
    process: int = 0


def fill(rows: Sequence[Row], group_size: int, limit: int, sampler: Sampler) -> Sampled:
    """The rows' responses, groups without signal replaced in up to `limit` rounds.

    A group that still has none after the last round stays as it is.
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
    # Too few here: the first rows once more, for company. Whole groups, where groups lie on one process each.
    asked = [*here, *range(most - len(here))]
    rows = [found.rows[i] for i in asked]
    generated = sampler.generate([row["prompt"] for row in rows])
    rewards, verdicts = sampler.judge(rows, generated)
    counts = sampler.gather(torch.tensor([len(ids) for ids in generated[1]]))
    if not len(found.rewards):
        found.rewards = rewards.new_zeros(len(missing), rewards.shape[1])
        # A column that has nothing per row (no tools, no log-probabilities) stays as it is.
        found.generated = [[None] * n if _per_row(column, asked) else column for column in generated]
    for process, part in enumerate(places):
        to, start = process * n + part, process * most
        found.rewards[to.to(rewards.device)] = rewards[start : start + len(part)]
        lengths[to] = counts[start : start + len(part)].cpu()
    for j, i in enumerate(here):
        found.verdicts[i] = verdicts[j]
        for kept, column in zip(found.generated, generated, strict=True):
            if _per_row(column, asked):
                kept[i] = column[j]


def _per_row(column: Any, asked: list[int]) -> bool:
    return isinstance(column, list) and len(column) == len(asked)


def drawing(dataset: Any, seed: int, batch: int, prompts: Sequence[Any]) -> Callable[[int, int], list[Row]]:
    """Rows of the training set for the rounds of one generation batch: the same on every process, and in a run that is
    resumed.

    batch: its number within the run. prompts: those that it has, of all processes. No problem of the batch, and none
    that was drawn for it, is drawn as long as there are others.
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
    """Raises InputError where groups cannot be replaced: no data set to draw from, or text that others put in."""
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
            f"option dynamic_sampling: vLLM samples whole groups, and a process has {rows_here} responses, expected a "
            f"multiple of num_generations ({trainer.num_generations})"
        )
