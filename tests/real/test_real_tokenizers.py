"""Published tokenizers: no difference from the references in offsets, marks, parsers and chat templates."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from attnpo.steps.detect import choose_format
from attnpo.traces.prepared import prompt_ids

pytestmark = pytest.mark.slow

FORMATS = {  # of the chat template: its name, whether the prompt opens the thinking
    "qwen3": ("qwen3", None),
    "deepseek_v3": ("deepseek_r1", None),
    "llama3_1": ("deepseek_r1", None),
    "gemma3": ("deepseek_r1", None),
    "gptoss": ("openai_gptoss", None),
}


@pytest.fixture(scope="module")
def real() -> Any:
    spec = importlib.util.spec_from_file_location("real_tokenizers", Path(__file__).with_name("real_tokenizers.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(real, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("tokenizers")
    real.fetch(target)
    return target


def test_offsets_and_marks_on_sampled_ids(real, folder) -> None:
    with real.importable(folder):
        for one in real.real_tokenizers(folder):
            tally = real.compare(one, 25)
            assert tally.differences == []
            assert tally.sequences == 50


def test_harmony_agrees_with_the_parser_of_gpt_oss(real, folder) -> None:
    with real.importable(folder):
        assert real.compare_harmony(folder, 25).differences == []


@pytest.mark.parametrize("name", FORMATS)
def test_formats_and_prompts_of_their_chat_templates(real, folder, name) -> None:
    tokenizer = real.from_json(folder / name)
    form = choose_format("auto", tokenizer).form
    assert (form.name, form.prompt_opens) == FORMATS[name]
    assert [tokenizer.decode(ids, skip_special_tokens=False) for ids in form.closing_ids] == list(form.closing)
    if tokenizer.chat_template is not None:
        message = [{"role": "user", "content": "7*3?"}]
        expected = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert prompt_ids("7*3?", tokenizer, opens_itself=False, form=form) == list(expected)
    if name == "qwen3":
        off = choose_format("auto", tokenizer, template_options={"enable_thinking": False}).form
        assert off.prompt_opens is False
