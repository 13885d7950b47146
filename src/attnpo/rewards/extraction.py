r"""Which text of a response is the answer: the last ``\boxed{…}`` or ``<answer>…</answer>``, else what is announced.

Imports only the standard library, math-verify and `attnpo.data.references`: every verifying process loads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby

from math_verify import ExprExtractionConfig, LatexExtractionConfig
from math_verify.parser import get_extraction_regexes

from attnpo.data.references import HOPED, final_box
from attnpo.rewards.normal_form import FOREIGN_COUNT

_TAG = re.compile(
    r"(?:<answer>((?:(?!<answer>).)*)</answer>|(?:^|\n)[^\n]*?\banswer\W{0,4}\s*([^\n]*)</answer>)", re.S | re.I
)
_ANNOUNCED = re.compile(
    r"(?:\banswer(?:\s+is)?\s*(?::|\bis\b)|^####)[\s*:]*([^\n]{1,100})", re.IGNORECASE | re.MULTILINE
)
_COUNT_WORD = re.compile(
    rf"(?:[A-Za-zπ²³^/°%\\]|\s*[十百千万萬亿億]|\s+(?:hundred|thousand|[mbtr]?illion|dozen|lakh|crore|or|and|{FOREIGN_COUNT})\b)+"
    r"[\w^{}.²³]*",
    re.IGNORECASE,
)
_NOT_BEFORE = re.compile(r"(?:\b(?:not|never|neither|nor)|n['’]t)(?:\s+(?:be|the))?\s[\s$*(\\\[]*$", re.IGNORECASE)
_DENIED_BEFORE = re.compile(
    r"(?:(?:\b(?:not|never|neither|nor|than|least|most|except|excluding|besides|beyond|under|above|below|nearly|almost|"
    r"up\s+to|(?:any|every)thing\s+but|all\s+but|between\s+\S+\s+and|nicht|als|pas|menos\s+de|m[áa]s\s+de|moins\s+de|"
    r"plus\s+de|no\s+es)|n['’]t)(?:\s+(?:be|the|a))?\s|不是|[小大少多]于|超过|至[少多]|[<>≤≥≠]=?|"
    r"\\(?:lt|gt|leq?|geq?|neq?)(?![a-z]))[\s$*(\\]*$",
    re.IGNORECASE,
)
_WRONG_BEHIND = re.compile(
    r"[\s$*)}\]\\]*(?:(?:is|are)\s+(?:too|wrong|incorrect|impossible)|"
    r"(?:is\s+not|isn['’]t)\s+(?:right|correct|possible|it\b|(?:the|an?)\s+(?:\w+\s+)?(?:answer|solution)))",
    re.IGNORECASE,
)
_MORE_BEHIND = re.compile(
    r"[\s$*)\\]*(?:\s(?:or|and)\s+(?:more|less|fewer|above|below|higher|lower|up)|at\s+(?:least|most))", re.IGNORECASE
)
_BOX = re.compile(r"\\(?:f?boxed|fbox)")
_FORMULA = re.compile(r"\$\$[^$]+\$\$|(?<![\\\d])\$(?=[^\n$]*[\\=^_{])[^\n$]+\$|\\\(.+?\\\)|\\\[.+?\\\]", re.DOTALL)
_ALONE = re.compile(r"\s*(?:[A-Za-z][A-Za-z ,'-]{0,60}\.?|[^\s$*]{1,100})\s*")
"""A whole response that is words, or one formula without spaces."""
_BESIDE_DIGITS = r"(?<=\d)(?=[\u4e00-\u9fff])|(?<=[\u4e00-\u9fff])(?=\d)"
MOST_CANDIDATES = 6


class Candidate(str):
    """A text that may be the answer. `is_final`: of a box or a tag, where there is no other."""

    is_final = False


class FinalText(Candidate):
    is_final = True


def candidates(answer: str) -> Iterator[Candidate]:
    """Texts that may be the answer, the most likely first; a box or a tag is the only one."""
    box, tag = final_box(answer), next(reversed(list(_TAG.finditer(answer))), None)
    if tag is not None and (box is None or tag.end() > box[0]):
        content = tag[1] if tag[1] is not None else tag[2]
        inner = final_box(content)
        if content.strip():
            yield FinalText(inner[1] if inner else content.strip())
            return
    if box is not None:
        hoped = HOPED.search(answer, box[0])
        start = max((found.start() for found in _BOX.finditer(answer, 0, box[0])), default=0)
        if not hoped and (
            _NOT_BEFORE.search(answer[max(0, start - 60) : start]) or _WRONG_BEHIND.match(answer, box[0])
        ):
            yield from (one for one in candidates(answer[:start]) if one.is_final)  # it is an earlier box, or none
            return
        yield FinalText(hoped[1] or hoped[2] if hoped else box[1])
        return
    if _ALONE.fullmatch(answer):
        yield Candidate(answer.strip())
    if announced := _ANNOUNCED.findall(answer):
        said = announced[-1].strip(" *")
        if not re.search(r"\\[(\[]|(?<!\\)\$|\*\*", said):
            yield Candidate(re.sub(r"(?:,\s+(?:and\s+)?not\s.*|[.!])$", "", said))
    yield from _found_by_math_verify(re.sub(_BESIDE_DIGITS, " ", re.sub(r"\\\$\s?(?=[\d.])", "", answer)))


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[int, list[re.Pattern[str]]]]:
    targets = (LatexExtractionConfig(boxed_match_priority=-1), ExprExtractionConfig())
    found = [(priority, pattern) for group, _ in get_extraction_regexes(targets) for pattern, priority in group]
    found.sort(key=lambda item: item[0])
    return [(priority, [pattern for _, pattern in group]) for priority, group in groupby(found, lambda item: item[0])]


def _found_by_math_verify(text: str) -> Iterator[Candidate]:
    """What math-verify's own patterns find, in its order: by priority, the rightmost first."""
    count = 0
    denied: set[str] = set()
    formulas = [found.span() for found in _FORMULA.finditer(text)]
    for _, patterns in _patterns():
        matches = [match for pattern in patterns for match in pattern.finditer(text)]
        for match in sorted(matches, key=lambda match: (match.end(), -match.start()), reverse=True):
            is_digits = not any(value and "latex" in name for name, value in match.groupdict().items())
            if is_digits and any(start < match.end() - 1 < end - 1 for start, end in formulas):
                continue  # a number out of a formula is a part of the answer
            found = _matched_text(match, text)
            start, end = _span(match)
            before = text[max(0, start - 60) : start]
            if _DENIED_BEFORE.search(before) or _WRONG_BEHIND.match(text, end) or _MORE_BEHIND.match(text, end):
                denied.add(found)  # "less than 42", "42 is wrong": nor is it where it stands for itself
            if found in denied:
                continue
            yield Candidate(found)
            count += 1
            if count == MOST_CANDIDATES:
                return


def _span(match: re.Match[str]) -> tuple[int, int]:
    spans = [match.span(name) for name, value in match.groupdict().items() if value]
    return min(start for start, _ in spans), max(end for _, end in spans)


def _matched_text(match: re.Match[str], text: str) -> str:
    groups = {name: value for name, value in match.groupdict().items() if value}
    formulas = [value for name, value in groups.items() if "latex" in name]
    if formulas:
        return ", ".join(formulas) + (r"\%" if any("percent" in name for name in groups) else "")
    start, end = _span(match)
    # math-verify stops behind the digits: "8x" and "8 million" are not 8.
    more = None if "expr" in groups else _COUNT_WORD.match(text, end)
    return text[start : more.end() if more else end].strip()
