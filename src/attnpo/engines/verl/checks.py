"""What is checked before Ray starts: an hour of a cluster is dear, and some options would be wrong in silence.

verl swallows what goes wrong while it loads extensions, and a worker's error is far from the option that caused it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.version import Version

from attnpo.attention.heads import HEADS, check_heads, load_heads, load_threshold, warn_of_other_model
from attnpo.engines.verl.options import VerlOptions
from attnpo.engines.verl.settings import AGENT, flat
from attnpo.errors import InputError
from attnpo.models import resolve_model
from attnpo.training.method_options import OF_HEADS

VERL = "0.9.1"
"""The release whose methods are overridden; any other has to be tried first (tests/on_verl/test_contract.py)."""

OLD_SECTIONS = {
    "custom_reward_function": "reward.custom_reward_function",
    "reward_model": "reward.reward_model or reward.reward_manager",
    "sandbox_fusion": "reward.sandbox_fusion",
}
"""Sections that verl still has, all null, and where it reads their keys now."""

LOWEST_TRANSFORMERS, ABOVE_TRANSFORMERS = "5.5.3", "5.11"


def check_versions() -> None:
    """Raises InputError where verl, Ray or TransferQueue are not installed, or in releases that do not go together."""
    found = {}
    for package in ("verl", "ray", "TransferQueue", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            raise InputError(
                f"the package {package} is not installed; expected an environment of its own with "
                "pip install 'attnpo[verl]' (docs/verl.md)"
            ) from None
    if found["verl"] != VERL:
        raise InputError(f"verl: found {found['verl']}, expected {VERL}: the methods that are overridden are its own")
    installed = Version(found["transformers"])
    if not Version(LOWEST_TRANSFORMERS) <= installed < Version(ABOVE_TRANSFORMERS):
        raise InputError(
            f"transformers: found {installed}, expected at least {LOWEST_TRANSFORMERS} and below {ABOVE_TRANSFORMERS}, "
            f"which verl {VERL} wants"
        )


OFF = {
    "algorithm.rollout_correction.bypass_mode": "false: without the old-log-prob forward there are no scores",
    "algorithm.use_kl_in_reward": "false: the advantages are formed of the rewards alone; actor.use_kl_loss is another "
    "matter",
    "reward.reward_model.enable": "false: right and wrong come from a verifier",
    "distillation.enabled": "false",
    "actor_rollout_ref.rollout.multi_turn.enable": "false: credit reads the steps of one uninterrupted response",
    "actor_rollout_ref.actor.use_prefix_grouper": "false: prompts shared by several responses are no packed rows",
    "critic.enable": "null or false: there is no critic",
}
"""Keys of verl's that must be off -> what is expected instead, and why."""


def check_silently_wrong(config: Any) -> None:
    """Raises InputError, naming the key, for settings of verl's under which credit would be wrong or not be there."""
    from omegaconf import OmegaConf

    steps, norm = config.attnpo.credit != "outcome", config.attnpo.advantage == "grpo"
    fine: dict[str, tuple[Callable[[Any], bool], str]] = {
        key: (lambda found: not found, expected) for key, expected in OFF.items()
    }
    fine |= {
        "actor_rollout_ref.actor.strategy": (
            lambda found: found in ("fsdp", "fsdp2"),
            "fsdp2 (or fsdp): the scores come out of that engine",
        ),
        "actor_rollout_ref.rollout.agent.default_agent_loop": (
            lambda found: found == AGENT,
            f"{AGENT}: credit reads the steps of one uninterrupted response",
        ),
        "actor_rollout_ref.model.use_fused_kernels": (
            lambda found: not (found and steps),
            "false: they replace the model's forward, and this was not tried",
        ),
        "actor_rollout_ref.actor.policy_loss.loss_mode": (
            lambda found: found == "vanilla" or not steps,
            "vanilla: others weigh whole sequences, or were not tried with an advantage per token",
        ),
        "trainer.v1.sampler.custom_sampler.path": (lambda found: found is None, "null: groups must be whole"),
        "trainer.balance_batch": (bool, "true"),
        "algorithm.norm_adv_by_std_in_grpo": (
            lambda found: found or not norm,
            "true with --advantage grpo; --advantage dr_grpo is the one that does not divide by the deviation",
        ),
    }
    for key, (allowed, expected) in fine.items():
        found = OmegaConf.select(config, key)
        if not allowed(found):
            raise InputError(f"key {key} of verl's configuration: found {found!r}, expected {expected}")
    check_old_sections(config)
    check_sequence_parallel(config)


def check_old_sections(config: Any) -> None:
    """Raises InputError for keys of rewards where verl had them before: it takes them, and reads others."""
    from omegaconf import OmegaConf

    for section, now in OLD_SECTIONS.items():
        for name, value in flat(OmegaConf.to_container(config[section])).items():
            if value is not None and value is not False:
                raise InputError(
                    f"key {section}.{name} of verl's configuration: found {value!r}, expected null: verl {VERL} does "
                    f"not read it here, but below {now}"
                )


def check_sequence_parallel(config: Any) -> None:
    """Raises InputError where Ulysses would leave each process with its part of the row only, or cannot be cut."""
    actor, model = config.actor_rollout_ref.actor, config.actor_rollout_ref.model
    size = actor.ulysses_sequence_parallel_size
    if size <= 1:
        return
    attention = model.override_config.get("attn_implementation", "flash_attention_2")
    if "flash" not in str(attention):
        raise InputError(
            f"key actor_rollout_ref.model.override_config.attn_implementation of verl's configuration: found "
            f"{attention!r} with actor.ulysses_sequence_parallel_size {size}, expected flash_attention_2: verl "
            "exchanges the parts of a row below flash attention only, and its log-probabilities would be wrong as well"
        )
    if not model.use_remove_padding:
        raise InputError(
            "key actor_rollout_ref.model.use_remove_padding of verl's configuration: found false with "
            f"actor.ulysses_sequence_parallel_size {size}, expected true"
        )
    workers = config.trainer.n_gpus_per_node * config.trainer.nnodes
    if workers % size:
        raise InputError(
            f"key actor_rollout_ref.actor.ulysses_sequence_parallel_size of verl's configuration: found {size}, "
            f"expected a divisor of {workers}, the number of workers"
        )


def check_batch(config: Any) -> None:
    """Raises InputError for sizes that leave a group without a baseline, or an update without a whole batch."""
    options = VerlOptions.of(config.attnpo)
    options.check_group(config.actor_rollout_ref.rollout.n)
    size, update = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    if size % update:
        raise InputError(
            f"key actor_rollout_ref.actor.ppo_mini_batch_size of verl's configuration: found {update}, expected a "
            f"divisor of data.train_batch_size, {size}; both count problems"
        )


def check_model(config: Any, options: VerlOptions) -> Path | None:
    """The head file that the run reads, once model, tokenizer, format and heads are known to go together.

    None: the credit method reads no heads, or they are to be found (`heads: auto`).
    Raises InputError as the parts of this package do that are asked; for models with images.
    """
    from transformers import AutoConfig, AutoTokenizer

    from attnpo.steps.detect import check_marks, choose_format
    from attnpo.steps.formats import AUTO
    from attnpo.steps.spans import locate_steps

    name = str(config.actor_rollout_ref.model.path)
    path = resolve_model(name)
    trust = config.actor_rollout_ref.model.trust_remote_code
    try:
        model = AutoConfig.from_pretrained(path, trust_remote_code=trust)
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust)
    except (OSError, ValueError) as error:
        key = "key actor_rollout_ref.model.path of verl's configuration"
        raise InputError(f"{key}: no model {name!r}: {error}") from error
    if getattr(model, "vision_config", None) is not None:
        raise InputError(f"model {name}: found one that reads images, expected a language model")
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(f"model {name}: its tokenizer has no chat template, which verl makes every prompt with")
    chosen = choose_format(options.thinking_format, tokenizer)
    if options.thinking_format != AUTO:
        check_marks(chosen.form, tokenizer)
    locate_steps(tokenizer, tokenizer("a b</think>c")["input_ids"], options.lexicon)
    if "attention" not in options.make_credit().signals:
        return None
    beside = Path(path) / HEADS
    if options.heads == "auto" or (options.heads is None and not beside.is_file()):
        return None
    file = beside if options.heads is None else Path(options.heads)
    heads = load_heads(file)
    warn_of_other_model(file, path)
    check_heads(model, heads, file)
    if options.credit_threshold == OF_HEADS:
        load_threshold(file)
    return file


def check_data(config: Any, written: Path | None) -> None:
    """Raises InputError for files that verl could not read, naming file, row and column.

    `written`: the folder in which the files lie before the run folder gets them; None: where the keys say.
    """
    from attnpo.data.problems import load_rows

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
    """Raises InputError for a row without a conversation or without the right answer where verl looks for it."""
    messages = row.get(prompt)
    fits = isinstance(messages, list) and messages and all(isinstance(m, dict) and "content" in m for m in messages)
    if not fits:
        raise InputError(f"{where}: column {prompt!r} is {messages!r}, expected a list of messages")
    judged = row.get("reward_model")
    if not isinstance(judged, dict) or judged.get("ground_truth") in (None, ""):
        raise InputError(
            f"{where}: column 'reward_model' is {judged!r}, expected {{'ground_truth': the right answer, …}}; with "
            "--dataset_name FILE the columns of other data sets are read, and written as verl wants them"
        )
    if "data_source" not in row:
        raise InputError(f"{where}: no column 'data_source', a name of the data set, which verl sorts evaluations by")
    agent = row.get("agent_name", AGENT)
    if agent != AGENT:
        raise InputError(
            f"{where}: column 'agent_name' is {agent!r}, expected {AGENT!r} or no such column: credit reads the steps "
            "of one uninterrupted response"
        )
