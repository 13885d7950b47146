"""What is said while an evaluation runs."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from attnpo.evaluation import progress as module
from attnpo.evaluation.progress import EvalProgress
from attnpo.evaluation.records import Sample
from attnpo.rewards.verdict import Verdict

RIGHT = Sample(
    benchmark="task",
    id="1",
    sample=0,
    seed=1,
    text="",
    prompt_tokens=1,
    tokens=100,
    thinking_tokens=0,
    answer_tokens=100,
    truncated=False,
    extracted=None,
    verdict=Verdict.RIGHT,
    reference="1",
    level=None,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """A clock that is set by hand."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_come_now_and_then(clock):
    screen = io.StringIO()
    kept = [RIGHT, replace(RIGHT, verdict=Verdict.TIMED_OUT)]
    with EvalProgress(Console(file=screen, width=200), 10, kept) as progress:
        for second in range(1, 131):
            clock[0] = float(second)
            progress.tokens(10)
            if second == 50:
                progress.sample(replace(RIGHT, verdict=Verdict.WRONG, tokens=400))
    # 3 samples of 200 tokens on average; the one that timed out counts for no accuracy; 7 · 200 tokens at 10 a second
    line = "3 of 10 samples, 10 tokens/s, accuracy 50.0%, mean 200 tokens, about 2 min left"
    assert screen.getvalue().splitlines() == [line, line]
    assert progress.done == 3


def test_a_terminal_gets_one_live_line(clock):
    screen = io.StringIO()
    with EvalProgress(Console(file=screen, force_terminal=True, width=100), 2) as progress:
        progress.tokens(100)
        progress.sample(RIGHT)
        clock[0] = 10.0
        progress.sample(RIGHT)
    assert progress.summary == "2 of 2 samples, 10 tokens/s, accuracy 100.0%, mean 100 tokens"
    assert "2/2" in screen.getvalue()
