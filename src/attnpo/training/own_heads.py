"""`heads: auto`: the key-focus heads of the model itself, found before the first step.

Responses of the starting model → the right ones of problems it mostly solves → steps labelled by hiding each of them
from attention → all heads ranked → heads.json in the run folder. Nothing but the model and the problems is needed.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType, gather_object
from torch import Tensor
from transformers.trainer_utils import has_length

from attnpo.attention.heads import Head, check_heads, load_heads
from attnpo.attention.interface import scorable_layers
from attnpo.data.traces import write_jsonl
from attnpo.errors import InputError, RunError
from attnpo.labels.causal import label_steps, without_endings
from attnpo.labels.hiding import step_drops
from attnpo.probe.find_heads import Found, write_head_file
from attnpo.probe.head_table import FEWEST, SEPARATES, HeadTable, probe_traces, separating
from attnpo.probe.prepare import PreparedTrace
from attnpo.training.evaluation import isolated_random_state

if TYPE_CHECKING:
    from attnpo.training.trainer import AttnPOTrainer

AUTO = "auto"
TRACES = "heads-traces.jsonl.gz"
SAMPLES = 4  # responses per problem
EASY = 0.75  # least share of right ones among them: on such problems the answer comes from the steps, not from luck
GIVE_UP = 16  # times the traces wanted: after so many responses without enough of them, there will not be any
SEED = 7919  # added to the run's: no draw of the search is a draw of the training

Labelled = tuple[PreparedTrace, dict[str, Any]]  # and the row that is written down


def heads_of(trainer: AttnPOTrainer, given: list[Head] | None) -> list[Head] | None:
    """The heads to train with, as far as they are known before the model has answered anything.

    None: the credit method needs none, or they are to be found (`AttnPOTrainer.find_heads`). A model folder with a
    heads.json needs no option. Raises InputError for heads the model has not got and for bad files.
    """
    if "attention" not in trainer.credit.signals:
        return None
    config = trainer.accelerator.unwrap_model(trainer.model).config
    if given is None:
        folder = getattr(config, "_name_or_path", "")
        if trainer.args.heads is None and folder and (beside := Path(folder) / "heads.json").is_file():
            trainer.args.heads = str(beside)
        if trainer.args.heads in (None, AUTO):
            trainer.args.heads = AUTO
            return None
        given = load_heads(trainer.args.heads)
    check_heads(config, given)
    return given


def find_own_heads(trainer: AttnPOTrainer, say: Callable[[str], None]) -> list[Head]:
    """Find the key-focus heads with the trainer's own rollouts, verifier and model; write heads.json.

    Also written: heads-traces.jsonl.gz, the labelled responses. The run that follows is the same, number for number,
    as with these heads given (rollouts by transformers). All processes take part and return the same heads.
    Raises InputError for FSDP, DeepSpeed and streamed data, RunError, with the figures, when too few
    responses can be used or no head separates (`attnpo.probe.head_table.SEPARATES`).
    """
    _refuse(trainer)
    wanted = trainer.args.heads_traces
    say(
        f"no head file: sampling responses to find the key-focus heads ({wanted} right ones of problems that the model "
        "mostly solves) …"
    )
    training, group = trainer.model.training, trainer.num_generations_eval
    logs = copy.deepcopy((trainer._logs, trainer._metrics["eval"]))  # these responses belong to no evaluation
    trainer.model.eval()
    trainer.num_generations_eval = SAMPLES
    try:
        with isolated_random_state(trainer.args.seed + SEED + trainer.accelerator.process_index):
            own, counts = _sample(trainer, wanted)
        say(f"{counts['used']} of {counts['sampled']} responses can be used; hiding each of their steps once …")
        size = max(1, trainer.args.per_device_train_batch_size)
        with trainer.accelerator.autocast():
            traces = [trace for trace, _ in own]
            labels = causal_labels(trainer, traces, size)
            results = dict(probe_traces(trainer.model, traces, labels, batch_size=size))
    finally:
        trainer.model.train(training)
        trainer.num_generations_eval = group
        trainer._logs, trainer._metrics["eval"] = logs
    rows: list[dict[str, Any]] = []
    for (_, row), essential in zip(own, labels, strict=True):
        steps = [{**step, "essential": label} for step, label in zip(row["steps"], essential, strict=True)]
        rows.append({**row, "steps": steps})
    figures = gather_object([results[i].tolist() for i in sorted(results)])
    rows = gather_object(rows)
    if trainer.is_world_process_zero():
        write_jsonl(Path(trainer.args.output_dir) / TRACES, rows)
    return _choose(trainer, figures, counts, say)


def causal_labels(trainer: AttnPOTrainer, traces: list[PreparedTrace], batch_size: int) -> list[list[bool]]:
    """Essential or redundant, by what hiding a step from attention does to the answer (docs/labels.md)."""
    to_hide = [without_endings(trace, trainer._tokenizer) for trace in traces]
    drops = step_drops(trainer.model, to_hide, batch_size)
    return [label_steps(drop).tolist() for drop in drops if drop is not None]


def _choose(
    trainer: AttnPOTrainer,
    figures: list[Any],
    counts: Counter[str],
    say: Callable[[str], None],
) -> list[Head]:
    """The best heads of the gathered figures, written down. Raises RunError where none separates."""
    if len(figures) < FEWEST:
        raise RunError(
            f"heads: auto: {counts['sampled']} responses gave {len(figures)} with essential and redundant steps, "
            f"expected at least {FEWEST} ({_listed(counts)}). Give a head file (option heads), easier problems, or "
            "credit: outcome"
        )
    table = HeadTable(torch.tensor(figures, dtype=torch.float64), tuple(scorable_layers(trainer.model)))
    best = table.best(trainer.args.heads_count)
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
            f"interval above 0.5. The labelled responses are in {TRACES}. Give a head file (option heads), or credit: "
            "outcome"
        )
    if trainer.is_world_process_zero():
        folder = Path(trainer.args.output_dir)
        found = Found(table, chosen, left_out(counts))
        model = trainer.accelerator.unwrap_model(trainer.model).config._name_or_path
        write_head_file(folder / "heads.json", found, model=model, labels="causal, on the model's own responses")
    listed = ", ".join(f"({layer}, {head}) {accuracy[layer, head]:.2f}" for layer, head in chosen)
    say(f"key-focus heads (layer, head) with their step ranking accuracy: {listed}")
    return chosen


def _refuse(trainer: AttnPOTrainer) -> None:
    kind = trainer.accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.FSDP):
        raise InputError(
            f"option heads: auto needs a model that is whole on every process; with {kind.value} give a head file "
            "(`attnpo label` and `attnpo probe` make one)"
        )
    if not has_length(trainer.train_dataset):
        raise InputError("option heads: auto needs problems that can be counted; with a streamed data set give a file")


def _sample(trainer: AttnPOTrainer, wanted: int) -> tuple[list[Labelled], Counter[str]]:
    """Responses of this process that can be labelled, and counts over all processes."""
    processes = trainer.accelerator.num_processes
    share = -(-wanted // processes)
    found: list[Labelled] = []
    counts: Counter[str] = Counter()
    for rows in _batches(trainer):
        records, traces = _respond(trainer, rows)
        for first in range(0, len(rows), SAMPLES):
            group = list(range(first, first + SAMPLES))
            right = [i for i in group if records[i]["correct"]]
            usable = [i for i in right if traces[i] is not None]
            counts["sampled"] += SAMPLES
            counts["right"] += len(right)
            if len(right) < EASY * SAMPLES:
                continue
            counts["right, of easy problems"] += len(right)
            for i in usable[: max(0, share - len(found))]:
                trace = traces[i]
                assert trace is not None
                found.append((trace, _row(records[i], rows[i], trace)))
        # Asked of all processes, so that they stop together.
        totals: Counter[str] = sum(gather_object([counts + Counter(used=len(found))]), Counter())
        if totals["used"] >= share * processes or totals["sampled"] >= GIVE_UP * wanted:
            return found, totals
    return found, sum(gather_object([counts + Counter(used=len(found))]), Counter())


def _batches(trainer: AttnPOTrainer) -> Iterator[list[dict[str, Any]]]:
    """This process's problems, each `SAMPLES` times, as many rows at a time as an evaluation takes.

    Every problem comes once; where they do not fill the last round, the first ones come again, so that all processes
    take part in every round.
    """
    accelerator = trainer.accelerator
    data: Any = trainer.train_dataset
    processes = accelerator.num_processes
    count = min(max(1, trainer.args.per_device_eval_batch_size // SAMPLES), -(-len(data) // processes))
    for first in range(0, len(data), count * processes):
        start = first + accelerator.process_index * count
        yield [data[i % len(data)] for i in range(start, start + count) for _ in range(SAMPLES)]


def _respond(
    trainer: AttnPOTrainer, rows: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[PreparedTrace | None]]:
    """Records and traces of one batch of responses, generated and verified as in an evaluation; None: no use."""
    trainer._eval_records = []
    output = trainer._generate_and_score_completions(rows)
    records, trainer._eval_records = trainer._eval_records, []
    traces: list[PreparedTrace | None] = []
    for i, located in enumerate(trainer._located):
        if located.answer is None or not located.has_answer_text or len(located.steps) < 2:
            traces.append(None)
            continue
        prompt = _tokens(output["prompt_ids"][i], output["prompt_mask"][i])
        completion = output["completion_ids"][i][: trainer._completion_tokens[i]].tolist()
        shift = len(prompt)
        traces.append(
            PreparedTrace(
                ids=[*prompt, *completion],
                steps=[{"start": s.start, "end": s.end, "kind": s.kind} for s in located.steps],
                spans=[(start + shift, end + shift) for start, end in located.spans],
                answer=(located.answer[0] + shift, located.answer[1] + shift),
                skipped=None,
            )
        )
    return records, traces


def _tokens(ids: Tensor, mask: Tensor) -> list[int]:
    return ids[mask.bool()].tolist()


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


def left_out(counts: Counter[str]) -> Counter[str]:
    """The responses that were sampled and not used, by the reason."""
    easy = counts["right, of easy problems"]
    reasons = {
        "wrong": counts["sampled"] - counts["right"],
        "of harder problems": counts["right"] - easy,
        "without steps to compare, or not needed": easy - counts["used"],
    }
    return Counter({reason: count for reason, count in reasons.items() if count})


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if name != "sampled")
