r"""Whether a step states a given answer, decided from its text only.

Answer and step are first written alike (spaces, $, \left, \dfrac, thousands separators …), then the answer is searched
for as a complete number or expression: 4 is not found in 14, 4.5, -4 or x4. A number is compared as written, except
that 4.0 is 4; an equal value in another form (0.5 for \frac{1}{2}, "four") is not found.
"""

from __future__ import annotations

import re

PLACES = ("result", "equation", "last", "anywhere")
r"""Places in a step where the answer counts. result: after "=", "is", "are", "be", "get", "give", "make", "equals" or
"answer:", or inside \boxed. equation: after "=" or inside \boxed. last: as the last number of the step. anywhere: also
as an operand, or where the problem is repeated."""

_EQUATION = r"(?:=|\\boxed\{)"
_BEFORE = {
    "equation": _EQUATION,
    "result": rf"(?:{_EQUATION}|\b(?:is|are|be|gets?|gives?|makes?|equals|equal to|answer:)(?!\w))",
    "anywhere": "",
    "last": "",
}
_FILLER = r"[\s(*:]*"
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")
_SIGN = r"(?:\*\*(?=\d)|[-+*×·⋅÷−]|\\(?:times|cdot|div)\b|\b(?:x|plus|minus|times|divided by|multiplied by)\b)"
_OPERAND = r"[\s({]*(?:-?\d|\\[a-z]|[B-HJ-Zb-hj-z]\b)"  # a variable is one letter, other than the words a and I
_CONJUNCTION = r"(?:and|or|so|then|but|thus|hence|while|where|if|with|as|since|because|which)\b"
_UNIT = rf"(?:(?:\\?%|°|\^\{{?\\circ\}}?|(?: (?!{_CONJUNCTION})[A-Za-z]+){{1,2}}) ?)?"
_NEXT = rf"{_UNIT}{_SIGN}{_OPERAND}"
_OPERATOR = rf"[*\s)]*?(?:{_NEXT}|\^(?!\{{?\\circ)|(?<=\d)\(-?\d|/{_OPERAND}[\d.]*[\s)]*(?:=|/|{_NEXT}))"
r"""What follows a number that a step calculates with, as the 42 of "42 + 18", "(42) + 18", "42 cm + 18 cm", "42^2".
Not of a fraction at the end: in "P = 25/216." it is the result."""
_BULLET = re.compile(r"\n\s*[-*+•]\s+")  # begins an item of a list, and is no operator after the item before it
_RESULT = re.compile(rf"{_BEFORE['result']}{_FILLER}({_NUMBER.pattern})(?!\w|\.\d)(?!{_OPERATOR})")
_REPAIRS = (
    (re.compile(r"\\(?:left|right|displaystyle|[,;:! ]|\(|\)|\[|\])|\$"), ""),
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\\(?:text|mathrm|mathbf)\{([^{}]*)\}"), r"\1"),
    (re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))"), ""),
    (re.compile(r"\s+"), " "),
    (re.compile(r" ?([=+*/^{}]) ?"), r"\1"),
)


def written_alike(text: str) -> str:
    r"""`text` in one way of writing, for comparison.

    Example:
        >>> written_alike(r"$x = \dfrac{1}{2}$ and 1,200 \text{ m}")
        'x=\\frac{1}{2}and 1200 m'
    """
    for pattern, replacement in _REPAIRS:
        text = pattern.sub(replacement, text)
    return text.strip()


def final_answer(text: str) -> str | None:
    r"""The value of a final answer: the content of its last \boxed{…}, else its last number, else None.

    Example:
        >>> final_answer(r"beds 17, so \boxed{\frac{1}{2}}"), final_answer("The answer is 42."), final_answer("yes")
        ('\\frac{1}{2}', '42', None)
    """
    begin = text.rfind("\\boxed{")
    if begin >= 0:
        depth = 0
        for i in range(begin + len("\\boxed"), len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if depth == 0:
                return written_alike(text[begin + len("\\boxed{") : i]) or None
        return None  # never closed
    numbers = _NUMBER.findall(written_alike(text))
    return numbers[-1] if numbers else None


def states_answer(step: str, answer: str, place: str = "result") -> bool:
    """Whether `step` has `answer` (from `final_answer`) in `place`, one of `PLACES`.

    Example:
        >>> [states_answer("4 plus 38 is 42.", answer) for answer in ("42", "4", "2")]
        [True, False, False]
    """
    step = written_alike(step)
    if place == "last":
        numbers = _NUMBER.findall(step)
        return bool(numbers) and float(numbers[-1]) == _as_number(answer)
    number = r"(?:\.0+)?" if _as_number(answer) is not None else ""
    whole = rf"{re.escape(answer)}{number}(?!\w|\.\d|[/^])"
    before = _BEFORE[place]
    return re.search(f"{before}{_FILLER}{whole}" if before else rf"(?<![\w.\\-]){whole}", step) is not None


def stated_values(step: str) -> set[str]:
    """The numbers that a step gives as a result: after "=", "is", … as in place "result" of `PLACES`, unless it goes on
    to calculate with them.

    Example:
        >>> sorted(stated_values("12 plus 30 is 42, and 42 - 2 = 40.")), stated_values("total = 42 + 18 = 60")
        (['40', '42'], {'60'})
    """
    return set(_RESULT.findall(_items(step)))


def used_values(step: str) -> set[str]:
    """The numbers of a step that it does not itself give as a result.

    Example:
        >>> sorted(used_values("12 plus 30 is 42, and 42 - 2 = 40."))
        ['12', '2', '30']
    """
    return set(_NUMBER.findall(_items(step))) - stated_values(step)


def _items(step: str) -> str:
    """`written_alike`, with the items of a list as sentences."""
    return written_alike(_BULLET.sub(". ", f"\n{step}"))


def _as_number(answer: str) -> float | None:
    return float(answer) if _NUMBER.fullmatch(answer) else None
