"""The trainer's reward functions: the user's by name, plus the length-aware column, and which of them says "right".

On a command line a reward function is the verifier of this package, TRL's own, or a user's. A user's is named
`module:function` and has TRL's shape: it gets `completions`, `prompts`, `completion_ids` and every column of the data
set as keyword arguments, one list each, and returns one number (or None) per completion.

TRL calls every function with this process's responses and gathers the results. The length-aware reward compares
the correct responses of a whole group, which may be spread over processes, so its column is filled in afterwards.
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnpo.credit.advantages import is_correct, verdict_of
from attnpo.data.targets import TARGET_COLUMN
from attnpo.errors import InputError
from attnpo.rewards.accuracy import AccuracyReward
from attnpo.rewards.length import LengthInputs, LengthReward
from attnpo.steps.formats import THINK, ThinkingFormat

LENGTH = "length"

JUDGES = (
    "accuracy",
    "accuracy_reward",  # TRL, open-r1
    "reasoning_accuracy_reward",
    "code_reward",  # open-r1
    "binary_code_reward",
    "ioi_code_reward",
    "cf_code_reward",
    "correctness",
    "correctness_reward",
    "correctness_reward_func",
    "compute_score",  # verl
)
"""Names of reward functions that say whether an answer is right, the first that is there before the others."""


def find_judge(names: Sequence[str], asked: str | None) -> tuple[str, bool]:
    """Name of the function that says right or wrong, and whether it is a guess: asked for, known by its name, or else
    the first.

    Raises:
        InputError: there is none of the name that was asked for.
    """
    if asked is not None:
        if asked not in names or asked == LENGTH:
            known = ", ".join(name for name in names if name != LENGTH)
            raise InputError(f"option correct_reward: found {asked!r}, expected one of {known}")
        return asked, False
    known = [name for name in JUDGES if name in names]
    known += [name for name in names if "accuracy" in name.lower() or "correct" in name.lower()]
    if known:
        return known[0], False
    return names[0], len([name for name in names if name != LENGTH]) > 1


class LengthColumn:
    """Holds the place of the length-aware reward among TRL's reward functions."""

    __name__ = LENGTH

    def __call__(self, completions: list[Any], **kwargs: Any) -> list[None]:
        return [None] * len(completions)


@dataclass
class RewardSetup:
    """Reward functions in TRL's order.

    Attributes:
        functions: what TRL gets; the last one is `LengthColumn` where a length reward is on.
        length: the length reward.
        max_completion_length: tokens after which a response is cut off.
        correct_name: the function that says right or wrong; None until TRL has named them: the rule of `find_judge`.
        threshold: the value from which a response is right; None: 1, and no value may be above it.
        guessed: whether nothing but its place tells which function that is.
        correct_column: its column, known once TRL has named the functions (`bind`).
        form: the model's thinking format, known from then on.
    """

    functions: list[Any]
    length: LengthReward
    max_completion_length: int | None
    correct_name: str | None
    correct_column: int = 0
    threshold: float | None = None
    guessed: bool = False
    form: ThinkingFormat = THINK

    @classmethod
    def build(cls, reward_funcs: Any, args: Any) -> RewardSetup:
        """From the trainer's arguments."""
        functions = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
        if not functions or functions[0] is None:
            raise InputError("reward_funcs: found none, expected at least one reward function, e.g. AccuracyReward()")
        length = args.make_length_reward()
        if length.name != "none":
            functions.append(LengthColumn())
        setup = cls(functions, length, args.max_completion_length, args.correct_reward)
        setup.threshold = args.correct_threshold
        return setup

    @property
    def has_length(self) -> bool:
        """Whether there is a length column."""
        return isinstance(self.functions[-1], LengthColumn)

    def weights(self, given: list[float] | None) -> list[float] | None:
        """One weight per function for TRL: the user's, and 1 for the length column."""
        return [*given, 1.0] if given is not None and self.has_length else given

    def bind(self, names: list[str], tokenizer: Any, form: ThinkingFormat = THINK) -> None:
        """Find the column that says right or wrong, and let our verifier read the sampled ids by the model's format."""
        self.correct_name, self.guessed = find_judge(names, self.correct_name)
        self.correct_column = names.index(self.correct_name)
        self.form = form
        for function in self.functions:
            if isinstance(function, AccuracyReward) and function.tokenizer is None:
                function.tokenizer = tokenizer
            if isinstance(function, AccuracyReward) and function.form is None:
                function.form = form

    def correct(self, rewards: Float[Tensor, "N K"]) -> Bool[Tensor, " N"]:
        """Which responses are right, by the chosen function."""
        return is_correct(self.judged(rewards))

    def judged(self, rewards: Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
        """1 for right, less for anything else, NaN where the chosen function gave nothing.

        Raises:
            InputError: a value above 1, where no threshold says what is right.
        """
        values = rewards[:, self.correct_column]
        if self.threshold is not None:
            return torch.where(values.isnan(), torch.nan, (values >= self.threshold - 1e-6).to(values))
        highest = values.nan_to_num(nan=0.0, posinf=torch.inf).max().item() if len(values) else 0.0
        if highest > 1 + 1e-6:
            raise InputError(
                f"reward_funcs: {self.correct_name!r}, which says whether a response is right, gave {highest:g}; "
                "expected at most 1 (1 is right). Give --correct_threshold, the value from which a response is right, "
                "or name another function with --correct_reward"
            )
        return values

    def verdict(self, value: float | None) -> bool | None:
        """Right or wrong by one value of the chosen function; None where it gave nothing."""
        row = torch.full((1, self.correct_column + 1), torch.nan if value is None else float(value))
        return verdict_of(self.judged(row)[0].item())

    def describe_judge(self) -> str | None:
        """One line on what decides about right and wrong; None where it goes without saying."""
        others = [f for f in self.functions if not isinstance(f, LengthColumn)]
        if len(others) < 2 and self.threshold is None:
            return None
        line = f"right or wrong: {self.who_judges}"
        return f"{line} (the first function; correct_reward names another)" if self.guessed else line

    @property
    def who_judges(self) -> str:
        """Which function says right or wrong, and from which value on."""
        return f"{self.correct_name} says it, from {1 if self.threshold is None else self.threshold:g} on"

    def targets(self, rows: Sequence[Mapping[str, Any]]) -> Float[Tensor, " N"] | None:
        """The length that each prompt asks for; None where the method asks for none.

        Raises:
            InputError: the data set does not say.
        """
        if self.length.instruction is None:
            return None
        if any(row.get(TARGET_COLUMN) is None for row in rows):
            raise InputError(
                f"train_dataset: no column {TARGET_COLUMN!r} with a number of tokens for every problem, which "
                f"length_reward={self.length.name!r} needs; `add_targets` in attnpo.data.targets adds it"
            )
        return torch.tensor([float(row[TARGET_COLUMN]) for row in rows])

    def add_length_reward(
        self,
        rewards: Float[Tensor, "N K"],
        lengths: Int[Tensor, " N"],
        group_size: int,
        *,
        step: int,
        targets: Float[Tensor, " N"] | None = None,
    ) -> Float[Tensor, "N K"]:
        """Fill the length column in, for responses of training at optimiser step `step` (from 1)."""
        if not self.has_length:
            return rewards
        inputs = LengthInputs(
            lengths=lengths.view(-1, group_size),
            correct=self.correct(rewards).view(-1, group_size),
            known=~rewards[:, self.correct_column].isnan().view(-1, group_size),
            targets=None if targets is None else targets.view(-1, group_size)[:, 0],
            step=step,
            max_completion_length=self.max_completion_length,
        )
        return self._with_column(rewards, self.length(inputs).view(-1))

    def on_trial(self) -> RewardSetup:
        """The same, with a length reward that may be tried: this one learns nothing of it (LASER-D counts)."""
        return replace(self, length=copy.deepcopy(self.length))

    def without_length_reward(
        self, rewards: Float[Tensor, "N K"], rows: Sequence[Mapping[str, Any]] = ()
    ) -> Float[Tensor, "N K"]:
        """Outside training the column is 0: an evaluation has no groups to compare within."""
        return self._with_column(rewards, torch.zeros(len(rewards))) if self.has_length else rewards

    def _with_column(self, rewards: Float[Tensor, "N K"], column: Float[Tensor, " N"]) -> Float[Tensor, "N K"]:
        judged = ~rewards[:, :-1].isnan().all(dim=1)  # what nobody could judge has no reward at all
        column = torch.where(judged, column.to(rewards), torch.nan)
        return torch.cat([rewards[:, :-1], column[:, None]], dim=1)

    def total(self, rewards: Float[Tensor, "N K"], weights: Float[Tensor, " K"]) -> Float[Tensor, " N"]:
        """Weighted sum; NaN for a response that no function of the user's could judge."""
        total = (rewards * weights).nansum(dim=1)
        return torch.where(torch.isnan(rewards).all(dim=1), torch.nan, total)

    def last_verdicts(self, n: int) -> list[str | None]:
        """The verifier's verdicts on the last batch, or None where another kind of reward decides."""
        function = self.functions[self.correct_column]
        if isinstance(function, AccuracyReward):
            return [verdict.value for verdict in function.last_verdicts]
        return [None] * n


OURS = "accuracy"

OF_TRL = ("accuracy_reward", "reasoning_accuracy_reward", "think_format_reward")
"""Functions of `trl.rewards` that need nothing but their columns; the first two look for a column `solution`."""


def load_rewards(names: Sequence[str], accuracy: AccuracyReward) -> list[Callable[..., Any]]:
    """The functions of these names, in their order; `accuracy` is this package's verifier.

    Raises:
        InputError: a name that is none of the three kinds, a module or function that cannot be had, a name given twice.
    """
    functions: list[Callable[..., Any]] = []
    for name in names:
        if name == OURS:
            functions.append(accuracy)
        elif name in OF_TRL:
            functions.append(getattr(importlib.import_module("trl.rewards"), name))
        elif ":" in name:
            functions.append(_of_user(name))
        else:
            known = ", ".join((OURS, *OF_TRL))
            raise InputError(f"option reward_funcs: found {name!r}, expected {known}, or MODULE:FUNCTION of your own")
    called = [getattr(function, "__name__", type(function).__name__) for function in functions]
    twice = sorted({name for name in called if called.count(name) > 1})
    if twice:
        raise InputError(f"option reward_funcs: two functions are called {twice[0]!r}; expected different names")
    return functions


def _of_user(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")  # the current folder, as by `python -m`
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise InputError(
            f"option reward_funcs: module {module!r} of {name!r} cannot be imported: {error}; expected the name of a "
            "module in the current folder or where Python finds it, without .py"
        ) from error
    finally:
        sys.path.remove("")
    if not callable(found):
        what = "nothing" if found is None else f"a {type(found).__name__}"
        raise InputError(f"option reward_funcs: found {what} called {attribute!r} in {module}, expected a function")
    return found


def with_columns(problems: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Problems with the other columns of the rows that they are made of, which reward functions may ask for.

    `prompt`, the column that the trainer is given its prompts in, and columns that not every row has are left out.
    """
    if len(problems) != len(rows):
        return [dict(problem) for problem in problems]
    common = set.intersection(*(set(row) for row in rows)) - {"prompt"} if rows else set()
    kept = [name for name in rows[0] if name in common] if rows else []
    return [{**{name: row[name] for name in kept}, **problem} for problem, row in zip(problems, rows, strict=True)]
