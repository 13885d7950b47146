"""Checks before Ray starts: cluster time is expensive, and some of verl's options would silently give wrong credit.

verl hides errors while it loads extensions, and a worker's error does not name the option that caused it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.version import Version

from attnpo.attention.heads import check_heads, file_of_option, load_heads, load_threshold, warn_of_other_model
from attnpo.engines.verl.options import VerlOptions
from attnpo.engines.verl.settings import AGENT, flat
from attnpo.errors import InputError
from attnpo.models import resolve_model
from attnpo.training.method_options import OF_HEADS

VERL = "0.9.1"
"""The release whose methods are overridden; test any other one first (tests/on_verl/test_contract.py)."""

OLD_SECTIONS = {
    "custom_reward_function": "reward.custom_reward_function",
    "reward_model": "reward.reward_model or reward.reward_manager",
    "sandbox_fusion": "reward.sandbox_fusion",
}
"""Sections that verl keeps only with null values -> the sections from which it reads these keys now."""

LOWEST_TRANSFORMERS, ABOVE_TRANSFORMERS = "5.5.3", "5.11"


def check_versions() -> None:
    """Raise InputError if verl, Ray or TransferQueue are not installed, or in incompatible releases."""
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
        raise InputError(f"verl: found {found['verl']}, expected {VERL}: methods of that release are overridden")
    installed = Version(found["transformers"])
    if not Version(LOWEST_TRANSFORMERS) <= installed < Version(ABOVE_TRANSFORMERS):
        raise InputError(
            f"transformers: found {installed}, expected at least {LOWEST_TRANSFORMERS} and below {ABOVE_TRANSFORMERS}, "
            f"as verl {VERL} requires"
        )


OFF = {
    "algorithm.rollout_correction.bypass_mode": "false: without the old-log-prob forward there are no scores",
    "algorithm.use_kl_in_reward": "false: the advantages are computed from the rewards alone; actor.use_kl_loss is "
    "allowed",
    "reward.reward_model.enable": "false: right and wrong come from a verifier",
    "distillation.enabled": "false",
    "actor_rollout_ref.rollout.multi_turn.enable": "false: credit reads the steps of one uninterrupted response",
    "actor_rollout_ref.actor.use_prefix_grouper": "false: a prompt shared by several responses is not a packed row",
    "critic.enable": "null or false: there is no critic",
}
"""Keys of verl's configuration that must be off -> the expected value and the reason."""


def check_silently_wrong(config: Any) -> None:
    """Raise InputError, naming the key, for verl settings with which credit would be silently wrong or missing."""
    from omegaconf import OmegaConf

    steps, norm = config.attnpo.credit != "outcome", config.attnpo.advantage == "grpo"
    fine: dict[str, tuple[Callable[[Any], bool], str]] = {
        key: (lambda found: not found, expected) for key, expected in OFF.items()
    }
    fine |= {
        "actor_rollout_ref.actor.strategy": (
            lambda found: found in ("fsdp", "fsdp2"),
            "fsdp2 (or fsdp): the scores come from that engine",
        ),
        "actor_rollout_ref.rollout.agent.default_agent_loop": (
            lambda found: found == AGENT,
            f"{AGENT}: credit reads the steps of one uninterrupted response",
        ),
        "actor_rollout_ref.model.use_fused_kernels": (
            lambda found: not (found and steps),
            "false: they replace the model's forward, and this is untested",
        ),
        "actor_rollout_ref.actor.policy_loss.loss_mode": (
            lambda found: found == "vanilla" or not steps,
            "vanilla: other modes weight whole sequences, or are untested with an advantage per token",
        ),
        "trainer.v1.sampler.custom_sampler.path": (lambda found: found is None, "null: groups must be complete"),
        "trainer.balance_batch": (bool, "true"),
        "algorithm.norm_adv_by_std_in_grpo": (
            lambda found: found or not norm,
            "true with --advantage grpo; --advantage dr_grpo does not divide by the standard deviation",
        ),
    }
    for key, (allowed, expected) in fine.items():
        found = OmegaConf.select(config, key)
        if not allowed(found):
            raise InputError(f"key {key} of verl's configuration: found {found!r}, expected {expected}")
    check_old_sections(config)
    check_sequence_parallel(config)


def check_old_sections(config: Any) -> None:
    """Raise InputError for reward keys in their old sections, which verl accepts but does not read."""
    from omegaconf import OmegaConf

    for section, now in OLD_SECTIONS.items():
        for name, value in flat(OmegaConf.to_container(config[section])).items():
            if value is not None and value is not False:
                raise InputError(
                    f"key {section}.{name} of verl's configuration: found {value!r}, expected null: verl {VERL} does "
                    f"not read it here, but under {now}"
                )


def check_sequence_parallel(config: Any) -> None:
    """Raise InputError if Ulysses would not exchange the parts of a row, or cannot divide the workers evenly."""
    actor, model = config.actor_rollout_ref.actor, config.actor_rollout_ref.model
    size = actor.ulysses_sequence_parallel_size
    if size <= 1:
        return
    attention = model.override_config.get("attn_implementation", "flash_attention_2")
    if "flash" not in str(attention):
        raise InputError(
            f"key actor_rollout_ref.model.override_config.attn_implementation of verl's configuration: found "
            f"{attention!r} with actor.ulysses_sequence_parallel_size {size}, expected flash_attention_2: verl "
            "exchanges the parts of a row only with flash attention; its log-probabilities would be wrong as well"
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
    """Raise InputError for a group size without a baseline, or a batch that is not divided evenly into updates."""
    options = VerlOptions.of(config.attnpo)
    options.check_group(config.actor_rollout_ref.rollout.n)
    size, update = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    if size % update:
        raise InputError(
            f"key actor_rollout_ref.actor.ppo_mini_batch_size of verl's configuration: found {update}, expected a "
            f"divisor of data.train_batch_size, {size}; both count problems"
        )


def check_model(config: Any, options: VerlOptions) -> Path | None:
    """Check that model, tokenizer, thinking format and heads fit together; return the head file of the run.

    None: the credit method uses no heads, or they have to be searched for (`heads: auto`).

    Raises:
        InputError: one of them cannot be loaded or does not fit the others; a model with images.
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
        raise InputError(f"model {name}: its tokenizer has no chat template, which verl applies to every prompt")
    chosen = choose_format(options.thinking_format, tokenizer)
    if options.thinking_format != AUTO:
        check_marks(chosen.form, tokenizer)
    locate_steps(tokenizer, tokenizer("a b</think>c")["input_ids"], options.lexicon)
    if "attention" not in options.make_credit().signals:
        return None
    named = file_of_option(options.heads, path)
    if named is None:
        return None
    file = Path(named)
    heads = load_heads(file)
    warn_of_other_model(file, path)
    check_heads(model, heads, file)
    if options.credit_threshold == OF_HEADS:
        load_threshold(file)
    return file
