r"""Responses made from a gold answer: respellings, which must be right, and near-misses, which must be wrong.

Both rewrite the gold's text and do not use the verifier. A way that does not apply to a gold returns nothing. Each is a
(name, function) pair; :func:`respellings` and :func:`near_misses` apply them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

Way = Callable[[str], "str | Iterable[str] | None"]

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
WORDS = re.compile(r"[A-Za-z]{2,}(?: [A-Za-z]{2,})*|\\text\{[A-Za-z ]{2,}\}")
_UNIT = re.compile(r"\s*\\(?:text|mbox|mathrm)\s*\{[^{}]*\}(?:\^\{?\d\}?)?$")
_OPEN, _CLOSE = "([{", ")]}"


def boxed(content: str) -> str:
    return rf"So the answer is $\boxed{{{content}}}$."


def parts_of(gold: str) -> list[str]:
    """`gold` split at its commas outside of brackets; separated thousands are not split."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(gold):
        depth += (char in _OPEN) - (char in _CLOSE)
        if char == "," and depth == 0 and gold[index - 1 : index] != "\\" and not gold.startswith(r"\!", index + 1):
            parts.append(gold[start:index])
            start = index + 1
    parts.append(gold[start:])
    if len(parts) > 1 and all(re.fullmatch(r"\d{3}", part) for part in parts[1:]) and parts[0].isdigit():
        return [gold]
    return [part.strip() for part in parts]


def is_tuple(gold: str) -> bool:
    return re.fullmatch(r"\([^()]*,[^()]*\)", gold) is not None


def _replaced(pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> Callable[[str], str | None]:
    compiled = re.compile(pattern)

    def way(gold: str) -> str | None:
        changed = compiled.sub(replacement, gold)
        return boxed(changed) if changed != gold else None

    return way


def _unicode(gold: str) -> str | None:
    changed = gold
    for command, char in UNICODE:
        changed = re.sub(command, char, changed)
    return boxed(changed) if changed != gold else None


UNICODE = (
    (r"\\pi(?![A-Za-z])\s?", "π"),
    (r"\\infty(?![A-Za-z])", "∞"),
    (r"\\pm(?![A-Za-z])\s?", "±"),
    (r"\\cdot(?![A-Za-z])\s?", "·"),
    (r"\\(?:ge|geq|geqslant)(?![A-Za-z])\s?", "≥"),
    (r"\\in(?![A-Za-z])\s?", "∈"),
    (r"\\cup(?![A-Za-z])\s?", "∪"),
    (r"\\sqrt\s?(?:\{(\d+)\}|(\d)(?!\d))", r"√\1\2"),
    (r"\^(?:\{\\circ\}|\\circ)", "°"),
    (r"\^(?:\{2\}|2(?!\d))", "²"),
    (r"^\\frac\{1\}\{2\}$", "½"),
    (r"^-", "−"),
)


def _plain(gold: str) -> str | None:
    r"""The gold as plain text: ``pi``, ``sqrt(2)``, ``3*x``, ``(1)/(2)``, without LaTeX commands."""
    if re.search(r"\d\s*\\[dt]?frac|\{d ?[a-zA-Z]", gold):  # a mixed number, a derivative
        return None
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", gold)
    text = re.sub(r"\\sqrt\s*\{([^{}]*)\}", r"sqrt(\1)", text)
    text = re.sub(r"\\pi(?![A-Za-z])", "pi", re.sub(r"\\cdot", "*", re.sub(r"\\(?:left|right)", "", text)))
    text = re.sub(r"(\d)\s*(pi|sqrt|\(|(?!e-?\d)[a-z](?![a-z]))", r"\1*\2", text)
    if "\\" in text or text == gold or re.search(r"[A-Za-z]\(|_", text.replace("sqrt(", "")):
        return None
    return boxed(text)


def _words(gold: str) -> list[str] | None:
    if not WORDS.fullmatch(gold) or len(gold) < 4:
        return None
    word = re.sub(r"\\text\{(.*)\}", r"\1", gold)
    return [boxed(word), boxed(rf"\text{{{word}}}"), boxed(rf"\textbf{{{word}.}}"), f"The answer is {word}."]


def _number(form: str) -> Way:
    return lambda gold: form.replace("%s", gold) if NUMBER.fullmatch(gold) else None


def _decimal(gold: str) -> str | None:
    if gold.lstrip("-").isdigit():
        return boxed(f"{gold}.0")
    fraction = re.fullmatch(r"(-?)\\frac\{(\d+)\}\{(\d+)\}", gold)
    if fraction is None or 10**6 % int(fraction[3]):
        return None
    return boxed(f"{fraction[1]}{int(fraction[2]) / int(fraction[3]):.10g}")


def _grouped(gold: str) -> list[str] | None:
    if not re.fullmatch(r"-?\d{4,}", gold):
        return None
    return [boxed(f"{int(gold):,}".replace(",", mark)) for mark in (",", "{,}", r",\!", r"\,")]


def _reordered(gold: str) -> list[str] | None:
    parts = parts_of(gold)
    if len(parts) < 2 or ("=" in parts[0] and "=" not in parts[1]):
        return None
    return [
        boxed(", ".join(reversed(parts))),
        boxed(r" \text{ and } ".join([", ".join(parts[:-1]), parts[-1]])),
        boxed(";".join(parts)),
    ]


def _sized(gold: str) -> str | None:
    if "\\left" in gold or not re.search(r"[()]", gold):
        return None
    balanced = all(gold[:end].count("(") >= gold[:end].count(")") for end in range(len(gold) + 1))
    if not balanced or gold.count("(") != gold.count(")"):
        return None
    return boxed(gold.replace("(", r"\left(").replace(")", r"\right)"))


def _small_number_word(gold: str) -> str | None:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    return boxed(rf"\text{{{names[int(gold)]}}}") if gold.isdigit() and int(gold) < len(names) else None


_CIRC = r"\^\{?\\circ\}?"
RESPELLINGS: tuple[tuple[str, Way], ...] = (
    ("box", lambda gold: boxed(gold)),
    ("displayed box", lambda gold: f"Therefore:\n\n\\[\n\\boxed{{{gold}}}\n\\]"),
    ("bare box", lambda gold: rf"\boxed{{{gold}}}"),
    ("box with spaces", lambda gold: rf"Thus $\boxed {{ {gold} }}$"),
    ("fbox", lambda gold: rf"Thus \fbox{{${gold}$}}"),
    ("last of two boxes", lambda gold: rf"I first wrote \boxed{{17z}}, but it is \boxed{{{gold}}}"),
    ("answer tag", lambda gold: f"<answer>{gold}</answer>"),
    ("answer tag with formula", lambda gold: f"<answer> ${gold}$ </answer>"),
    ("announced formula", lambda gold: f"**Final Answer:** ${gold}$"),
    ("formula in a sentence", lambda gold: f"Therefore the answer is ${gold}$."),
    ("point after it", lambda gold: boxed(gold + ".")),
    ("dollar signs in the box", lambda gold: rf"\boxed{{${gold}$}}"),
    ("space after it", lambda gold: [boxed(gold + r"\ "), boxed(gold + r"\,"), boxed(rf"\quad {gold}")]),
    ("bold", lambda gold: [boxed(rf"\boldsymbol{{{gold}}}"), boxed(rf"\bm{{{gold}}}"), boxed(rf"\mathbf{{{gold}}}")]),
    ("old bold", lambda gold: [boxed(rf"\bf {gold}"), boxed(rf"{{\bf {gold}}}")]),
    ("size", lambda gold: [boxed(rf"\large {gold}"), boxed(rf"\displaystyle {gold}")]),
    ("colour", lambda gold: [boxed(rf"\color{{blue}} {gold}"), boxed(rf"\textcolor{{red}}{{{gold}}}")]),
    ("underlined", lambda gold: boxed(rf"\underline{{{gold}}}")),
    ("words before it", lambda gold: [boxed(rf"\text{{Answer: }} {gold}"), boxed(f"The answer is {gold}")]),
    ("dfrac", _replaced(r"\\frac", r"\\dfrac")),
    ("tfrac", _replaced(r"\\frac", r"\\tfrac")),
    ("fraction without braces", _replaced(r"\\frac\{(\d)\}\{(\d)\}", r"\\frac\1\2")),
    ("left and right", _sized),
    ("Unicode", _unicode),
    ("full width", _replaced(r"[(),](?!\d{3}(?!\d))", lambda char: {"(": "（", ")": "）", ",": "，"}[char[0]])),
    ("plain text", _plain),
    ("without spaces", _replaced(r"(?<![A-Za-z\\]) (?![A-Za-z])", "")),
    ("decimal", _decimal),
    ("separated thousands", _grouped),
    ("leading plus or zero", _number(boxed("%s").replace("%s", "0%s"))),
    ("named", lambda gold: boxed(f"x = {gold}") if NUMBER.fullmatch(gold) else None),
    (
        "unit",
        lambda gold: [boxed(gold + r" \text{ units}"), f"The answer is {gold} apples."] if gold.isdigit() else None,
    ),
    (
        "degrees",
        lambda gold: (
            [boxed(re.sub(_CIRC, text, gold)) for text in ("°", "", r"^\\circ", r"\\text{ degrees}")]
            if re.fullmatch(rf"[\d.]+{_CIRC}", gold)
            else None
        ),
    ),
    ("other order or separator", _reordered),
    ("powers of ten", _replaced(r"^(-?[\d.]+)e(-?\d+)$", r"\1 \\times 10^{\2}")),
    (
        "upright i and e",
        _replaced(r"(?<![A-Za-z\\_\d.])([ie])(?![A-Za-z\d])|(?<=\d)(i)(?![A-Za-z\d])", r"\\mathrm{\1\2}"),
    ),
    ("words", _words),
    ("number in words", _small_number_word),
)
"""The ways in which a gold may be written; docs/verifier.md lists them."""


OWN_FORMS = ("box", "displayed box")
"""The ways in which the prompt asks for the answer: every gold must be right in these."""


def respellings(gold: str) -> Iterator[tuple[str, str]]:
    """(way, response) pairs that must be right."""
    return _applied(RESPELLINGS, gold)


def _applied(ways: Iterable[tuple[str, Way]], gold: str) -> Iterator[tuple[str, str]]:
    for name, way in ways:
        made = way(gold)
        for response in [made] if isinstance(made, str) else made or ():
            yield name, response


def _places(gold: str, pattern: str) -> list[re.Match[str]]:
    """Matches outside of words and units (``\\text{…}``), which are not part of the formula."""
    hidden = [
        found.span() for found in re.finditer(r"\\(?:text|mbox|mathrm)\s*\{[^{}]*\}(?:\^\{?\d\}?)?|\\[a-zA-Z]+", gold)
    ]
    return [
        found for found in re.finditer(pattern, gold) if not any(start <= found.start() < end for start, end in hidden)
    ]


def _neighbours(gold: str) -> Iterator[str]:
    """The gold with one of its numbers changed by ±1 in the last digit, for every number."""
    for found in _places(gold, r"\d+(?:\.\d+)?"):
        digits = found[0].partition(".")[2]
        for step in (1, -1):
            value = int(found[0].replace(".", "")) + step
            if value < 0:
                continue
            text = str(value).zfill(len(digits) + 1)
            number = f"{text[: len(text) - len(digits)]}.{text[-len(digits) :]}" if digits else text
            yield gold[: found.start()] + number + gold[found.end() :]


def _signs(gold: str) -> Iterator[str]:
    """The gold with one sign flipped: the leading one, and every one inside."""
    if gold.startswith("-"):
        yield gold[1:]
    elif re.match(r"\d|\\(?:d?frac|sqrt|pi)", gold) and not re.fullmatch(r"0+(?:\.0*)?", parts_of(gold)[0]):
        yield "-" + gold
    for found in _places(gold, r"[+-]"):
        if found.start() > 0 and not re.fullmatch(r"[+-]?0", gold[found.start() :].rstrip(")")):
            yield gold[: found.start()] + {"+": "-", "-": "+"}[found[0]] + gold[found.end() :]


def _entries(gold: str) -> Iterator[str]:
    """Two entries of a tuple swapped, an element missing, one too many, one alone."""
    if is_tuple(gold):
        inner = [part.strip() for part in gold[1:-1].split(",")]
        if inner[0] != inner[1]:
            yield f"({', '.join([inner[1], inner[0], *inner[2:]])})"
        yield f"({', '.join(inner[:-1])})"
        yield inner[0]
    parts = parts_of(gold)
    if len(parts) > 1:
        yield ", ".join(parts[1:])
        yield ", ".join(parts[:-1])
        yield ", ".join([*parts, "1234567"])
        yield parts[0]
        yield parts[-1]
    elif NUMBER.fullmatch(gold):
        yield rf"{gold}, {gold}1"
        yield rf"{gold} \text{{ or }} {gold}1"


def _letters(gold: str) -> Iterator[str]:
    """The gold with one letter of the formula changed, for every letter; of a word, the last one."""
    if WORDS.fullmatch(gold):
        word = re.sub(r"\\text\{(.*)\}", r"\1", gold)
        yield word[:-1] + ("x" if word[-1] != "x" else "y")
        return
    for found in _places(gold, r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])"):
        yield gold[: found.start()] + ("w" if found[0] != "w" else "z") + gold[found.end() :]


def _scaled(gold: str) -> Iterator[str]:
    if NUMBER.fullmatch(gold) and gold.strip("-+0."):
        yield gold + r" \times 10"
        yield gold + r" \times 10^{-1}"
        yield gold + "e1"
        words = ("million", "dozen", "hundredths", "lakh", *(() if gold in ("0", "1") else ("squared",)))
        yield from (f"{gold} {word}" for word in words)
        yield from (gold + letter for letter in ("x", "i", r"\pi", " n"))
        yield rf"{gold}\frac{{1}}{{2}}"
        yield rf"{gold}+1"
    elif not parts_of(gold)[1:] and not _UNIT.search(gold) and "=" not in gold and "text" not in gold and gold != "0":
        yield f"10 ({gold})"


def _coefficient(gold: str) -> Iterator[str]:
    """The number before a letter or a root, alone; the number after one."""
    if found := re.fullmatch(r"(-?\d+(?:\.\d+)?|-?\\frac\{\d+\}\{\d+\})\s*(\\(?:pi|sqrt)\b.*|[A-Za-z].*)", gold):
        yield found[1]
    if found := re.match(r"(-?\d+)\s*[+-]", gold):
        yield found[1]
    if found := re.fullmatch(r"\\frac\s*\{(.*)\}\s*\{([^{}]*)\}", gold):
        yield found[1]
        if found[1] != found[2]:
            yield rf"\frac{{{found[2]}}}{{{found[1]}}}"


def _relations(gold: str) -> Iterator[str]:
    """The gold with another kind of bracket, relation or number base."""
    if re.match(r"[\[(]", gold) and re.search(r"[\])]$", gold) and "]" in gold:
        yield ("(" if gold[0] == "[" else "[") + gold[1:]
    for found in _places(gold, r"[<>]"):
        yield gold[: found.start()] + {"<": ">", ">": "<"}[found[0]] + gold[found.end() :]
    if (base := re.fullmatch(r"(\d+)_\{?(\d+)\}?", gold)) is not None:
        yield f"{base[1]}_{{{int(base[2]) + 1}}}"


NEAR_MISSES: tuple[tuple[str, Callable[[str], Iterator[str]]], ...] = (
    ("neighbouring number", _neighbours),
    ("turned sign", _signs),
    ("entries", _entries),
    ("changed letter", _letters),
    ("other magnitude", _scaled),
    ("part alone", _coefficient),
    ("other bracket or relation", _relations),
)


def near_misses(gold: str, tolerance: float = 0.0) -> Iterator[tuple[str, str]]:
    """(way, response) pairs that must be wrong: no duplicates, not the gold, no numbers within its tolerance."""
    made = {_squeezed(gold)}
    for name, way in NEAR_MISSES:
        for changed in way(gold):
            if tolerance and NUMBER.fullmatch(changed) and abs(float(changed) - float(gold)) <= tolerance * 1.001:
                continue
            if _squeezed(changed) not in made:
                made.add(_squeezed(changed))
                yield name, boxed(changed)


def _squeezed(text: str) -> str:
    return re.sub(r"\s|\\[!,; ]", "", text)
