"""verl's configuration of a run: its defaults, ours, a recipe's, the command line's, and what must be so.

A recipe is a YAML file with the sections `attnpo` (this package's options) and `verl` (verl's configuration, nested as
verl nests it). On the command line `--credit outcome` is an option of this package and
`actor_rollout_ref.rollout.n=8` one of verl's; a key that verl's configuration does not have yet begins with `+`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from attnpo.engines.verl.options import VerlOptions
from attnpo.errors import InputError, did_you_mean
from attnpo.training.problems import has_held_out

ENGINE = "attnpo.engines.verl.engine"
REWARD = "pkg://attnpo.engines.verl.reward"
VERIFIED = "VerifiedReward"
"""The reward manager of this package; under any other a reward function of the user's judges."""
AGENT = "single_turn_agent"
"""The agent loop of verl's that makes one uninterrupted response."""

FORCED: dict[str, Any] = {
    "trainer.use_v1": True,
    "trainer.v1.trainer_mode": "attnpo",
    "algorithm.adv_estimator": "attnpo",
    "actor_rollout_ref.model.external_lib": ENGINE,
    "+actor_rollout_ref.model.model_type": "attnpo",
}
"""What makes verl run this package's trainer, estimator and engine. Another value is refused."""

DEFAULTS: dict[str, Any] = {
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.ref.strategy": "fsdp2",
    "actor_rollout_ref.actor.fsdp_config.strategy": "fsdp2",
    "actor_rollout_ref.actor.optim.lr": 2e-6,
    "actor_rollout_ref.rollout.name": "vllm",
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "actor_rollout_ref.actor.use_dynamic_bsz": True,
    "critic.enable": False,  # its own default says so in a warning
    "data.filter_overlong_prompts": True,
    "reward.reward_manager.source": "importlib",
    "reward.reward_manager.name": VERIFIED,
    "reward.reward_manager.module.path": REWARD,
    "trainer.logger": ["console"],
    "trainer.project_name": "attnpo",
    "trainer.resume_mode": "disable",
}
"""Where verl's own default would not do, or is not the paper's."""

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
"""Further defaults of `trainer.device=cpu`; Ray's processors and GPUs are only counted, not looked for."""

Keys = dict[str, Any]
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


@dataclass
class Asked:
    """What the user has said: this package's options, and verl's keys in the order in which they are put in."""

    options: dict[str, Any] = field(default_factory=dict)
    keys: Keys = field(default_factory=dict)
    check_only: bool = False


def read_arguments(argv: Sequence[str]) -> Asked:
    """A command line.

    Raises:
        InputError: a word that is neither an option with its value nor a key of verl's; a recipe that cannot be read.
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
    asked.options.update(later)  # over the recipe's, wherever it stands
    asked.keys.update(keys)
    asked.options = typed(asked.options)
    return asked


def read_recipe(file: Path, asked: Asked) -> None:
    """Add what a recipe says. Raises InputError naming the file and the section."""
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
    """`{"a": {"b": 1}}` as `{"a.b": 1}`. Keys that begin with `+` are put in whole."""
    found: Keys = {}
    for name, value in nested.items():
        mark, name = ("+", str(name)[1:]) if str(name).startswith("+") else ("", str(name))
        if isinstance(value, Mapping) and value and not mark:
            found.update(flat(value, f"{above}{name}."))
        else:
            found[f"{mark}{above}{name}"] = number(value)
    return found


def number(value: Any) -> Any:
    """`1e-6` as the number that it is to Hydra, and not to YAML."""
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def typed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Texts of a command line as the options' types want them; a value of a recipe must have the type already."""
    hints = get_type_hints(VerlOptions)
    found = {}
    for name, value in options.items():
        hint = str(hints.get(name, "str"))
        if isinstance(value, str) and "str" not in hint.replace("dict[str", ""):
            try:
                value = number(yaml.safe_load(value))
            except yaml.YAMLError as error:
                raise InputError(f"option {name}: found {value!r}: {error}") from None
        if isinstance(value, str) and value.lower() in ("null", "none") and "None" in hint:
            value = None
        wanted = {"bool": bool, "int": int, "float": (int, float), "dict": dict}
        kinds = [kind for word, kind in wanted.items() if word in hint.split("[")[0] or word in hint.split(" ")[0]]
        fits = not kinds or value is None or isinstance(value, kinds[0])
        if name in hints and (not fits or (isinstance(value, bool) and "bool" not in hint)):
            raise InputError(f"option {name}: found {value!r}, expected {hint.replace('<class ', '').strip('<>')}")
        if "str" in hint and "dict" not in hint and isinstance(value, int | float):
            value = str(value)
        found[name] = value
    return found


def put(config: Any, name: str, value: Any) -> None:
    """Set one key of verl's configuration; InputError for a key that it has not got, unless `name` begins with `+`."""
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
            raise InputError(f"verl has no key {path}{hint} (one that is to be added begins with +)")
        else:
            OmegaConf.update(config, path, value)
    except OmegaConfBaseException as error:
        raise InputError(f"key {path} of verl's configuration: {error}") from error


def _has(config: Any, path: str) -> bool:
    node = config
    for part in path.split("."):
        if not hasattr(node, "keys") or part not in node.keys():  # noqa: SIM118 - of OmegaConf: values may be missing
            return False
        node = node._get_node(part)
    return True


def keys_of(config: Any, above: str = "") -> Iterator[str]:
    """Every dotted key of a configuration."""
    for name in config.keys():  # noqa: SIM118
        yield f"{above}{name}"
        node = config._get_node(name)
        if hasattr(node, "keys") and not node._is_none() and not node._is_interpolation() and not node._is_missing():
            yield from keys_of(node, f"{above}{name}.")


def compose(asked: Asked) -> Any:
    """verl's whole configuration of a run, with this package's options as its section `attnpo`.

    Raises:
        InputError: a key that verl has not got, or another value where only one works.
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
        for name, value in (("source", "register"), ("name", "naive")):  # the user's function judges
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
    """Raises InputError for problems from two places: those of `dataset_name` would be written over verl's files."""
    for name in keys:
        if options.dataset_name is not None and name.removeprefix("+") in ("data.train_files", "data.val_files"):
            raise InputError(
                f"key {name} of verl's configuration: found {keys[name]!r} with the option dataset_name "
                f"{options.dataset_name!r}, expected one of the two: both say where the problems are"
            )


NO_EVALUATION: Keys = {"trainer.test_freq": -1, "trainer.val_before_train": False, "trainer.val_only": False}


def evaluate_nothing(config: Any, asked: Keys) -> None:
    """Without held-out problems verl would be given training problems to evaluate on. InputError where evaluations are
    asked for."""
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
    """Keys of verl's that follow from this package's options."""
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
