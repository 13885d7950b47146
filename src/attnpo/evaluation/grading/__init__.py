"""Grading: is a final answer right? One grader for mathematics, multiple choice and code."""

from attnpo.evaluation.grading.graded import Graded
from attnpo.evaluation.grading.grader import Grader

__all__ = ["Graded", "Grader"]
