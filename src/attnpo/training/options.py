"""The options of `attnpo train`: read from a YAML file and the command line, checked by type, and resolved."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from itertools import pairwise
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml
from transformers.utils.import_utils import is_bitsandbytes_available
from trl.scripts.utils import TrlParser
from trl.trainer.model_config import ModelConfig
from trl.trainer.utils import get_quantization_config

from attnpo.checks import read_escapes
from attnpo.data.problems import BUILT_IN
from attnpo.errors import InputError, closest
from attnpo.training.checkpoints import state_of_checkpoint
from attnpo.training.config import AttnPOConfig, PlannedConfig

_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}


def typed_value(option: str, value: Any, hint: Any) -> Any:
    """Convert `value` to the type of the option; strings are left to the parser, which reads them as command-line text.

    Raises:
        InputError: a value of another type; names the option, the value found and the type expected.
    """
    arms = _arms(hint)
    if Any in arms:
        return value
    enums = [arm for arm in arms if isinstance(arm, type) and issubclass(arm, Enum)]
    if value is False and enums:
        value = "no"  # YAML reads a bare `no`, as in `eval_strategy: no`, as false
    choices = [member.value for arm in enums for member in arm]
    choices += [choice for arm in arms if get_origin(arm) is Literal for choice in get_args(arm)]
    if choices and isinstance(value, str):
        if value in choices:
            return value
        raise InputError(f"option {option}: found {value!r}, expected one of {', '.join(map(str, choices))}")
    if isinstance(value, str) and {str, bool, int, float}.intersection(arms):
        return value
    if any(_fits(value, arm) for arm in arms):
        return float(value) if float in arms and int not in arms and type(value) is int else value
    if isinstance(value, str) and list[str] in arms:
        return [value]  # `lora_target_modules: all-linear`, which is also how TRL leaves a list of one
    if str in arms and type(value) in (int, float):
        return str(value)  # `task_difficulty: 2`
    expected = " or ".join(dict.fromkeys(_NAMES.get(get_origin(arm) or arm, str(arm)) for arm in arms))
    raise InputError(f"option {option}: found {value!r}, expected {expected}")


def _arms(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [inner for arm in get_args(hint) for inner in _arms(arm)]
    return [hint]


def _fits(value: Any, arm: Any) -> bool:
    origin = get_origin(arm) or arm
    if origin is list:
        inner = get_args(arm) or (Any,)
        return isinstance(value, list) and all(inner[0] is Any or _fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, Mapping)
    if origin is float:
        return type(value) in (int, float)
    return type(value) is origin


@dataclass
class DataConfig:
    """The problems to train and evaluate on."""

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
    problem_column: str | None = field(
        default=None, metadata={"help": "Column with the problem: text or messages. a.b: field b of a."}
    )
    reference_column: str | None = field(
        default=None, metadata={"help": "Column with the right answer. a.b: field b of a."}
    )
    reward_funcs: list[str] | None = field(
        default=None,
        metadata={
            "help": "Reward functions: accuracy (the verifier, default), MODULE:FUNCTION of your own (in TRL's shape), "
            "or TRL's accuracy_reward, think_format_reward, …; weighted by reward_weights."
        },
    )
    system_prompt: str | None = field(
        default=None, metadata={"help": "A system message before every problem, for models with a chat template."}
    )
    prompt_template: str | None = field(
        default=None,
        metadata={
            "help": "Text containing {problem}: the user message, or the complete prompt without a chat template. \\n "
            "is a line break."
        },
    )
    max_prompt_length: int | None = field(
        default=1024,
        metadata={"help": "Problems with longer prompts, in tokens, are left out and counted. null (YAML): no limit."},
    )
    train_problems: int = field(default=4096, metadata={"help": "Number of problems of the built-in task."})
    eval_problems: int = field(default=512, metadata={"help": "Maximum number of held-out problems per evaluation."})
    task_difficulty: str | None = field(default=None, metadata={"help": "Built-in task: 2, or 1-3."})
    task_redundancy: float | None = field(
        default=None,
        metadata={
            "help": "Built-in task: mean number of redundant steps of its labelled traces (default: about 5), and, "
            "where no model is named, the shipped model that writes about as many."
        },
    )
    task_seed: int = field(default=0, metadata={"help": "Seed of the built-in task's problems."})


# A method's own options belong to the choice of the method, on the command line or in the file.
BELONGS_TO = {"length_reward": ("length_alpha", "length_kwargs", "length_eval_target"), "credit": ("credit_kwargs",)}


class OptionParser(TrlParser):
    """TRL's parser with InputErrors, which checks the values of a YAML file against the types of their options.

    chosen: methods given on the command line; the YAML file's options of the methods they replace are left out.
    """

    chosen: dict[str, str]

    def error(self, message: str) -> NoReturn:
        """Raise argparse's message as InputError, without the list of all options."""
        raise InputError(re.sub(r"^argument --(\w+)\S*:", r"option \1:", message))

    def set_defaults_with_config(self, **kwargs: Any) -> list[str]:
        for choice, name in self.chosen.items():
            if kwargs.get(choice, self.get_default(choice)) != name:
                kwargs = {key: value for key, value in kwargs.items() if key not in BELONGS_TO[choice]}
        hints = {}
        for options in self.dataclass_types:
            hints.update(get_type_hints(options))
        return super().set_defaults_with_config(
            **{name: typed_value(name, value, hints.get(name, Any)) for name, value in kwargs.items()}
        )


def parse(argv: list[str], *, planned: bool = False) -> tuple[DataConfig, AttnPOConfig, ModelConfig]:
    """Read the options from the command line and a YAML file, by TRL's parser.

    planned: for a run on another machine; neither its GPU nor its packages are required here.

    Raises:
        InputError: an unknown option, a file that is missing or not a mapping, a value of the wrong type.
    """
    # No abbreviations: a misspelt `--learning_rat` must not be accepted as another option.
    parts: Any = [DataConfig, PlannedConfig if planned else AttnPOConfig, ModelConfig]
    parser = OptionParser(parts, prog="attnpo train", allow_abbrev=False)
    parser.chosen = _chosen(argv)
    try:
        data, args, model_config, in_file, on_line = parser.parse_args_and_config(
            argv, return_remaining_strings=True, separate_remaining_strings=True
        )
    except OSError as error:
        raise InputError(f"option config: {error.filename} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise InputError(f"option config: not valid YAML: {error}") from None
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, InputError) else InputError(str(error)) from error
    if in_file or on_line:
        raise InputError(_unknown(parser, [*in_file, *on_line], "the YAML file" if in_file else "the command line"))
    if data.prompt_template is not None:
        data.prompt_template = read_escapes(data.prompt_template)
    if data.system_prompt is not None:
        data.system_prompt = read_escapes(data.system_prompt)
    check_quantised(model_config, here=not planned)
    return data, args, model_config


def quantised(model_config: ModelConfig) -> list[str]:
    """Return the options that request quantised weights."""
    return [option for option in ("load_in_4bit", "load_in_8bit") if getattr(model_config, option)]


def check_quantised(model_config: ModelConfig, *, here: bool = True) -> None:
    """Raise InputError where a quantised model is requested that cannot be trained, or not be loaded `here`."""
    requested = quantised(model_config)
    if not requested:
        return
    if not model_config.use_peft:
        raise InputError(
            f"option {requested[0]}: found true without use_peft; quantised weights cannot be trained. Add "
            "--use_peft true (QLoRA)"
        )
    if here and not is_bitsandbytes_available():
        raise InputError(
            f"option {requested[0]}: the package bitsandbytes is not installed or has no device here: pip install "
            "bitsandbytes, on a machine with an NVIDIA GPU"
        )


def _chosen(argv: list[str]) -> dict[str, str]:
    """Return the credit method and length reward given on the command line."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    pairs = pairwise(words)
    return {word.removeprefix("--"): value for word, value in pairs if word.removeprefix("--") in BELONGS_TO}


def _meant(name: str, known: list[str]) -> str | None:
    """Return the option that was probably meant: up to three that begin with `name`, else one spelt alike."""
    longer = [option for option in known if option.startswith(f"{name}_")]
    if 0 < len(longer) <= 3:
        return " or ".join(longer)
    return closest(name, known)


def _unknown(parser: OptionParser, rest: list[str], where: str) -> str:
    known = [name.removeprefix("--") for action in parser._actions for name in action.option_strings[:1]]
    names = [word.removeprefix("--").partition("=")[0] for word in rest if word.startswith("--")]
    if not names:
        return f"found {' '.join(rest)!r} on the command line, expected options only (--name value)"
    guesses = {name: guess for name in names if (guess := _meant(name, known)) is not None}
    if len(names) > 1:
        guesses = {name: f"{guess} for {name}" for name, guess in guesses.items()}
    hint = f"; did you mean {', '.join(guesses.values())}?" if guesses else "; `attnpo train --help-all` lists them all"
    return f"unknown option {', '.join(names)} in {where}{hint}".replace("in the command", "on the command")


def is_complete(checkpoint: str, max_steps: int) -> bool:
    """Whether the checkpoint is of step `max_steps` or later; False where epochs decide (max_steps ≤ 0)."""
    return 0 < max_steps <= state_of_checkpoint(checkpoint)["global_step"]


def model_kwargs(model_config: ModelConfig) -> dict[str, Any]:
    """Return the arguments for loading the model, where `model_init_kwargs` is not given."""
    options: dict[str, Any] = {"dtype": model_config.dtype or "float32", "revision": model_config.model_revision}
    if model_config.attn_implementation:
        options["attn_implementation"] = model_config.attn_implementation
    quantisation = get_quantization_config(model_config)
    if quantisation is not None:
        options["quantization_config"] = quantisation
    return options


def resolved_options(data: DataConfig | None, args: AttnPOConfig, model_config: ModelConfig | None) -> dict[str, Any]:
    """Return all options with the values of this run, by name, in the form that --config reads.

    Options that follow from others are left out: stored, they would prevent or outlive a change of those. `data` and
    `model_config` are None for a Python program's run, whose problems and model are objects.
    """
    derived = {
        "generation_batch_size",
        "resume_from_checkpoint",
        "overwrite_run",
        "resume_with_changes",
        "scale_rewards",
        "activation_checkpointing",  # gradient_checkpointing under its newer name
        "activation_checkpointing_kwargs",
        *(name for name, value in args.derived.items() if getattr(args, name) == value),
    }
    if args.steps_per_generation == args.gradient_accumulation_steps:
        derived.add("steps_per_generation")
    if model_config is not None and args.model_init_kwargs == model_kwargs(model_config):
        derived.add("model_init_kwargs")
    parts = [part for part in (data, args, model_config) if part is not None]
    options = {
        key: value for part in parts for key, value in (args.to_dict() if part is args else asdict(part)).items()
    }
    defaults = {field.name: field.default for part in parts for field in fields(part)}
    return {
        key: value
        for key, value in options.items()
        if key not in derived
        and not key.endswith("_token")  # secrets
        and not (value is None and defaults[key] is None)
    }
