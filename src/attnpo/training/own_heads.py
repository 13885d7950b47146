"""`heads: auto`: the key-focus heads of the model itself, found before the first step.

Responses of the starting model → the right ones of problems it mostly solves → steps labelled by hiding each of them
from attention → all heads ranked → heads.json in the run folder. Nothing but the model and the problems is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
from attnpo.training.own_responses import OwnResponse, as_in_an_evaluation, left_out, sample_responses
from attnpo.training.processes import from_main, together
from attnpo.training.records import HEADS_TRACES

if TYPE_CHECKING:
    from attnpo.training.trainer import AttnPOTrainer

Measured = tuple[str, list[Any]]  # a response's problem, and its figures [3, L, H] as lists


def find_own_heads(trainer: AttnPOTrainer, say: Callable[[str], None]) -> list[Head]:
    """Find the key-focus heads with the trainer's own rollouts, verifier and model; write heads.json.

    Also written: heads-traces.jsonl.gz, the labelled responses. The run that follows is the same, number for number,
    as with these heads given (rollouts by transformers). All processes take part and return the same heads; where one
    fails, all fail. Raises InputError for FSDP, DeepSpeed and streamed data, RunError, with the figures, when too few
    responses can be used or no head separates (`attnpo.heads.table.SEPARATES`).
    """
    _refuse(trainer)
    wanted, is_main = trainer.args.heads_traces, trainer.accelerator.is_main_process
    tell = say if is_main else (lambda text: None)
    tell(
        f"no head file: sampling responses to find the key-focus heads ({wanted} right ones of problems that the model "
        "mostly solves) …"
    )
    with as_in_an_evaluation(trainer):
        responses, counts = sample_responses(trainer, wanted)
        tell(f"{counts['used']} of {counts['sampled']} responses can be used; hiding each of their steps once …")
        with together(trainer.accelerator):
            rows, measured = _measure(trainer, responses)
    rows, measured = gather_object(rows), gather_object(measured)

    def choose() -> list[Head]:
        write_jsonl(trainer.folder.path / HEADS_TRACES, rows)
        return _choose(trainer, measured, counts, say)

    return from_main(trainer.accelerator, choose)


def _measure(trainer: AttnPOTrainer, responses: list[OwnResponse]) -> tuple[list[dict[str, Any]], list[Measured]]:
    """Rows with labelled steps; and of those with both kinds of step the problem and the figures of every head."""
    traces = [trace for trace, _ in responses]
    size = max(1, trainer.args.per_device_train_batch_size)
    with trainer.accelerator.autocast():
        labels = causal_labels(trainer, traces, size)
        results = dict(probe_traces(trainer.model, traces, labels, batch_size=size))
    rows: list[dict[str, Any]] = []
    for (_, row), essential in zip(responses, labels, strict=True):
        steps = [{**step, "essential": label} for step, label in zip(row["steps"], essential, strict=True)]
        rows.append({**row, "steps": steps})
    return rows, [(rows[i]["problem"], results[i].tolist()) for i in sorted(results)]


def causal_labels(trainer: AttnPOTrainer, traces: list[PreparedTrace], batch_size: int) -> list[list[bool]]:
    """Essential or redundant, by what hiding a step from attention does to the answer (docs/labels.md)."""
    to_hide = [without_endings(trace, trainer._tokenizer) for trace in traces]
    drops = step_drops(trainer.model, to_hide, batch_size)
    return [label_steps(drop).tolist() for drop in drops if drop is not None]


def _choose(
    trainer: AttnPOTrainer, measured: list[Measured], counts: Counter[str], say: Callable[[str], None]
) -> list[Head]:
    """The best heads by the figures of all processes, written down. Raises RunError where none separates."""
    different = len({problem for problem, _ in measured})
    if len(measured) < FEWEST or different < FEWEST_PROBLEMS:
        raise RunError(
            f"heads: auto: {counts['sampled']} responses gave {len(measured)} with essential and redundant steps, to "
            f"{different} problems, expected at least {FEWEST} to at least {FEWEST_PROBLEMS} problems "
            f"({_listed(counts)}). Give a head file (option heads), more or easier problems, or credit: outcome"
        )
    problems, figures = zip(*measured, strict=True)
    table = HeadTable(torch.tensor(figures, dtype=torch.float64), tuple(scorable_layers(trainer.model)), problems)
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
            f"interval above 0.5. The labelled responses are in {HEADS_TRACES}. Give a head file (option heads), or "
            "credit: outcome"
        )
    config = trainer.accelerator.unwrap_model(trainer.model).config
    write_head_file(
        trainer.folder.path / HEADS,
        Found(table, chosen, left_out(counts)),
        model=model_name(config._name_or_path),
        labels="causal, on the model's own responses",
    )
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


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if name != "sampled")
