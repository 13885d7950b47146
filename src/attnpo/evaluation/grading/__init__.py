"""Grading of final answers: mathematics, multiple choice and code."""

from attnpo.evaluation.grading.grader import Grader
from attnpo.evaluation.samples import Graded

__all__ = ["Graded", "Grader"]
