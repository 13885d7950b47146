"""Reads and prepares the problems of a run, for `attnpo train` and `attnpo verl`. It needs no TRL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import datasets
from datasets import Dataset

from attnpo.data.problems import BUILT_IN, drop_long_prompts, load_rows, make_prompts, to_problems
from attnpo.data.targets import LengthTargets
from attnpo.errors import InputError
from attnpo.evaluation.contamination import Degree, seen_in_training
from attnpo.rewards.accuracy import AccuracyReward
from attnpo.task.dataset import build_dataset
from attnpo.task.problems import parse_difficulty
from attnpo.task.traces import redundant_style
from attnpo.training.rewards import with_columns

SEEN: dict[Degree, str] = {"same": "word for word", "near": "nearly so"}
"""Degrees of overlap of held-out problems with the training set; problems that differ only in numbers are usual."""

Say = Callable[[str], object]
"""Prints a line."""


class ProblemOptions(Protocol):
    """The options that select problems, common to both engines (docs/data.md)."""

    dataset_name: Any
    dataset_config: str | None
    dataset_train_split: str
    eval_dataset_name: str | None
    dataset_test_split: str
    problem_column: str | None
    reference_column: str | None
    system_prompt: str | None
    prompt_template: str | None
    # Read by `source_rows`: train_problems, eval_problems, task_difficulty, task_redundancy, task_seed.


@dataclass(frozen=True)
class Use:
    """How a run uses its problems.

    Attributes:
        verified: the verifier judges, so that references it cannot read are left out.
        keeps_columns: reward functions may use the other columns of the data set.
        max_prompt_tokens: problems with longer prompts are left out; None: no limit.
        template_options: arguments that the trainer passes to the chat template.
        train_targets, eval_targets: lengths that prompts request.
    """

    verified: bool = True
    keeps_columns: bool = False
    max_prompt_tokens: int | None = None
    template_options: dict[str, Any] = field(default_factory=dict)
    train_targets: LengthTargets | None = None
    eval_targets: LengthTargets | None = None


@dataclass
class ProblemSets:
    """The training set and, where there is one, the held-out set.

    notes: for "train" and "eval" the numbers of problems left out, by reason (for environment.json).
    """

    train: Dataset
    held_out: Dataset | None
    notes: dict[str, dict[str, int]]

    def by_name(self) -> dict[str, Any]:
        return {"train": self.train, "eval": self.held_out}


@contextmanager
def without_bars() -> Iterator[None]:
    """Disable the progress bars of datasets inside the block."""
    if datasets.are_progress_bars_disabled() is not False:
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def has_held_out(options: ProblemOptions) -> bool:
    """Whether a run has held-out problems; the built-in task has its own."""
    return options.eval_dataset_name is not None or options.dataset_name == BUILT_IN


def load_sets(options: ProblemOptions, tokenizer: Any, accuracy: AccuracyReward, say: Say, use: Use) -> ProblemSets:
    """Load both sets of a run. `say` prints the columns read, the numbers of problems, and the numbers left out.

    Raises:
        InputError: see `load_problems`.
    """
    train, counts = load_problems(options, tokenizer, accuracy, say, use, held_out=False)
    sets = ProblemSets(train, None, {"train": counts})
    if has_held_out(options):
        sets.held_out, sets.notes["eval"] = load_problems(options, tokenizer, accuracy, say, use, held_out=True)
    for name, counts in sets.notes.items():
        left_out = ", ".join(f"{count} {why}" for why, count in counts.items() if count and why != "problems")
        say(f"{name}: {counts['problems']} problems" + (f" (left out: {left_out})" if left_out else ""))
    if sets.held_out is None:
        say("no held-out problems: nothing is evaluated (--eval_dataset_name)")
    return sets


def load_problems(
    options: ProblemOptions, tokenizer: Any, accuracy: AccuracyReward, say: Say, use: Use, *, held_out: bool
) -> tuple[Dataset, dict[str, int]]:
    """Load usable problems with prompts; returns them and the numbers of all and of those left out.

    Left out are prompts over `use.max_prompt_tokens` and, where the verifier judges, references that it cannot read.
    `say` prints the columns of the data set that were read.

    Raises:
        InputError: a data set that cannot be read or has no usable problem; names it, the row and the column.
    """
    name = (options.eval_dataset_name or options.dataset_name) if held_out else options.dataset_name
    split = options.dataset_test_split if held_out else options.dataset_train_split
    rows = source_rows(name, options, held_out=held_out, config=options.dataset_config, split=split)
    found = to_problems(rows, name, problem_column=options.problem_column, reference_column=options.reference_column)
    problems = with_columns(found.rows, rows) if use.keeps_columns else found.rows
    if name != BUILT_IN:
        say(f"{'eval' if held_out else 'train'}: {found.recognised}")
    # Other reward functions and a judge may be able to use a reference that the verifier cannot read.
    references = [row["reference"] for row in problems] if use.verified else []
    unreadable = set(accuracy.validate_references(references)) if references else set()
    readable = [row for row in problems if row["reference"] not in unreadable]
    if not readable:
        raise InputError(
            f"data set {name!r}: no reference can be read by the verifier, e.g. {problems[0]['reference'][:200]!r}; "
            f"columns read: {found.recognised}. A worked solution must mark its answer (\\boxed{{…}}, or #### … on its "
            "last line); --reference_column names another column"
        )
    targets = use.eval_targets if held_out else use.train_targets
    dataset = make_prompts(tokenizer, readable, options.prompt_template, targets)
    if options.system_prompt is not None:
        dataset = with_system_prompt(dataset, options.system_prompt)
    dataset, long = drop_long_prompts(dataset, tokenizer, use.max_prompt_tokens, use.template_options)
    counts = {
        "problems": len(dataset),
        "with a reference the verifier cannot read": len(problems) - len(readable),
        f"with a prompt of more than {use.max_prompt_tokens} tokens": long,
    }
    return dataset, counts


def with_system_prompt(dataset: Dataset, text: str) -> Dataset:
    """Put a system message before every conversation, in place of one that it has.

    Raises:
        InputError: prompts without a chat template, which cannot have one.
    """
    if isinstance(dataset[0]["prompt"], str):
        raise InputError(
            "option system_prompt: the tokenizer has no chat template; put the text into --prompt_template"
        )
    first = {"role": "system", "content": text}
    return dataset.map(lambda row: {"prompt": [first, *(m for m in row["prompt"] if m["role"] != "system")]})


def overlap_warnings(sets: dict[str, Any]) -> list[str]:
    """Return a warning where held-out problems are in the training set. `sets`: "train" and "eval" (may be None)."""
    training, held_out = sets["train"], sets["eval"]
    if held_out is None or not all("problem" in (rows.column_names or ()) for rows in (training, held_out)):
        return []
    found = seen_in_training(training["problem"], list(held_out["problem"]))
    overlaps = [f"{found[degree]} {how}" for degree, how in SEEN.items() if degree in found]
    if not overlaps:
        return []
    return [
        f"held-out problems that are also in the training set: {', '.join(overlaps)} of {len(held_out)}. Figures on "
        "them do not show the accuracy on new problems; give others with --eval_dataset_name"
    ]


def source_rows(
    source: str, options: Any, *, held_out: bool, config: str | None = None, split: str = "train"
) -> Sequence[dict[str, Any]]:
    """Load the rows of `source`, at most `options.eval_problems` held-out ones.

    options: has train_problems, eval_problems, task_difficulty, task_redundancy and task_seed, as in `attnpo train` and
    `attnpo verl`. config, split: of a data set that has several.
    Raises InputError for a source that cannot be read, or an invalid difficulty.
    """
    if source == BUILT_IN:
        count = options.eval_problems if held_out else options.train_problems
        difficulty = parse_difficulty(options.task_difficulty, "task_difficulty")
        style = redundant_style(options.task_redundancy)
        return build_dataset(count, options.task_seed, "test" if held_out else "train", difficulty, style)
    rows = load_rows(source, config=config, split=split)
    return rows[: options.eval_problems] if held_out else rows
