"""The options of a run: where its problems come from, TRL's and ours, from flags and a YAML file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from transformers.trainer_utils import get_last_checkpoint
from trl import ModelConfig, TrlParser

from attnpo.data.problems import BUILT_IN
from attnpo.errors import InputError
from attnpo.training.config import AttnPOConfig


@dataclass
class DataConfig:
    """Which problems to train and evaluate on."""

    dataset_name: str = field(
        default=BUILT_IN,
        metadata={"help": "'task' (the built-in one), a local .jsonl/.parquet/.csv file, or a Hub data set."},
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_dataset_name: str | None = field(
        default=None,
        metadata={"help": "Held-out problems, as dataset_name. The built-in task brings its own."},
    )
    dataset_test_split: str = field(default="test", metadata={"help": "Split of the held-out data set."})
    problem_column: str | None = field(default=None, metadata={"help": "Column with the problem text."})
    reference_column: str | None = field(default=None, metadata={"help": "Column with the right answer."})
    prompt_template: str | None = field(
        default=None,
        metadata={"help": "Text containing {problem}: the user message, or the whole prompt without a chat template."},
    )
    train_problems: int = field(default=4096, metadata={"help": "Problems made by the built-in task."})
    eval_problems: int = field(default=512, metadata={"help": "Held-out problems used by an evaluation, at most."})
    task_difficulty: str | None = field(default=None, metadata={"help": "Built-in task: 2, or 1-3."})
    task_seed: int = field(default=0, metadata={"help": "Seed of the built-in task's problems."})


def parse(argv: list[str]) -> tuple[DataConfig, AttnPOConfig, ModelConfig]:
    """Options from the command line and a YAML file, by TRL's parser.

    Raises:
        InputError: an option nobody knows, a file that is missing or no mapping, a value of the wrong type.
    """
    parser = TrlParser([DataConfig, AttnPOConfig, ModelConfig], prog="attnpo train")
    try:
        return parser.parse_args_and_config(argv)  # pyright: ignore[reportReturnType]
    except FileNotFoundError as error:
        raise InputError(f"option config: no file {error.filename!r}") from None
    except yaml.YAMLError as error:
        raise InputError(f"option config: not valid YAML: {error}") from None
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, InputError) else InputError(str(error)) from error


def checkpoint_to_resume(args: AttnPOConfig) -> str | None:
    """The checkpoint `resume_from_checkpoint` means: a path, or the last one of the run for true.

    Raises:
        InputError: there is none.
    """
    asked = args.resume_from_checkpoint
    if asked is None or str(asked).lower() in ("false", "none", ""):
        return None
    if str(asked).lower() == "true":
        last = get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
        if last is None:
            raise InputError(f"option resume_from_checkpoint: no checkpoint in {args.output_dir}")
        return last
    if not (Path(asked) / "trainer_state.json").is_file():
        raise InputError(f"option resume_from_checkpoint: {asked} is no checkpoint (it has no trainer_state.json)")
    return str(asked)


def resolved_options(data: DataConfig, args: AttnPOConfig, model_config: ModelConfig) -> dict[str, Any]:
    """All options with the values of this run, by name."""
    # What TRL derives from other options and forbids beside them would make the file unreadable as input.
    derived = {"generation_batch_size", "resume_from_checkpoint"}
    options = {**asdict(data), **args.to_dict(), **asdict(model_config)}
    return {key: value for key, value in options.items() if key not in derived and value is not None}
