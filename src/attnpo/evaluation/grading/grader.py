r"""Grader of final answers of every kind; the processes it needs are started on first use.

Mathematics is graded by the verifier, code in the sandbox (`grading/code.py`). For a multiple-choice question the
letter that a response chooses is read from the first of these that occurs in the text, and from its last occurrence:

1. ``\boxed{C}``, ``\boxed{\text{(C)}}``, ``\boxed{Option C}``, ``<answer>C</answer>``; or the text of one choice;
2. ``Answer: C``, ``the answer is (C)``, ``should be C``, ``C is correct``, ``I choose C``, ``Antwort: C`` and the like;
   or the text of exactly one choice after the colon;
3. a last line that is a letter (``(C)``, ``**C.**``, ``c``, ``C) text``), with no other letter in brackets unless in
   the text of a choice;
4. the last letter in brackets, ``(C)``.

An "A" or "I" in running text is never read as a choice; nor are several letters (``A, B``, ``A or C``, ``A, possibly
C``), nor one that is negated (``I can't choose A``, ``not (A)``). A small letter counts if it is alone. A letter
beyond the last choice is a wrong answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from attnpo.data.references import boxed_texts
from attnpo.evaluation.grading.code import grade_codes
from attnpo.evaluation.samples import Graded, Question, letter_of
from attnpo.rewards.pool import VerifierPool
from attnpo.rewards.verdict import Rules, Verdict
from attnpo.sandbox.sandbox import Limits, Sandbox

LONGEST_ANSWER = 20_000
"""In characters; only the end of a longer answer is read."""

MOST_ANNOUNCED = 20
"""Maximum number of announcements ("the answer is …") that are read, from the last one backwards."""

_WRAPPING = re.compile(
    r"\\(?:text|textbf|mathrm|mathbf|boldsymbol|mbox)\b|\\[()\[\],;! ]|[*_`${}~]|</?answer>|[\[\]](?=\W*[A-Za-z]?\W*$)|"
    r"\[(?=[A-Za-z]\])|(?<=[A-Za-z])\]"
)
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {ord("。"): ". ", ord("、"): ", "}
_TAG = re.compile(r"<answer>((?:(?!<answer>).){1,200}?)</answer>", re.DOTALL)
_HEDGE = (
    r"and|or|but|also|else|even|either|possibly|maybe|perhaps|probably|alternatively|it|could|might|may|be|oder|und|ou|et|"
    r"o|y|e|или|и"
)
_AND_ANOTHER = (
    rf"\)?(?:(?:\s*(?:[,;/&]|\(?\b(?:{_HEDGE})\b|或者?|和|及))+\s*\(?[A-Z]\)?\s*(?:[.,;/&)]|and\b|or\b|$)|"
    r"\s*(?:/|&|and\b|or\b)\s*\(?[A-Z]\b)"
)
_DENIED = (
    r"\)?\s*(?:(?:is|was|seems|ist|est|es)\s+(?:wrong|incorrect|false|not|too|nicht|falsch|fausse?|falsa)\b|isn['’]t)"
)
_BECAUSE = r"(?:because|since|as|for|due|given|which|that|by|from|with|not|non|nicht|although|weil|car|porque)\b"
_LETTER = re.compile(
    rf"(?:(?:option|choice|answer|letter)\s*:?\s*)?\(?\s*(?:(?i:option|choice)\s+)?([A-Z])(?!{_AND_ANOTHER}|{_DENIED})\s*"
    rf"(?:\)|[.:,;)](?=\s|$)|$|(?<=\s)(?:{_BECAUSE}|[(–—=-])|(?=[不而因です]))"
)
_SMALL_LETTER = re.compile(r"\(?([a-z])\)?\.?")
_ANSWER_WORDS = (
    r"answer|choice|option|letter|antwort|lösung|antwoord|réponse|reponse|respuesta|opción|risposta|resposta|ответ|cevap|"
    r"odpowiedź|svar|vastaus|đáp án|jawaban|答案|选项|答え|正解|回答|答|정답|답|الإجابة|उत्तर"
)
_IS = (
    r"(?:is|should be|must be|would be|will be|has to be|ought to be|can only be|ist|lautet|est|es|è|é)\b|"
    r"[는은是为選选は:=]"
)
_FILLER = (
    r"(?:clearly|definitely|indeed|therefore|thus|probably|most likely|simply|just|then|for sure|actually|"
    r"(?:the\s+)?(?:option|choice|letter|opción)\b|la\s|le\s|die\s|选项|选|:|\s)*"
)
_ANNOUNCED = re.compile(
    rf"(?<![^\W_])(?:{_ANSWER_WORDS}|(?:正确|所以|最佳|因此)(?:答案|选项))"
    rf"(?:[ ]+[^\W\d_]+){{0,3}}?\s*(?:{_IS})\s*{_FILLER}"
    r"(?=(?P<rest>\S[^\n]{0,999}))",
    re.IGNORECASE,
)
_LEADS = (
    r"it is|it['’]s|should be|must be|choose|chose|select|pick|go with|going with|therefore,?|thus,?|hence,?|so,?|"
    r"i think|i believe|but|clearly|i guess|i(?:['’]d)? say|pick is|w[äa]hle|choisis|elijo|escojo|donc,?|daher,?|"
    r"por lo tanto,?|así que|richtig ist"
)
_CHOSEN = re.compile(
    rf"(?:(?i:\b(?:{_LEADS})\s+)|(?:选择?|選擇?|因此|所以|故选?|我认为)[,:]?\s*)(?i:(?:the\s+)?(?:option|choice)\s+|选项?)?"
    rf"(?P<rest>\(?[A-Z](?!{_AND_ANOTHER}|{_DENIED})\)?(?=\s*(?:[.,;!]|$|\s(?:{_BECAUSE}|[(–—=-]))))|"
    r"(?<!\band\s)(?<!\bor\s)(?<![A-Z],\s)(?<![/&]\s)(?:^|(?<=[\s(.,]))(?i:option\s+|choice\s+)?"
    r"(?P<named>\(?[A-Z]\)?)\s*(?:(?:\bis|\bist|\best|\bes)\s+(?:(?:clearly|definitely|therefore|thus|indeed|the|la|die)\s+)*"
    r"(?:(?:correct|right|best|only\s+\w+)(?:\s+(?:one|answer|choice|option))?|answer|richtig|korrekt|correcte|juste|"
    r"bonne\s+réponse|(?:respuesta\s+)?correcta)\b|是?正确)",
    re.MULTILINE,
)
_NEGATED = re.compile(
    r"(?:\b(?:not|never|cannot|nobody|neither|nor|refuse|if|unless|nicht|keine?|pas|no(?!\s+doubt)|(?<!no )doubt)\b|"
    r"n['’]t\b|不)"
    r"(?:(?![.,;:!?\n]|\b(?:so|but|therefore|hence|thus|because)\b).)*$",
    re.IGNORECASE,
)
_IN_BRACKETS = re.compile(rf"(?<!not )(?<!nor )\(([A-Z])\)(?!{_DENIED})")
_SEVERAL_IN_BRACKETS = re.compile(r"\([A-Z]\)(?:(?:\s*(?:[,;/&]|and\b|or\b))+\s*\([A-Z]\))+")


def grade_choice(answer: str, reference: str, choices: Sequence[str]) -> Graded:
    """Grade a final answer; `reference` is a letter."""
    letter = choice_of(answer, choices)
    if letter is None:
        return Graded(Verdict.NO_ANSWER, None)
    return Graded(Verdict.RIGHT if letter == reference.strip().upper() else Verdict.WRONG, letter)


def choice_of(answer: str, choices: Sequence[str]) -> str | None:
    """The letter that `answer` chooses; None if it chooses none."""
    answer = answer[-LONGEST_ANSWER:].translate(_FULL_WIDTH)
    for text in [*reversed(boxed_texts(answer)), *reversed(_TAG.findall(answer))]:
        is_denied = _NEGATED.search(answer.rpartition(rf"\boxed{{{text}")[0][-80:])
        if not is_denied and (letter := _letter_or_text(text, choices)):
            return letter
    plain = _WRAPPING.sub("", answer)
    announced = [(found.start(), found.start("rest"), found["rest"]) for found in _ANNOUNCED.finditer(plain)]
    for found in _CHOSEN.finditer(plain):
        group = "rest" if found["rest"] else "named"
        announced.append((found.start(), found.start(group), found[group].strip("()")))
    announced.sort(key=lambda one: one[1], reverse=True)
    for start, _, text in announced[:MOST_ANNOUNCED]:
        if not _NEGATED.search(plain[max(0, start - 80) : start]) and (letter := _letter_or_text(text, choices)):
            return letter
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    if lines and (found := _LETTER.match(lines[-1])):
        rest = lines[-1][found.end() :]
        # "(A) is wrong, so (B)" begins with a letter that is not the choice; the text of a choice may contain another.
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
        return letter_of(same[0]) if len(same) == 1 else None
    small = _SMALL_LETTER.fullmatch(plain)
    return small[1].upper() if small else None


def _plain(text: str) -> str:
    return " ".join(_WRAPPING.sub("", text).casefold().split()).rstrip(" .")


if TYPE_CHECKING:
    from attnpo.judges.client import AnswerJudge


def rules_of(question: Question, off: Sequence[str] = ()) -> Rules:
    """The verifier's rules for a question: numbers are compared exactly unless its `extra` has a tolerance."""
    extra, rules = question.extra, Rules()
    if extra.get("unit"):
        rules["unit"] = extra["unit"]
    if extra.get("tolerance"):
        rules["tolerance"] = extra["tolerance"]
    if extra.get("measured"):
        rules["measured"] = True
    if off:
        rules["off"] = list(off)
    return rules


class Grader:
    """Grades (question, final answer) pairs; a context manager.

    Args:
        workers: processes for mathematics, and the same number for programs; default: the machine's cores, at most 8.
        timeout: seconds per mathematical answer. Comparing two long formulas can take ten, and an answer that times out
            is left out of the accuracy, so the limit is higher than in training.
        judge: asked about mathematical answers that the verifier cannot decide; default: none.
        limits: of the programs' sandbox; default: those of :class:`~attnpo.sandbox.sandbox.Limits`.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        timeout: float = 30.0,
        limits: Limits | None = None,
        judge: AnswerJudge | None = None,
    ) -> None:
        self.workers, self.timeout, self.limits, self.judge = workers, timeout, limits, judge
        self._pool: VerifierPool | None = None
        self._sandbox: Sandbox | None = None

    def grade(self, pairs: Sequence[tuple[Question, str | None]], *, off: Sequence[str] = ()) -> list[Graded]:
        """Grade answers, in order. The text is a response's final answer, without its thinking; None: it has none.

        `off`: names of the verifier's rules not to apply. The verdict is None for a question without a reference (code:
        without tests).

        Raises:
            InputError: programs cannot be confined on this system, or a test is malformed.
            RunError: a verifier or the sandbox does not start.
        """
        graded: dict[int, Graded] = {}
        waiting: dict[str, list[tuple[int, Question, str]]] = {"math": [], "code": []}
        for index, (question, answer) in enumerate(pairs):
            if not checkable(question):
                graded[index] = Graded(None, None)
            elif answer is None or not answer.strip():
                graded[index] = Graded(Verdict.NO_ANSWER, None)
            elif question.kind == "choice":
                assert question.reference is not None
                graded[index] = grade_choice(answer, question.reference, question.choices)
            else:
                waiting[question.kind].append((index, question, answer))
        for kind, grade in (("math", partial(self._math, off=off)), ("code", self._code)):
            if items := waiting[kind]:
                graded.update(zip((index for index, _, _ in items), grade(items), strict=True))
        return [graded[index] for index in range(len(pairs))]

    def _math(self, items: list[tuple[int, Question, str]], off: Sequence[str] = ()) -> Sequence[Graded]:
        if self._pool is None:
            self._pool = VerifierPool(self.workers, timeout=self.timeout, judge=self.judge)
        asked = [(answer, question.reference, rules_of(question, off)) for _, question, answer in items]
        return [Graded(judged.verdict, judged.extracted, fired=judged.fired) for judged in self._pool.judge(asked)]

    def _code(self, items: list[tuple[int, Question, str]]) -> Sequence[Graded]:
        if self._sandbox is None:
            self._sandbox = Sandbox(self.workers, limits=self.limits)
        return grade_codes([(answer, question.tests) for _, question, answer in items], self._sandbox)

    def close(self) -> None:
        """Stop the processes; the grader can be used again."""
        if self._pool is not None:
            self._pool.close()
        if self._sandbox is not None:
            self._sandbox.close()
        self._pool = self._sandbox = None

    def __enter__(self) -> Grader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def checkable(question: Question) -> bool:
    """Whether a question has a reference or tests to check an answer against."""
    return bool(question.tests) if question.kind == "code" else question.reference is not None
