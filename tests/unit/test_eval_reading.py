"""Prompts, and the split of responses into thinking and answer."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from attnpo.errors import InputError
from attnpo.evaluation.benchmarks import user_message
from attnpo.evaluation.samples import Prompter, Question, read_response

ASKED = Question(benchmark="math500", id="1", problem="What is 12 + 30?", kind="math", reference="42")


def ids(tokenizer: Any, *pieces: str) -> list[int]:
    return [token for piece in pieces for token in tokenizer(piece, add_special_tokens=False)["input_ids"]]


@pytest.fixture
def tokenizer(tiny_tokenizer):
    """One that a test may change."""
    return copy.deepcopy(tiny_tokenizer)


def test_thinking_and_answer_are_counted_in_sampled_tokens(tokenizer):
    thinking, answer = ids(tokenizer, "Wait: 12 + 30 = 42."), ids(tokenizer, "The answer is 42.")
    close, end = ids(tokenizer, "</think>"), [tokenizer.eos_token_id]
    read = read_response(tokenizer, [*thinking, *close, *answer, *end], thinks=True)
    assert (read.text, read.answer) == ("Wait: 12 + 30 = 42.</think>The answer is 42.", "The answer is 42.")
    assert (read.thinking_tokens, read.answer_tokens) == (len(thinking), len(answer) + 1)
    cut = read_response(tokenizer, thinking, thinks=True)
    assert (cut.answer, cut.thinking_tokens, cut.answer_tokens) == (None, len(thinking), 0)


@pytest.mark.parametrize(
    ("text", "thinks", "answer"),
    [
        ("It is 42.", None, "It is 42."),
        ("<think>\nIt is", None, None),
        ("It is</think>42", None, "42"),
        ("It is</think>42", False, "It is</think>42"),
        ("It is 42.", True, None),
        ("</think>", True, ""),
    ],
)
def test_what_counts_as_answer(tokenizer, text: str, thinks: bool | None, answer: str | None):
    read = read_response(tokenizer, [*ids(tokenizer, text), tokenizer.eos_token_id], thinks)
    assert (read.text, read.answer) == (text, answer)


def test_closing_tag_as_special_token(tokenizer):
    from tokenizers import AddedToken

    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("</think>", special=True)]})
    before, close, after = ids(tokenizer, "12"), ids(tokenizer, "</think>"), ids(tokenizer, " is it")
    read = read_response(tokenizer, [*before, *close, *after, tokenizer.eos_token_id], thinks=True)
    assert (read.text, read.answer) == ("12</think> is it", " is it")
    assert (read.thinking_tokens, read.answer_tokens) == (len(before), len(after) + 1)
    assert tokenizer.decode([*before, *close], skip_special_tokens=True) == "12"  # or the test shows nothing


TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


@pytest.mark.parametrize(
    ("ending", "opens"),
    [
        ("<|im_start|>", None),
        ("<|im_start|><think>\n", True),
        ("<|im_start|><think>\n\n</think>\n\n", False),
        ("<|im_start|>{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}", None),
    ],
)
def test_who_opens_the_thinking(tokenizer, ending: str, opens: bool | None):
    tokenizer.chat_template = TEMPLATE + ending
    assert Prompter(tokenizer).opens_thinking() is opens
    if "enable_thinking" in ending:
        assert Prompter(tokenizer, options={"enable_thinking": False}).opens_thinking() is False


def test_problem_with_a_tag_opens_nothing(tokenizer):
    tokenizer.chat_template = TEMPLATE
    prompter = Prompter(tokenizer)
    assert "<think>" in prompter.text("What does <think> mean?")
    assert prompter.opens_thinking() is None


def test_template_without_chat_template(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(InputError, match=r"no chat template; give --prompt-template, a text containing \{problem\}"):
        Prompter(tokenizer)
    prompter = Prompter(tokenizer, "Problem: {problem}\n<think>\n")
    text = tokenizer.decode(prompter.encode(user_message(ASKED)))
    assert text.startswith("Problem: What is 12 + 30?\n\nPlease reason step by step")
    assert text.endswith("<think>\n")
    assert prompter.opens_thinking() is True


def test_template_is_the_user_message_of_a_conversation(tokenizer):
    text = Prompter(tokenizer, "Be short. {problem}").text("1 + 1?")
    assert "<|im_start|>user\nBe short. 1 + 1?<|im_end|>" in text


@pytest.mark.parametrize(
    ("template", "options", "message"),
    [
        ("Solve it.", {}, r"--prompt-template: found 'Solve it\.', expected a text containing \{problem\}"),
        ("{problem}", {"enable_thinking": True}, "--chat-template-kwargs: found options, but the tokenizer has no"),
    ],
)
def test_bad_templates(tokenizer, template: str, options: dict[str, Any], message: str):
    tokenizer.chat_template = None
    with pytest.raises(InputError, match=message):
        Prompter(tokenizer, template, options)


def test_chat_template_that_refuses(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('one message only') }}"
    with pytest.raises(InputError, match="the chat template cannot be used: one message only"):
        Prompter(tokenizer).encode(user_message(ASKED))
