"""Repairs: their prompts, the choice of wrong responses and anchors, the score and choice of candidates, and the edits.

The edits between a wrong response and its repair are a Levenshtein alignment of the two lists of token ids (insertions,
deletions and substitutions cost 1). Of several shortest alignments rapidfuzz's is taken; the same lists always give the
same one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rapidfuzz.distance import Levenshtein

from attnpo.errors import InputError

PROMPTS = {
    "instruct": """\
{problem}

Below are two attempts at this problem. The first one has a wrong answer. The second one has the right answer.

First attempt:
{wrong}

Second attempt:
{anchor}

Write the first attempt again with its error repaired. Keep its steps and its wording wherever they are right, change \
only what the error makes necessary, and end with the right answer in the same form. Do not mention the attempts.""",
    "brief": "{problem}\n\nWrong: {wrong}\n\nRight: {anchor}\n\nRepair:",
}
"""`instruct` is for models that follow instructions, `brief` for small models after a cold start on such prompts."""

_FIELDS = re.compile(r"\{(problem|wrong|anchor)\}")


def check_prompt(prompt: str) -> None:
    """Raise InputError unless `prompt` is the name of a prompt or a text with {problem}, {wrong} and {anchor}."""
    missing = {"problem", "wrong", "anchor"} - set(_FIELDS.findall(prompt)) if isinstance(prompt, str) else {""}
    if prompt not in PROMPTS and missing:
        known = " or ".join(PROMPTS)
        raise InputError(
            f"prompt: found {prompt!r}, expected {known}, or a text with {{problem}}, {{wrong}} and {{anchor}}"
        )


def repair_prompt(
    prompt: Any, *, wrong: str, anchor: str, template: str = "instruct", problem: str | None = None
) -> Any:
    """The repair prompt for a prompt of the data set: a conversation, or a text.

    `problem`: the text of the problem, for a `prompt` text that contains more than that.

    >>> repair_prompt([{"role": "user", "content": "1 + 1?"}], wrong="3", anchor="2", template="brief")
    [{'role': 'user', 'content': '1 + 1?\\n\\nWrong: 3\\n\\nRight: 2\\n\\nRepair:'}]
    """
    text = PROMPTS.get(template, template)
    if isinstance(prompt, str):
        problem = prompt if problem is None else problem
        return _filled(text, problem=problem, wrong=wrong, anchor=anchor) + "\n\n" + prompt
    *before, last = prompt
    content = _filled(text, problem=str(last["content"]), wrong=wrong, anchor=anchor)
    return [*before, {**last, "content": content}]


def _filled(text: str, **values: str) -> str:
    """`text` with its fields replaced, in one pass, so that braces in a value are never taken for a field."""
    return _FIELDS.sub(lambda found: values[found[1]].strip(), text)


ANCHORS = ("shortest", "nearest")


@dataclass(frozen=True)
class Plan:
    """The plan for the responses of complete groups; all numbers are indices in the batch.

    Attributes:
        repairs: (wrong response, its anchor).
        fallback: responses of groups without a correct or without a wrong one.
        fallback_groups: number of such groups.
        untried: number of wrong responses beyond `max_repairs`.
    """

    repairs: list[tuple[int, int]] = field(default_factory=list)
    fallback: list[int] = field(default_factory=list)
    fallback_groups: int = 0
    untried: int = 0


def plan_repairs(
    correct: Sequence[bool | None],
    ids: Sequence[Sequence[int]],
    group_size: int,
    *,
    anchor: str = "shortest",
    max_repairs: int | None = None,
) -> Plan:
    """Choose anchors and wrong responses in every group of `group_size` consecutive responses.

    `correct` is None for responses without a verdict, which are neither repaired nor anchors. Ties between anchors go
    to the first.
    """
    repairs: list[tuple[int, int]] = []
    fallback: list[int] = []
    groups = untried = 0
    for first in range(0, len(correct), group_size):
        group = range(first, first + group_size)
        right = [i for i in group if correct[i]]
        wrong = [i for i in group if correct[i] is False]
        if not right or not wrong:
            fallback += group
            groups += 1
            continue
        tried = wrong[:max_repairs]
        untried += len(wrong) - len(tried)
        repairs += [(i, choose_anchor(i, right, ids, anchor)) for i in tried]
    return Plan(repairs, fallback, groups, untried)


def choose_anchor(wrong: int, right: Sequence[int], ids: Sequence[Sequence[int]], rule: str) -> int:
    """The correct response that is shown in the repair prompt."""
    if rule == "shortest":
        return min(right, key=lambda i: len(ids[i]))
    if rule == "nearest":
        return min(right, key=lambda i: Levenshtein.distance(ids[wrong], ids[i]))
    raise InputError(f"anchor: found {rule!r}, expected {' or '.join(ANCHORS)}")


def edit_distance(wrong: Sequence[int], repaired: Sequence[int]) -> float:
    """Edits between two lists of token ids, divided by the length of the longer one: from 0 to 1."""
    return Levenshtein.normalized_distance(wrong, repaired)


def score(right: bool, passed: bool, distance: float, lambda_edit: float) -> float:
    """The score h·(r − λ_edit·d) of a candidate (IOP, arXiv 2605.05226): r ∈ {0, 1} correct, h ∈ {0, 1} the audit.

    Our choice: a wrong candidate scores 0, not −λ_edit·d. Wrong candidates are never chosen, and as a reward of the
    repair mode a negative score would rank them below a pasted answer, which scores 0.

    >>> score(True, True, 0.2, 0.5), score(True, False, 0.2, 0.5), score(False, True, 0.2, 0.5)
    (0.9, 0.0, 0.0)
    """
    return 1 - lambda_edit * distance if right and passed else 0.0


def best(scores: Sequence[float], usable: Sequence[bool]) -> int | None:
    """The index of the usable candidate with the highest score, the first of equals; None if none is usable."""
    numbers = [i for i, ok in enumerate(usable) if ok]
    return max(numbers, key=lambda i: scores[i], default=None)


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit at position `wrong` of the wrong response and position `repaired` of the repair.

    A substitution removes one token and puts another; a deletion has puts=False, an insertion removes=False.
    """

    wrong: int
    repaired: int
    removes: bool
    puts: bool


def align(wrong: Sequence[int], repaired: Sequence[int]) -> list[Edit]:
    """The edits that turn `wrong` into `repaired`, from left to right; as many as the edit distance.

    >>> align([1, 2, 3], [1, 5, 3, 4])
    [Edit(wrong=1, repaired=1, removes=True, puts=True), Edit(wrong=3, repaired=3, removes=False, puts=True)]
    """
    return [
        Edit(op.src_pos, op.dest_pos, removes=op.tag != "insert", puts=op.tag != "delete")
        for op in Levenshtein.editops(wrong, repaired)
    ]


def graft(wrong: Sequence[int], repaired: Sequence[int], edits: Sequence[Edit]) -> list[int]:
    """`wrong` with only these edits (some of those of `align`, in their order) applied.

    >>> edits = align([1, 2, 3], [1, 5, 3, 4])
    >>> graft([1, 2, 3], [1, 5, 3, 4], edits[:1]), graft([1, 2, 3], [1, 5, 3, 4], edits)
    ([1, 5, 3], [1, 5, 3, 4])
    """
    ids: list[int] = []
    done = 0
    for edit in edits:
        ids += wrong[done : edit.wrong]
        done = edit.wrong + edit.removes
        if edit.puts:
            ids.append(repaired[edit.repaired])
    return [*ids, *wrong[done:]]


def masks(edits: Sequence[Edit], wrong_length: int, repaired_length: int) -> tuple[list[bool], list[bool]]:
    """Which tokens of either side the edits change: those removed, and those put in their place.

    >>> masks(align([1, 2, 3], [1, 5, 3, 4]), 3, 4)
    ([False, True, False], [False, True, False, True])
    """
    removed = {edit.wrong for edit in edits if edit.removes}
    put = {edit.repaired for edit in edits if edit.puts}
    return [i in removed for i in range(wrong_length)], [i in put for i in range(repaired_length)]


Verify = Callable[[Sequence[int], Sequence[list[int]]], Sequence[bool]]
"""(indices of the pairs, one response of each) -> whether each response is right."""


def truncate(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], edits: Sequence[Sequence[Edit]], k: int, verify: Verify
) -> list[int]:
    """The number of leading edits kept of every pair (wrong, repaired): k, else 2k, else all of them.

    IOP, arXiv 2605.05226. One edit is one differing token: a substitution counts once, not once per side. A repair of
    at most k (2k) edits needs no check, because all of them give the repair, which is verified already. All pairs are
    checked together: `verify` is called once for k and once for 2k, and not at all if no repair is longer.
    """
    kept = [len(of_pair) for of_pair in edits]
    unsettled = list(range(len(pairs)))
    for limit in (k, 2 * k):
        unsettled = [i for i in unsettled if len(edits[i]) > limit]
        if not unsettled:
            break
        verdicts = verify(unsettled, [graft(*pairs[i], edits[i][:limit]) for i in unsettled])
        right = {i for i, verdict in zip(unsettled, verdicts, strict=True) if verdict}
        for i in right:
            kept[i] = limit
        unsettled = [i for i in unsettled if i not in right]
    return kept
