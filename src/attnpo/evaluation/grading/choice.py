r"""Multiple choice: which letter a response settles on.

The first of these that the text has, and within it the last occurrence:

1. ``\boxed{C}``, ``\boxed{\text{(C)}}``, ``\boxed{Option C}``, ``<answer>C</answer>``; or the text of one choice;
2. ``Answer: C``, ``the answer is (C)``, ``should be C``, ``C is correct``, ``I choose C``, ``Antwort: C`` and the like;
   or the text of exactly one choice after the colon;
3. a last line that is a letter (``(C)``, ``**C.**``, ``c``, ``C) text``) with no other in brackets, but in a choice;
4. the last letter in brackets, ``(C)``.

An "A" or "I" in running prose is never taken for a choice; nor are several letters (``A, B``, ``A or C``). A small
letter counts where it stands alone. A letter beyond the last choice is an answer, and wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attnpo.data.boxes import boxed_texts
from attnpo.evaluation.samples import Graded
from attnpo.rewards.verdict import Verdict

LONGEST_ANSWER = 20_000
"""Characters; of a longer answer the end is read."""

MOST_ANNOUNCED = 20
"""Announcements ("the answer is …") that are looked at, from the last."""

_WRAPPING = re.compile(
    r"\\(?:text|textbf|mathrm|mathbf|boldsymbol|mbox)\b|\\[()\[\],;! ]|[*_`${}~]|</?answer>|[\[\]](?=\W*[A-Za-z]?\W*$)|"
    r"\[(?=[A-Za-z]\])|(?<=[A-Za-z])\]"
)
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {ord("。"): ". ", ord("、"): ", "}
_TAG = re.compile(r"<answer>((?:(?!<answer>).){1,200}?)</answer>", re.DOTALL)
_AND_ANOTHER = (
    r"\)?(?:(?:\s*(?:[,;/&]|and\b|or\b))+\s*\(?[A-Z]\)?\s*(?:[.,;/&]|and\b|or\b|$)|\s*(?:/|&|and\b|or\b)\s*\(?[A-Z]\b)"
)
_BECAUSE = r"(?:because|since|as|for|due|given|which|that|by|from|with|\(|-|–|—|=)"
_LETTER = re.compile(
    rf"(?:(?:option|choice|answer|letter)\s*:?\s*)?\(?\s*(?:(?i:option|choice)\s+)?([A-Z])(?!{_AND_ANOTHER})\s*"
    rf"(?:\)|[.:,;)](?=\s|$)|$|(?<=\s){_BECAUSE}\b)"
)
_SMALL_LETTER = re.compile(r"\(?([a-z])\)?\.?")
_ANSWER_WORDS = (
    r"answer|choice|option|antwort|antwoord|réponse|reponse|respuesta|risposta|resposta|ответ|cevap|odpowiedź|svar|vastaus|"
    r"đáp án|jawaban|答案|答え|回答|答|정답|답|الإجابة|उत्तर"
)
_IS = (
    r"is|should be|must be|would be|will be|has to be|ought to be|can only be|ist|lautet|est|es|è|é|는|은|是|为|は|:|="
)
_FILLER = (
    r"(?:clearly|definitely|indeed|therefore|thus|probably|most likely|simply|just|then|for sure|actually|"
    r"(?:the\s+)?(?:option|choice|letter)|:|\s)*"
)
_ANNOUNCED = re.compile(
    rf"(?<![^\W_])(?:{_ANSWER_WORDS})\s*(?:{_IS})\s*{_FILLER}(?=(?P<rest>\S[^\n]{{0,999}}))", re.IGNORECASE
)
_CHOSEN = re.compile(
    r"(?i:\b(?:it is|it's|should be|must be|choose|chose|select|pick|go with|going with))\s+(?i:option\s+|choice\s+)?"
    rf"(?P<rest>\(?[A-Z](?!{_AND_ANOTHER})\)?(?=\s*(?:[.,;!]|$|\s{_BECAUSE}\b)))|"
    r"(?<!\band\s)(?<!\bor\s)(?<![A-Z],\s)(?<![/&]\s)(?:^|(?<=[\s(.,]))(?i:option\s+|choice\s+)?"
    r"(?P<named>\(?[A-Z]\)?)\s+is\s+(?:(?:clearly|definitely|therefore|thus|indeed|the)\s+)*"
    r"(?:(?:correct|right|best|only\s+\w+)(?:\s+(?:one|answer|choice|option))?|answer)\b",
    re.MULTILINE,
)
_IN_BRACKETS = re.compile(r"\(([A-Z])\)")
_SEVERAL_IN_BRACKETS = re.compile(r"\([A-Z]\)(?:(?:\s*(?:[,;/&]|and\b|or\b))+\s*\([A-Z]\))+")


def grade_choice(answer: str, reference: str, choices: Sequence[str]) -> Graded:
    """The verdict on a final answer; `reference` is a letter."""
    letter = choice_of(answer, choices)
    if letter is None:
        return Graded(Verdict.NO_ANSWER, None)
    return Graded(Verdict.RIGHT if letter == reference.strip().upper() else Verdict.WRONG, letter)


def choice_of(answer: str, choices: Sequence[str]) -> str | None:
    """The letter that `answer` settles on; None if it names none."""
    answer = answer[-LONGEST_ANSWER:].translate(_FULL_WIDTH)
    for text in [*reversed(boxed_texts(answer)), *reversed(_TAG.findall(answer))]:
        if letter := _letter_or_text(text, choices):
            return letter
    plain = _WRAPPING.sub("", answer)
    said = [(found.start("rest"), found["rest"]) for found in _ANNOUNCED.finditer(plain)]
    for found in _CHOSEN.finditer(plain):
        group = "rest" if found["rest"] else "named"
        said.append((found.start(group), found[group].strip("()")))
    for _, text in sorted(said, reverse=True)[:MOST_ANNOUNCED]:
        if letter := _letter_or_text(text, choices):
            return letter
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    if lines and (found := _LETTER.match(lines[-1])):
        rest = lines[-1][found.end() :]
        # "(A) is wrong, so (B)" begins with a letter, but does not settle on it; a choice's own text may hold another.
        if not _IN_BRACKETS.search(rest) or _plain(rest) in map(_plain, choices):
            return found[1]
    if lines and (small := _SMALL_LETTER.fullmatch(lines[-1])) and ord(small[1]) - ord("a") < len(choices):
        return small[1].upper()
    bracketed = _IN_BRACKETS.findall(_SEVERAL_IN_BRACKETS.sub("", plain))
    return bracketed[-1] if bracketed else None


def _letter_or_text(text: str, choices: Sequence[str]) -> str | None:
    plain = _WRAPPING.sub("", text).strip()
    if found := _LETTER.match(plain):
        return found[1]
    same = [index for index, choice in enumerate(choices) if _plain(choice) == _plain(plain)]
    if same:
        return chr(ord("A") + same[0]) if len(same) == 1 else None
    small = _SMALL_LETTER.fullmatch(plain)
    return small[1].upper() if small else None


def _plain(text: str) -> str:
    return " ".join(_WRAPPING.sub("", text).casefold().split()).rstrip(" .")
