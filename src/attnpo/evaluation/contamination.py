"""Which problems of a training set are problems of a benchmark, or nearly are.

Every pair is compared exactly, without sampling or hashing: an index from each word n-gram of the benchmark to the
questions that have it holds a few hundred thousand entries, and a training problem is looked up in it in time
proportional to its length. (MinHash pays where both sides have millions of texts, and is approximate.)

Three degrees, the first that applies: `same` text (case, spacing and punctuation aside), `numbers` (same text but for
its numbers), `near` (at least `SHARE` of the question's `WORDS`-grams stand in the training problem). n-gram overlap
with a training problem is how GPT-3 (arXiv 2005.14165, appendix C: 13-grams, any one) and its successors look for
contamination; competition problems share stock phrases of that length, so a share of the question is asked for here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from attnpo.evaluation.records import Question

WORDS = 8
SHARE = 0.5
SHORTEST = 12
"""Words a question must have for `near` and `numbers`: shorter ones resemble each other by chance."""

Degree = Literal["same", "numbers", "near"]
_WORD = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")
_NUMBER = re.compile(r"\d")


@dataclass(frozen=True)
class Overlap:
    """A training problem that resembles a question; `share` of the question's n-grams stand in it."""

    train_id: str
    question: Question
    degree: Degree
    share: float


class OverlapIndex:
    """The questions of benchmarks, to look training problems up in."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = list(questions)
        self._texts: dict[tuple[str, ...], list[int]] = {}
        self._masked: dict[tuple[str, ...], list[int]] = {}
        self._grams: dict[tuple[str, ...], list[int]] = {}
        self._sizes: list[int] = []
        for index, question in enumerate(self.questions):
            # The stem of a multiple-choice question alone may be "Which of the following is true?".
            words = words_of(" ".join((question.problem, *question.choices)))
            self._texts.setdefault(words, []).append(index)
            grams = set(_grams(words)) if len(words) >= SHORTEST else set()
            self._sizes.append(len(grams))
            if grams:
                self._masked.setdefault(_mask(words), []).append(index)
            for gram in grams:
                self._grams.setdefault(gram, []).append(index)

    def find(self, train_id: str, problem: str) -> Iterator[Overlap]:
        """The questions that `problem` resembles, in order."""
        words = words_of(problem)
        shared = Counter(index for gram in set(_grams(words)) for index in self._grams.get(gram, ()))
        same = set(self._texts.get(words, ()))
        masked = set(self._masked.get(_mask(words), ()))
        for index in sorted({*same, *masked, *shared}):
            share = shared[index] / self._sizes[index] if self._sizes[index] else 1.0
            degree: Degree = "same" if index in same else "numbers" if index in masked else "near"
            if degree != "near" or share >= SHARE:
                yield Overlap(train_id, self.questions[index], degree, share)


def find_overlaps(problems: Iterable[tuple[str, str]], questions: Sequence[Question]) -> Iterator[Overlap]:
    """Overlaps of (id, text) training problems with the questions."""
    index = OverlapIndex(questions)
    for train_id, problem in problems:
        yield from index.find(train_id, problem)


def words_of(text: str) -> tuple[str, ...]:
    """Lower-case words and numbers of a text, LaTeX commands among them; punctuation is dropped.

    >>> words_of("Find $x$ if 1,000x = \\\\frac{1}{2}.")
    ('find', 'x', 'if', '1,000', 'x', 'frac', '1', '2')
    """
    return tuple(_WORD.findall(text.casefold()))


def _mask(words: Sequence[str]) -> tuple[str, ...]:
    return tuple("0" if _NUMBER.match(word) else word for word in words)


def _grams(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1))
