"""Thinking text -> reasoning steps.

Source: ATTNPO (arXiv 2602.09953). Steps tile the text: no gap, no overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from attnpo.steps.lexicon import PARAGRAPHS, Trigger, load_lexicon

SHORT_STEP = 80  # characters; a segment shorter than this is merged
BARE_BACKWARD = 15  # characters; a backward phrase followed by at most this many introduces the next segment

_STEP_KIND = {
    PARAGRAPHS: "forward",
    "transition": "confused",
    "branch": "confused",
    "forward": "forward",
    "backward": "backward",
    "answer": "answer",
}


@dataclass(frozen=True, slots=True)
class Step:
    """Characters [start, end) of the thinking text. `kind`: confused, forward, backward or answer."""

    start: int
    end: int
    kind: str


@dataclass(slots=True)
class _Segment:
    start: int
    end: int
    kind: str
    trigger_length: int  # 0 where the text at offset 0 has no counted trigger


def segment_steps(thinking: str, lexicon: str = "paper") -> list[Step]:
    """Split the thinking part of a response into steps.

    Args:
        thinking: the thinking of a response (`attnpo.steps.response`), without its marks.
        lexicon: ``paper``, or ``released`` for the phrase lists of the released script with its missing comma; others,
            and several joined by ``+``: see `attnpo.steps.lexicon.load_lexicon`.

    Returns:
        Steps in order; they tile `thinking`. Empty thinking gives no steps.

    Raises:
        InputError: unknown lexicon.

    >>> segment_steps("3 + 4 = 7.")
    [Step(start=0, end=10, kind='forward')]
    """
    phrases = load_lexicon(lexicon)
    segments = _cut(thinking, list(phrases.triggers(thinking)))
    merged = _merge_short(segments, phrases.widths(thinking))
    return [Step(segment.start, segment.end, segment.kind) for segment in merged]


def _cut(thinking: str, triggers: list[Trigger]) -> list[_Segment]:
    """Cuts at offset 0, at each counted trigger and at the end (rule 3)."""
    if not thinking:
        return []
    segments = [
        _Segment(trigger.start, trigger.end, _STEP_KIND[trigger.list_name], trigger.end - trigger.start)
        for trigger in triggers
    ]
    if not segments or segments[0].start > 0:
        segments.insert(0, _Segment(0, 0, "forward", 0))
    for segment, following in pairwise(segments):
        segment.end = following.start
    segments[-1].end = len(thinking)
    return segments


def _merge_short(segments: list[_Segment], widths: list[int] | None) -> list[_Segment]:
    """The left-to-right merge walk (rule 4), in linear time. `widths`: from `Lexicon.widths`.

    `done` holds the segments left of the current one and `waiting` those right of it (next one last), so a merge is one
    pop instead of a deletion from the middle of a list.
    """
    done: list[_Segment] = []
    waiting = segments[::-1]
    while waiting:
        current = waiting.pop()
        right = waiting[-1] if waiting else None
        direction = _merge_direction(current, right, widths, right_is_last=len(waiting) == 1)
        if direction == "right" and right is not None:
            waiting.pop()
            current.end = right.end
            waiting.append(current)
        elif direction == "left" and done:
            left = done.pop()
            left.end = current.end
            waiting.append(left)
        else:
            done.append(current)
    return done


def _merge_direction(
    segment: _Segment, right: _Segment | None, widths: list[int] | None, *, right_is_last: bool
) -> str | None:
    """The side with which rule 4 merges a segment: ``left`` (even if there is none), ``right``, or None."""
    trigger_end = segment.start + segment.trigger_length
    if widths is None:
        width, beyond_trigger = segment.end - segment.start, segment.end - trigger_end
    else:
        width, beyond_trigger = widths[segment.end] - widths[segment.start], widths[segment.end] - widths[trigger_end]
    if width >= SHORT_STEP or segment.kind == "answer":
        return None
    can_go_right = right is not None and right.kind != "answer"
    if segment.kind == "confused":
        return "right" if can_go_right else None
    if right is not None and right.kind == "confused" and not right_is_last:
        return "left"
    if segment.kind == "forward":
        return "right" if can_go_right else None
    return "right" if beyond_trigger <= BARE_BACKWARD and can_go_right else "left"
