"""Defaults that follow from other options, and warnings about options without effect.

Pure functions on `AttnPOConfig`. A derived default is noted in `args.derived` and left out of a run's config.yaml, so
that it still follows when the other options change.
"""

from __future__ import annotations

import math
import os
from dataclasses import fields
from typing import Any

import torch

from attnpo.errors import InputError
from attnpo.training.method_options import ATTNPO_OPTIONS

PROMPTS = 16
"""Default number of problems per update, reached by accumulation: the responses to one problem are mostly noise."""

LEARNING_RATE = 2e-6
"""The paper's, for a model of 1.5 billion parameters."""

ADAPTER_LEARNING_RATE = 2e-5
"""Of LoRA adapters, ten times that of all weights, because they start at zero change (configs/one-gpu-24gb.yaml)."""

SHIPPED_LEARNING_RATE = 3e-4
"""Of the shipped models (a few million parameters); configs/short.yaml."""

DELAY_SHARE = 0.5
"""T as a share of the run: steps are attenuated after half of it where no response is right (p = 0), after a quarter
where half of them are."""

PAPER_DELAY = 1000


def fill_in(args: Any) -> dict[str, Any]:
    """Set the options that were not given; returns their values by option. To be called before TRL's checks."""
    found: dict[str, Any] = {}
    if args.learning_rate is None:
        found["learning_rate"] = LEARNING_RATE
    if args.credit_delay is None:
        steps = args.max_steps or 0
        found["credit_delay"] = round(DELAY_SHARE * steps) if steps > 0 else PAPER_DELAY
    if args.eval_strategy is None:
        found["eval_strategy"] = "no"
    if args.dataloader_pin_memory and (args.use_cpu or not torch.accelerator.is_available()):
        found["dataloader_pin_memory"] = False  # there is no accelerator, and torch warns at every start
    if args.gradient_accumulation_steps is None:
        given = args.steps_per_generation is not None or args.generation_batch_size is not None  # then as in TRL
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        found["gradient_accumulation_steps"] = (
            1 if given else accumulation(args.per_device_train_batch_size * processes, args.num_generations)
        )
    for option, value in found.items():
        setattr(args, option, value)
    return found


def accumulation(micro: int, group: int | None, prompts: int = PROMPTS) -> int:
    """Return the least number of micro-batches of `micro` responses that contain at least `prompts` complete groups.

    >>> accumulation(8, 8), accumulation(4, 8), accumulation(128, 8), accumulation(5, 8)
    (16, 32, 1, 32)
    """
    group = group or 8
    if micro < 1 or group < 1:
        return 1  # refused later, by name
    cycle = group // math.gcd(micro, group)  # micro-batches until groups and micro-batches end together
    return cycle * math.ceil(prompts * group / (micro * cycle))


def check_batch(args: Any) -> None:
    """Raise InputError, naming the options, where a generation batch would not contain complete groups."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if args.generation_batch_size is not None:
        size, parts = args.generation_batch_size, "option generation_batch_size: found"
    else:
        steps = args.steps_per_generation or args.gradient_accumulation_steps
        name = "steps_per_generation" if args.steps_per_generation else "gradient_accumulation_steps"
        size = args.per_device_train_batch_size * processes * steps
        parts = (
            f"options per_device_train_batch_size × {name}: found {args.per_device_train_batch_size} × {steps}"
            + (f" on {processes} processes" if processes > 1 else "")
            + " ="
        )
    if size % args.num_generations:
        raise InputError(
            f"{parts} {size} responses sampled together, which must be divisible by num_generations "
            f"({args.num_generations}). Change one of them, or leave gradient_accumulation_steps out"
        )


def without_effect(args: Any) -> list[str]:
    """Return a warning for every option that was set and has no effect, with what to change."""
    defaults = {field.name: field.default for field in fields(args)}
    derived = getattr(args, "derived", {})
    steps = args.max_steps if args.max_steps > 0 else None
    warnings = []
    if args.credit == "attnpo":
        if args.credit_difficulty and args.credit_positive and steps is not None and args.credit_delay >= steps:
            right = 1 - steps / args.credit_delay
            warnings.append(
                f"option credit_delay: {args.credit_delay} with max_steps {steps}: redundant steps are attenuated "
                f"only where more than {right:.0%} of a problem's responses are right, and late. Give less than "
                f"{steps}, or omit it ({DELAY_SHARE:.0%} of the run)"
            )
        if "credit_delay" in derived and steps is None:
            warnings.append(
                f"option credit_delay: the paper's {PAPER_DELAY} steps, as max_steps is not given: a shorter run "
                "hardly attenuates anything. Give --max_steps or --credit_delay"
            )
        if not args.credit_positive and not args.credit_negative:
            warnings.append("options credit_positive, credit_negative: both false, so credit=attnpo changes nothing")
    else:
        idle = [name for name in ATTNPO_OPTIONS.values() if getattr(args, name) != defaults[name]]
        idle = [name for name in idle if name not in derived]
        if idle:
            warnings.append(f"options {', '.join(idle)}: no effect with credit={args.credit}; they belong to attnpo")
        if args.heads is not None:
            warnings.append(f"option heads: no effect with credit={args.credit}, which reads no attention")
    if args.eval_steps and args.eval_strategy == "no":
        warnings.append(
            f"option eval_steps: {args.eval_steps:g} has no effect with eval_strategy no; give --eval_strategy steps"
        )
    if steps is not None and args.eval_strategy == "steps" and args.eval_steps and args.eval_steps > steps:
        warnings.append(
            f"option eval_steps: {args.eval_steps:g} is more than max_steps {steps}: no evaluation during training"
        )
    if steps is not None and args.warmup_steps and args.warmup_steps >= steps:
        warnings.append(
            f"option warmup_steps: {args.warmup_steps:g} with max_steps {steps}: the learning rate never reaches its "
            "value"
        )
    return warnings
