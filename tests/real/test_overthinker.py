"""The model that ships with the package, as a user gets it: through AutoModel and AutoTokenizer."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from attnpo.attention.heads import check_heads, load_heads
from attnpo.heads.measure import measure_heads, sample_responses
from attnpo.models import resolve_model
from attnpo.task.dataset import build_dataset

FOLDER = Path(resolve_model())


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


def test_files_are_small_and_say_how_they_came_about():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 8e6
    record = json.loads((FOLDER / "training_record.json").read_text())
    assert 0.6 <= record["figures"]["accuracy"] <= 0.9
    assert record["figures"]["finished"] >= 0.95
    assert record["figures"]["sra_top3"][0] >= 0.9
    assert {"arguments", "versions", "hardware", "loss_curve"} <= set(record)


def test_auto_tokenizer_cuts_text_as_the_file_says(tokenizer):
    """AutoTokenizer replaces the rules of tokenizer.json for some model types; then every number is read wrongly."""
    raw = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    for row in build_dataset(20, split="test"):
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


def test_heads_belong_to_the_model(model):
    check_heads(model.config, load_heads(FOLDER / "heads.json"))


def test_it_answers_and_ends(model, tokenizer):
    torch.manual_seed(0)
    sampled = sample_responses(model, tokenizer, build_dataset(48, seed=1, split="test"), max_new_tokens=448)
    assert sum(response.finished for response in sampled) >= 44
    assert 30 <= sum(response.right for response in sampled) <= 47  # 83 % ± 4 standard errors


@pytest.mark.slow
def test_its_heads_tell_essential_from_redundant_steps(model, tokenizer):
    measures = measure_heads(model, tokenizer, build_dataset(100, seed=2, split="test"))
    accuracy = measures.mean()
    assert max(accuracy.values()) >= 0.9
    assert statistics.median(accuracy.values()) < 0.75
    for head in load_heads(FOLDER / "heads.json"):
        assert accuracy[head] >= 0.85
