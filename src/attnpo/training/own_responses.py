"""Responses of the starting model on which its heads can be ranked: right ones, of problems that it mostly solves."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from attnpo.heads.table import FEWEST_PROBLEMS
from attnpo.steps.spans import LocatedSteps
from attnpo.traces.prepared import PreparedTrace
from attnpo.training.evaluation import isolated_random_state
from attnpo.training.processes import rollouts_together

if TYPE_CHECKING:
    from attnpo.training.trainer import AttnPOTrainer

SAMPLES = 4  # responses per problem
EASY = 0.75  # least share of right ones among them: on such problems the answer comes from the steps, not from luck
GIVE_UP = 16  # times the traces wanted: after so many responses without enough of them, there will not be any
SEED = 7919  # added to the run's: no draw of the search is a draw of the training

OwnResponse = tuple[PreparedTrace, dict[str, Any]]  # as tokens, and as the row that is written down


@contextmanager
def as_in_an_evaluation(trainer: AttnPOTrainer) -> Iterator[None]:
    """Evaluation mode, `SAMPLES` responses per problem, random numbers of its own; then all is as it was."""
    training, group = trainer.model.training, trainer.num_generations_eval
    logs = copy.deepcopy((trainer._logs, trainer._metrics["eval"]))  # these responses belong to no evaluation
    trainer.model.eval()
    trainer.num_generations_eval = SAMPLES
    try:
        with isolated_random_state(trainer.args.seed + SEED + trainer.accelerator.process_index):
            yield
    finally:
        trainer.model.train(training)
        trainer.num_generations_eval = group
        trainer._logs, trainer._metrics["eval"] = logs


def sample_responses(trainer: AttnPOTrainer, wanted: int) -> tuple[list[OwnResponse], Counter[str]]:
    """Responses of this process that can be labelled, and counts over all processes.

    Stops with `wanted` of them on all processes together, with `GIVE_UP` times as many sampled, or when every problem
    was asked. One whose problems are hard leaves its part to the others.
    """
    process = trainer.accelerator.process_index
    found: list[OwnResponse] = []
    totals: Counter[str] = Counter()
    for rows in _batches(trainer):
        counts: Counter[str] = Counter()
        with rollouts_together(trainer):
            usable = _usable(_respond(trainer, rows), max(1, wanted // FEWEST_PROBLEMS), counts)
        # Known to all processes, so that they stop together and none takes what another has.
        round_counts, lengths = zip(*gather_object([(counts, len(usable))]), strict=True)
        totals = sum(round_counts, totals)
        found += usable[: max(0, wanted - totals["used"] - sum(lengths[:process]))]
        totals["used"] = min(wanted, totals["used"] + sum(lengths))
        if totals["used"] == wanted or totals["sampled"] >= GIVE_UP * wanted:
            break
    return found, totals


def left_out(counts: Counter[str]) -> Counter[str]:
    """The responses that were sampled and not used, by the reason."""
    easy = counts["right, of easy problems"]
    reasons = {
        "wrong": counts["sampled"] - counts["right"],
        "of harder problems": counts["right"] - easy,
        "without steps to compare, or not needed": easy - counts["used"],
    }
    return Counter({reason: count for reason, count in reasons.items() if count})


def _batches(trainer: AttnPOTrainer) -> Iterator[list[dict[str, Any]]]:
    """This process's problems, each `SAMPLES` times, as many rows at a time as an evaluation takes.

    In an order of their own, since a file may have the hard ones first. Every problem comes once; where they do not
    fill the last round, the first ones come again, so that all processes take part in every round.
    """
    accelerator = trainer.accelerator
    data: Any = trainer.train_dataset
    processes = accelerator.num_processes
    count = min(max(1, trainer.args.per_device_eval_batch_size // SAMPLES), -(-len(data) // processes))
    draw = torch.Generator().manual_seed(trainer.args.seed + SEED)  # the same on all processes
    order = torch.randperm(len(data), generator=draw).tolist()
    for first in range(0, len(data), count * processes):
        start = first + accelerator.process_index * count
        yield [data[order[i % len(data)]] for i in range(start, start + count) for _ in range(SAMPLES)]


def _respond(trainer: AttnPOTrainer, rows: list[dict[str, Any]]) -> list[tuple[bool, OwnResponse | None]]:
    """For one batch, generated and verified as in an evaluation: is it right, and the response; None: of no use."""
    trainer._eval_records = []
    trainer._generate_and_score_completions(rows)
    records, trainer._eval_records = trainer._eval_records, []
    responses: list[tuple[bool, OwnResponse | None]] = []
    for i, (located, record) in enumerate(zip(trainer._located, records, strict=True)):
        prompt, completion = list(trainer._prompt_ids[i]), list(trainer._completion_ids[i])
        trace = _trace(prompt, completion, located, f"response {i % SAMPLES + 1} to problem {record['id']}")
        responses.append((record["correct"], trace and (trace, _row(record, rows[i], trace))))
    return responses


def _usable(responses: list[tuple[bool, OwnResponse | None]], most: int, counts: Counter[str]) -> list[OwnResponse]:
    """The usable right responses of problems that are easy, at most `most` of each; `counts` gets all there are."""
    found: list[OwnResponse] = []
    for first in range(0, len(responses), SAMPLES):
        right = [response for correct, response in responses[first : first + SAMPLES] if correct]
        counts["sampled"] += SAMPLES
        counts["right"] += len(right)
        if len(right) >= EASY * SAMPLES:
            counts["right, of easy problems"] += len(right)
            found += [response for response in right if response is not None][:most]
    return found


def _trace(prompt: list[int], completion: list[int], located: LocatedSteps, where: str) -> PreparedTrace | None:
    """The response as tokens; None where it has no answer or nothing to compare."""
    if located.answer is None or not located.has_answer_text or len(located.steps) < 2:
        return None
    shift = len(prompt)
    return PreparedTrace(
        ids=[*prompt, *completion],
        steps=[{"start": s.start, "end": s.end, "kind": s.kind} for s in located.steps],
        spans=[(start + shift, end + shift) for start, end in located.spans],
        answer=(located.answer[0] + shift, located.answer[1] + shift),
        skipped=None,
        where=where,
    )


def _row(record: dict[str, Any], row: dict[str, Any], trace: PreparedTrace) -> dict[str, Any]:
    """A trace-file row of one response."""
    return {
        "id": record["id"],
        "problem": record["prompt"],
        "response": record["text"],
        "reference": row.get("reference"),
        "steps": trace.steps,
        "completion_ids": trace.ids[record["tokens"]["prompt"] :],
    }
