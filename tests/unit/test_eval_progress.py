"""Progress messages of an evaluation."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from attnpo.evaluation import run as module
from attnpo.evaluation.run import EvalProgress
from attnpo.evaluation.samples import Sample
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
            if second == 50 or second in (100, 101, 102):
                progress.sample(replace(RIGHT, verdict=Verdict.WRONG, tokens=400))
    # 3 samples of 200 tokens on average, then 6 of 300; the one that timed out counts for no accuracy. The time left is
    # that of 4 · 300 tokens at 10 a second, and is not guessed at from a single sample.
    assert screen.getvalue().splitlines() == [
        "3 of 10 samples, 10 tokens/s, accuracy 50.0%, mean 200 tokens",
        "6 of 10 samples, 10 tokens/s, accuracy 20.0%, mean 300 tokens, about 2 min left",
    ]
    assert progress.done == 6


def test_the_rate_is_counted_from_the_first_token(clock):
    """What starts before the model samples is not its time, and a rate over a moment is none."""
    progress = EvalProgress(Console(file=io.StringIO()), 10)
    clock[0] = 100.0
    progress.tokens(50)
    clock[0] = 101.0
    assert "tokens/s" not in progress.summary
    clock[0] = 105.0
    assert "10 tokens/s" in progress.summary


def test_a_terminal_gets_one_live_line(clock):
    screen = io.StringIO()
    with EvalProgress(Console(file=screen, force_terminal=True, width=100), 2) as progress:
        progress.tokens(100)
        progress.sample(RIGHT)
        clock[0] = 10.0
        progress.sample(RIGHT)
    assert progress.summary == "2 of 2 samples, 10 tokens/s, accuracy 100.0%, mean 100 tokens"
    assert "2/2" in screen.getvalue()
