"""The audit: is a candidate with the right answer a repaired argument, or only a pasted answer?

An audit is a callable: cases -> for each None (passed), or the reason why not, in a word or two. Reasons are counted.
The rules are ours (IOP publishes none); `judge` (attnpo.repair.judge) applies them first, then asks a chat endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from attnpo.errors import InputError
from attnpo.steps.response import split_response

AUDITS = ("rules", "judge", "none")

SHORTEST_SHARE = 0.2
"""Of the shorter thinking of wrong response and anchor, in characters: below it there is no argument to speak of."""


@dataclass(frozen=True)
class Case:
    """The texts an audit compares. `repaired` has the right answer already."""

    problem: str
    wrong: str
    repaired: str
    anchor: str


Audit = Callable[[Sequence[Case]], Sequence[str | None]]


def audit_by_rules(cases: Sequence[Case]) -> list[str | None]:
    """Reasons, in the order in which they are looked for (whitespace never counts):

    - `no thinking`: no closing tag, or nothing before it.
    - `pasted`: the thinking is that of the wrong response, and only the answer differs.
    - `copied`: the thinking is that of the anchor, so nothing was repaired.
    - `too short`: the thinking is shorter than a fifth of the shorter one of wrong response and anchor.
    """
    return [_by_rules(case) for case in cases]


def _by_rules(case: Case) -> str | None:
    thinking = _thinking(case.repaired)
    if not thinking or not split_response(case.repaired).has_close:
        return "no thinking"
    wrong, anchor = _thinking(case.wrong), _thinking(case.anchor)
    if thinking == wrong:
        return "pasted"
    if thinking == anchor:
        return "copied"
    if len(thinking) < SHORTEST_SHARE * min(len(wrong), len(anchor)):
        return "too short"
    return None


def _thinking(text: str) -> str:
    parts = split_response(text)
    return " ".join(text[parts.thinking_start : parts.thinking_end].split())


def no_audit(cases: Sequence[Case]) -> list[str | None]:
    """Passes everything."""
    return [None] * len(cases)


def check_audit(name: str, judge: str | None) -> None:
    """Raises InputError unless `name` is an audit's, and a judge is given exactly where one is asked."""
    if not isinstance(name, str) or (name not in AUDITS and ":" not in name):
        raise InputError(f"audit: found {name!r}, expected {', '.join(AUDITS)}, or module:function")
    if name == "judge" and judge is None:
        raise InputError("judge: none is given, expected URL#MODEL for audit='judge'")
    if name != "judge" and judge is not None:
        raise InputError(f"judge: found {judge!r}, but audit={name!r} asks none; expected audit='judge'")


def make_audit(
    name: str, *, judge: str | None = None, api_key_env: str | None = None, cache: str | None = None
) -> Audit:
    """The audit of that name.

    Raises:
        InputError: an unknown name, a function that cannot be imported, or a judge that cannot be asked.
    """
    check_audit(name, judge)
    if name == "rules":
        return audit_by_rules
    if name == "none":
        return no_audit
    if name == "judge":
        from attnpo.repair.judge import JudgeAudit

        assert judge is not None
        return JudgeAudit(judge, api_key_env=api_key_env, cache=cache)
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"audit: {name!r} cannot be imported: {error}") from error
