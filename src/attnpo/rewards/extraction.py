r"""The part of a response that is its answer: the last ``\boxed{…}`` or ``<answer>…</answer>``, else candidates.

Candidates are, in this order: the whole response if it is words or one formula, the text after "answer is", and what
math-verify's patterns find. Imports only the standard library, math-verify and `attnpo.data.references`, because every
verifying process loads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby

from math_verify import ExprExtractionConfig, LatexExtractionConfig
from math_verify.parser import get_extraction_regexes

from attnpo.data.references import HOPED_FORMULA, final_box
from attnpo.rewards.normal_form import FOREIGN_COUNT

_TAG = re.compile(
    r"(?:<answer>((?:(?!<answer>).)*)</answer>|(?:^|\n)[^\n]*?\banswer\W{0,4}\s*([^\n]*)</answer>)", re.S | re.I
)
_ANNOUNCED = re.compile(
    r"(?:\banswer(?:\s+is)?\s*(?::|\bis\b)|^####)[\s*:]*([^\n]{1,100})", re.IGNORECASE | re.MULTILINE
)
_MORE_OF_A_NUMBER = re.compile(
    rf"(?:[A-Za-zπ²³^/°%\\]|\s*[十百千万萬亿億]|\s+(?:hundred|thousand|[mbtr]?illion|dozen|lakh|crore|or|and|{FOREIGN_COUNT})\b)+"
    r"[\w^{}.²³]*",
    re.IGNORECASE,
)
"""What follows digits and changes their value: letters ("8x"), count words ("8 million")."""
_NEGATED_BOX = re.compile(r"(?:\b(?:not|never|neither|nor)|n['’]t)(?:\s+(?:be|the))?\s[\s$*(\\\[]*$", re.IGNORECASE)
"""Text up to a box that is not the answer: "not \\boxed{42}"."""
_DENIED_BEFORE = re.compile(
    r"(?:(?:\b(?:not|never|neither|nor|than|least|most|except|excluding|besides|beyond|under|above|below|nearly|almost|"
    r"up\s+to|(?:any|every)thing\s+but|all\s+but|between\s+\S+\s+and|nicht|als|pas|menos\s+de|m[áa]s\s+de|moins\s+de|"
    r"plus\s+de|no\s+es)|n['’]t)(?:\s+(?:be|the|a))?\s|不是|[小大少多]于|超过|至[少多]|[<>≤≥≠]=?|"
    r"\\(?:lt|gt|leq?|geq?|neq?)(?![a-z]))[\s$*(\\]*$",
    re.IGNORECASE,
)
"""Text up to a number that is not the answer: "not 42", "less than 42", "anything but 42"."""
_DENIED_AFTER = re.compile(
    r"[\s$*)}\]\\]*(?:(?:is|are)\s+(?:too|wrong|incorrect|impossible)|"
    r"(?:is\s+not|isn['’]t)\s+(?:right|correct|possible|it\b|(?:the|an?)\s+(?:\w+\s+)?(?:answer|solution)))",
    re.IGNORECASE,
)
"""Text after a box or number that is not the answer: "42 is wrong", "42 isn't the answer"."""
_BOUND_AFTER = re.compile(
    r"[\s$*)\\]*(?:\s(?:or|and)\s+(?:more|less|fewer|above|below|higher|lower|up)|at\s+(?:least|most))", re.IGNORECASE
)
"""Text after a number that makes it a bound: "42 or more", "42 at least"."""
_BOX = re.compile(r"\\(?:f?boxed|fbox)")
_FORMULA = re.compile(r"\$\$[^$]+\$\$|(?<![\\\d])\$(?=[^\n$]*[\\=^_{])[^\n$]+\$|\\\(.+?\\\)|\\\[.+?\\\]", re.DOTALL)
_ALONE = re.compile(r"\s*(?:[A-Za-z][A-Za-z ,'-]{0,60}\.?|[^\s$*]{1,100})\s*")
"""A complete response of words, or of one formula without spaces."""
_BETWEEN_DIGIT_AND_CHINESE = r"(?<=\d)(?=[\u4e00-\u9fff])|(?<=[\u4e00-\u9fff])(?=\d)"
_CONTEXT = 60  # characters before a number or box that are searched for a denial
MOST_CANDIDATES = 6


class Candidate(str):
    """A text that may be the answer. `is_final`: it comes from a box or a tag, and there is no other candidate."""

    is_final = False


class FinalText(Candidate):
    """The content of a box or a tag."""

    is_final = True


def candidates(answer: str) -> Iterator[Candidate]:
    """Texts that may be the answer, the most likely first; the content of a box or a tag is the only one."""
    box = final_box(answer)
    tag = next(reversed(list(_TAG.finditer(answer))), None)
    if tag is not None and (box is None or tag.end() > box[0]):
        content = tag[1] if tag[1] is not None else tag[2]
        if content.strip():
            boxed = final_box(content)
            yield FinalText(boxed[1] if boxed else content.strip())
            return
    if box is not None:
        yield from _from_box(answer, *box)
        return
    if _ALONE.fullmatch(answer):
        yield Candidate(answer.strip())
    if announced := _ANNOUNCED.findall(answer):
        last = announced[-1].strip(" *")
        if not re.search(r"\\[(\[]|(?<!\\)\$|\*\*", last):
            yield Candidate(re.sub(r"(?:,\s+(?:and\s+)?not\s.*|[.!])$", "", last))
    without_dollars = re.sub(r"\\\$\s?(?=[\d.])", "", answer)
    yield from _found_by_math_verify(re.sub(_BETWEEN_DIGIT_AND_CHINESE, " ", without_dollars))


def _from_box(answer: str, end: int, content: str) -> Iterator[Candidate]:
    """The answer of a response whose last box ends at `end`; nothing if the box is denied and no other precedes it."""
    if hoped := HOPED_FORMULA.search(answer, end):  # "The final answer is $…$. I hope it is correct.", after the box
        yield FinalText(hoped[1] or hoped[2])
        return
    start = max((found.start() for found in _BOX.finditer(answer, 0, end)), default=0)
    if _NEGATED_BOX.search(answer[max(0, start - _CONTEXT) : start]) or _DENIED_AFTER.match(answer, end):
        yield from (one for one in candidates(answer[:start]) if one.is_final)
        return
    yield FinalText(content)


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[int, list[re.Pattern[str]]]]:
    """math-verify's patterns for formulas and numbers, by priority."""
    targets = (LatexExtractionConfig(boxed_match_priority=-1), ExprExtractionConfig())
    found = [(priority, pattern) for group, _ in get_extraction_regexes(targets) for pattern, priority in group]
    found.sort(key=lambda item: item[0])
    return [(priority, [pattern for _, pattern in group]) for priority, group in groupby(found, lambda item: item[0])]


def _found_by_math_verify(text: str) -> Iterator[Candidate]:
    """The matches of math-verify's own patterns in its order: by priority, the rightmost first."""
    count = 0
    denied: set[str] = set()
    formulas = [found.span() for found in _FORMULA.finditer(text)]
    for _, patterns in _patterns():
        matches = [match for pattern in patterns for match in pattern.finditer(text)]
        for match in sorted(matches, key=lambda match: (match.end(), -match.start()), reverse=True):
            is_digits = not any(value and "latex" in name for name, value in match.groupdict().items())
            if is_digits and any(start < match.end() - 1 < end - 1 for start, end in formulas):
                continue  # a number inside a formula is only a part of the answer
            found = _matched_text(match, text)
            if _is_denied(text, *_span(match)):
                denied.add(found)  # not the answer anywhere else in the response either
            if found in denied:
                continue
            yield Candidate(found)
            count += 1
            if count == MOST_CANDIDATES:
                return


def _is_denied(text: str, start: int, end: int) -> bool:
    """Whether the words around text[start:end] exclude it: "less than 42", "42 is wrong", "42 or more"."""
    before = text[max(0, start - _CONTEXT) : start]
    after = _DENIED_AFTER.match(text, end) or _BOUND_AFTER.match(text, end)
    return after is not None or _DENIED_BEFORE.search(before) is not None


def _span(match: re.Match[str]) -> tuple[int, int]:
    """Start and end of the groups that matched; math-verify's patterns match text around them as well."""
    spans = [match.span(name) for name, value in match.groupdict().items() if value]
    return min(start for start, _ in spans), max(end for _, end in spans)


def _matched_text(match: re.Match[str], text: str) -> str:
    """The formulas of a match, joined by commas, or its number with what belongs to it."""
    groups = {name: value for name, value in match.groupdict().items() if value}
    formulas = [value for name, value in groups.items() if "latex" in name]
    if formulas:
        return ", ".join(formulas) + (r"\%" if any("percent" in name for name in groups) else "")
    start, end = _span(match)
    # math-verify stops after the digits, but "8x" and "8 million" are not 8.
    more = None if "expr" in groups else _MORE_OF_A_NUMBER.match(text, end)
    return text[start : more.end() if more else end].strip()
