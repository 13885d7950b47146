"""Segmentation of all the real traces: the steps tile every text."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from attnpo.data.jsonl import read_jsonl
from attnpo.steps.lexicon import LEXICONS
from attnpo.steps.response import answer_of, thinking_of
from attnpo.steps.segment import SHORT_STEP, segment_steps
from attnpo.steps.spans import locate_steps

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def traces(shared_dir: Path) -> list[dict[str, Any]]:
    files = sorted((shared_dir / "data" / "traces").glob("*.jsonl"))
    return [row for file in files for row in read_jsonl(file, required=("id", "problem", "response"))]


def test_the_packaged_lexicon_and_examples_are_the_published_ones(shared_dir: Path, repository: Path):
    for ours, theirs in (
        ("src/attnpo/steps/lexicon.json", "spec/lexicon.json"),
        ("tests/data/segment_examples.jsonl", "fixtures/segment_examples.jsonl"),
    ):
        assert (repository / ours).read_bytes() == (shared_dir / theirs).read_bytes()


@pytest.mark.parametrize("lexicon", LEXICONS)
def test_steps_tile_every_real_trace(traces: list[dict[str, Any]], lexicon: str):
    assert len(traces) == 860
    several = 0
    for row in traces:
        thinking = thinking_of(row["response"])
        steps = segment_steps(thinking, lexicon)
        assert "".join(thinking[step.start : step.end] for step in steps) == thinking
        assert all(step.end == following.start for step, following in itertools.pairwise(steps))
        # after merging, a confused step is short only at the end of the thinking or before the final answer
        for step, following in itertools.pairwise(steps):
            assert step.kind != "confused" or step.end - step.start >= SHORT_STEP or following.kind == "answer"
        several += len(steps) > 1
    assert several > 800


def assert_located(tokenizer: Any, response: str) -> None:
    """Decoding the tokens of the steps gives the thinking back, cut at the tokens where the steps begin."""
    ids = tokenizer.encode(response, add_special_tokens=False)
    located = locate_steps(tokenizer, [*ids, tokenizer.eos_token_id])
    assert located.text == response
    thinking = thinking_of(response)
    assert located.steps == segment_steps(thinking)

    def decode(start: int, end: int) -> str:
        return tokenizer.decode(ids[start:end], clean_up_tokenization_spaces=False)

    position = 0
    for step, (start, end) in zip(located.steps, located.spans, strict=True):
        # the step begins at its first token, or inside the token before it
        assert step.start <= position
        assert position == step.start or position - step.start < len(decode(start - 1, start))
        position += len(decode(start, end))
    assert response[located.parts.thinking_start :][:position].startswith(thinking)
    if located.answer is None:
        assert answer_of(response) is None
    else:
        assert located.answer[1] == len(ids) + 1
        assert response.endswith(decode(located.answer[0], len(ids)))


def test_spans_tile_the_tokens_of_real_traces(traces: list[dict[str, Any]], tiny_tokenizer):
    for row in traces[::10]:
        assert_located(tiny_tokenizer, row["response"][:20_000])


def test_a_real_vocabulary(traces: list[dict[str, Any]], smollm2):
    for row in traces[::10]:
        assert_located(smollm2[1], row["response"])
