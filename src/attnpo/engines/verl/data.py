"""Problems in verl's columns: written from any data set that `attnpo train` reads, and checked before a run.

verl's format is Parquet with one row per problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from attnpo.data.problems import load_rows
from attnpo.engines.verl.options import VerlOptions
from attnpo.engines.verl.settings import AGENT, VERIFIED
from attnpo.errors import InputError
from attnpo.rewards.accuracy import AccuracyReward
from attnpo.rewards.pool import VerifierPool
from attnpo.training.problems import ProblemSets, Use, load_sets


def use_of(config: Any) -> Use:
    """Return how a run with this verl configuration uses its problems; see `attnpo.training.run.use_of`."""
    data, own = config.data, config.reward.reward_manager.name != VERIFIED
    return Use(
        verified=not own,
        keeps_columns=own,
        max_prompt_tokens=data.max_prompt_length if data.filter_overlong_prompts else None,
        template_options=dict(data.get("apply_chat_template_kwargs", None) or {}),
    )


def write_problems(
    options: VerlOptions, use: Use, tokenizer: Any, train: Path, held_out: Path, say: Callable[[str], Any]
) -> ProblemSets:
    """Read the training and held-out problems and write one file of each.

    Without held-out problems the second file contains the first training problem: verl requires the file, but
    evaluations are off.

    Raises:
        InputError: a data set that cannot be read, with the message of `attnpo train`, which names row and column.
    """
    assert options.dataset_name is not None
    with VerifierPool(1) as pool:
        sets = load_sets(options, tokenizer, AccuracyReward(pool), say, use)
    second = sets.train.select([0]) if sets.held_out is None else sets.held_out
    name = options.eval_dataset_name or options.dataset_name
    for file, rows, source in ((train, sets.train, options.dataset_name), (held_out, second, name)):
        file.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_list(rows_of(rows, source)).to_parquet(str(file))
    return sets


def rows_of(problems: Iterable[Any], source: str) -> list[dict[str, Any]]:
    """Return rows with verl's columns. Any other columns of the data set go to `extra_info`."""
    used = ("prompt", "problem", "reference", "id")
    return [
        {
            "data_source": Path(source).stem,
            "prompt": row["prompt"],
            "reward_model": {"style": "rule", "ground_truth": str(row["reference"])},
            "extra_info": {**_other(row, used), "index": place, "place": place, "id": str(row["id"])},
        }
        for place, row in enumerate(problems)
    ]


def _other(row: Mapping[str, Any], used: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in used}


def check_data(config: Any, written: Path | None) -> None:
    """Raise InputError for files that verl could not read, naming file, row and column.

    `written`: the temporary folder that holds the files before they are copied to the run folder; None: the files are
    at the paths of the keys.
    """
    group = config.data.train_batch_size
    for key in ("train_files", "val_files"):
        given = config.data[key] if written is None else str(written / Path(config.data[key]).name)
        for file in [given] if isinstance(given, str) else list(given or []):
            if not Path(file).expanduser().is_file():
                raise InputError(f"key data.{key} of verl's configuration: no file {file}")
            rows = load_rows(str(Path(file).expanduser()))
            for number, row in enumerate(rows, start=1):
                check_row(row, f"{file}: row {number}", str(config.data.prompt_key))
            if key == "train_files" and len(rows) < group and isinstance(given, str):
                raise InputError(
                    f"{file}: found {len(rows)} problems, expected at least data.train_batch_size, {group}: verl drops "
                    "a batch that is not full"
                )


def check_row(row: dict[str, Any], where: str, prompt: str) -> None:
    """Raise InputError for a row that lacks a conversation or a reference answer in the columns that verl reads."""
    messages = row.get(prompt)
    fits = isinstance(messages, list) and messages and all(isinstance(m, dict) and "content" in m for m in messages)
    if not fits:
        raise InputError(f"{where}: column {prompt!r} is {messages!r}, expected a list of messages")
    judged = row.get("reward_model")
    if not isinstance(judged, dict) or judged.get("ground_truth") in (None, ""):
        raise InputError(
            f"{where}: column 'reward_model' is {judged!r}, expected {{'ground_truth': the right answer, …}}; "
            "--dataset_name FILE reads the columns of other data sets and writes them in verl's format"
        )
    if "data_source" not in row:
        raise InputError(f"{where}: no column 'data_source', the data set's name, by which verl groups evaluations")
    agent = row.get("agent_name", AGENT)
    if agent != AGENT:
        raise InputError(
            f"{where}: column 'agent_name' is {agent!r}, expected {AGENT!r} or no such column: credit reads the steps "
            "of one uninterrupted response"
        )
