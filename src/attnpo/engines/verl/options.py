"""This package's options of a run on verl; everything else is verl's, under verl's names.

The options have the meaning and the defaults that they have in `attnpo train` (docs/methods.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from attnpo.checks import read_escapes
from attnpo.credit.advantages import KINDS, check_group_size
from attnpo.credit.base import FORWARD_SIGNALS, CreditMethod, credit_names
from attnpo.errors import InputError, did_you_mean
from attnpo.rewards.length import LengthReward
from attnpo.steps.formats import AUTO, load_format
from attnpo.steps.lexicon import load_lexicon
from attnpo.training.defaults import DELAY_SHARE
from attnpo.training.method_options import (
    ATTNPO_OPTIONS,
    fixed_threshold,
    import_modules,
    make_credit,
    make_length_reward,
)

AVAILABLE_SIGNALS = FORWARD_SIGNALS | {"states_answer"}
"""Signals that this engine provides: those of the old-log-prob forward, and the answers stated in a response's text."""


@dataclass
class VerlOptions:
    """Options of `attnpo verl`, named as in `attnpo train`.

    Attributes:
        output_dir: the run folder, on a disk that all nodes see.
        dataset_name, eval_dataset_name: problems as for `attnpo train`, written into the run folder in verl's format;
            None: the files of data.train_files and data.val_files, which have verl's own columns.
        dataset_config, dataset_…_split, train_problems, eval_problems, task_…, …_column, system_prompt,
        prompt_template: how to read those problems.
        credit_delay: T; None: half of the steps of the run.
        max_completion_length: copied from verl's data.max_response_length.
        correct_threshold: the value of a custom reward function from which a response counts as right.
        verifier_timeout: seconds after which a verification is killed.
    """

    output_dir: str = "attnpo-verl"
    dataset_name: str | None = None
    dataset_config: str | None = None
    dataset_train_split: str = "train"
    eval_dataset_name: str | None = None
    dataset_test_split: str = "test"
    train_problems: int = 4096
    eval_problems: int = 512
    task_difficulty: str | None = None
    task_redundancy: float | None = None
    task_seed: int = 0
    problem_column: str | None = None
    reference_column: str | None = None
    system_prompt: str | None = None
    prompt_template: str | None = None

    advantage: str = "rloo"
    length_reward: str = "tlmre"
    length_alpha: float | None = None
    length_kwargs: dict[str, Any] | None = None
    credit: str = "attnpo"
    credit_kwargs: dict[str, Any] | None = None
    credit_module: str | None = None

    heads: str | None = None
    heads_count: int = 3
    heads_traces: int = 64
    thinking_format: str = AUTO
    lexicon: str = "paper"
    credit_beta: float = 2.0
    credit_lambda: float = 2.0
    credit_delta: float = 0.0
    credit_delay: int | None = None
    credit_positive: bool = True
    credit_negative: bool = True
    credit_difficulty: bool = True
    credit_yardstick: str = "uniform"
    credit_threshold: str = "1"
    credit_sharp: bool = False

    correct_threshold: float | None = None
    verifier_timeout: float = 5.0
    record_rollouts: bool = True
    overwrite_run: bool = False
    resume: bool = False
    max_completion_length: int | None = None

    correct_reward: None = None  # not an option here: verl has a single reward function

    def __post_init__(self) -> None:
        for name in ("system_prompt", "prompt_template"):
            text = getattr(self, name)
            if text is not None:
                setattr(self, name, read_escapes(text))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> VerlOptions:
        """Make options from names and values, and check them.

        Raises:
            InputError: an unknown option, a choice that does not exist or that this engine does not support, a value
                out of range. The message names the option.
        """
        known = [field.name for field in fields(cls) if field.name != "correct_reward"]
        for name in given:
            if name not in known:
                hint = did_you_mean(name, known)
                raise InputError(f"unknown option {name}{hint} (verl's own options have a dot in their names)")
        options = cls(**given)
        options.check()
        return options

    def check(self) -> None:
        """Raise InputError in the cases listed for `of`."""
        import_modules(self.credit_module)
        for option, choices in (("advantage", KINDS), ("credit", credit_names())):
            value = getattr(self, option)
            if value not in choices:
                raise InputError(f"option {option}: found {value!r}, expected one of {', '.join(choices)}")
        load_lexicon(self.lexicon)
        if self.thinking_format != AUTO:
            load_format(self.thinking_format)
        if not self.verifier_timeout > 0:
            raise InputError(f"option verifier_timeout: found {self.verifier_timeout}, expected more than 0")
        method, length = self.make_credit(), self.make_length_reward()
        missing = method.signals - AVAILABLE_SIGNALS
        if missing or getattr(method, "run_options", None):
            needs = f"needs {', '.join(sorted(missing))}" if missing else "needs a loss of TRL's"
            raise InputError(
                f"option credit: {self.credit!r} {needs}, which takes more rollouts within a step and is not available "
                "on verl; expected attnpo, first_correct, outcome, or a custom method with the signals "
                f"{', '.join(sorted(AVAILABLE_SIGNALS))}. "
                "`attnpo train` supports it"
            )
        if length.instruction is not None:
            raise InputError(
                f"option length_reward: {self.length_reward!r} writes a length into every prompt, which is not "
                "available on verl; `attnpo train` supports it"
            )

    def check_group(self, responses: int) -> None:
        """Raise InputError for a group size (verl's rollout.n) for which the advantage has no baseline."""
        check_group_size(self.advantage, responses)

    def delay(self, steps: int) -> int:
        """Return the delay T of a run of `steps` optimiser steps."""
        return round(DELAY_SHARE * steps) if self.credit_delay is None else self.credit_delay

    def make_credit(self, steps: int = 0) -> CreditMethod:
        """Return the credit method, ready to call; `steps`: number of optimiser steps of the run."""
        of_attnpo = {name: getattr(self, option) for name, option in ATTNPO_OPTIONS.items()}
        of_attnpo["threshold"] = fixed_threshold(self.credit_threshold, self.credit_yardstick)
        of_attnpo["delay"] = self.delay(steps)
        return make_credit(self.credit, self.credit_kwargs, of_attnpo)

    def make_length_reward(self) -> LengthReward:
        """Return the length reward, ready to call."""
        return make_length_reward(self.length_reward, self.length_alpha, self.length_kwargs, self.max_completion_length)

    def given(self) -> dict[str, Any]:
        """Return names and values, for config.yaml and for verl's processes."""
        return {name: value for name, value in asdict(self).items() if name != "correct_reward"}
