"""`heads: auto`: the key-focus heads of the model, found before the first step.

Responses of the starting model → the right ones of problems it mostly solves → steps labelled by hiding each of them
from attention → all heads ranked → heads.json in the run folder. It needs only the model and the problems.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from transformers.trainer_utils import has_length

from attnpo.attention.heads import HEADS, Head
from attnpo.attention.model import scorable_layers
from attnpo.data.jsonl import write_jsonl
from attnpo.errors import InputError, RunError
from attnpo.heads.find import Found, write_head_file
from attnpo.heads.table import FEWEST, FEWEST_PROBLEMS, SEPARATES, HeadTable, probe_traces, separating
from attnpo.labels.causal import label_steps, without_endings
from attnpo.labels.hiding import step_drops
from attnpo.models import model_name
from attnpo.traces.prepared import PreparedTrace
from attnpo.training.diagnosis import diagnose
from attnpo.training.policy import Policy, Response
from attnpo.training.processes import from_main, together
from attnpo.training.records import HEADS_TRACES, Record, RunFolder

SAMPLES = 4  # responses per problem
EASY = 0.75  # minimum share of right ones among them: on such problems the answer follows from the steps, not from luck
GIVE_UP = 16  # responses to sample at most, as a multiple of the traces wanted
NONE_RIGHT = 4  # the same where not one response is right
SEED = 7919  # added to the run's: search and training use different random numbers

OwnResponse = tuple[PreparedTrace, dict[str, Any]]  # as tokens, and as a row of the trace file


def sample_responses(policy: Policy, wanted: int) -> tuple[list[OwnResponse], Counter[str], list[Record]]:
    """Sample responses; returns those of this process that can be labelled, counts over all processes, and its records.

    Stops with `wanted` of them on all processes together, with `GIVE_UP` times as many sampled, with `NONE_RIGHT` times
    as many of which none is right, or when every problem was sampled. A process whose problems are hard contributes
    fewer.
    """
    process = policy.accelerator.process_index
    found: list[OwnResponse] = []
    records: list[Record] = []
    totals: Counter[str] = Counter()
    for rows in _batches(policy):
        counts: Counter[str] = Counter()
        with policy.rollouts_together():
            usable = _usable(_respond(policy, rows, records), max(1, wanted // FEWEST_PROBLEMS), counts)
        # Known to all processes, so that they stop together with `wanted` responses in total.
        round_counts, lengths = zip(*gather_object([(counts, len(usable))]), strict=True)
        totals = sum(round_counts, totals)
        found += usable[: max(0, wanted - totals["used"] - sum(lengths[:process]))]
        totals["used"] = min(wanted, totals["used"] + sum(lengths))
        limit = GIVE_UP if totals["right"] else NONE_RIGHT
        if totals["used"] == wanted or totals["sampled"] >= limit * wanted:
            break
    return found, totals, records


def left_out(counts: Counter[str]) -> Counter[str]:
    """Count the responses that were sampled and not used, by reason."""
    easy = counts["right, of easy problems"]
    reasons = {
        "wrong": counts["sampled"] - counts["right"],
        "of harder problems": counts["right"] - easy,
        "without steps to compare, or not needed": easy - counts["used"],
    }
    return Counter({reason: count for reason, count in reasons.items() if count})


def _batches(policy: Policy) -> Iterator[list[dict[str, Any]]]:
    """Yield this process's problems, each `SAMPLES` times, in batches of an evaluation's size.

    The order is random, because a file may begin with the hard problems. Every problem occurs once; where they do not
    fill the last round, the first ones are repeated, so that all processes take part in every round.
    """
    accelerator = policy.accelerator
    data: Any = policy.problems
    processes = accelerator.num_processes
    count = min(max(1, policy.args.per_device_eval_batch_size // SAMPLES), -(-len(data) // processes))
    draw = torch.Generator().manual_seed(policy.args.seed + SEED)  # the same on all processes
    order = torch.randperm(len(data), generator=draw).tolist()
    for first in range(0, len(data), count * processes):
        start = first + accelerator.process_index * count
        yield [data[order[i % len(data)]] for i in range(start, start + count) for _ in range(SAMPLES)]


def _respond(
    policy: Policy, rows: list[dict[str, Any]], records: list[Record]
) -> list[tuple[bool, OwnResponse | None]]:
    """Generate and verify one batch as in an evaluation; returns for each whether it is right, and the response.

    The response is None where it cannot be labelled. `records` gets the record of each.
    """
    responses: list[tuple[bool, OwnResponse | None]] = []
    for i, response in enumerate(policy.respond(rows)):
        records.append(response.record)
        trace = _trace(response, f"response {i % SAMPLES + 1} to problem {response.record['id']}")
        responses.append((response.record["correct"], trace and (trace, _row(response.record, rows[i], trace))))
    return responses


def _usable(responses: list[tuple[bool, OwnResponse | None]], most: int, counts: Counter[str]) -> list[OwnResponse]:
    """Return the usable right responses to easy problems, at most `most` per problem; `counts` counts all."""
    found: list[OwnResponse] = []
    for first in range(0, len(responses), SAMPLES):
        right = [response for correct, response in responses[first : first + SAMPLES] if correct]
        counts["sampled"] += SAMPLES
        counts["right"] += len(right)
        if len(right) >= EASY * SAMPLES:
            counts["right, of easy problems"] += len(right)
            found += [response for response in right if response is not None][:most]
    return found


def _trace(response: Response, where: str) -> PreparedTrace | None:
    """Return the response as tokens; None where it has no answer or fewer than two steps."""
    prompt, completion, located = response.prompt, response.completion, response.located
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
    """Return the row of a trace file for one response."""
    return {
        "id": record["id"],
        "problem": record["prompt"],
        "response": record["text"],
        "reference": row.get("reference"),
        "steps": trace.steps,
        "completion_ids": trace.ids[record["tokens"]["prompt"] :],
    }


Measured = tuple[str, list[Any]]  # a response's problem, and its figures [3, L, H] as lists


def find_own_heads(policy: Policy, folder: RunFolder, say: Callable[[str], None]) -> list[Head]:
    """Find the key-focus heads with the run's own rollouts, verifier and model; write heads.json in its folder.

    Also written: heads-traces.jsonl.gz, the labelled responses. The run that follows is the same, number for number,
    as with these heads given (rollouts by transformers). All processes take part and return the same heads; where one
    fails, all fail. Raises InputError for FSDP, DeepSpeed and streamed data, and RunError, with the figures, when too
    few responses can be used or no head separates the steps (`attnpo.heads.table.SEPARATES`).
    """
    _refuse(policy)
    wanted, is_main = policy.args.heads_traces, policy.accelerator.is_main_process
    report = say if is_main else (lambda text: None)
    report(
        f"no head file: sampling responses to find the key-focus heads ({wanted} right ones of problems that the model "
        "mostly solves) …"
    )
    with policy.as_in_an_evaluation(SAMPLES, policy.args.seed + SEED):
        responses, counts, records = sample_responses(policy, wanted)
        report(f"{counts['used']} of {counts['sampled']} responses can be used; hiding each of their steps once …")
        with together(policy.accelerator):
            rows, measured = _measure(policy, responses)
    rows, measured = gather_object(rows), gather_object(measured)

    def choose() -> list[Head]:
        write_jsonl(folder.path / HEADS_TRACES, rows)
        return _choose(policy, folder, measured, counts, _what_to_change(policy, records), say)

    return from_main(policy.accelerator, choose)


def _measure(policy: Policy, responses: list[OwnResponse]) -> tuple[list[dict[str, Any]], list[Measured]]:
    """Return rows with labelled steps, and for rows with both kinds of step the problem and every head's figures."""
    traces = [trace for trace, _ in responses]
    size = max(1, policy.args.per_device_train_batch_size)
    with policy.accelerator.autocast():
        labels = causal_labels(policy, traces, size)
        results = dict(probe_traces(policy.model, traces, labels, batch_size=size))
    rows: list[dict[str, Any]] = []
    for (_, row), essential in zip(responses, labels, strict=True):
        steps = [{**step, "essential": label} for step, label in zip(row["steps"], essential, strict=True)]
        rows.append({**row, "steps": steps})
    return rows, [(rows[i]["problem"], results[i].tolist()) for i in sorted(results)]


def causal_labels(policy: Policy, traces: list[PreparedTrace], batch_size: int) -> list[list[bool]]:
    """Label steps as essential (True) or redundant by the effect of hiding each one on the answer (docs/labels.md)."""
    to_hide = [without_endings(trace, policy.tokenizer) for trace in traces]
    drops = step_drops(policy.model, to_hide, batch_size)
    return [label_steps(drop).tolist() for drop in drops if drop is not None]


def _what_to_change(policy: Policy, records: list[Record]) -> str:
    """Return what to change: the diagnosis of this process's responses, else general advice."""
    limit, thinks = policy.max_completion_length, policy.args.thinking != "no"
    found = diagnose(records, limit=limit, moved=True, judge=policy.judge_name, thinks=thinks, form=policy.form)
    general = "Give a head file (option heads), more or easier problems, or credit: outcome"
    return general if found is None else found.message


def _choose(
    policy: Policy,
    folder: RunFolder,
    measured: list[Measured],
    counts: Counter[str],
    hint: str,
    say: Callable[[str], None],
) -> list[Head]:
    """Choose the best heads by the figures of all processes and write the head file.

    Raises RunError where none separates. hint: what to change where too few responses can be used.
    """
    different = len({problem for problem, _ in measured})
    if len(measured) < FEWEST or different < FEWEST_PROBLEMS:
        raise RunError(
            f"heads: auto: {counts['sampled']} responses gave {len(measured)} with essential and redundant steps, to "
            f"{different} problems, expected at least {FEWEST} to at least {FEWEST_PROBLEMS} problems "
            f"({_listed(counts)}). {hint}"
        )
    problems, figures = zip(*measured, strict=True)
    table = HeadTable(torch.tensor(figures, dtype=torch.float64), tuple(scorable_layers(policy.model)), problems)
    best = table.best(policy.args.heads_count)
    accuracy, interval = table.mean(), table.intervals
    chosen = separating(table, best)
    if not chosen:
        shown = "; ".join(
            f"layer {layer} head {head}: {accuracy[layer, head]:.2f} "
            f"({interval[layer, head][0]:.2f} to {interval[layer, head][1]:.2f})"
            for layer, head in best
        )
        raise RunError(
            f"heads: auto: no head separates essential from redundant steps. Best step ranking accuracies of "
            f"{len(accuracy)} heads on {table.traces} responses: {shown}; expected at least {SEPARATES} and an "
            f"interval above 0.5. The labelled responses are in {HEADS_TRACES}. Give a head file (option heads), or "
            "credit: outcome"
        )
    config = policy.accelerator.unwrap_model(policy.model).config
    write_head_file(
        folder.path / HEADS,
        Found(table, chosen, left_out(counts)),
        model=model_name(config._name_or_path),
        labels="causal, on the model's own responses",
    )
    listed = ", ".join(f"({layer}, {head}) {accuracy[layer, head]:.2f}" for layer, head in chosen)
    say(f"key-focus heads (layer, head) with their step ranking accuracy: {listed}")
    return chosen


def _refuse(policy: Policy) -> None:
    kind = policy.accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.FSDP):
        raise InputError(
            f"option heads: auto needs a complete model on every process; with {kind.value} give a head file "
            "(`attnpo label` and `attnpo probe` make one)"
        )
    if not has_length(policy.problems):
        raise InputError("option heads: auto needs a data set with a length; with a streamed one give a head file")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if name != "sampled")
