"""The problems that several evaluations have in common: only on those are models compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from attnpo.errors import InputError
from attnpo.evaluation.folder import Evaluation
from attnpo.evaluation.metrics import by_problem, columns
from attnpo.evaluation.records import Sample

Shared = dict[str, dict[str, list[Sample]]]
"""Benchmark → run → its samples of the problems that all of these runs have."""


def shared_problems(runs: Sequence[Evaluation], notices: list[str]) -> Shared:
    """The samples to compare; what is left out is added to `notices`.

    Raises:
        InputError: nothing in common, or two references for one problem.
    """
    shared: Shared = {}
    for benchmark in dict.fromkeys(name for run in runs for name in run.samples):
        having = [run for run in runs if benchmark in run.samples]
        if len(having) < 2:
            notices.append(f"{benchmark}: only {having[0].name} has it; left out.")
            continue
        asked = {run.name: {sample.id for sample in run.samples[benchmark]} for run in having}
        group, common = _largest_group(asked)
        if len(group) < 2:
            notices.append(f"{benchmark}: no problem that two of its runs have; left out.")
            continue
        odd = [name for name in asked if name not in group]
        if odd:
            notices.append(f"{benchmark}: {', '.join(odd)} left out: no problem in common with {', '.join(group)}.")
        having = [run for run in having if run.name in group]
        ids = [asked[run.name] for run in having]
        if any(found != common for found in ids):
            counts = ", ".join(f"{len(found)} of {run.name}" for run, found in zip(having, ids, strict=True))
            notices.append(f"{benchmark}: compared on the {len(common)} problems that all have ({counts}).")
        shared[benchmark] = {
            run.name: [sample for sample in run.samples[benchmark] if sample.id in common] for run in having
        }
        _check_references(benchmark, shared[benchmark])
    if not shared:
        raise InputError(" ".join(["nothing to compare: the runs have no problem in common.", *notices]))
    return shared


def _largest_group(asked: Mapping[str, set[str]]) -> tuple[list[str], set[str]]:
    """The most runs found to have problems in common, and those problems; of equals the group of the earliest run.

    From each run on, the others join in their order while a problem remains that all have.
    """
    best: tuple[list[str], set[str]] = ([], set())
    for start, ids in asked.items():
        group, common = [start], ids
        for name, other in asked.items():
            if name != start and common & other:
                group.append(name)
                common = common & other
        if len(group) > len(best[0]):
            best = group, common
    return best


def problem_table(samples: Sequence[Sample]) -> Float64[Tensor, "P 2"]:
    """Accuracy and mean tokens of every problem, float64 [P, 2], in the order of the problems' ids."""
    found = columns(by_problem(samples), ())
    return torch.tensor([found["accuracy"], found["tokens"]], dtype=torch.float64).T


def _check_references(benchmark: str, samples: Mapping[str, Sequence[Sample]]) -> None:
    seen: dict[str, tuple[str, str | None]] = {}
    for name, part in samples.items():
        for sample in part:
            first, reference = seen.setdefault(sample.id, (name, sample.reference))
            if reference != sample.reference:
                raise InputError(
                    f"{benchmark}, problem {sample.id!r}: reference {reference!r} in {first} and {sample.reference!r} "
                    f"in {name}; expected the same problems"
                )
