"""Prompts that request a length."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from attnpo.data.problems import make_prompts
from attnpo.data.targets import LengthTargets, add_targets
from attnpo.errors import InputError

PROBLEMS = [{"id": f"p{i}", "problem": f"What is {i} + 1?", "reference": str(i + 1)} for i in range(300)]
EXACT = LengthTargets("Think for {target} tokens.", 100, 4000, seed=3)


class Plain:
    """A tokenizer without a chat template."""

    chat_template = None
    name_or_path = "plain"


def test_targets_are_those_of_the_problem_and_the_seed() -> None:
    targets = [row["target_length"] for row in add_targets(PROBLEMS, EXACT)]
    assert targets[::-1] == [row["target_length"] for row in add_targets(PROBLEMS[::-1], EXACT)]
    assert targets != [LengthTargets(EXACT.instruction, 100, 4000, seed=4).of(row["id"]) for row in PROBLEMS]
    assert min(targets) < 200
    assert max(targets) > 3900
    assert 1900 < sum(targets) / len(targets) < 2200
    assert EXACT.of("p0") == 2335  # and no other on another machine
    assert {LengthTargets("", 7, 8).of(str(i)) for i in range(99)} == {7, 8}  # both ends included


def test_the_sentence_ends_the_message(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    for template, expected in (
        (None, "What is 0 + 1? Think for 2335 tokens."),
        ("{problem} Box it.", "What is 0 + 1? Box it. Think for 2335 tokens."),
        ("{length_instruction}\n{problem}", "Think for 2335 tokens.\nWhat is 0 + 1?"),
    ):
        row = make_prompts(tiny_tokenizer, PROBLEMS[:2], template, EXACT)[0]
        assert row["prompt"] == [{"role": "user", "content": expected}]
        assert row["target_length"] == 2335


def test_whole_prompts_need_a_place() -> None:
    place = "{problem} {length_instruction}\n<think>\n"
    prompt = make_prompts(Plain(), PROBLEMS[:2], place, LengthTargets("Think for maximum {target} tokens.", 9, 9))[0]
    assert prompt["prompt"] == "What is 0 + 1? Think for maximum 9 tokens.\n<think>\n"
    with pytest.raises(InputError, match=r"prompt_template: found .* a text containing \{length_instruction\}"):
        make_prompts(Plain(), PROBLEMS, "{problem}\n<think>\n", EXACT)


def test_a_place_needs_a_sentence(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(InputError, match="only the length rewards l1_exact and l1_max have an instruction"):
        make_prompts(tiny_tokenizer, PROBLEMS, "{problem} {length_instruction}")


def test_prompts_without_targets_are_unchanged(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    assert make_prompts(tiny_tokenizer, PROBLEMS[:1], None).column_names == ["id", "problem", "reference", "prompt"]
