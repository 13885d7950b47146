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
"""Benchmark → run → its samples of the problems that all of the benchmark's runs have."""


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
        ids = [{sample.id for sample in run.samples[benchmark]} for run in having]
        common = set.intersection(*ids)
        if not common:
            notices.append(f"{benchmark}: no problem that all of its runs have; left out.")
            continue
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
