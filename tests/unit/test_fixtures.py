"""The models and tokenizers the other tests rely on are what their docstrings promise."""

from __future__ import annotations

import pytest
import torch


def test_tiny_tokenizer_is_lossless_and_opens_the_thinking(tiny_tokenizer) -> None:
    text = "Wait, it 's 12 + 30 = 42 .\n\nÉ∑😀</think>42"
    assert tiny_tokenizer.decode(tiny_tokenizer(text).input_ids) == text
    prompt = tiny_tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+1?"}], add_generation_prompt=True, tokenize=False
    )
    assert prompt == "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert len(tiny_tokenizer("<think></think>").input_ids) == 2
    assert len(tiny_tokenizer("😀").input_ids) == 4
    assert tiny_tokenizer.eos_token_id != tiny_tokenizer.pad_token_id
    assert not {"<think>", "</think>"} & set(tiny_tokenizer.all_special_tokens)
    assert len(tiny_tokenizer) == 294


def test_tiny_qwen2_is_the_same_in_every_test(tiny_qwen2, tiny_tokenizer) -> None:
    config = tiny_qwen2.config
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (3, 4, 2)
    assert config.vocab_size == len(tiny_tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        again = type(tiny_qwen2)(config)
    for name, weight in tiny_qwen2.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


@pytest.mark.slow
def test_smollm2_answers_and_can_be_saved(smollm2, tmp_path) -> None:
    model, tokenizer = smollm2
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(ids).logits
    assert logits.dtype == torch.float32
    assert tokenizer.decode(logits[0, -1].argmax()) == " Paris"
    assert tokenizer.decode(tokenizer("Wait , it 's 1 .").input_ids) == "Wait , it 's 1 ."
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size > 500_000_000
