"""Compose verl's configuration of a run: verl's defaults, ours, the recipe, the command line, and the forced keys.

A recipe is a YAML file with the sections `attnpo` (this package's options) and `verl` (verl's configuration, nested as
there). On the command line `--credit outcome` is an option of this package and `actor_rollout_ref.rollout.n=8` a key of
verl's configuration; a key that verl's configuration does not have yet begins with `+`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from attnpo.engines.verl.options import VerlOptions
from attnpo.errors import InputError, did_you_mean
from attnpo.training.problems import has_held_out

ENGINE = "attnpo.engines.verl.engine"
REWARD = "pkg://attnpo.engines.verl.reward"
VERIFIED = "VerifiedReward"
"""The reward manager of this package; with any other one, the user's reward function decides what is right."""
AGENT = "single_turn_agent"
"""verl's agent loop that samples one uninterrupted response."""

FORCED: dict[str, Any] = {
    "trainer.use_v1": True,
    "trainer.v1.trainer_mode": "attnpo",
    "algorithm.adv_estimator": "attnpo",
    "actor_rollout_ref.model.external_lib": ENGINE,
    "+actor_rollout_ref.model.model_type": "attnpo",
}
"""The keys that make verl use this package's trainer, estimator and engine. Other values are refused."""

DEFAULTS: dict[str, Any] = {
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.ref.strategy": "fsdp2",
    "actor_rollout_ref.actor.fsdp_config.strategy": "fsdp2",
    "actor_rollout_ref.actor.optim.lr": 2e-6,
    "actor_rollout_ref.rollout.name": "vllm",
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "actor_rollout_ref.actor.use_dynamic_bsz": True,
    "critic.enable": False,  # verl's default, null, means the same but logs a warning
    "data.filter_overlong_prompts": True,
    "reward.reward_manager.source": "importlib",
    "reward.reward_manager.name": VERIFIED,
    "reward.reward_manager.module.path": REWARD,
    "trainer.logger": ["console"],
    "trainer.project_name": "attnpo",
    "trainer.resume_mode": "disable",
}
"""Defaults that replace verl's where verl's do not work here or differ from the paper."""

CPU: dict[str, Any] = {
    "actor_rollout_ref.rollout.name": "attnpo_cpu",
    "actor_rollout_ref.rollout.calculate_log_probs": False,
    "actor_rollout_ref.rollout.free_cache_engine": False,
    "+actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
    "actor_rollout_ref.actor.use_torch_compile": False,
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile": False,
    "actor_rollout_ref.actor.fsdp_config.dtype": "float32",
    "+actor_rollout_ref.actor.fsdp_config.mixed_precision": {
        "param_dtype": "fp32",
        "reduce_dtype": "fp32",
        "buffer_dtype": "fp32",
    },
    "actor_rollout_ref.rollout.agent.num_workers": 1,
    "reward.num_workers": 1,
    "data.dataloader_num_workers": 0,
    "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    "ray_kwargs.ray_init.num_cpus": 16,
    "+ray_kwargs.ray_init.include_dashboard": False,
}
"""Further defaults for `trainer.device=cpu`. Ray only counts CPUs and GPUs; it does not look for the devices."""

Keys = dict[str, Any]
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


@dataclass
class Asked:
    """The user's options of this package, and the keys of verl's configuration in the order in which they are set."""

    options: dict[str, Any] = field(default_factory=dict)
    keys: Keys = field(default_factory=dict)
    check_only: bool = False


def read_arguments(argv: Sequence[str]) -> Asked:
    """Parse a command line.

    Raises:
        InputError: a word that is neither an option with a value nor a key of verl's configuration; a recipe that
            cannot be read; an option's value of the wrong type.
    """
    asked, words = Asked(), list(argv)
    later: list[tuple[str, str]] = []
    keys: Keys = {}
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            name, equals, value = word.removeprefix("--").partition("=")
            if name == "check" and not equals:
                asked.check_only = True
                continue
            if not equals:
                if not words:
                    raise InputError(f"option {name}: found no value, expected --{name} VALUE")
                value = words.pop(0)
            if name == "config":
                read_recipe(Path(value), asked)
            else:
                later.append((name, value))
        elif "=" in word and "." in word.partition("=")[0]:
            name, _, value = word.partition("=")
            keys[name] = number(yaml.safe_load(value)) if value else None
        else:
            raise InputError(
                f"found {word!r}, expected --option VALUE of this package, or verl.key=VALUE of verl's configuration"
            )
    asked.options.update(later)  # the command line has precedence over a recipe, in any order
    asked.keys.update(keys)
    asked.options = typed(asked.options)
    return asked


def read_recipe(file: Path, asked: Asked) -> None:
    """Add the options and keys of a recipe. Raises InputError naming the file and the section."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"option config: {file} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise InputError(f"option config: {file} is not valid YAML: {error}") from None
    if not isinstance(content, dict) or set(content) - {"attnpo", "verl"}:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"option config: {file}: found {found}, expected the sections attnpo and verl")
    for section in ("attnpo", "verl"):
        if not isinstance(content.get(section) or {}, dict):
            raise InputError(f"option config: {file}: section {section}: expected names with values")
    asked.options.update(content.get("attnpo") or {})
    asked.keys.update(flat(content.get("verl") or {}))


def flat(nested: Mapping[str, Any], above: str = "") -> Keys:
    """Flatten `{"a": {"b": 1}}` to `{"a.b": 1}`. The value of a key that begins with `+` is not flattened."""
    found: Keys = {}
    for name, value in nested.items():
        mark, name = ("+", str(name)[1:]) if str(name).startswith("+") else ("", str(name))
        if isinstance(value, Mapping) and value and not mark:
            found.update(flat(value, f"{above}{name}."))
        else:
            found[f"{mark}{above}{name}"] = number(value)
    return found


def number(value: Any) -> Any:
    """Convert text such as `1e-6` to a float: Hydra reads it as a number, YAML as text."""
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def typed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a command line's texts to the types of the options; a recipe's values must have these types already.

    Names that are no options stay as they are: `VerlOptions.of` refuses them. Raises InputError naming the option.
    """
    hints = get_type_hints(VerlOptions)
    known = {field.name: hints[field.name] for field in fields(VerlOptions) if field.name != "correct_reward"}
    return {name: of_type(value, known[name], name) if name in known else value for name, value in options.items()}


def of_type(value: Any, hint: Any, name: str) -> Any:
    """Convert `value` to `hint`: one of str, bool, int, float, dict[…], or such a type `| None`.

    A text is read as YAML unless the type is str; `null` and `none` are None where the type allows it. An int is
    accepted as a float, and a number becomes text for a str (`--credit_threshold 0.5`).

    Raises:
        InputError: a value of another type, naming the option `name`.
    """
    alternatives = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    optional = type(None) in alternatives
    kind = get_origin(alternatives[0]) or alternatives[0]
    found = value
    if isinstance(found, str) and kind is not str:
        try:
            found = number(yaml.safe_load(found))
        except yaml.YAMLError as error:
            raise InputError(f"option {name}: found {value!r}: {error}") from None
    if optional and isinstance(found, str) and found.lower() in ("null", "none"):
        found = None
    if found is None and optional:
        return None
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    if kind is str and is_number:
        return str(found)
    if kind in (int, float):
        fits = is_number and (kind is float or isinstance(found, int))
    else:
        fits = isinstance(found, kind)
    if not fits:
        expected = hint.__name__ if isinstance(hint, type) else str(hint)
        raise InputError(f"option {name}: found {found!r}, expected {expected}")
    return found


def put(config: Any, name: str, value: Any) -> None:
    """Set one key of verl's configuration. Raises InputError for an unknown key, unless `name` begins with `+`."""
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    path = name.removeprefix("+")
    try:
        if name.startswith("+"):
            with open_dict(config):
                OmegaConf.update(config, path, value, force_add=True)
        elif not _has(config, path):
            known = sorted(map(str, keys_of(config)))
            hint = did_you_mean(path, known)
            raise InputError(f"verl has no key {path}{hint} (a key that is to be added begins with +)")
        else:
            OmegaConf.update(config, path, value)
    except OmegaConfBaseException as error:
        raise InputError(f"key {path} of verl's configuration: {error}") from error


def _has(config: Any, path: str) -> bool:
    node = config
    for part in path.split("."):
        if not hasattr(node, "keys") or part not in node.keys():  # noqa: SIM118 - `in node` is false for missing values
            return False
        node = node._get_node(part)
    return True


def keys_of(config: Any, above: str = "") -> Iterator[str]:
    """Yield every dotted key of a configuration."""
    for name in config.keys():  # noqa: SIM118
        yield f"{above}{name}"
        node = config._get_node(name)
        if hasattr(node, "keys") and not node._is_none() and not node._is_interpolation() and not node._is_missing():
            yield from keys_of(node, f"{above}{name}.")


def compose(asked: Asked) -> Any:
    """Return verl's complete configuration of a run, with this package's options as its section `attnpo`.

    Raises:
        InputError: a key that verl does not have, or another value for a key in FORCED.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from omegaconf import open_dict

    options = VerlOptions.of(asked.options)
    options.output_dir = str(Path(options.output_dir).absolute())  # verl's processes have other working directories
    check_files(options, asked.keys)
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = hydra_compose("ppo_trainer")
    on_cpu = asked.keys.get("trainer.device") == "cpu"
    layers = [DEFAULTS, CPU if on_cpu else {}, of_options(options), asked.keys]
    forced = {name.removeprefix("+"): value for name, value in FORCED.items()}
    for name, value in asked.keys.items():
        wanted = forced.get(name.removeprefix("+"), value)
        if wanted != value:
            raise InputError(f"key {name} of verl's configuration: found {value!r}, expected {wanted!r} with attnpo")
    for layer in [*layers, FORCED]:
        for name, value in layer.items():
            put(config, name, value)
    if config.reward.custom_reward_function.path is not None and "reward.reward_manager.name" not in asked.keys:
        for name, value in (("source", "register"), ("name", "naive")):  # calls the user's reward function
            put(config, f"reward.reward_manager.{name}", value)
    if options.dataset_name is not None and not has_held_out(options):
        evaluate_nothing(config, asked.keys)
    if on_cpu:
        workers = config.trainer.n_gpus_per_node * config.trainer.nnodes
        put(config, "+ray_kwargs.ray_init.num_gpus", workers)
    sequence = config.actor_rollout_ref.actor.ulysses_sequence_parallel_size
    put(config, "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size", sequence)
    options.max_completion_length = config.data.max_response_length
    options.check()
    with open_dict(config):
        config.attnpo = options.given()
    return config


def check_files(options: VerlOptions, keys: Keys) -> None:
    """Raise InputError if problems come from two places: those of `dataset_name` would overwrite verl's files."""
    for name in keys:
        if options.dataset_name is not None and name.removeprefix("+") in ("data.train_files", "data.val_files"):
            raise InputError(
                f"key {name} of verl's configuration: found {keys[name]!r} with the option dataset_name "
                f"{options.dataset_name!r}, expected one of the two: both specify where the problems are"
            )


NO_EVALUATION: Keys = {"trainer.test_freq": -1, "trainer.val_before_train": False, "trainer.val_only": False}


def evaluate_nothing(config: Any, asked: Keys) -> None:
    """Turn verl's evaluations off: without held-out problems it would evaluate on training problems.

    Raises:
        InputError: the user's keys request evaluations.
    """
    for name in NO_EVALUATION:
        found = asked.get(name)
        if found is not None and found > 0:
            off = " ".join(
                f"{key}={str(value).lower()}" for key, value in NO_EVALUATION.items() if asked.get(key, -1) > 0
            )
            raise InputError(
                f"key {name} of verl's configuration: found {found!r}, but there are no held-out problems; give "
                f"--eval_dataset_name, or {off}"
            )
    for name, value in NO_EVALUATION.items():
        put(config, name, value)


def of_options(options: VerlOptions) -> Keys:
    """Return the keys of verl's configuration that follow from this package's options."""
    folder = Path(options.output_dir)
    keys: Keys = {
        "trainer.default_local_dir": str(folder / "verl"),
        "trainer.experiment_name": folder.name,
    }
    if options.resume:
        keys["trainer.resume_mode"] = "auto"
    if options.dataset_name is not None:
        keys["data.train_files"] = str(folder / "data" / "train.parquet")
        keys["data.val_files"] = str(folder / "data" / "eval.parquet")
    return keys
