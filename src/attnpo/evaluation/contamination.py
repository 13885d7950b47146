"""Find problems of a training set that are equal or nearly equal to problems of a benchmark.

Every pair is compared exactly, without sampling or hashing: an index from each word n-gram of the benchmark to the
questions that contain it has a few hundred thousand entries, and looking up a training problem in it takes time
proportional to its length. (MinHash pays if both sides have millions of texts, and is approximate.)

Three degrees, the first that applies: `same` text (except for case, spacing and punctuation), `numbers` (same text
except for its numbers), `near` (at least `SHARE` of the question's `WORDS`-grams occur in the training problem). n-gram
overlap with a training problem is how GPT-3 (arXiv 2005.14165, appendix C: 13-grams, any one) and its successors look
for contamination; competition problems share common phrases of that length, so a share of the question is required
here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from attnpo.evaluation.samples import Question

WORDS = 8
SHARE = 0.5
SHORTEST = 12
"""Minimum number of words of a question for `near` and `numbers`: shorter ones resemble each other by chance."""

Degree = Literal["same", "numbers", "near"]
DEGREES: tuple[Degree, ...] = ("same", "numbers", "near")
"""The worst first."""

Words = tuple[str, ...]
_WORD = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")
_NUMBER = re.compile(r"\d")


@dataclass(frozen=True)
class Overlap:
    """A training problem that resembles a question; it contains `share` of the question's n-grams."""

    train_id: str
    question: Question
    degree: Degree
    share: float


@dataclass(frozen=True)
class _Form:
    """One text of a question: its statement, or its statement and choices."""

    question: int
    size: int
    bare: bool
    """A statement without its choices that is too short to identify the question."""


class OverlapIndex:
    """An index of the questions of benchmarks, in which training problems are looked up.

    A multiple-choice question is indexed by its statement and by its statement with the choices: training data have
    either.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = list(questions)
        self._forms: list[_Form] = []
        self._texts: dict[Words, list[int]] = {}
        self._masked: dict[Words, list[int]] = {}
        self._grams: dict[Words, list[int]] = {}
        for index, question in enumerate(self.questions):
            statement, full = _texts_of(question.problem, question.choices)
            self._add(index, full)
            if full != statement:
                self._add(index, statement, bare=len(statement) < SHORTEST)

    def _add(self, question: int, words: Words, *, bare: bool = False) -> None:
        form = len(self._forms)
        grams = set(_grams(words)) if len(words) >= SHORTEST else set()
        self._forms.append(_Form(question, len(grams), bare))
        self._texts.setdefault(words, []).append(form)
        if grams:
            self._masked.setdefault(_mask(words), []).append(form)
        for gram in grams:
            self._grams.setdefault(gram, []).append(form)

    def find(self, train_id: str, problem: str, choices: Sequence[str] = ()) -> Iterator[Overlap]:
        """The questions that `problem` resembles, in order, each with the strongest degree of its texts."""
        statement, full = _texts_of(problem, choices)
        shared = Counter(form for gram in set(_grams(full)) for form in self._grams.get(gram, ()))
        same = {*self._same(statement, choices=bool(choices)), *self._same(full, choices=bool(choices))}
        masked = {form for words in (statement, full) for form in self._masked.get(_mask(words), ())}
        best: dict[int, tuple[int, float]] = {}
        for index in {*same, *masked, *shared}:
            form = self._forms[index]
            share = shared[index] / form.size if form.size else 1.0
            degree = 0 if index in same else 1 if index in masked else 2
            if DEGREES[degree] != "near" or share >= SHARE:
                degree_before, share_before = best.get(form.question, (degree, share))
                best[form.question] = min(degree, degree_before), max(share, share_before)
        for question, (degree, share) in sorted(best.items()):
            yield Overlap(train_id, self.questions[question], DEGREES[degree], share)

    def _same(self, words: Words, *, choices: bool) -> Iterator[int]:
        """Indexed texts with exactly these words.

        "Which of the following is true?" is the statement of many questions. A short statement without its choices
        counts only if the training problem has no choices, which could be compared, and only one question has it.
        """
        found = self._texts.get(words, ())
        for form in found:
            if not self._forms[form].bare or (not choices and len(found) == 1):
                yield form


def find_overlaps(
    problems: Iterable[tuple[str, str, Sequence[str]]], questions: Sequence[Question]
) -> Iterator[Overlap]:
    """Overlaps of (id, text, choices) training problems with the questions."""
    index = OverlapIndex(questions)
    for train_id, problem, choices in problems:
        yield from index.find(train_id, problem, choices)


def seen_in_training(training: Iterable[str], held_out: Sequence[str]) -> dict[Degree, int]:
    """The number of held-out problems that overlap a training set, by their strongest degree, if above 0."""
    questions = [
        Question(benchmark="", id=str(i), problem=text, kind="math", reference=None) for i, text in enumerate(held_out)
    ]
    worst: dict[str, int] = {}
    for overlap in find_overlaps(((str(i), text, ()) for i, text in enumerate(training)), questions):
        degree = DEGREES.index(overlap.degree)
        worst[overlap.question.id] = min(degree, worst.get(overlap.question.id, degree))
    counts = Counter(worst.values())
    return {degree: counts[number] for number, degree in enumerate(DEGREES) if counts[number]}


def _texts_of(problem: str, choices: Sequence[str]) -> tuple[Words, Words]:
    """The words of a statement, and of the statement with its choices."""
    statement = words_of(problem)
    return statement, (*statement, *words_of(" ".join(choices)))


def words_of(text: str) -> Words:
    """Lower-case words and numbers of a text, LaTeX commands among them; punctuation is dropped.

    >>> words_of("Find $x$ if 1,000x = \\\\frac{1}{2}.")
    ('find', 'x', 'if', '1,000', 'x', 'frac', '1', '2')
    """
    return tuple(_WORD.findall(text.casefold()))


def _mask(words: Sequence[str]) -> Words:
    return tuple("0" if _NUMBER.match(word) else word for word in words)


def _grams(words: Sequence[str]) -> Iterator[Words]:
    return (tuple(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1))
