"""Thinking formats: what is thinking and what is answer, format by format; own formats; what a tokenizer shows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attnpo.cli.main import main
from attnpo.errors import InputError
from attnpo.steps.formats import (
    BY_MARKS,
    THINK,
    ThinkingFormat,
    built_in,
    load_format,
    parse_format,
    recognise,
)
from attnpo.steps.response import (
    Unclosed,
    answer_of,
    message_parts,
    message_text,
    never_closed,
    other_format,
    split_response,
    thinking_of,
    unclosed_message,
)

ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
AGAIN = "<|start|>assistant"
CALL = f"{AGAIN}<|channel|>commentary to=functions.sum<|constrain|>json<|message|>{{}}<|call|>"

WRITTEN = {
    "deepseek_r1": "<think>7*3 is 21</think>\\boxed{21}",
    "qwen3": "<think>7*3 is 21</think>\\boxed{21}",
    "glm45": "<think>7*3 is 21</think>\\boxed{21}",
    "nemotron": "<think>7*3 is 21</think>\\boxed{21}",
    "olmo3": "<think>7*3 is 21</think>\\boxed{21}",
    "kimi_k2": "<think>7*3 is 21</think>\\boxed{21}",
    "openai_gptoss": f"{ANALYSIS}7*3 is 21<|end|>{AGAIN}{FINAL}\\boxed{{21}}<|return|>",
    "mistral": "[THINK]7*3 is 21[/THINK]\\boxed{21}",
    "seed_oss": "<seed:think>7*3 is 21</seed:think>\\boxed{21}",
    "hunyuan_a13b": "<think>7*3 is 21</think>\n<answer>\\boxed{21}</answer>",
    "granite": "Here is my thought process:7*3 is 21Here is my response:\\boxed{21}",
    "exaone_deep": "<thought>7*3 is 21</thought>\\boxed{21}",
    "openthinker": "<|begin_of_thought|>7*3 is 21<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\\boxed{21}<|end_of_solution|>",
    "gemma4": "<|channel>thought\n7*3 is 21<channel|>\\boxed{21}<turn|>",
    "kimi_k3": "<|open|>think<|sep|>7*3 is 21<|close|>think<|sep|>"
    "<|open|>response<|sep|>\\boxed{21}<|close|>response<|sep|>",
    "minimax_m3": "<mm:think>7*3 is 21</mm:think>\\boxed{21}",
    "answer_tags": "<reasoning>7*3 is 21</reasoning>\n<answer>\\boxed{21}</answer>",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_format_is_read(name: str) -> None:
    form, text = load_format(name), WRITTEN[name]
    assert (thinking_of(text, form), answer_of(text, form)) == ("7*3 is 21", "\\boxed{21}")
    assert "thinking" in str(form) or form.name == name
    by_marks = BY_MARKS.of(text)
    assert thinking_of(text, by_marks) == "7*3 is 21"
    assert answer_of(text, by_marks).strip().removeprefix("<answer>").removesuffix("</answer>") == "\\boxed{21}"


def test_every_built_in_format_is_written_out_above() -> None:
    assert set(built_in()) == {*WRITTEN, "none"}


def test_names_of_models_and_of_vllm_lead_to_a_format() -> None:
    names = "deepseek_r1 qwen3 openai_gptoss mistral seed_oss hunyuan hunyuan_a13b granite exaone openthinker sky_t1 "
    names += "gemma4 kimi_k2 kimi_k3 minimax_m3 glm45 nemotron nemotron_v3 olmo3 answer_tags none minimax_m2 step3"
    assert {load_format(name).name for name in names.split()} == set(built_in())


@pytest.mark.parametrize("name", [name for name in WRITTEN if name != "openai_gptoss"])
def test_a_prompt_that_opens_the_thinking_gives_responses_without_the_mark(name: str) -> None:
    form = replace(load_format(name), prompt_opens=True)
    text = WRITTEN[name]
    bare = text[split_response(text, form).thinking_start :]
    assert (thinking_of(bare, form), answer_of(bare, form)) == ("7*3 is 21", "\\boxed{21}")
    assert answer_of("7*3 is 21, so \\boxed{21}", form) is None  # cut off


@pytest.mark.parametrize("name", WRITTEN)
def test_cut_off_inside_the_thinking_there_is_no_answer(name: str) -> None:
    form = load_format(name)
    parts = split_response(WRITTEN[name], form)
    cut = WRITTEN[name][: parts.thinking_end - 2]
    assert split_response(cut, form).answer_start is None
    assert thinking_of(cut, form) == "7*3 is "


@pytest.mark.parametrize("name", [*WRITTEN, "none"])
def test_unmarked_responses_depend_on_the_format(name: str) -> None:
    form, text = load_format(name), "7*3 is 21, so \\boxed{21}"
    answers = name in ("mistral", "granite", "gemma4", "kimi_k3", "minimax_m3", "none")
    assert (answer_of(text, form) == text) == answers
    assert (thinking_of(text, form) == "") == answers
    # With a prompt that closes the thinking (a hybrid model in non-thinking mode) the response is only the answer.
    assert answer_of(text, replace(form, prompt_opens=False)) == text


HARMONY = [
    # text, thinking, answer
    (f"{ANALYSIS}a<|end|>{AGAIN}{FINAL}b", "a", "b"),
    (f"{ANALYSIS}a<|end|>{CALL}{AGAIN}{ANALYSIS}b<|end|>{AGAIN}{FINAL}c", f"a<|end|>{CALL}{AGAIN}{ANALYSIS}b", "c"),
    (f"{ANALYSIS}a<|end|>{CALL}{AGAIN}{FINAL}c", f"a<|end|>{CALL}", "c"),
    (f"{ANALYSIS}a<|end|>{CALL}", f"a<|end|>{CALL}", None),
    (f"{FINAL}b<|return|>", "", "b"),
    (f"{ANALYSIS}<|end|>{AGAIN}{FINAL}b", "", "b"),
    (f"{ANALYSIS}a", "a", None),
    (f"{ANALYSIS}a{AGAIN}{FINAL}b", "a", "b"),
]


def test_structured_output_of_harmony_is_its_answer():
    text = f'{ANALYSIS}7*3 is 21<|end|>{AGAIN}<|channel|>final <|constrain|>json<|message|>{{"x": 21}}<|return|>'
    parts = split_response(text, load_format("openai_gptoss"))
    assert text[parts.thinking_start : parts.thinking_end] == "7*3 is 21"
    assert text[parts.answer_start : parts.answer_end] == '{"x": 21}'


@pytest.mark.parametrize(("text", "thinking", "answer"), HARMONY)
def test_channels(text: str, thinking: str, answer: str | None) -> None:
    form = load_format("openai_gptoss")
    assert (thinking_of(text, form), answer_of(text, form)) == (thinking, answer)


DECIDED = [
    # format, text, thinking, answer
    ("mistral", "[THINK]a[THINK]b[/THINK]c[/THINK]d", "a[THINK]b", "c[/THINK]d"),  # nested: the first end
    ("seed_oss", "<seed:think>I write `</seed:think>` now</seed:think>7", "I write `", "` now</seed:think>7"),  # quoted
    ("exaone_deep", "<thought>a</thought>b<thought>c</thought>d", "a", "b<thought>c</thought>d"),  # repeated
    ("exaone_deep", "<thought></thought>7", "", "7"),  # empty
    ("minimax_m3", "</mm:think>7", "", "7"),
    ("gemma4", "<|channel>thought\n<channel|>7", "", "7"),
    ("gemma4", "<|channel>7<channel|>8", "7", "8"),  # without the label
    ("mistral", "\n [THINK]a[/THINK]7", "a", "7"),
    ("kimi_k2", "a<|tool_calls_section_begin|>{}", "a", "<|tool_calls_section_begin|>{}"),
    ("kimi_k2", "a<|tool_calls_section_begin|>{}</think>7", "a<|tool_calls_section_begin|>{}", "7"),
    ("hunyuan_a13b", "<think>a</think>b <answer>7</answer>", "a", "b <answer>7"),  # something between: all is answer
    ("hunyuan_a13b", "a<answer>7</answer>b", "a", "7"),  # no closing mark
    ("openthinker", "<|begin_of_thought|>a<|begin_of_solution|>7", "a", "7"),
    ("granite", "Here's my thought process: a Here's my response: 7", " a ", " 7"),
    ("answer_tags", "<think>a</think><answer>7</answer>", "a", "7"),
    ("answer_tags", "<answer>7</answer>", "", "7"),
    ("answer_tags", "<reasoning>a<answer>7", "a", "7"),
]


@pytest.mark.parametrize(("name", "text", "thinking", "answer"), DECIDED)
def test_choice_of_the_format(name: str, text: str, thinking: str, answer: str) -> None:
    form = load_format(name)
    assert (thinking_of(text, form), answer_of(text, form)) == (thinking, answer)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("<think>the user wants <answer>7</answer></think>7", "deepseek_r1"),
        ("Here is my thought process: none</think>7", "deepseek_r1"),  # no end of granite
        ("[THINK]he wrote </think> there[/THINK]7", "mistral"),
        ("a</think> [/THINK] 7", "deepseek_r1"),
        ("[THINK]cut", "mistral"),
        ("a[/THINK]7", "mistral"),
        ("nothing", None),
        ("a<|end|>b", None),  # <|end|> alone is no mark of channels
    ],
)
def test_recognised_by_its_marks(text: str, name: str | None) -> None:
    found = recognise(text)
    assert (found and found.name) == name


@given(st.text(alphabet="ab \n", max_size=20), st.text(alphabet="cd \n", max_size=20), st.sampled_from(sorted(WRITTEN)))
def test_thinking_between_marks_round_trips(thinking: str, answer: str, name: str) -> None:
    form = load_format(name)
    text = f"{form.opening[0]}{form.labels[0] if form.labels else ''}{thinking}{form.bridge}{answer}"
    parts = split_response(text, form)
    found = thinking_of(text, form)
    assert found == thinking or (form.channels and thinking.rstrip() in found)
    assert answer_of(text, form) == answer
    assert 0 <= parts.thinking_start <= parts.thinking_end <= len(text)


@given(st.lists(st.sampled_from(["a", " ", "<think>", "</think>", "[/THINK]", "<answer>", "\n"]), max_size=12))
def test_think_tags_are_read_as_before(pieces: list[str]) -> None:
    """The rule for `<think>` written down a second time, as method.md has it."""
    text = "".join(pieces)
    bare = text.lstrip()
    start = len(text) - len(bare) + len("<think>") if bare.startswith("<think>") else 0
    close = text.find("</think>")
    parts = split_response(text)
    assert parts.thinking_start == start
    assert (parts.thinking_end, parts.answer_start) == ((close, close + 8) if close >= 0 else (len(text), None))
    assert parts.answer_end is None


OWN = {"opening": "<<", "closing": [">>", "//"], "answer_closing": "END", "unmarked": "answer"}


def test_custom_format(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(OWN), encoding="utf-8")
    form = load_format(str(file))
    assert form.name == "mine"
    assert (thinking_of("<<a//b", form), answer_of("<<a>>bEND c", form), answer_of("c", form)) == ("a", "b", "c")
    assert ThinkingFormat.from_json(json.loads(json.dumps(form.as_json()))) == form


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "found list, expected a mapping"),
        ({"closing": ">", "end": "x"}, "found the field 'end', expected some of answer_closing"),
        ({"closing": 5}, "field 'closing' is 5, expected a text or a list of texts"),
        ({"closing": ["a", ""]}, "field 'closing' is .*, expected a text or a list of texts"),
        ({"opening": "<"}, "found no mark that ends the thinking"),
        ({"closing": ">", "unmarked": "both"}, "field 'unmarked' is 'both', expected one of"),
        ({"closing": ">", "channels": True}, "channels is true, which needs marks in answer_opening"),
    ],
)
def test_bad_format_is_refused(given, message) -> None:
    with pytest.raises(InputError, match=f"mine.yaml: {message}"):
        parse_format("mine", given, "mine.yaml")


def test_unknown_name_is_refused_with_the_known_ones(tmp_path) -> None:
    with pytest.raises(InputError, match=r"found 'qwen4', expected auto, one of deepseek_r1, qwen3, .* or a YAML file"):
        load_format("qwen4")
    with pytest.raises(InputError, match=r"no\.yaml: cannot be read"):
        load_format(str(tmp_path / "no.yaml"))


def test_format_other_than_the_files_is_reported() -> None:
    mistral = load_format("mistral")
    thought, plain = "<think>a</think>7", "7"
    assert other_format([thought, thought, plain], mistral) == "deepseek_r1"
    assert other_format([thought, plain, plain], mistral) is None  # a quote, perhaps
    assert other_format([thought, thought, "[THINK]a[/THINK]7"], mistral) is None
    found = Unclosed(mistral)
    for text in (thought, thought, "[THINK]a[/THINK]7"):
        found.add(text)
    assert (found.message() or "").startswith(
        "2 of 3 responses end their thinking by the marks of another format (deepseek_r1) than mistral"
    )
    assert unclosed_message(["[THINK]a[/THINK]7", plain], mistral) is None
    assert unclosed_message([thought, "[THINK]a[/THINK]7", "cut"], BY_MARKS) is None
    by_marks = unclosed_message(["cut", "off"], BY_MARKS) or ""
    assert by_marks.startswith("none of 2 responses ends its thinking: marks looked for: those of every format")


def test_segment_reports_a_format_other_than_the_files(tmp_path, capsys) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps({"response": "<think>a</think>7"}) + "\n", encoding="utf-8")
    for words in (["-o", str(tmp_path / "out.jsonl")], ["--stats"]):
        assert main(["segment", str(file), *words, "--thinking-format", "mistral"]) == 0
        assert "They look like deepseek_r1" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, form in built_in().items() if form.opening])
def test_separate_thinking_of_messages_gets_the_marks_of_the_format(name, tmp_path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    message = {"role": "assistant", "reasoning_content": "7*3 is 21", "content": "21"}
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "7*3?"}, message]}) + "\n", encoding="utf-8")
    assert main(["segment", str(file), "-o", str(out), "--thinking-format", name]) == 0
    row, form = json.loads(out.read_text(encoding="utf-8")), load_format(name)
    assert row["response"] == f"{form.opener}7*3 is 21{form.bridge}21"
    assert (thinking_of(row["response"], form), answer_of(row["response"], form)) == ("7*3 is 21", "21")
    assert row["steps"] == [{"start": 0, "end": 9, "kind": "forward"}]


def test_responses_that_never_end_their_thinking_are_reported() -> None:
    assert never_closed([], THINK) is None
    assert never_closed(["cut", "a</think>b"], THINK) is None
    other = never_closed(["[THINK]a[/THINK]7", "[THINK]b[/THINK]8", "cut"], THINK)
    assert other is not None
    assert "none of 3 responses" in other
    assert "looked for: </think> (thinking format deepseek_r1)" in other
    assert "seen, in responses: [/THINK] (2)" in other
    assert "give thinking_format mistral" in other
    cut = never_closed(["a", "b"], THINK)
    assert cut is not None
    assert "seen, in responses: none" in cut
    assert "max_completion_length" in cut
    # No mark at all is an answer in this format; marks of another are not.
    assert never_closed(["7"], load_format("mistral")) is None
    assert "deepseek_r1" in (never_closed(["a</think>7"], load_format("mistral")) or "")


MESSAGES = [
    ({"content": "7"}, (None, "7")),
    ({"content": None, "reasoning_content": "a"}, ("a", "")),
    ({"content": "7", "reasoning": "a"}, ("a", "7")),
    ({"content": "7", "thinking": "a"}, ("a", "7")),
    ({"content": "7", "reasoning_content": None, "reasoning": "a"}, ("a", "7")),
    ({"content": "7", "reasoning_content": ""}, ("", "7")),  # thought nothing
    ({"content": [{"type": "thinking", "thinking": "a"}, {"type": "text", "text": "7"}]}, ("a", "7")),
    ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}, {"text": "7"}]}, ("a", "7")),
    ({"content": [{"type": "reasoning", "text": "a"}, {"type": "text", "text": "7"}]}, ("a", "7")),
    ({"content": [{"type": "text", "text": "a</think>"}, {"type": "text", "text": "7"}]}, (None, "a</think>7")),
    ({"content": [{"type": "image"}, {"type": "text", "text": "7"}]}, (None, "7")),
]


@pytest.mark.parametrize(("message", "parts"), MESSAGES)
def test_messages(message, parts) -> None:
    assert message_parts(message) == parts
    text = message_text(message)
    assert text == (parts[1] if parts[0] is None else f"<think>{parts[0]}</think>{parts[1]}")


@pytest.mark.parametrize("content", [5, ["a"], [{"type": "thinking", "thinking": 5}]])
def test_message_of_another_shape_is_refused(content) -> None:
    with pytest.raises(InputError, match="expected a text or a list of parts"):
        message_parts({"content": content})


def test_segment_reads_every_format(tmp_path, capsys) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"response": text}) + "\n" for text in WRITTEN.values()), encoding="utf-8")
    assert main(["segment", str(source), "-o", str(target)]) == 0
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [(step["start"], step["end"]) for row in rows for step in row["steps"]] == [(0, 9)] * len(WRITTEN)
    said = capsys.readouterr().err
    assert "thinking format: answer_tags (<think> … </think> … <answer>), deepseek_r1 (<think> … </think>), " in said
    assert main(["segment", str(source), "-o", str(target), "--thinking-format", "nonsense"]) == 2
    assert "expected auto, one of deepseek_r1" in capsys.readouterr().err
