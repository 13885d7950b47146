"""The user message of a question. The system message and the thinking tag are the chat template's.

Instructions are those that reasoning models are commonly evaluated with, kept to one per kind; the built-in task has
none, as in its training (data/problems.py, `make_prompts` without a template).
"""

from __future__ import annotations

from attnpo.evaluation.records import Question

MATH = "Please reason step by step, and put your final answer within \\boxed{}."
CHOICE = (
    'Please reason step by step, and end with a line of the form "Answer: X", where X is the letter of the right '
    "choice."
)
STDIN = (
    "Write a Python program that reads from standard input and prints the answer to standard output. "
    "Put the whole program into one ```python code block."
)
FUNCTION = "Write your solution in Python, starting from this code. Put all of it into one ```python code block."


def user_message(question: Question) -> str:
    """What the model is asked, in plain text."""
    if question.benchmark == "task":
        return question.problem
    if question.kind == "choice":
        listing = "\n".join(f"({letter_of(index)}) {choice}" for index, choice in enumerate(question.choices))
        return f"{question.problem.rstrip()}\n\n{listing}\n\n{CHOICE}"
    if question.kind == "code":
        starter = question.extra.get("starter_code")
        task = f"{FUNCTION}\n\n```python\n{starter.rstrip()}\n```" if starter else STDIN
        return f"{question.problem.rstrip()}\n\n{task}"
    return f"{question.problem.rstrip()}\n\n{MATH}"


def letter_of(index: int) -> str:
    """A, B, C … for 0, 1, 2 …"""
    return chr(ord("A") + index)
