"""Problems of any data set that `attnpo train` reads, written as verl reads them: Parquet, one row per problem."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset

from attnpo.checks import read_escapes
from attnpo.data.problems import make_prompts, to_problems
from attnpo.engines.verl.options import VerlOptions
from attnpo.errors import InputError
from attnpo.rewards.accuracy import AccuracyReward
from attnpo.rewards.pool import VerifierPool
from attnpo.task.source import source_rows


def write_problems(
    options: VerlOptions, tokenizer: Any, train: Path, held_out: Path, say: Callable[[str], Any]
) -> None:
    """Write both files. Without a held-out data set of its own a run has the first problems of the training set there.

    Raises:
        InputError: a data set that cannot be read, as `attnpo train` says it; names the row and column.
    """
    assert options.dataset_name is not None
    with VerifierPool(1) as pool:
        for file, is_held_out in ((train, False), (held_out, True)):
            rows = problems(options, tokenizer, AccuracyReward(pool), say, held_out=is_held_out)
            file.parent.mkdir(parents=True, exist_ok=True)
            Dataset.from_list(rows).to_parquet(str(file))


def problems(
    options: VerlOptions, tokenizer: Any, verifier: AccuracyReward, say: Callable[[str], Any], *, held_out: bool
) -> list[dict[str, Any]]:
    """Rows of verl's columns, without those whose reference the verifier cannot read."""
    source = (options.eval_dataset_name or options.dataset_name) if held_out else options.dataset_name
    assert source is not None
    given = source_rows(source, options, held_out=held_out)
    columns = {"problem_column": options.problem_column, "reference_column": options.reference_column}
    read = to_problems(given, source, **columns)
    unreadable = set(verifier.validate_references([row["reference"] for row in read.rows]))
    found = [row for row in read.rows if row["reference"] not in unreadable]
    if not found:
        raise InputError(f"data set {source!r}: no reference can be read by the verifier; read were: {read.recognised}")
    left_out = f", {len(read.rows) - len(found)} without a reference that can be read left out"
    say(f"{'eval' if held_out else 'train'}: {read.recognised}; {len(found)} problems{left_out if unreadable else ''}")
    template = None if options.prompt_template is None else read_escapes(options.prompt_template)
    rows: Any = make_prompts(tokenizer, found, template)
    if not rows or isinstance(rows[0]["prompt"], str):
        raise InputError(
            f"data set {source!r}: expected a tokenizer with a chat template, with which verl makes prompts"
        )
    return [
        {
            "data_source": Path(source).stem,
            "prompt": row["prompt"],
            "reward_model": {"style": "rule", "ground_truth": str(row["reference"])},
            "extra_info": {"index": place, "place": place, "id": str(row["id"])},
        }
        for place, row in enumerate(rows)
    ]
