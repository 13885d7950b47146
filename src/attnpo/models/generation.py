"""What every way of generating needs: the tokens that end a response, a padding token, rows that end together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from transformers import GenerationConfig


def end_tokens(config: GenerationConfig, tokenizer: Any) -> list[int]:
    """The tokens that end a response: some models have more than their tokenizer names."""
    own = config.eos_token_id
    named = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    return list(dict.fromkeys(token for token in named if isinstance(token, int)))


def padding_token(tokenizer: Any, ends: Sequence[int]) -> int:
    """The tokenizer's, or else any token: what is padded is masked out."""
    return next(token for token in (tokenizer.pad_token_id, *ends, 0) if token is not None)


def pad_left(rows: Sequence[Sequence[int]], padding: int) -> tuple[Int64[Tensor, "B T"], Int64[Tensor, "B T"]]:
    """Token ids and attention mask of a batch whose rows all end in the last column."""
    ids = torch.full((len(rows), max(map(len, rows))), padding, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, ids.shape[1] - len(row) :] = torch.tensor(row)
        mask[i, ids.shape[1] - len(row) :] = 1
    return ids, mask
