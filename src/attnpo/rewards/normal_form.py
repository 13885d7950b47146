# ruff: noqa: E501 - the table has one rule a line
r"""The normal form of an answer: decoration, Unicode, plain text and old commands → the LaTeX that latex2sympy reads.

`RULES`, at the end, is the list of rules in the order of their application, to answers and references alike; the
sections before it hold the words, patterns and functions that the rules need. Every rule has a name, can be switched
off, and ``attnpo benchmarks check`` counts what it changes. Imports only the standard library.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection
from fractions import Fraction

from attnpo.data.references import closing

Replacement = str | Callable[[re.Match[str]], str]
Rule = Callable[[str], str] | tuple[str, Replacement]
"""A function of the text, or a pattern and its replacement."""

# -- characters --------------------------------------------------------------------------------------------------------

_CHARACTERS = {
    **dict.fromkeys("−–—‒﹣－", "-"), **dict.fromkeys("×✕", r"\times "), **dict.fromkeys("·⋅∙", r"\cdot "),
    **dict.fromkeys("\u00a0\u2009\u202f\u3000\u2002\u2003\u200a\t\n", " "), **dict.fromkeys("\u200b\ufeff\u2060", ""),
    **dict.fromkeys("′’", "'"), **dict.fromkeys("，、", ","), **dict.fromkeys("。．", "."), "″": "''", "÷": "/", "∕": "/",
    "⁄": "/", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ",
    "∞": r"\infty ", "±": r"\pm ", "∓": r"\mp ", "∈": r"\in ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ",
    "Ø": r"\emptyset ", "∨": r"\lor ", "∧": r"\land ", "→": r"\to ", "∠": r"\angle ", "△": r"\triangle ", "°": r"^\circ ",
    "º": r"^\circ ", "∖": r"\setminus ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}", "∣": "|", "【": "[", "】": "]", "∑": r"\sum ", "∫": r"\int ", "ℓ": r"\ell ", "µ": r"\mu ",
}  # fmt: skip


def _unicode(text: str) -> str:
    """``½``, ``√2``, ``x²``, ``α``, ``（1，2）`` in LaTeX commands and ASCII."""
    if text.isascii():
        return text.translate({9: 32, 10: 32})
    text = re.sub(r"√\s*(\d+(?:\.\d+)?|[A-Za-zπ])", r"\\sqrt{\1}", text).replace("√", r"\sqrt")
    text = re.sub(r"∛\s*(\d+|[A-Za-z])", r"\\sqrt[3]{\1}", text)
    return re.sub(r"(?<=\})\^\{", " ^{", re.sub(r"[⁰¹²³⁴-⁹⁺⁻ⁿⁱ]+|[₀-₉]+|.", _character, text)) if text else text


def _character(found: re.Match[str]) -> str:
    """One character, or a run of superscripts or of subscripts."""
    char = found[0]
    if char.isascii():
        return char
    if char in _CHARACTERS:
        return _CHARACTERS[char]
    kind = unicodedata.decomposition(char[0]).partition(" ")[0]
    if kind in ("<super>", "<sub>"):
        plain = unicodedata.normalize("NFKC", char).replace("−", "-")
        return f"{'^' if kind == '<super>' else '_'}{{{plain}}}"
    if kind == "<fraction>":
        above, _, below = unicodedata.normalize("NFKC", char).partition("⁄")
        return rf"\frac{{{above}}}{{{below}}}"
    if "\uff01" <= char <= "\uff5e" or "\U0001d400" <= char <= "\U0001d7ff":
        return _unicode(unicodedata.normalize("NFKC", char))
    name = unicodedata.name(char, "")
    if letter := re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", name):
        return f"\\{letter[2].lower() if letter[1] == 'SMALL' else letter[2].capitalize()} "
    return char


# -- commands and brackets ---------------------------------------------------------------------------------------------

_FUNCTIONS = r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|log|ln|lg|max|min|gcd|lcm|det|floor|ceil"
_FONTS = r"boldsymbol|bm|pmb|math(?:bf|it|sf|tt|normal|ord|op|close)"
_ARGUMENT_COMMANDS = (
    rf"\\(?:{_FONTS}|underline|uline|emph|ensuremath|f?boxed|fbox|(?:text)?color\s*(?:\[\w*\])?\s*\{{[^{{}}]*\}}|"
    r"colorbox\s*\{[^{}]*\})\s*(?=\{)"
)
_WORD_COMMANDS = r"\\(?:mathrm|text(?:rm|bf|it|sf|tt|sc|up|normal)|[mh]box|operatorname\*?|mathtext)"


def _without_commands(commands: str) -> Callable[[str], str]:
    r"""A function that replaces every ``\command{argument}`` by its argument."""
    pattern = re.compile(commands)

    def change(text: str) -> str:
        start = 0
        while (found := pattern.search(text, start)) is not None:
            end = closing(text, found.end() + 1)
            if end is None:
                start = found.end()
                continue
            text = text[: found.start()] + " " + text[found.end() + 1 : end] + text[end + 1 :]
            start = found.start()
        return text

    return change


def _grouped_argument(command: str, form: str) -> Callable[[str], str]:
    r"""A function that replaces ``sqrt(…)``, with balanced brackets, by `form` with their content for ``%s``."""
    pattern = re.compile(command + r"\s*\(")

    def change(text: str) -> str:
        start = 0
        while (found := pattern.search(text, start)) is not None:
            end = _closing_bracket(text, found.end())
            if end is None:
                break
            text = text[: found.start()] + form.replace("%s", text[found.end() : end]) + text[end + 1 :]
            start = found.start() + 1
        return text

    return change


def _closing_bracket(text: str, start: int) -> int | None:
    """Index of the bracket, round or curly, that closes the one opened just before `start`; None if it stays open."""
    depth = 1
    for index in range(start, len(text)):
        depth += (text[index] in "({") - (text[index] in ")}")
        if depth == 0:
            return index
    return None


# -- numbers in digits -------------------------------------------------------------------------------------------------

_UNSIGNED = r"(?:\d+(?:\.\d+)?|\.\d+)"
_NUMBER = rf"[+-]?{_UNSIGNED}"
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:,\s?\\!\s?|\{,\}\s?|,\\,|\\[,;: ]|~|\\!|\s)\s?\d{3})+(?![\d])")
_DEGREES = r"\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})"
_FUNCTION_OF_DEGREES = re.compile(
    rf"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^(?:\d|\{{\d\}}))?)\s*(?:(?P<open>[({{])|(?P<bare>[+-]?{_UNSIGNED}){_DEGREES})"
)


def _repeating(found: re.Match[str]) -> str:
    r"""``0.1\overline{6}`` is ``\frac{1}{6}``."""
    whole, fixed, repeated = found["whole"], found["fixed"], found["repeated"] or found["bracketed"]
    value = Fraction(int(whole + fixed + repeated) - int(whole + fixed), 10 ** len(fixed) * (10 ** len(repeated) - 1))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _mixed_number(found: re.Match[str]) -> str:
    """``3 1/2`` is seven halves; ``3 5/2`` is not a mixed number and stays."""
    return rf"{found[1]}\frac{{{found[2]}}}{{{found[3]}}}" if int(found[2]) < int(found[3]) else found[0]


def _degrees(text: str) -> str:
    r"""``\sin 30^\circ`` and every ``30^\circ`` in ``\sin(…)`` in radians; other brackets are not changed."""
    start = 0
    while (found := _FUNCTION_OF_DEGREES.search(text, start)) is not None:
        start = found.end()
        if found["bare"]:
            changed = rf"{found[1]}(\frac{{{found['bare']} \pi}}{{180}})"
            text, start = text[: found.start()] + changed + text[start:], found.start() + len(changed)
        elif (end := _closing_bracket(text, start)) is None:
            break
        elif r"\circ" in text[start:end]:
            inner = re.sub(rf"(?<![\w^.])({_UNSIGNED}){_DEGREES}", r"\\frac{\1 \\pi}{180}", text[start:end])
            text, start = f"{text[: found.start()]}{found[1]}({inner}){text[end + 1 :]}", found.start() + len(found[1])
    return text


# -- numbers in words --------------------------------------------------------------------------------------------------

_UP_TO_NINETEEN = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS = {word: n for n, word in enumerate(_UP_TO_NINETEEN)} | {word: 20 + 10 * n for n, word in enumerate(_TENS)}
COUNT_WORDS: dict[str, str] = {
    "ten": "10", "hundred": "10^{2}", "thousand": "10^{3}", "million": "10^{6}", "billion": "10^{9}",
    "trillion": "10^{12}", "quadrillion": "10^{15}", "quintillion": "10^{18}", "lakh": "10^{5}", "crore": "10^{7}",
    "dozen": "12", "score": "20", "grand": "10^{3}", "gross": "144", "half": r"\frac{1}{2}", "quarter": r"\frac{1}{4}",
    "fourth": r"\frac{1}{4}", "hundredth": "10^{-2}", "thousandth": "10^{-3}", "millionth": "10^{-6}",
    "billionth": "10^{-9}",
}  # fmt: skip
_ORDINALS = {"three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth", "twelve": "twelfth"}
COUNT_WORDS |= {
    _ORDINALS.get(word, word[:-1] + "ieth" if word.endswith("y") else word + "th"): rf"\frac{{1}}{{{value}}}"
    for word, value in NUMBER_WORDS.items()
    if value > 2
}
FOREIGN_COUNT = (
    r"mio|ml[nrd]{1,2}|mrd|tsd|tausende?|mil|mil[il]?l?e|mill?i(?:o|ó|õ|a|er)\w*|millon\w*|milh\w+|millares|"
    r"centaines|cent[ae]nas|cientos|d(?:ec|oc|ez)enas?|d(?:iz|ouz)aines?|googol|myriads?|[a-z]*illi(?:on|ard)\w*"
)
"""Words of other languages, and rare ones, that multiply the number before them."""
_COUNT = "|".join(sorted(COUNT_WORDS, key=len, reverse=True))
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "quadrillion": 10**15}
_NUMBER_WORD = "|".join([*NUMBER_WORDS, "hundred", *_SCALES])
_NOT_COMBINED = rf"(?![- ]+(?:an? )?(?:(?:{_NUMBER_WORD}|{_COUNT}|halve)s?\b|\d))"
"""After a count word: no further number or count word, with which it would have to be combined."""


def _number_from_words(found: re.Match[str]) -> str:
    """``two thousand three hundred and five`` is 2305, ``five and three`` are two numbers; ``one twenty`` stays."""
    runs: list[list[str]] = []
    for part in found[0].lower().split(" and "):
        words = re.split(r"[- ]+", part)
        together = [*runs[-1], *words] if runs and {"hundred", *_SCALES} & {*runs[-1]} else words
        if _value_of_words(together) is not None and together != words:
            runs[-1] = together
        else:
            runs.append(words)
    values = [_value_of_words(run) for run in runs]
    return found[0] if None in values else " and ".join(map(str, values))


def _value_of_words(words: list[str]) -> int | None:
    """The number that `words` spell; None if they spell none ("one twenty", "twenty eleven").

    `total` holds the thousands and larger scales read so far, `group` the number below a thousand being read, `room`
    the bound of the number word that may follow it, `smallest` the last scale (the next one must be smaller).
    """
    total, group, room, smallest = 0, 0, 100, max(_SCALES.values()) + 1
    for word in words:
        if (value := NUMBER_WORDS.get(word)) is not None and value < room:
            group, room = group + value, 10 if value >= 20 else 0
        elif word == "hundred" and 0 < group < 100:
            group, room = group * 100, 100
        elif group and _SCALES.get(word, smallest) < smallest:
            smallest = _SCALES[word]
            total, group, room = total + group * smallest, 0, 100
        else:
            return None
    return total + group


def _times_count(found: re.Match[str]) -> str:
    r"""``3 dozen`` is ``3 \times 12``, ``6 ninths`` is ``6 \times \frac{1}{9}``."""
    word = found[3].lower()
    factor = COUNT_WORDS.get(word) or COUNT_WORDS[word.removesuffix("s").replace("halve", "half")]
    return rf"{found[1]} \times {factor} {found[2] or ''}"


def is_count(word: str) -> bool:
    """Whether `word` multiplies or divides the number before it."""
    return word.removesuffix("s") in COUNT_WORDS or word == "halves" or re.fullmatch(FOREIGN_COUNT, word) is not None


# -- words and letters around an answer --------------------------------------------------------------------------------

_LEADING_WORD = (
    r"(?:so|thus|hence|therefore|final|the|correct|exact|is|it|we|get|have|value|result|solution|answer|are|there|exactly|"
    r"equals?|to|of|total|approximately|about)(?![A-Za-z])"
)
"""Words before an answer that do not change it."""
UNIT_LETTERS = "msghlLNJWVACFTK"
"""Letters that stay upright, since they may be units (`attnpo.rewards.units` decides by their place)."""


def _unless_unit(found: re.Match[str]) -> str:
    """A letter without its upright command, unless it may be a unit."""
    return found[0] if found[1] in UNIT_LETTERS else f" {found[1]} "


# -- the rules, in the order in which they are applied -----------------------------------------------------------------

_UNWRAPPED: tuple[str, Rule] = ("words", (r"^\\text\s*\{((?=.*[\d\\])(?:[^{}]|\{[^{}]*\})*)\}\s*$", r"\1"))

RULES: tuple[tuple[str, Rule], ...] = (
    ("Unicode", _unicode),
    # 1\,200, 1{,}200, 1 200 → 1200
    ("thousands", lambda text: _THOUSANDS.sub(lambda found: re.sub(r"\D", "", found[0]), text)),
    # {\rm cm} → \text{cm}
    ("words", (r"\{\s*\\rm(?![A-Za-z])\s*([^{}]*)\}", r"\\text{\1}")),
    # \dfrac, \\frac, \frac\pi3, \log_e, \leqslant, \varnothing, \lbrace, \langle → \frac, \frac{\pi}3, \ln, \le, \emptyset, \{, (
    ("commands", (r"\\(?:dfrac|tfrac|cfrac)(?![A-Za-z])", r"\\frac")),
    ("commands", (r"\\\\(?=(?:[dt]?frac|sqrt|text|pi|cdot|times|left|right|infty)(?![A-Za-z]))", r"\\")),
    ("commands", (r"\\frac\s*(\\pi|\w)", r"\\frac{\1}")),
    ("commands", (r"\\log\s*_\s*\{?e\}?(?![A-Za-z])", r"\\ln ")),
    ("commands", (r"\\(le|ge|ne)(?:qslant|qq|q)(?![A-Za-z])", r"\\\1")),
    ("commands", (r"\\(?:varnothing|O)(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset")),
    ("commands", (r"\\[lr]brace(?![A-Za-z])", lambda found: {"l": r"\{", "r": r"\}"}[found[0][1]])),
    ("commands", (r"\\[lr](?:brack|angle)(?![A-Za-z])", lambda found: {"lb": "[", "rb": "]", "la": "(", "ra": ")"}[found[0][1:3]])),
    # \left(, \displaystyle, \large, **27** → without them
    ("size and style", (r"\\(?:left|right|middle|[bB]ig{1,2}[lrm]?)(?![A-Za-z])\s*\.?", "")),
    ("size and style", (r"\\(?:display|text|script)style(?![A-Za-z])|\\(?:tiny|scriptsize|small|normalsize|[lL]arge|LARGE|"
        r"[hH]uge|rm|bf|bfseries|it|sl|sf|tt|em|limits|nolimits|strut|mathstrut|centering)(?![A-Za-z])", " ")),
    ("size and style", (r"(?<![A-Za-z\\])\*\*(?=\S)(.+?)(?<=\S)\*\*$", r"\1")),
    # \boldsymbol{27}, \color{red}27, \underline{27} → 27
    ("font and colour", _without_commands(_ARGUMENT_COMMANDS)),
    ("font and colour", (rf"\\(?:{_FONTS})(?![A-Za-z])|\\color\s*(?:\[\w*\])?\s*(?:\{{[^{{}}]*\}}|[a-z]+)", " ")),
    # \mathrm{i} → i; \mathrm{m} stays
    ("upright letters", (r"\\(?:mathrm|text|operatorname|textrm|mathit)\s*\{\s*([a-zA-Z])\s*\}", _unless_unit)),
    # \mbox{even} → \text{even}; \text{sin} → \sin; \text{,} → ,
    ("words", (_WORD_COMMANDS + r"\s*(?=\{)", r"\\text")),
    ("words", (r"(?<!\d)(?<!\d )\\text\s*\{\s*(" + _FUNCTIONS + r")\s*\}", r"\\\1 ")),
    ("words", (r"\\text\s*\{\s*([.,;:!?]?|\\text\s*\{[^{}]*\})\s*\}", r"\1 ")),
    # \quad, \,, ~ → a space; $, \(, \[ → a space; 27. → 27; \text{27} → 27
    ("spaces", (r"\\(?:hspace|vspace|hskip|kern)\*?\s*\{[^{}]*\}|(?<!\\)\\(?:q?quad|hfill|thinspace|enspace|,|;|:|!|>| |$)|(?<!\\)~", " ")),
    ("delimiters", (r"(?<!\\)\\[()\[\]]|(?<!\\)\$+|`+|\\(?:begin|end)\{(?:equation|align|gather)\*?\}", " ")),
    ("point", (r"(?<=\d)\.(?=\s*(?:[/}),*^]|\\(?:%|text|q?quad|[,;: ])|$))|(?:[.,;:]|\\\\)[\s.,;:]*$", "")),
    _UNWRAPPED,
    # "The answer is 27", \text{Answer: } 27, (D) 27 → 27
    ("leading words", (rf"^(\s*)\\text\s*\{{((?:\s*{_LEADING_WORD})+\s*[:=,]?)\s*\}}(?=.)", r"\2 ")),
    ("leading words", (rf"^(?:[\s*:=,]|\\(?:therefore|implies|Rightarrow|approx)(?![A-Za-z])|{_LEADING_WORD}(?=[\s:=,\\]))+(?=[^\s*:=,])", "")),
    ("leading words", (r"^(?:\\text\s*\{\s*\(?[A-H][.)]+\s*\}\s*|\([A-H]\)\s+)(?=[\d\\-])", "")),
    # 27^{\text{th}}, 27th → 27
    ("ordinal", (r"\s*\\text\s*\{\s*(th|st|nd|rd)\s*\}", r"\1")),
    ("ordinal", (r"(?<=\d)(?:\s*\^\s*\{\s*(?:th|st|nd|rd)\s*\}|\^?(?:th|st|nd|rd)\b)", "")),
    # 5 p.m. → 5 pm
    ("words", (r"\b([ap])\.\s?m\b\.?", r"\1m")),
    # "a hundred and twenty" → 120; "two and a half" → 2 1/2; "3 dozen" → 3 \times 12; "9 squared" → (9)^{2}
    ("number words", (rf"^(\\text\s*\{{\s*)?an?\s+(?=(?:{_COUNT})\b)", r"\g<1>one ")),
    ("number words", (r"(?<=[a-z]) and a half\b", " 1/2")),
    ("number words", (rf"(?<![A-Za-z\\])(?:{_NUMBER_WORD})(?:[- ]+(?:and )?(?:{_NUMBER_WORD}))*(?![A-Za-z])", _number_from_words)),
    ("count words", (rf"({_NUMBER})\s*-?(\\text\s*\{{\s*)?((?:{_COUNT}|halve)s?)\b{_NOT_COMBINED}", _times_count)),
    ("count words", (rf"({_NUMBER})\s*(\\text\s*\{{\s*)?(squared|cubed)\b",
        lambda found: f"({found[1]})^{{{2 if found[3] == 'squared' else 3}}} {found[2] or ''}")),
    _UNWRAPPED,
    # x**2, inf, !=, 2 x 10^3, sqrt(2), exp(x), abs(x), dv/dt, 3 1/2, pi, ^-1 → x^2, \infty, \ne, 2 \times 10^3, \sqrt{2}, …
    ("plain text", (r"\*\*", "^")),
    ("plain text", (r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty ")),
    ("plain text", (r"!=", r"\\ne ")),
    ("plain text", (r"(?<=\d) x (?=10\^)", r" \\times ")),
    ("plain text", (r"(?<=[A-Za-z]) in (?=[\[(])", r" \\in ")),
    ("plain text", (r"(?<![A-Za-z\\])sqrt(?![A-Za-z])", r"\\sqrt")),
    ("plain text", _grouped_argument(r"\\sqrt", r"\sqrt{%s}")),
    ("plain text", _grouped_argument(r"(?<![A-Za-z])\\?exp", r"e^{%s}")),
    ("plain text", _grouped_argument(r"(?<![A-Za-z\\])abs", r"|%s|")),
    ("plain text", (r"(?<![A-Za-z\\])d([A-Za-z])\s*/\s*d([A-Za-z])(?![A-Za-z])", r"\\frac{d\1}{d\2}")),
    ("plain text", (r"(?<![\w.)}^/])(\d+)\s+(\d+)/(\d+)(?![\d/])", _mixed_number)),
    ("plain text", (r"(?<![A-Za-z\\])(?<!\\text\{)(?<!\\text\{ )(" + _FUNCTIONS + r"|pi|alpha|beta|theta|lambda|omega)(?![A-Za-z])", r"\\\1 ")),
    ("plain text", (r"\^\s*-\s*(\d+)", r"^{-\1}")),
    # 0.\overline{6}, 0.(6) → \frac{2}{3}; 4.5e33 → 4.5 \times 10^{33}; \sin 30^\circ → \sin(\frac{30 \pi}{180}); (3)(7) → (3) \cdot (7)
    ("repeating decimal", (r"(?P<whole>\d+)\.(?P<fixed>\d*)(?:\\(?:overline|bar|dot)\s*\{?(?P<repeated>\d+)\}?|(?<=\.)\((?P<bracketed>\d+)\))(?!\d)", _repeating)),
    ("powers of ten", (r"(?<![\w.\\])(\d+(?:\.\d*)?|\.\d+)[eE]([+-]?\d{1,3})(?![\w.^])", r"\1 \\times 10^{\2}")),
    ("degrees in functions", _degrees),
    ("products of numbers", (r"(?<![_\w\\^.{])(\d+(?:\.\d+)?)\s*(?=\()|(?<=\))\s*(?=\(|\d)", r"\1 \\cdot ")),
    # y'' → y_{prime2}
    ("primes", (r"(?<=[A-Za-z])(?:'+|\^\s*\{?\s*(?:\\prime)+\s*\}?)", lambda found: "_{prime" + str(found[0].count("'") or found[0].count("p")) + "}")),
    # \{x \mid x>1\} → x>1; "no solution" → \emptyset; "all real numbers" → \mathbb{R}
    ("set builder", (r"^\\\{\s*[A-Za-z]\s*(?:\\in\s*\\mathbb\{R\}\s*)?(?:\\mid|\||:|\\colon)\s*(.+?)\s*\\\}$", r"\1")),
    ("sets in words", (r"(?i)^(?:\\text\s*\{\s*)?(?:no\s+solutions?|(?:the\s+)?empty\s+set)\s*\}?$", r"\\emptyset")),
    ("sets in words", (r"(?i)^(?:\\text\s*\{\s*)?all\s+real(?:s|\s+numbers)\s*\}?$", r"\\mathbb{R}")),
    # or, \vee → \lor; and, \wedge → \land
    ("separators", (r"\s*,?\s*(?:\\text\s*\{\s*(?:,\s*)?or(?:\s+else)?\s*,?\s*\}|(?<![A-Za-z\\])or(?![a-z]{2})|\\(?:lor|vee)(?![A-Za-z]))\s*", r" \\lor ")),
    ("separators", (r"\s*,?\s*(?:\\text\s*\{\s*(?:,\s*)?and\s*,?\s*\}|(?<![A-Za-z\\])and(?![a-z]{2})|\\(?:land|wedge)(?![A-Za-z])|\\&)\s*", r" \\land ")),
)  # fmt: skip
"""(name, rule). Several rules may share a name."""


def _compiled(name: str, rule: Rule) -> Callable[[str], str]:
    """The rule as a function; patterns of rules whose name ends in "words" ignore case."""
    if callable(rule):
        return rule
    pattern = re.compile(rule[0], re.I if name.endswith("words") else 0)
    return lambda text: pattern.sub(rule[1], text)


_COMPILED = tuple((name, _compiled(name, rule)) for name, rule in RULES)
RULE_NAMES = tuple(dict.fromkeys(name for name, _ in RULES))


def normal_form(text: str, off: Collection[str] = (), fired: list[str] | None = None) -> str:
    r"""`text` in the spelling in which formulas are read and compared.

    Args:
        off: names of rules not to apply.
        fired: a list to which the names of the rules that changed the text are appended.

    >>> normal_form(r"\boldsymbol{½}."), normal_form("The answer is 3 dozen"), normal_form("4*pi")
    ('\\frac{1}{2}', '3 \\times 12', '4*\\pi')
    """
    for name, rule in _COMPILED:
        if name in off:
            continue
        changed = rule(text)
        if changed != text:
            text = changed
            if fired is not None:
                fired.append(name)
    return " ".join(text.split())


def squeezed(text: str) -> str:
    """`text` without its spaces, except those between words or digits."""
    return re.sub(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])", "", " ".join(text.split()))
