"""Problems of any data set that `attnpo train` reads, written as verl reads them: Parquet, one row per problem."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from attnpo.engines.verl.options import VerlOptions
from attnpo.engines.verl.settings import VERIFIED
from attnpo.rewards.accuracy import AccuracyReward
from attnpo.rewards.pool import VerifierPool
from attnpo.training.problems import ProblemSets, Use, load_sets


def use_of(config: Any) -> Use:
    """What a run with this configuration of verl's wants of its problems, as `attnpo.training.run.use_of`."""
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
    """Read the sets and write both files. Without held-out problems, verl's second file has the first training problem
    and is not used: verl wants one.

    Raises:
        InputError: a data set that cannot be read, as `attnpo train` says it; names the row and column.
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
    """Rows of verl's columns. Other columns of the data set, where there are some, go to `extra_info`."""
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
