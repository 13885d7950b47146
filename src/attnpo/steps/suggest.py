"""A lexicon proposed from a model's own responses, to be edited by hand.

Openers are the first words of paragraphs. One is proposed if, in several responses, it opens paragraphs far more often
than chance would put its words there. Its list, one of five, is guessed from its words; without a hint it is forward.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from attnpo.steps.lexicon import PHRASE_KINDS, load_lexicon

LONGEST_OPENER = 4
"""In words; for Chinese and Japanese, which write no spaces, in pairs of characters."""

FEWEST_TRACES = 3
LEAST_SHARE = 0.004
"""Least share of paragraphs that begin with an opener. A response has about 15 to 60 paragraphs."""

LEAST_LIFT = 4.0
"""How many times more often than by chance an opener must be at the start of a paragraph."""

TAKES_OVER = 0.75
"""A longer opener replaces the shorter one it begins with if it has at least this share of its occurrences."""

SHORT_WORD = 4
"""In letters. A longer word is rarely the beginning of another one."""

_PARAGRAPH = re.compile(r"(?:\A|\n[^\S\n]*\n)\s*(?=\S)")
_LINE = re.compile(r"(?:\A|\n)[^\S\n]*(?=\S)")
_WORD = re.compile("[\u3040-\u30ff\u3400-\u9fff]|[^\\W\\d_]+(?:['’][^\\W\\d_]+)*")
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
_HINTS = (
    ("answer", r"\*\*.*answer|final answer|最终答案|answer:|réponse finale|antwort:"),
    ("branch", r"alternativ|another|different (?:way|approach)|instead|或者|另|换|autre|andere|otra"),
    (
        "transition",
        r"wait|but|however|hold|no\b|actually|check|verif|confirm|sure|right|recap|correct|mistake|hmm|oops|re-?"
        r"|等|但|不过|不对|检查|验证|确认|验算|再算|mais|attend|vérifi|aber|moment|prüf|pero|espera|comprob",
    ),
    (
        "backward",
        r"\bso\b|therefore|thus|hence|putting|conclu|overall|in summary|所以|因此|综上|总之|donc|por lo",
    ),
)


@dataclass(frozen=True)
class Opener:
    """A phrase that opens paragraphs. `count`: how many; `traces`: in how many responses; `lift`: times chance."""

    phrase: str
    list_name: str
    count: int
    traces: int
    lift: float


def suggest_openers(thinkings: Sequence[str]) -> list[Opener]:
    """The openers of these texts, the most frequent first.

    Paragraphs are separated by blank lines; with fewer than two per text on average, every line is one.
    """
    starts = [[match.end() for match in _PARAGRAPH.finditer(text)] for text in thinkings]
    if sum(map(len, starts)) < 2 * len(thinkings):
        starts = [[match.end() for match in _LINE.finditer(text)] for text in thinkings]
    paragraphs = sum(map(len, starts))
    places = sum(len(_WORD.findall(text)) for text in thinkings)
    counts: Counter[str] = Counter()
    traces: defaultdict[str, set[int]] = defaultdict(set)
    for index, (text, begins) in enumerate(zip(thinkings, starts, strict=True)):
        for begin in begins:
            for phrase in _openers_at(text, begin):
                counts[phrase] += 1
                traces[phrase].add(index)
    least = max(FEWEST_TRACES, LEAST_SHARE * paragraphs)
    found = {phrase for phrase, count in counts.items() if count >= least and len(traces[phrase]) >= FEWEST_TRACES}
    everywhere = "\n".join(thinkings)
    openers = []
    for phrase in sorted(found, key=lambda phrase: (-counts[phrase], phrase)):
        if any(longer != phrase and longer.startswith(phrase) and counts[longer] >= TAKES_OVER * counts[phrase]
               for longer in found):  # fmt: skip
            continue
        lift = counts[phrase] / max(1, _occurrences(phrase, everywhere)) * places / paragraphs
        if lift >= LEAST_LIFT:
            openers.append(Opener(phrase, _list_of(phrase), counts[phrase], len(traces[phrase]), lift))
    return [_with_boundary(opener) for opener in _without_covered(openers)]


def suggestion(openers: Sequence[Opener]) -> dict[str, Any]:
    """The openers as the content of a lexicon file. Notes for the person who edits it begin with an underscore."""
    wide = sum(opener.count for opener in openers if _WIDE.search(opener.phrase))
    is_wide = 2 * wide > sum(opener.count for opener in openers)
    lists = {name: [opener.phrase for opener in openers if opener.list_name == name] for name in PHRASE_KINDS}
    return {
        "_note": "Proposed from responses; move, add and remove phrases. transition: doubts and checks; branch: "
        "another way; forward: continues; backward: concludes; answer: opens the final answer. Forward and backward "
        "phrases cut at the start of a line, the others anywhere. In _evidence: paragraphs, responses, times chance.",
        **({"sentence_start": True, "wide_characters": True} if is_wide else {}),
        **lists,
        "_evidence": {opener.phrase: [opener.count, opener.traces, round(opener.lift, 1)] for opener in openers},
    }


def _openers_at(text: str, begin: int) -> list[str]:
    """The first one, two, three and four words from `begin` on, as written, up to the first punctuation mark."""
    phrases, end = [], begin
    first = _WORD.match(text, begin)
    limit = 2 * LONGEST_OPENER if first and _WIDE.match(first[0]) else LONGEST_OPENER
    for _ in range(limit):
        word = _WORD.match(text, end)
        if word is None:
            break
        end = word.end()
        if end - begin > 1 or not _WIDE.match(word[0]):  # one such character is half a word
            phrases.append(text[begin:end])
        if end < len(text) and text[end] in ",，、":
            phrases.append(text[begin : end + 1])  # "No," is another phrase than "No"
            break
        if end < len(text) and text[end] == " ":
            end += 1
    return phrases


def _occurrences(phrase: str, text: str) -> int:
    """Number of occurrences of a phrase in a text, as complete words."""
    after = r"(?!\w)" if phrase[-1].isalnum() and not _WIDE.match(phrase[-1]) else ""
    before = r"(?<!\w)" if not _WIDE.match(phrase[0]) else ""
    return len(re.findall(before + re.escape(phrase) + after, text))


def _list_of(phrase: str) -> str:
    """The list of a phrase: that of the longest known phrase it begins with, else guessed from a word in it."""
    known = load_lexicon("paper+zh").phrases
    opened = [one for one in known if phrase.startswith(one.strip())]
    hinted = next((name for name, words in _HINTS if re.search(words, phrase, re.IGNORECASE)), None)
    if opened:
        name = known[max(opened, key=len)]
        # "Let me" goes forward, "Let me go back and check" does not
        return hinted if hinted in ("transition", "branch") and name == "forward" else name
    return hinted or "forward"


def _with_boundary(opener: Opener) -> Opener:
    """Add a space to a short forward word, as in the published lists: "In " does not match "Integrate"."""
    if opener.list_name == "forward" and len(opener.phrase) <= SHORT_WORD and opener.phrase.isalpha():
        return opener if _WIDE.match(opener.phrase) else replace(opener, phrase=f"{opener.phrase} ")
    return opener


def _without_covered(openers: list[Opener]) -> list[Opener]:
    """Remove openers that begin with a shorter one of the same list, which cuts at the same place."""
    kept: list[Opener] = []
    for opener in sorted(openers, key=lambda opener: len(opener.phrase)):
        shorter = [one for one in kept if opener.phrase.startswith(one.phrase)]
        if not shorter or max(shorter, key=lambda one: len(one.phrase)).list_name != opener.list_name:
            kept.append(opener)
    return sorted(kept, key=lambda opener: (-opener.count, opener.phrase))
