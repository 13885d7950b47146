"""Early exit: rules by hand, branches compared with a plain forward, and responses that end where the rule applies."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from attnpo.errors import InputError
from attnpo.models import resolve_model
from attnpo.steps.formats import load_format
from attnpo.steps.response import split_response
from attnpo.task.dataset import build_dataset
from attnpo.traces.prepared import prompt_ids
from attnpo.trim import early_exit
from attnpo.trim.early_exit import (
    Branch,
    Closing,
    EarlyExit,
    agreeing,
    at_boundary,
    confident,
    generate_with_exit,
    never,
)

PROBLEM = "12 + 30?"


def branch(text: str, confidence: float = 0.5) -> Branch:
    return Branch([], text, confidence, 0)


def test_rules_by_hand():
    assert confident(0.9)([branch("", 0.2), branch("", 0.9)])
    assert not confident(0.9)([branch("", 0.95), branch("", 0.8)])
    two = agreeing(2)
    assert two([branch("It is 4."), branch("So 5."), branch("It is 5.")])
    assert not two([branch("It is 5.")])
    assert not two([branch("It is 5."), branch("It is 6.")])
    assert not two([branch("none"), branch("none")])
    assert not never([branch("")])
    with pytest.raises(InputError, match="threshold: found 2"):
        confident(2)
    with pytest.raises(InputError, match="count: found 0"):
        agreeing(0)


def test_boundaries(tiny_tokenizer):
    def ids(text: str) -> list[int]:
        return tiny_tokenizer(text)["input_ids"]

    assert at_boundary(tiny_tokenizer, ids("So 42.\n\n"))
    assert at_boundary(tiny_tokenizer, ids("So 42.\n\n "))
    assert not at_boundary(tiny_tokenizer, ids("So 42.\n"))
    assert not at_boundary(tiny_tokenizer, ids("So\n\n42."))


def test_several_empty_lines_are_one_boundary(tiny_qwen2, tiny_tokenizer):
    """A second branch after white space only would agree with the first one."""
    closing = Closing(tiny_qwen2, tiny_tokenizer, room=2)
    prompt = prompt_ids(PROBLEM, tiny_tokenizer, opens_itself=False)
    mask = torch.ones(1, len(prompt), dtype=torch.long)
    criterion, asked = EarlyExit(closing, lambda branches: False, mask), []
    written = tiny_tokenizer("\n\nSo 42.\n\n\n\n \n\nNow.\n\n")["input_ids"]
    for end in range(1, len(written) + 1):
        before = len(criterion.branches_of(0))
        criterion(torch.tensor([[*prompt, *written[:end]]]), None)
        if len(criterion.branches_of(0)) > before:
            asked.append(tiny_tokenizer.decode(written[:end]))
    assert asked == ["\n\nSo 42.\n\n", "\n\nSo 42.\n\n\n\n \n\nNow.\n\n"]


def test_the_benchmark_has_the_same_boundaries(tiny_tokenizer, repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    from early_exit import step_ends, without_repeats

    ids = tiny_tokenizer("\n\nSo 42.\n\n\n\n \n\nNow.\n\n42.")["input_ids"]
    ends = step_ends(tiny_tokenizer, ids, "\n\n")
    assert [tiny_tokenizer.decode(ids[:end])[-6:] for end in ends] == [" 42.\n\n", "Now.\n\n"]
    first, repeated, later = [5, 20, 3, 0.5, "42", 1], [7, 20, 3, 0.5, "42", 1], [9, 24, 3, 0.5, "42", 1]
    assert without_repeats([first, repeated, later]) == [first, later]


def test_a_branch_by_a_plain_forward(tiny_qwen2, tiny_tokenizer):
    closing = Closing(tiny_qwen2, tiny_tokenizer, room=6)
    prompt = prompt_ids(PROBLEM, tiny_tokenizer, opens_itself=False)
    thinking = tiny_tokenizer("Add 12 and 30.\n\n")["input_ids"]
    long, short = closing.answers([([*prompt, *thinking], len(thinking)), (prompt, 0)])
    assert long.thinking == len(tiny_tokenizer("Add 12 and 30.")["input_ids"])  # without the line breaks
    ids = [*prompt, *thinking[: long.thinking], *tiny_tokenizer("\n</think>")["input_ids"]]
    for token in long.ids:
        logits = tiny_qwen2(torch.tensor([ids])).logits[0, -1]
        assert int(logits.argmax()) == token
        ids.append(token)
    assert len(long.ids) == 6
    assert long.confidence == 0  # it never ended
    assert short.thinking == 0


def test_white_space_inside_the_last_token_is_left_out(tiny_qwen2, tiny_tokenizer, monkeypatch):
    closing = Closing(tiny_qwen2, tiny_tokenizer, room=1)
    prompt = prompt_ids(PROBLEM, tiny_tokenizer, opens_itself=False)
    thinking = tiny_tokenizer("So 42.")["input_ids"]
    plain = tiny_tokenizer.decode
    # One token that is a full stop with an empty line, as larger vocabularies have it.
    merged = thinking[-1]
    monkeypatch.setattr(
        tiny_tokenizer, "decode", lambda ids, **options: ".\n\n" if ids == [merged] else plain(ids, **options)
    )
    (found,) = closing.answers([([*prompt, *thinking], len(thinking))])
    assert found.thinking == len(thinking) - 1
    assert found.closing == tiny_tokenizer(".\n</think>")["input_ids"]


def test_confidence_is_the_geometric_mean(tiny_qwen2, tiny_tokenizer):
    prompt = prompt_ids(PROBLEM, tiny_tokenizer, opens_itself=False)
    closing = Closing(tiny_qwen2, tiny_tokenizer, room=3)
    (cut,) = closing.answers([(prompt, 0)])
    # The last token written counts as an end token now, so that the answer ends with it.
    tiny_qwen2.generation_config.eos_token_id = cut.ids[-1]
    (ended,) = closing.answers([(prompt, 0)])
    first = cut.ids.index(cut.ids[-1]) + 1
    assert ended.ids == cut.ids[:first]
    ids, log_probs = [*prompt, *closing.ids], []
    for token in ended.ids:
        log_probs.append(float(tiny_qwen2(torch.tensor([ids])).logits[0, -1].detach().log_softmax(-1)[token]))
        ids.append(token)
    assert ended.confidence == pytest.approx(math.exp(sum(log_probs) / len(log_probs)), rel=1e-4)


def prompts(tokenizer) -> list[list[int]]:
    return [prompt_ids(text, tokenizer, opens_itself=False) for text in (PROBLEM, "What is 7 times 6, my friend?")]


def test_a_plain_budget_is_closed_at_the_limit(tiny_qwen2, tiny_tokenizer):
    closing = Closing(tiny_qwen2, tiny_tokenizer, room=4)
    greedy = {"do_sample": False}
    for response in generate_with_exit(closing, prompts(tiny_tokenizer), never, max_new_tokens=7, **greedy):
        assert response.exited
        assert response.text.count("\n</think>") == 1
        assert (response.asked, response.spent) == (0, 0)
        assert response.thinking <= 7
        assert response.tokens == response.thinking + len(closing.ids) + 4


@pytest.mark.parametrize(
    ("asked", "limit", "message"),
    [([], 5, "prompts: found none"), ([[5], []], 5, "no token in prompt 1"), ([[5]], 0, "max_new_tokens")],
)
def test_nothing_to_generate(asked, limit, message, tiny_qwen2, tiny_tokenizer):
    with pytest.raises(InputError, match=message):
        generate_with_exit(Closing(tiny_qwen2, tiny_tokenizer), asked, never, max_new_tokens=limit)


def test_thinking_ends_where_the_rule_applies(tiny_qwen2, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(early_exit, "at_boundary", lambda tokenizer, ids: len(ids) % 5 == 0)
    closing = Closing(tiny_qwen2, tiny_tokenizer, room=4)

    def respond(rule):
        torch.manual_seed(3)  # asking draws no random number
        return generate_with_exit(closing, prompts(tiny_tokenizer), rule, max_new_tokens=20, do_sample=True, top_k=0)

    whole = respond(never)
    assert all(response.thinking > 10 for response in whole)
    for response, plain in zip(respond(lambda branches: len(branches) == 2), whole, strict=True):
        assert (response.asked, response.spent, response.exited) == (2, 4, True)
        assert 5 < response.thinking <= 10
        assert plain.text.startswith(response.text.partition("\n</think>")[0])
    rows = iter([True, False])  # one row of the two ends early
    mixed = respond(lambda branches: len(branches) == 1 and next(rows))
    assert [response.asked for response in mixed] == [1, 4]
    assert mixed[1].text == whole[1].text


HARMONY = "<|channel|>analysis<|message|>"


@pytest.mark.parametrize("name", ["openai_gptoss", "mistral", "granite", "openthinker", "answer_tags", "kimi_k3"])
def test_a_branch_in_another_format(tiny_qwen2, tiny_tokenizer, name):
    """Marks of several tokens each, as this tokenizer writes them; the thinking opens itself."""
    form = load_format(name)
    closing = Closing(tiny_qwen2, tiny_tokenizer, room=2, form=form)
    assert tiny_tokenizer.decode(closing.ids) == form.ending
    prompt = tiny_tokenizer(PROBLEM)["input_ids"]
    thinking = tiny_tokenizer(f"{form.opener}So 42.\n\n")["input_ids"]
    (found,) = closing.answers([([*prompt, *thinking], len(thinking))])
    assert found.thinking == len(tiny_tokenizer(f"{form.opener}So 42.")["input_ids"])
    written = tiny_tokenizer.decode([*thinking[: found.thinking], *found.closing]) + "42"
    parts = split_response(written, form)
    assert written[parts.thinking_start : parts.thinking_end].rstrip() == "So 42."
    assert parts.answer_start is not None
    assert written[parts.answer_start :] == "42"


def test_responses_without_thinking_are_not_probed(tiny_qwen2, tiny_tokenizer):
    """By the text so far: not an answer without thinking, nor what follows the end of the thinking."""
    mistral = replace(load_format("mistral"), prompt_opens=None)
    prompt = prompts(tiny_tokenizer)[:1]
    for form, text, asked in (
        (mistral, "[THINK]So 42.\n\n", 1),
        (mistral, "It is 42.\n\n", 0),
        (replace(mistral, prompt_opens=True), "It is 42.\n\n", 1),
        (mistral, "[THINK]So 42.[/THINK]It is 42.\n\n", 0),
        (load_format("kimi_k2"), "So.\n\n<|tool_calls_section_begin|>{}\n\n", 0),
        (load_format("openai_gptoss"), f"{HARMONY}So.<|end|><|start|>assistant{HARMONY}42.\n\n", 1),
        (load_format("openai_gptoss"), f"{HARMONY}So.<|end|><|start|>assistant<|channel|>final<|message|>42.\n\n", 0),
    ):
        closing = Closing(tiny_qwen2, tiny_tokenizer, room=1, form=form)
        criterion = EarlyExit(closing, lambda branches: True, torch.ones(1, len(prompt[0]), dtype=torch.long))
        row = torch.tensor([[*prompt[0], *tiny_tokenizer(text)["input_ids"]]])
        assert criterion(row, None).tolist() == [bool(asked)], text
        assert len(criterion.branches_of(0)) == asked


def test_the_end_of_a_channel_is_written_once(tiny_qwen2, tiny_tokenizer, monkeypatch):
    closing = Closing(tiny_qwen2, tiny_tokenizer, room=1, form=load_format("openai_gptoss"))
    row = tiny_tokenizer(f"{HARMONY}So.x")["input_ids"]
    plain, mark = tiny_tokenizer.decode, row[-1]
    monkeypatch.setattr(  # one token, as those models have it
        tiny_tokenizer, "decode", lambda ids, **options: "<|end|>" if ids == [mark] else plain(ids, **options)
    )
    (found,) = closing.answers([(row, len(row))])
    assert (found.thinking, found.closing) == (len(row) - 1, closing.ids)


def test_the_tokenizer_shows_the_format(tiny_qwen2, tiny_tokenizer):
    assert Closing(tiny_qwen2, tiny_tokenizer).closing == "\n</think>"
    shown = copy.deepcopy(tiny_tokenizer)
    shown.add_tokens(["[THINK]", "[/THINK]"])
    shown.chat_template = "{{ messages[0].content }}[THINK]"
    closing = Closing(tiny_qwen2, shown)
    assert (closing.marks.name, closing.closing, closing.marks.prompt_opens) == ("mistral", "\n[/THINK]", True)


def test_formats_that_cannot_be_ended_early(tiny_qwen2, tiny_tokenizer, monkeypatch):
    with pytest.raises(InputError, match="early exit: thinking format none has no thinking that could be ended"):
        Closing(tiny_qwen2, tiny_tokenizer, form=load_format("none"))
    monkeypatch.setattr(tiny_tokenizer, "decode", lambda ids, **options: "?")
    with pytest.raises(InputError, match=r"the tokenizer turns the mark '\[/THINK\]' into"):
        Closing(tiny_qwen2, tiny_tokenizer, form=load_format("mistral"))


@pytest.mark.slow
def test_confidence_ends_the_thinking_of_the_small_model():
    path = resolve_model(None)
    tokenizer = AutoTokenizer.from_pretrained(path)
    closing = Closing(AutoModelForCausalLM.from_pretrained(path).eval(), tokenizer)
    rows = build_dataset(12, seed=4, split="test")
    asked = [prompt_ids(row["problem"], tokenizer, opens_itself=False) for row in rows]
    whole = generate_with_exit(closing, asked, never, max_new_tokens=600, do_sample=False)
    early = generate_with_exit(closing, asked, confident(0.95), max_new_tokens=600, do_sample=False)
    # Sure too early, so mostly of a wrong answer: benchmarks/early_exit.py measures what a threshold costs.
    assert sum(response.exited for response in early) >= 10
    assert sum(response.tokens for response in early) < 0.9 * sum(response.tokens for response in whole)
    assert not any(response.exited for response in whole)
