"""`attnpo check`: whether a run with a model and a data set would learn, in a minute or two of sampling.

A few problems are answered several times, as in an evaluation; pure functions on the records of the responses
(`attnpo.training.records`) predict the run.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from attnpo.errors import RunError
from attnpo.rewards.pool import VerifierPool
from attnpo.training.diagnosis import CUT_OFF, RIGHT, UNCLOSED, UNJUDGED, WRONG, show_response, state_of, wrong_format
from attnpo.training.options import parse
from attnpo.training.records import Record
from attnpo.training.run import build_trainer, quiet_screen

TOO_MANY = 0.5
"""Share of responses cut off, not closed or not judged above which the answer is no."""


@dataclass(frozen=True)
class Findings:
    """Statistics of sampled responses. Shares are of the responses, `with_signal` is of the problems."""

    responses: int
    shares: dict[str, float]  # by `state_of`
    with_signal: float
    steps: float  # per response
    one_step: float  # share of the closed responses that have one step only
    tokens: float  # per response
    longest: int
    tokens_per_second: float


def findings(records: Sequence[Record], *, seconds: float, thinks: bool = True, by_length: bool = True) -> Findings:
    """Compute the statistics of responses that were sampled in `seconds`.

    by_length: a length reward gives right responses of different lengths different rewards.
    """
    states = Counter(state_of(record, thinks=thinks) for record in records)
    groups: dict[int, list[Record]] = {}
    for record in records:
        groups.setdefault(record["group"], []).append(record)
    lengths = [record["tokens"]["completion"] for record in records]
    closed = [record for record in records if record["answered"]]
    return Findings(
        responses=len(records),
        shares={state: states[state] / len(records) for state in (CUT_OFF, UNCLOSED, UNJUDGED, WRONG, RIGHT)},
        with_signal=sum(has_signal(group, by_length=by_length) for group in groups.values()) / len(groups),
        steps=sum(len(record["steps"]) for record in records) / len(records),
        one_step=sum(len(record["steps"]) < 2 for record in closed) / len(closed) if closed else 0.0,
        tokens=sum(lengths) / len(lengths),
        longest=max(lengths),
        tokens_per_second=sum(lengths) / max(seconds, 1e-9),
    )


def has_signal(group: Sequence[Record], *, by_length: bool) -> bool:
    """Whether the responses to one problem would get different rewards."""
    right = [record for record in group if record["correct"]]
    if 0 < len(right) < len(group):
        return True
    return by_length and len({record["tokens"]["completion"] for record in right}) > 1


def advice(found: Findings, *, limit: int, stepwise: bool) -> tuple[list[str], list[str]]:
    """Return reasons against a run, and other changes to make; both may be empty.

    limit: max_completion_length. stepwise: credit is given per step.
    """
    against, change = [], []
    hints = {
        CUT_OFF: f"cut off at {limit} tokens: raise --max_completion_length",
        UNCLOSED: "without an end of the thinking: the model does not think in these marks, or its template does not "
        "open them (--thinking no --credit outcome for a model that does not think)",
        UNJUDGED: "that could not be judged: look at the references and --reference_column",
    }
    for state, hint in hints.items():
        share = found.shares[state]
        if share > TOO_MANY:
            against.append(f"{share:.0%} of the responses {hint}")
        elif share > 0.1:
            change.append(f"{share:.0%} of the responses {hint}")
    if not found.shares[RIGHT]:
        against.append("no response is right: easier problems, or answers in the form of the references")
    elif not found.with_signal:
        against.append("no problem has responses with different rewards: harder problems, or a length reward")
    elif found.with_signal < 0.25:
        change.append(
            f"only {found.with_signal:.0%} of the problems have signal: problems of medium difficulty teach more"
        )
    if stepwise and found.one_step > TOO_MANY:
        change.append(
            f"{found.one_step:.0%} of the complete responses have one step only: the lexicon does not fit this model "
            "(--lexicon), so that credit per step has nothing to distinguish"
        )
    return against, change


def suggested_limit(found: Findings, limit: int) -> int:
    """Return a max_completion_length: twice `limit` where many responses reach it, else 1.5 times the longest one."""
    if found.shares[CUT_OFF] > 0.1:
        return 2 * limit
    return min(limit, 256 * max(1, -(-3 * found.longest // 512)))


def table_of(found: Findings, *, update: int, steps: int, memory: float | None) -> Table:
    """Return the table of the figures; `update` responses an update, `steps` updates, `memory`: peak in GiB."""
    table = Table(title=f"{found.responses} responses", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    rows = {state: f"{share:.0%}" for state, share in found.shares.items()}
    rows["problems with signal"] = f"{found.with_signal:.0%}"
    rows["steps per response"] = f"{found.steps:.1f}"
    rows["complete responses of one step"] = f"{found.one_step:.0%}"
    rows["tokens per response (longest)"] = f"{found.tokens:.0f} ({found.longest})"
    rows["tokens per second"] = f"{found.tokens_per_second:.0f}"
    hours = update * steps * found.tokens / found.tokens_per_second / 3600
    rows[f"sampling {steps} updates of {update} responses"] = (
        f"{hours:.1f} h" if hours >= 0.1 else f"{60 * hours:.0f} min"
    )
    if memory is not None:
        rows["memory of the device while sampling"] = f"{memory:.1f} GiB"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def check(model: str, data: str, *, problems: int, responses: int, output: Path | None, more: Sequence[str]) -> None:
    """Sample, print the statistics and, with `output`, write a YAML file that a run can start from.

    Raises:
        InputError: errors of `attnpo train` in its options.
        RunError: a run would not learn; the message has the reasons.
    """
    console = Console()
    with tempfile.TemporaryDirectory() as folder, quiet_screen():
        at_once = str(responses * max(1, min(problems, 32 // responses)))
        words = ["--model_name_or_path", model, "--dataset_name", data, "--output_dir", folder, "--report_to", "none"]
        words += ["--eval_problems", str(problems), "--num_generations_eval", str(responses)]
        words += ["--per_device_eval_batch_size", at_once, "--record_rollouts", "false", *more]
        if data != "task":
            words += ["--eval_dataset_name", data, "--dataset_test_split", _train_split(more)]
        options, args, model_config = parse(words)
        with VerifierPool(args.verifier_workers, timeout=args.verifier_timeout) as pool:
            trainer, _ = build_trainer(options, args, model_config, pool, console)
            seen: list[Record] = []
            trainer.folder.listeners.append(lambda _, records: seen.extend(records))
            console.print(f"answering {problems} problems {responses} times …")
            started = time.monotonic()
            trainer.evaluate()
            seconds = time.monotonic() - started
    thinks, limit = args.thinking != "no", args.max_completion_length or 0
    found = findings(seen, seconds=seconds, thinks=thinks, by_length=args.length_reward != "none")
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    update = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    steps = args.max_steps if args.max_steps > 0 else 200
    console.print(table_of(found, update=update, steps=steps, memory=memory))
    console.print(show_response(seen[0]), markup=False, highlight=False, soft_wrap=True)
    against, change = advice(found, limit=limit, stepwise=args.credit != "outcome")
    if thinks and (misread := wrong_format(seen, trainer.form)) is not None:
        against.append(misread)
    for line in change:
        console.print(f"change: {line}", style="yellow", markup=False, soft_wrap=True)
    if output is not None:
        chosen: dict[str, Any] = {"model_name_or_path": model, "dataset_name": data}
        chosen |= {name: getattr(args, name) for name in ("num_generations", "length_reward", "credit", "thinking")}
        chosen |= {name: getattr(args, name) for name in ("thinking_format", "lexicon")}
        chosen |= {"max_completion_length": suggested_limit(found, limit), "max_steps": steps}
        chosen["output_dir"] = f"runs/{Path(model).name}"
        output.write_text(yaml.safe_dump(chosen, sort_keys=False), encoding="utf-8")
        console.print(f"attnpo train --config {output} starts from these settings", markup=False)
    if against:
        raise RunError("no: " + "; ".join(against))
    console.print("yes: a run with this model and these problems has something to learn from", style="bold green")


def _train_split(more: Sequence[str]) -> str:
    """Return the split of the problems, from the further options."""
    given = dict(pairwise(more))
    return given.get("--dataset_train_split", "train")
