"""The interface between the trainer and credit methods: inputs, result, and registration by name.

A method is a class with a ``name``, the ``signals`` it needs and ``__call__(inputs) -> CreditResult``::

    @register_credit("mine")
    @dataclass(frozen=True)
    class MyCredit:
        strength: float = 0.5
        signals: ClassVar[frozenset[str]] = frozenset({"entropy"})

        def __call__(self, inputs: CreditInputs) -> CreditResult: ...

The trainer computes the declared signals, calls :func:`assign_credit` and uses only the per-token numbers; it does not
depend on the method. Some signals are captured in a forward that runs anyway (`FORWARD_SIGNALS`), the others are
computed by a stage between the rewards and the loss (``training/stages``: potentials of segments, repaired responses
…). Importing a module registers its methods, so a method can be outside this package.

Shape legend: B responses on this device, C completion tokens (padded), S steps (padded to the batch's maximum).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from attnpo.errors import InputError, RunError
from attnpo.registry import Registry

SIGNAL_SHAPES: dict[str, tuple[str, ...]] = {
    "attention": ("B", "S"),  # S(s_k): attention of the final answer to a step, mean over the chosen heads
    "entropy": ("B", "C"),  # entropy of the policy at every completion token, in nats
    "segments": ("B", "C"),  # k for a token of segment k (credit/segments.py)
    "potential": ("B", "?"),  # Φ where each segment begins, and the outcome
    "mean_segment": ("B",),  # mean length of the batch's segments
    "states_answer": ("B", "S"),  # whether a step states the final answer
    "repair_role": ("B",),  # role of a row in IOP (credit/iop: Role)
    "repair_gates": ("B", "C"),  # whether a token differs between a wrong response and its repair
    "repair_weight": ("B",),  # weight of a row in the loss
}
"""Signals with a fixed shape. Of any other signal only the number of rows, B, is checked."""

FORWARD_SIGNALS = frozenset({"attention", "entropy"})
"""Signals that are captured in a forward."""


@dataclass(frozen=True, kw_only=True)
class CreditInputs:
    """The inputs of a credit method for B responses. All tensors are on one device, with rows in the same order."""

    advantages: Float[Tensor, "B"]
    """Outcome advantage A of each response."""
    correct: Bool[Tensor, "B"]
    group_accuracy: Float[Tensor, "B"]
    """p: share of correct responses in the response's group, in [0, 1]."""
    answer_tokens: Int[Tensor, "B"]
    """|F|: tokens after the closing tag, end token included; 0 without a closing tag."""
    total_tokens: Int[Tensor, "B"]
    """|o|: prompt + response tokens, padding excluded."""
    rescalable: Bool[Tensor, "B"]
    """Whether steps of this response may be rescaled: see :func:`rescalable_rows`."""
    step_ids: Int[Tensor, "B C"]
    """k for a completion token of step k (zero-based); S for a token outside every step."""
    num_steps: Int[Tensor, "B"]
    completion_mask: Shaped[Tensor, "B C"]
    """1 or True on sampled tokens, 0 or False on padding."""
    step: int
    """Optimiser step t, counted from 1 for the first one."""
    signals: Mapping[str, Tensor] = field(default_factory=dict)
    prompts: Sequence[Any] = ()
    completions: Sequence[Any] = ()
    rewards: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class CreditResult:
    """The result of a credit method."""

    advantages: Float[Tensor, "B C"]
    """Advantage of every token; exactly 0 on padding."""
    scales: Float[Tensor, "B S"] | None = None
    """γ of every step; 1 for unchanged steps and beyond a row's steps. None: the method has no steps."""
    baseline: Float[Tensor, "B"] | None = None
    """B of every rescaled response, NaN for the others. None: the method has no baseline."""
    gates: Bool[Tensor, "B C"] | None = None
    """The tokens in the loss (and in a sequence-level ratio). None: all sampled tokens."""


@runtime_checkable
class CreditMethod(Protocol):
    """A credit method: pure, without state between calls.

    A class may also have ``run_options: ClassVar[Mapping[str, Any]]``, options that a run with it must have, and
    ``per_response: ClassVar[bool]``: every token gets the outcome advantage, so a loss may use one number per response
    instead.
    """

    name: ClassVar[str]
    signals: ClassVar[frozenset[str]]

    def __call__(self, inputs: CreditInputs) -> CreditResult: ...


_METHODS: Registry[CreditMethod] = Registry(
    "credit", [f"attnpo.credit.{name}" for name in ("attnpo", "first_correct", "iop", "mrt", "outcome", "shape")]
)
_M = TypeVar("_M", bound=type)


def register_credit(name: str) -> Callable[[_M], _M]:
    """Class decorator: make a method available as ``--credit name``; sets the class's ``name``.

    Raises:
        InputError: the name is taken by another class, or the class does not declare its signals.
    """

    def register(cls: _M) -> _M:
        if not isinstance(getattr(cls, "signals", None), frozenset):
            raise InputError(f"credit: {name!r}: `signals` must be a frozenset of signal names")
        return _METHODS.register(name)(cls)

    return register


credit_names, credit_options, get_credit = _METHODS.names, _METHODS.options, _METHODS.make


def rescalable_rows(
    correct: Bool[Tensor, "B"], has_answer: Bool[Tensor, "B"], num_steps: Int[Tensor, "B"]
) -> Bool[Tensor, "B"]:
    """Which responses stepwise methods may rescale, decided only here (docs/papers.md).

    Those that are correct, have a closing tag and a non-blank final answer (`has_answer` is both), and at least two
    steps.
    """
    return correct.bool() & has_answer.bool() & (num_steps >= 2)


def assign_credit(method: CreditMethod, inputs: CreditInputs) -> CreditResult:
    """Run `method` and check the shapes of its inputs and its result, without waiting for the device.

    Raises:
        RunError: a signal is absent, or a tensor has another shape than the batch; names the method, the tensor, the
            shape found and the one expected.
    """
    rows, tokens = inputs.step_ids.shape
    missing = sorted(method.signals - set(inputs.signals))
    if missing:
        given = ", ".join(sorted(inputs.signals)) or "none"
        raise RunError(f"credit {method.name!r} needs the signals {', '.join(missing)}; the trainer gave: {given}")
    steps = inputs.signals["attention"].shape[-1] if "attention" in inputs.signals else None
    sizes = {"B": rows, "C": tokens, "S": steps, "?": None}

    def check(what: str, value: Any, dims: tuple[str, ...]) -> None:
        expected = tuple(sizes[dim] for dim in dims)
        found = tuple(value.shape) if isinstance(value, Tensor) else None
        aligned = found is not None and len(found) == len(expected)
        if not aligned or any(e is not None and f != e for f, e in zip(found or (), expected, strict=True)):
            shape = f"shape {list(found)}" if found is not None else f"a {type(value).__name__}"
            wanted = ", ".join(
                f"{dim}={size if size is not None else '?'}" for dim, size in zip(dims, expected, strict=True)
            )
            raise RunError(f"credit {method.name!r}: {what} has {shape}, expected [{wanted}]")

    for name in ("advantages", "correct", "group_accuracy", "answer_tokens", "total_tokens", "rescalable", "num_steps"):
        check(f"input {name}", getattr(inputs, name), ("B",))
    check("input completion_mask", inputs.completion_mask, ("B", "C"))
    for name in method.signals:
        signal = inputs.signals[name]
        check(f"signal {name!r}", signal, SIGNAL_SHAPES.get(name, ("B", *["?"] * (signal.ndim - 1))))
    result = method(inputs)
    if not isinstance(result, CreditResult):
        raise RunError(f"credit {method.name!r} returned a {type(result).__name__}, expected a CreditResult")
    check("result advantages", result.advantages, ("B", "C"))
    if not result.advantages.is_floating_point():
        raise RunError(f"credit {method.name!r}: result advantages are {result.advantages.dtype}, expected floats")
    if result.scales is not None:
        check("result scales", result.scales, ("B", "S"))
    if result.baseline is not None:
        check("result baseline", result.baseline, ("B",))
    if result.gates is not None:
        check("result gates", result.gates, ("B", "C"))
    return result


def mask_padding(values: Float[Tensor, "B C"], completion_mask: Shaped[Tensor, "B C"]) -> Float[Tensor, "B C"]:
    """`values` with exactly 0 on padding, whatever value was there (a product would keep a NaN)."""
    return torch.where(completion_mask.bool(), values, torch.zeros_like(values))
