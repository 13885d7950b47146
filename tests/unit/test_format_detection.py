"""Detection of a tokenizer's thinking format: chat templates and response templates shipped with TRL, added tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import trl
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import chat_template_utils

from attnpo.errors import InputError
from attnpo.evaluation.samples import Prompter, read_response
from attnpo.steps.detect import check_marks, choose_format, format_of_file
from attnpo.steps.formats import BY_MARKS, THINK, load_format, mark_tokens
from attnpo.steps.response import decode_completion, other_format
from attnpo.steps.spans import locate_steps
from attnpo.training.config import format_of_run

TEMPLATES = Path(trl.__file__).parent / "chat_templates"


def new_tokenizer(*added: str, special: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Bytes, and these marks as tokens of their own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={byte: index for index, byte in enumerate(alphabet)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>", pad_token="<pad>")
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in added])
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in special], special_tokens=True)
    return tokenizer


@pytest.mark.parametrize(
    ("template", "name", "opens"),
    [
        ("deepseek_r1_distill", "deepseek_r1", True),
        ("glm4moe", "glm45", None),
        ("gptoss", "openai_gptoss", None),
        ("gemma4", "gemma4", None),
        ("nemotron_3_nano", "nemotron", True),
        ("qwen3", "qwen3", None),
        ("qwen3_5_think", "qwen3", True),
        ("qwen3_5_nothink", "qwen3", False),
        ("llama3_1", "deepseek_r1", None),  # nothing shows one
    ],
)
def test_chat_templates(template: str, name: str, opens: bool | None) -> None:
    tokenizer = new_tokenizer()
    tokenizer.chat_template = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
    chosen = choose_format("auto", tokenizer)
    assert (chosen.form.name, chosen.form.prompt_opens) == (name, opens)
    assert str(chosen).startswith(f"thinking format: {name} (")
    assert ("shown by the chat template" in str(chosen)) == (template != "llama3_1")
    assert ("as nothing shows one" in str(chosen)) == (template == "llama3_1")
    assert ("the prompt opens it" in str(chosen), "the prompt closes it" in str(chosen)) == (
        opens is True,
        opens is False,
    )


def test_thinking_turned_off_in_the_chat_template() -> None:
    tokenizer = new_tokenizer()
    tokenizer.chat_template = (TEMPLATES / "qwen3.jinja").read_text(encoding="utf-8")
    form = choose_format("auto", tokenizer, template_options={"enable_thinking": False}).form
    assert form.prompt_opens is False
    located = locate_steps(tokenizer, tokenizer("It is 7.<eos>")["input_ids"], form=form)
    assert (located.steps, located.answer, located.has_answer_text) == ([], (0, 9), True)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("qwen3_template", "deepseek_r1"),
        ("gptoss_template", "openai_gptoss"),
        ("gemma4_template", "gemma4"),
        ("deepseek_r1_distill_template", "deepseek_r1"),
        ("lfm2_2_5_template", "deepseek_r1"),
        ("llama3_template", "deepseek_r1"),  # does not think
    ],
)
def test_response_templates(template: str, name: str) -> None:
    tokenizer = new_tokenizer()
    tokenizer.response_template = getattr(chat_template_utils, template)
    chosen = choose_format("auto", tokenizer)
    assert chosen.form.name == name
    assert ("response template" in chosen.why) == (template != "llama3_template")


def test_a_response_template_of_its_own_marks() -> None:
    tokenizer = new_tokenizer()
    thinking = {"open": ["<<", "<("], "close_pattern": r">>\s*", "content": "text"}
    tokenizer.response_template = {"start_anchor": "A", "fields": {"thinking": thinking, "content": {}}}
    form = choose_format("auto", tokenizer).form
    assert (form.name, form.opening, form.closing) == ("response_template", ("<<", "<("), (">>",))
    thinking["close_pattern"] = r"(>>|\))"  # no plain mark: what else the tokenizer shows
    assert choose_format("auto", tokenizer).form.name == "deepseek_r1"


@pytest.mark.parametrize(
    "name", ["mistral", "seed_oss", "minimax_m3", "exaone_deep", "openthinker", "kimi_k3", "gemma4"]
)
def test_added_tokens(name: str) -> None:
    form = load_format(name)
    pieces = {"kimi_k3": ("<|open|>", "<|close|>", "<|sep|>")}.get(name, (*form.opening, *form.closing))
    chosen = choose_format("auto", new_tokenizer(special=pieces))
    assert chosen.form.name == name
    assert chosen.why == "shown by the added tokens"


def test_most_specific_format_is_chosen() -> None:
    assert choose_format("auto", new_tokenizer("<think>", "</think>")).form.name == "deepseek_r1"
    kimi = new_tokenizer("<think>", "</think>", "<|tool_calls_section_begin|>")
    assert choose_format("auto", kimi).form.name == "kimi_k2"
    assert choose_format("mistral", kimi).why == "as given"


def test_marks_as_token_ids() -> None:
    tokenizer = new_tokenizer("[THINK]", "[/THINK]")
    form = choose_format("auto", tokenizer).form
    assert form.opening_ids == ((tokenizer.convert_tokens_to_ids("[THINK]"),),)
    assert form.closing_ids == ((tokenizer.convert_tokens_to_ids("[/THINK]"),),)
    spelled = load_format("granite").with_ids(tokenizer)
    assert tokenizer.decode(spelled.closing_ids[0]) == "Here is my response:"


HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>")


def test_marks_that_are_special_tokens_are_read_on_the_ids() -> None:
    tokenizer = new_tokenizer(special=HARMONY)
    form = load_format("openai_gptoss")
    text = "<|channel|>analysis<|message|>7*3<|end|><|start|>assistant<|channel|>final<|message|>21<eos>"
    ids = tokenizer(text)["input_ids"]
    located = locate_steps(tokenizer, ids, form=form)
    assert located.step_texts == ["7*3"]
    assert [tokenizer.decode(ids[start:end]) for start, end in located.spans] == ["7*3"]
    assert located.answer is not None
    assert tokenizer.decode(ids[slice(*located.answer)]) == "21<eos>"
    assert decode_completion(tokenizer, ids, form) == text.removesuffix("<eos>")
    # Read by another format they show which one it should be; what is no mark of its own (<|end|>) is no text.
    other = "<|channel|>analysis<|message|>7*3<|start|>assistant<|channel|>final<|message|>21"
    assert locate_steps(tokenizer, ids).text == other
    assert other_format([other], THINK) == "openai_gptoss"
    assert mark_tokens(tokenizer, THINK) == frozenset()


def test_the_prompts_of_a_data_set_may_ask_for_a_format_and_open_it(tiny_tokenizer) -> None:
    def chosen(prompt, tokenizer=tiny_tokenizer):
        args = SimpleNamespace(thinking_format="auto", chat_template_kwargs=None)
        return format_of_run(args, tokenizer, [{"prompt": prompt}]).form  # type: ignore[arg-type]

    ask = "Reason inside <reasoning></reasoning> and answer inside <answer></answer>."
    form = chosen([{"role": "system", "content": ask}, {"role": "user", "content": "7*3?"}])
    assert (form.name, form.prompt_opens) == ("answer_tags", True)  # this template opens <think>
    plain = new_tokenizer()
    for prompt, opens in (
        (f"{ask} 7*3?\n", None),
        (f"7*3? {ask}", None),  # words about marks open and close nothing
        ("7*3?\n<think>\n", True),
        ("7*3?\n<think>\n\n</think>\n\n", False),
    ):
        assert chosen(prompt, plain).prompt_opens is opens, prompt
    assert chosen([{"role": "user", "content": "7*3?"}]).name == "deepseek_r1"


def test_rows_of_a_file_are_read_by_their_marks_or_as_asked(tiny_tokenizer) -> None:
    auto = choose_format("auto", tiny_tokenizer).of_rows("auto")
    assert auto.of("[THINK]a[/THINK]b").name == "mistral"
    assert auto.of("a</think>b") == auto.of("a") == BY_MARKS.of("a").with_ids(tiny_tokenizer)
    given = choose_format("seed_oss", tiny_tokenizer).of_rows("seed_oss")
    assert given.of("[THINK]a[/THINK]b").name == "seed_oss"


def test_marks_that_the_tokenizer_cannot_encode_are_refused(tiny_tokenizer) -> None:
    check_marks(load_format("mistral"), tiny_tokenizer)
    letters = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    with pytest.raises(InputError, match=r"turns the mark '</think>' into '[?]'"):
        check_marks(THINK, PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="?"))


def test_format_used_for_a_file_is_reported(tiny_tokenizer) -> None:
    rows = [(number, {"response": text}) for number, text in enumerate(("a</think>b", "[THINK]a[/THINK]b", "c"), 1)]
    said: list[str] = []
    form = format_of_file("auto", tiny_tokenizer, rows, said.append)
    assert [form.of(row["response"]).name for _, row in rows] == ["deepseek_r1", "mistral", "deepseek_r1"]
    assert said == [
        "thinking format: deepseek_r1 (<think> … </think>), shown by the added tokens; the prompt opens it",
        "responses with the marks of other formats are read by those: mistral ([THINK] … [/THINK])",
    ]
    said.clear()
    format_of_file("mistral", tiny_tokenizer, rows, said.append)
    assert said == [
        "thinking format: mistral ([THINK] … [/THINK]), as given",
        "1 of 3 responses end their thinking by the marks of another format (deepseek_r1) than mistral, by which they "
        "are read: thinking format auto reads every response by its own",
    ]


def test_an_evaluation_reads_the_format() -> None:
    tokenizer, form = new_tokenizer("[THINK]", "[/THINK]"), load_format("mistral")

    def read(text: str, thinks: bool | None, prompt_opens: bool | None = None) -> tuple[str | None, int, int]:
        of_run = replace(form, prompt_opens=prompt_opens)
        found = read_response(tokenizer, tokenizer(text)["input_ids"], thinks, of_run)
        return found.answer, found.thinking_tokens, found.answer_tokens

    assert read("[THINK]ab[/THINK]7<eos>", None) == ("7", 3, 2)
    assert read("ab[/THINK]7<eos>", True, True) == ("7", 2, 2)
    assert read("ab</think>7<eos>", None) == ("ab</think>7", 0, 12)
    assert read("[THINK]ab", None) == (None, 3, 0)
    assert read("ab", True) == (None, 2, 0)  # it thinks, so it was cut off
    assert read("ab<eos>", False) == ("ab", 0, 3)
    assert Prompter(tokenizer, template="{problem} [THINK]", form=form).opens_thinking() is True
    assert Prompter(tokenizer, template="{problem} <think>", form=form).opens_thinking() is None
