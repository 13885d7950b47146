"""The trainer's reward functions, the column of the length reward, and which function decides right or wrong.

On the command line a reward function is the verifier of this package, one of TRL's, or a user's. A user's is given as
`module:function` and has TRL's signature: it gets `completions`, `prompts`, `completion_ids` and every column of the
data set as keyword arguments, one list each, and returns one number (or None) per completion.

TRL calls every function with this process's responses and gathers the results. The length reward compares the correct
responses of a complete group, which may be split over processes, so its column is filled in afterwards.
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
"""Names of reward functions that judge answers, in order of precedence."""


def find_judge(names: Sequence[str], given: str | None) -> tuple[str, bool]:
    """Return the function that decides right or wrong, and whether this is a guess.

    It is the one `given`, else the first with a known name, else the first (a guess where there are several).

    Raises:
        InputError: there is no function of the given name.
    """
    if given is not None:
        if given not in names or given == LENGTH:
            known = ", ".join(name for name in names if name != LENGTH)
            raise InputError(f"option correct_reward: found {given!r}, expected one of {known}")
        return given, False
    known = [name for name in JUDGES if name in names]
    known += [name for name in names if "accuracy" in name.lower() or "correct" in name.lower()]
    if known:
        return known[0], False
    return names[0], len([name for name in names if name != LENGTH]) > 1


class LengthColumn:
    """Placeholder of the length reward among TRL's reward functions."""

    __name__ = LENGTH

    def __call__(self, completions: list[Any], **kwargs: Any) -> list[None]:
        return [None] * len(completions)


@dataclass
class RewardSetup:
    """Reward functions in TRL's order.

    Attributes:
        functions: the functions given to TRL; the last one is `LengthColumn` where there is a length reward.
        length: the length reward.
        max_completion_length: tokens after which a response is cut off.
        correct_name: the function that decides right or wrong; until `bind` None where it follows from `find_judge`.
        threshold: the value from which a response is right; None: 1, and higher values are an error.
        guessed: whether this function was chosen only because it is the first.
        correct_column: its column, known once TRL has named the functions (`bind`).
        form: the model's thinking format, also known from `bind` on.
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
        """Create the setup from the trainer's arguments."""
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
        """Return one weight per function for TRL: the user's, and 1 for the length column."""
        return [*given, 1.0] if given is not None and self.has_length else given

    def bind(self, names: list[str], tokenizer: Any, form: ThinkingFormat = THINK) -> None:
        """Find the column that decides right or wrong, and give tokenizer and thinking format to our verifier."""
        self.correct_name, self.guessed = find_judge(names, self.correct_name)
        self.correct_column = names.index(self.correct_name)
        self.form = form
        for function in self.functions:
            if isinstance(function, AccuracyReward) and function.tokenizer is None:
                function.tokenizer = tokenizer
            if isinstance(function, AccuracyReward) and function.form is None:
                function.form = form

    def correct(self, rewards: Float[Tensor, "N K"]) -> Bool[Tensor, " N"]:
        """Return which responses are right, by the judging function."""
        return is_correct(self.judged(rewards))

    def judged(self, rewards: Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
        """Return 1 for right, less for anything else, NaN where the judging function returned None.

        Raises:
            InputError: a value above 1 without a threshold.
        """
        values = rewards[:, self.correct_column]
        if self.threshold is not None:
            return torch.where(values.isnan(), torch.nan, (values >= self.threshold - 1e-6).to(values))
        highest = values.nan_to_num(nan=0.0, posinf=torch.inf).max().item() if len(values) else 0.0
        if highest > 1 + 1e-6:
            raise InputError(
                f"reward_funcs: {self.correct_name!r}, which decides whether a response is right, gave {highest:g}; "
                "expected at most 1 (1 is right). Give --correct_threshold, the value from which a response is right, "
                "or name another function with --correct_reward"
            )
        return values

    def verdict(self, value: float | None) -> bool | None:
        """Return right or wrong for one value of the judging function; None where it is None."""
        row = torch.full((1, self.correct_column + 1), torch.nan if value is None else float(value))
        return verdict_of(self.judged(row)[0].item())

    def describe_judge(self) -> str | None:
        """Return one line on what decides right or wrong; None where there is no choice."""
        others = [f for f in self.functions if not isinstance(f, LengthColumn)]
        if len(others) < 2 and self.threshold is None:
            return None
        line = f"right or wrong: {self.who_judges}"
        return f"{line} (the first function; correct_reward names another)" if self.guessed else line

    @property
    def who_judges(self) -> str:
        """The function that decides right or wrong, and the value from which a response is right."""
        return f"{self.correct_name}, from {1 if self.threshold is None else self.threshold:g} on"

    def targets(self, rows: Sequence[Mapping[str, Any]]) -> Float[Tensor, " N"] | None:
        """Return the length that each prompt requests; None where the method requests none.

        Raises:
            InputError: the data set has no such column, or a row has no value.
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
        """Fill in the length column, for training responses at optimiser step `step` (from 1)."""
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
        """Return a copy whose length reward can be tried without changing the state of this one (LASER-D counts)."""
        return replace(self, length=copy.deepcopy(self.length))

    def without_length_reward(
        self, rewards: Float[Tensor, "N K"], rows: Sequence[Mapping[str, Any]] = ()
    ) -> Float[Tensor, "N K"]:
        """Fill the length column with 0 outside training, where there are no groups to compare."""
        return self._with_column(rewards, torch.zeros(len(rewards))) if self.has_length else rewards

    def _with_column(self, rewards: Float[Tensor, "N K"], column: Float[Tensor, " N"]) -> Float[Tensor, "N K"]:
        judged = ~rewards[:, :-1].isnan().all(dim=1)  # a response without any verdict has no reward
        column = torch.where(judged, column.to(rewards), torch.nan)
        return torch.cat([rewards[:, :-1], column[:, None]], dim=1)

    def total(self, rewards: Float[Tensor, "N K"], weights: Float[Tensor, " K"]) -> Float[Tensor, " N"]:
        """Return the weighted sum; NaN for a response for which no function returned a reward."""
        total = (rewards * weights).nansum(dim=1)
        return torch.where(torch.isnan(rewards).all(dim=1), torch.nan, total)

    def last_verdicts(self, n: int) -> list[str | None]:
        """Return the verifier's verdicts on the last batch, or None for each where another function decides."""
        function = self.functions[self.correct_column]
        if isinstance(function, AccuracyReward):
            return [verdict.value for verdict in function.last_verdicts]
        return [None] * n


OURS = "accuracy"

OF_TRL = ("accuracy_reward", "reasoning_accuracy_reward", "think_format_reward")
"""Functions of `trl.rewards` that need only columns; the first two need a column `solution`."""


def load_rewards(names: Sequence[str], accuracy: AccuracyReward) -> list[Callable[..., Any]]:
    """Load the functions of these names, in order; `accuracy` is this package's verifier.

    Raises:
        InputError: an unknown name, a module or function that cannot be imported, a name given twice.
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
    """Add the other columns of the source rows to the problems, for reward functions.

    `prompt`, the trainer's own column, and columns that not every row has are left out.
    """
    if len(problems) != len(rows):
        return [dict(problem) for problem in problems]
    common = set.intersection(*(set(row) for row in rows)) - {"prompt"} if rows else set()
    kept = [name for name in rows[0] if name in common] if rows else []
    return [{**{name: row[name] for name in kept}, **problem} for problem, row in zip(problems, rows, strict=True)]
