"""The random models of the attention tests: small enough that a loop over everything is quick."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM

COMMON = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
TWO_LAYERS = {**COMMON, "num_hidden_layers": 2, "head_dim": 8}


def random_model(config: Any, implementation: str) -> Any:
    """The same weights each time, large enough for attention far from uniform."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()
