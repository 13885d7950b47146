"""The models shipped with the package, loaded through AutoModel and AutoTokenizer."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
import torch
from measure_on_task import measure_heads, sample_responses
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from attnpo.attention.heads import check_heads, load_heads, load_threshold
from attnpo.models import OVERTHINKER, OVERTHINKER_LONG, SHIPPED, resolve_model
from attnpo.task.dataset import build_dataset
from attnpo.task.traces import TraceStyle


@pytest.fixture(scope="module", params=SHIPPED)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name) -> Path:
    return Path(resolve_model(name))


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def style(name) -> TraceStyle:
    """What the model was trained to write."""
    return TraceStyle() if name == OVERTHINKER else TraceStyle(redundancy=SHIPPED[name])


def test_files_are_small_and_have_a_training_record(folder):
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8e6
    record = json.loads((folder / "training_record.json").read_text())
    assert 0.6 <= record["figures"]["accuracy"] <= 0.9
    assert record["figures"]["finished"] >= 0.95
    assert record["figures"]["sra_top3"][0] >= 0.9
    assert {"arguments", "versions", "hardware", "loss_curve"} <= set(record)


def test_auto_tokenizer_equals_tokenizer_json(tokenizer, folder, style):
    """AutoTokenizer replaces the rules of tokenizer.json for some model types; then every number is read wrongly."""
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for row in build_dataset(20, split="test", style=style):
        for text in (row["problem"], row["response"]):
            assert (
                tokenizer(text, add_special_tokens=False)["input_ids"] == raw.encode(text, add_special_tokens=False).ids
            )
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_prompt_opens_the_thinking(tokenizer):
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How many?"}], add_generation_prompt=True, tokenize=False
    )
    assert prompt.endswith("<think>\n")


def test_heads_belong_to_the_model(model, folder):
    check_heads(model.config, load_heads(folder / "heads.json"))
    assert 1 <= load_threshold(folder / "heads.json") <= 2


def test_model_answers_and_ends(model, tokenizer, name):
    torch.manual_seed(0)
    most = {OVERTHINKER: 448, OVERTHINKER_LONG: 2048}.get(name, 1024)
    sampled = sample_responses(model, tokenizer, build_dataset(48, seed=1, split="test"), max_new_tokens=most)
    assert sum(response.finished for response in sampled) >= 44
    assert 26 <= sum(response.right for response in sampled) <= 47  # 66 to 83 %, with 2 to 4 standard errors


@pytest.mark.slow
def test_heads_separate_essential_from_redundant_steps(model, tokenizer, folder, style):
    measures = measure_heads(model, tokenizer, build_dataset(100, seed=2, split="test", style=style))
    accuracy = measures.mean()
    assert max(accuracy.values()) >= 0.9
    assert statistics.median(accuracy.values()) < 0.8
    for head in load_heads(folder / "heads.json"):
        assert accuracy[head] >= 0.85
