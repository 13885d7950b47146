"""Problems to train on, from the built-in task, a local file, or a data set of the Hub, in one form.

Every source becomes a `datasets.Dataset` with the columns prompt, problem, reference and id. `data/columns.py` finds
the columns of a file that contain them, `data/references.py` the answer in a cell.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetsError
from jinja2 import TemplateError

from attnpo.data.columns import find_columns
from attnpo.data.jsonl import read_jsonl, row_name, type_name
from attnpo.data.targets import PLACE, TARGET_COLUMN, LengthTargets, add_targets, check_place
from attnpo.errors import InputError

BUILT_IN = "task"
LOCAL_FORMATS = {".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}


def load_rows(
    source: str, *, config: str | None = None, split: str = "train", revision: str | None = None
) -> list[dict[str, Any]]:
    """Rows of a local file (.jsonl, .jsonl.gz, .json with lines or one array, .parquet, .csv) or of a Hub data set.

    Raises:
        InputError: a file that is missing, malformed (row named) or empty; a data set or split that cannot be loaded.
    """
    path = Path(source)
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in (".jsonl", ".json"):
        rows = _json_array(path) if suffix == ".json" and path.is_file() else None
        rows = list(read_jsonl(path)) if rows is None else rows
    else:
        try:
            if path.is_file():
                if suffix not in LOCAL_FORMATS:
                    known = ", ".join([".jsonl", ".json", *LOCAL_FORMATS])
                    raise InputError(f"{source}: found a file of type {suffix or 'none'}, expected one of {known}")
                loaded = load_dataset(LOCAL_FORMATS[suffix], data_files=str(path), split="train")
            else:
                loaded = load_dataset(source, config, split=split, revision=revision)
        except (OSError, ValueError, DatasetsError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"data set {source!r} (split {split!r}) cannot be loaded: {error.__cause__ or error}. Expected "
                f"'{BUILT_IN}', a local file, or the name of a data set on the Hub"
            ) from error
        assert not isinstance(loaded, DatasetDict)
        rows = [dict(row) for row in loaded]
    if not rows:
        raise InputError(f"data set {source!r}: found no rows, expected at least one problem")
    return rows


def _json_array(path: Path) -> list[dict[str, Any]] | None:
    """The objects of a file that is one JSON array, a common form of data sets; None for any other file."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:  # JSON Lines, gzip, or malformed: left to the reader of lines
        return None
    if not isinstance(content, list):
        return None
    for number, row in enumerate(content, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{row_name(path, number)}: found {type_name(row)}, expected an object")
    return content


@dataclass(frozen=True)
class Problems(Sequence[dict[str, Any]]):
    """The problems of one source, as a sequence of rows.

    Attributes:
        rows: {"id", "problem", "reference"}, and "turns", the messages before the problem, if there are any.
        recognised: the columns that were read and how, in one line.
    """

    rows: list[dict[str, Any]]
    recognised: str

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, at: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self.rows[at]


def to_problems(
    rows: Sequence[dict[str, Any]],
    source: str,
    *,
    problem_column: str | None = None,
    reference_column: str | None = None,
) -> Problems:
    """Convert rows of any data set to problems; InputError names the row and column of the first bad value.

    The columns are dotted paths; by default those of well-known data sets are tried (`attnpo.data.columns`).
    """
    columns = find_columns(rows, source, problem_column, reference_column)
    read = [columns.read(row, number) for number, row in enumerate(rows, start=1)]
    problems = [
        {"id": str(row.get("id", number)), "problem": problem.text, "reference": problem.reference}
        | ({"turns": problem.turns} if problem.turns else {})
        for number, (row, problem) in enumerate(zip(rows, read, strict=True), start=1)
    ]
    return Problems(problems, columns.sentence(read))


def make_prompts(
    tokenizer: Any,
    problems: Sequence[dict[str, Any]],
    template: str | None,
    targets: LengthTargets | None = None,
) -> Dataset:
    """Add the prompt column: a conversation for tokenizers with a chat template, else plain text.

    `template` is a text containing {problem}: the user's message in a conversation, the complete prompt in plain text.
    Messages before the problem ("turns": a system message, earlier turns) come first in the conversation.
    With `targets`, every prompt states a target length (at the placeholder {length_instruction}, or at the end of the
    user's message), and the column target_length contains it as a number.

    Raises:
        InputError: a template without {problem}, or neither a chat template nor a template; no place for the length;
            messages before a problem and no chat template, or one that refuses them.
    """
    if template is not None and "{problem}" not in template:
        raise InputError(f"option prompt_template: found {template!r}, expected a text containing {{problem}}")
    conversational = bool(getattr(tokenizer, "chat_template", None))
    if template is None and not conversational:
        raise InputError(
            f"the tokenizer of {getattr(tokenizer, 'name_or_path', '') or 'this model'} has no chat template; give "
            "--prompt_template, a text containing {problem}, e.g. 'Problem: {problem}\\n<think>\\n'"
        )

    check_place(template, targets, conversational=conversational)
    frame = "{problem}" if template is None else template

    def render(row: dict[str, Any]) -> Any:
        text = frame
        if targets is not None:
            sentence = targets.sentence(row[TARGET_COLUMN])
            text = text.replace(PLACE, sentence) if PLACE in text else f"{text} {sentence}"
        text = text.replace("{problem}", row["problem"])
        return [*row.get("turns", ()), {"role": "user", "content": text}] if conversational else text

    for row in problems:
        if "turns" in row:
            _check_turns(tokenizer, row, conversational=conversational)
            break
    rows = [{**row, "prompt": render(row)} for row in add_targets(problems, targets)]
    return Dataset.from_list([{key: value for key, value in row.items() if key != "turns"} for row in rows])


def _check_turns(tokenizer: Any, row: dict[str, Any], *, conversational: bool) -> None:
    """Raise InputError if this model's prompts cannot contain the messages before a problem."""
    roles = " and ".join(dict.fromkeys(turn["role"] for turn in row["turns"]))
    found = f"problem {row['id']}: its prompt has messages of {roles} before the problem"
    if not conversational:
        raise InputError(
            f"{found}, and the tokenizer has no chat template to put them in. Name the text of the problem with "
            "--problem_column (prompt.1.content is the second message), and write the rest into --prompt_template"
        )
    try:
        messages = [*row["turns"], {"role": "user", "content": row["problem"]}]
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise InputError(
            f"{found}, which the tokenizer's chat template refuses ({error}). Name the text of the problem with "
            "--problem_column (prompt.1.content is the second message)"
        ) from error


def drop_long_prompts(
    dataset: Dataset, tokenizer: Any, limit: int | None, template_options: dict[str, Any] | None = None
) -> tuple[Dataset, int]:
    """Leave out problems whose prompt has more than `limit` tokens; returns the others and the number left out.

    `template_options`: the trainer's options for the chat template (`chat_template_kwargs`).

    Long prompts are left out, not truncated, because truncating would change the question.
    """
    if limit is None:
        return dataset, 0
    options = template_options or {}
    keep = [i for i, prompt in enumerate(dataset["prompt"]) if prompt_length(tokenizer, prompt, options) <= limit]
    dropped = len(dataset) - len(keep)
    if dropped and not keep:
        raise InputError(f"option max_prompt_length: all {dropped} prompts have more than {limit} tokens")
    return (dataset.select(keep) if dropped else dataset), dropped


def check_enough_problems(dataset: Any, batch: int, group: int) -> None:
    """Raise InputError if the data set cannot fill one batch of `batch` responses, `group` per problem.

    TRL drops a batch that is not full, so such a run would end without a step. Data sets without a length are accepted.
    """
    if not hasattr(dataset, "__len__") or len(dataset) >= batch // group:
        return
    raise InputError(
        f"train_dataset: found {len(dataset)} problems, expected at least {batch // group}: a batch is {batch} "
        f"responses (per_device_train_batch_size × processes × steps_per_generation), {group} per problem. Give more "
        "problems, or a smaller --gradient_accumulation_steps"
    )


def prompt_length(tokenizer: Any, prompt: Any, template_options: dict[str, Any]) -> int:
    """Number of tokens of one prompt as the trainer tokenises it."""
    if isinstance(prompt, str):
        return len(tokenizer(prompt)["input_ids"])
    rendered = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True, **template_options)
    return len(rendered["input_ids"])
