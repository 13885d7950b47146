"""How often a response turns, goes forward or concludes: counts behind the per-1k-token metrics."""

from __future__ import annotations

from attnpo.steps.lexicon import load_lexicon

PHRASE_KINDS = ("transition", "branch", "forward", "backward", "answer")


def phrase_counts(thinking: str, lexicon: str = "paper") -> dict[str, int]:
    """Number of counted triggers of each phrase list in `thinking`.

    All five kinds are present, with 0 where none was found. Merging of short steps does not change the counts.

    Raises:
        InputError: unknown lexicon.

    >>> phrase_counts("Wait, no.\\nSo it is 4. But why?")
    {'transition': 2, 'branch': 0, 'forward': 0, 'backward': 1, 'answer': 0}
    """
    counts: dict[str, int] = dict.fromkeys(PHRASE_KINDS, 0)
    for trigger in load_lexicon(lexicon).triggers(thinking):
        counts[trigger.list_name] += 1
    return counts
