"""Grading: is a final answer right? One grader for mathematics, multiple choice and code."""

from attnpo.evaluation.grading.grader import Grader
from attnpo.evaluation.samples import Graded

__all__ = ["Graded", "Grader"]
