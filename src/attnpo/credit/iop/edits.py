"""Which tokens differ between a wrong response and its repair: a shortest list of edits, and what follows from it.

The edits are a Levenshtein alignment of the two lists of token ids (insertions, deletions and substitutions cost
1). Where several alignments are shortest, rapidfuzz's choice is taken; the same lists always give the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit at position `wrong` of the wrong response and position `repaired` of the repair.

    A substitution removes the one token and puts the other; a deletion has puts=False, an insertion removes=False.
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
    """`wrong` with just these edits (some of those of `align`, in their order) made.

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
    """Which tokens of either side the edits touch: those removed, and those put in their place.

    >>> masks(align([1, 2, 3], [1, 5, 3, 4]), 3, 4)
    ([False, True, False], [False, True, False, True])
    """
    removed = {edit.wrong for edit in edits if edit.removes}
    put = {edit.repaired for edit in edits if edit.puts}
    return [i in removed for i in range(wrong_length)], [i in put for i in range(repaired_length)]


Verify = Callable[[Sequence[int], Sequence[list[int]]], Sequence[bool]]
"""(numbers of the pairs, a response of each) -> whether each response is right."""


def truncate(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], edits: Sequence[Sequence[Edit]], k: int, verify: Verify
) -> list[int]:
    """How many leading edits of every pair (wrong, repaired) are kept: k, else 2k, else all of them.

    IOP, arXiv 2605.05226. One edit is one differing token: a substitution counts once, not once per side. A repair of
    at most k (2k) edits needs no check: all of them make the repair, which has been verified already. All pairs are
    checked together: `verify` is called once for k and once for 2k, and not at all where no repair is longer.
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
