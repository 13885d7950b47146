"""Peak memory of a training forward and backward pass, computed from shapes: no GPU, no weights, some seconds.

    python benchmarks/loss_memory.py                 # 1.5B shape, bf16, one response of 8k and 16k tokens
    python benchmarks/loss_memory.py --layers 28 --rows 2 --tokens 7800

Three variants: all logits at once in float32 (as in TRL before its fused head), TRL 1.16's chunks of tokens and
vocabulary, and these with activation checkpointing, as in training. Prints peak GiB in addition to weights and their
gradients, and bytes per token due to the vocabulary. Attention is counted like a fused kernel: it keeps queries, keys,
values, output and one number per row. The chunks are counted as on a GPU, where one kernel transforms a tile in place.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from transformers import Qwen2Config

from attnpo.training.sizes import decoder_peak, head_bytes


def shape(layers: int) -> Any:
    """Return the shape of DeepSeek-R1-Distill-Qwen-1.5B."""
    return Qwen2Config(
        vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=layers, num_attention_heads=12,
        num_key_value_heads=2, max_position_embeddings=131072, tie_word_embeddings=False,
    )  # fmt: skip


def plain_head(tokens: int, vocabulary: int) -> int:
    """Compute logits in 16 bits, in float32, their log-softmax, and the gradient of each in turn: the peak holds the
    float32 log-softmax, its gradient and that of the logits."""
    return tokens * vocabulary * (2 + 4 + 4 + 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--rows", type=int, default=1, help="responses in a micro-batch")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192, 16384])
    args = parser.parse_args()
    config = shape(args.layers)
    print("| tokens | checkpointing | decoder | all logits | chunks | bytes per token of the vocabulary: before, now |")
    print("|---|---|---|---|---|---|")
    for tokens in args.tokens:
        count = args.rows * tokens
        head = head_bytes(count, config.vocab_size, config.hidden_size, torch.bfloat16)
        plain = plain_head(count, config.vocab_size)
        for checkpointing in (False, True):
            found = decoder_peak(config, args.rows, tokens, dtype=torch.bfloat16, checkpointing=checkpointing)
            before, now = (max(found.kept + part, found.peak) / 2**30 for part in (plain, head))
            print(
                f"| {args.rows} × {tokens} | {'yes' if checkpointing else 'no'} | {found.peak / 2**30:.1f} | "
                f"{before:.1f} | {now:.1f} | {plain / count:,.0f}, {head / count:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
