"""Where the problems of a run come from: made by the built-in task, or the rows of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnpo.data.problems import BUILT_IN, load_rows
from attnpo.task.dataset import build_dataset
from attnpo.task.problems import parse_difficulty
from attnpo.task.traces import redundant_style


def source_rows(
    source: str, options: Any, *, held_out: bool, config: str | None = None, split: str = "train"
) -> Sequence[dict[str, Any]]:
    """The rows of `source`, held-out ones at most `options.eval_problems`.

    options: with the fields train_problems, eval_problems, task_difficulty, task_redundancy and task_seed, as
    `attnpo train` and `attnpo verl` have them. config, split: of a data set that has several.
    Raises InputError for a source that cannot be read, or a difficulty that is none.
    """
    if source == BUILT_IN:
        count = options.eval_problems if held_out else options.train_problems
        difficulty = parse_difficulty(options.task_difficulty, "task_difficulty")
        style = redundant_style(options.task_redundancy)
        return build_dataset(count, options.task_seed, "test" if held_out else "train", difficulty, style)
    rows = load_rows(source, config=config, split=split)
    return rows[: options.eval_problems] if held_out else rows
