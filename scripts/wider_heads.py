"""Write a shipped model with wider attention heads that computes the same.

    python scripts/wider_heads.py overthinker build/overthinker-wide      # heads of 32 in place of 16

For engines whose attention kernels do not support heads of 16: vLLM's on CPUs has 32, 64, 80 and more. The new
components of a head are zeros in query, key, value and output weights, which stay zero in training (each one's gradient
has another as a factor). The halves that rotary embeddings pair up stay paired: component i of a half keeps its
frequency θ^(-2i/d) = (θ²)^(-2i/2d). Queries are scaled by √2, because attention now divides by √2d.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from attnpo.models import resolve_model

ROTATED = ("q_proj", "k_proj")


def widen(rows: Tensor, heads: int, halves: int) -> Tensor:
    """Widen the rows [heads · d, …] of a projection to [heads · 2d, …]: as many zeros follow every part of a head.

    halves: parts of a head, 2 if rotary embeddings pair its halves up, else 1.
    """
    parts = rows.unflatten(0, (heads * halves, -1))
    return torch.cat([parts, torch.zeros_like(parts)], dim=1).flatten(0, 1)


def widened(state: dict[str, Tensor], query_heads: int, key_heads: int) -> dict[str, Tensor]:
    """Return the weights of a Llama with heads twice as wide."""
    new = dict(state)
    for name, weights in state.items():
        kind = next((k for k in ("q_proj", "k_proj", "v_proj", "o_proj") if f"self_attn.{k}." in name), None)
        if kind is None or (kind == "o_proj" and weights.ndim == 1):
            continue
        if kind == "o_proj":
            new[name] = widen(weights.T, query_heads, 1).T.contiguous()
            continue
        new[name] = widen(weights, query_heads if kind == "q_proj" else key_heads, 2 if kind in ROTATED else 1)
        if kind == "q_proj":
            new[name] = new[name] * 2**0.5
    return new


def write_wider(name_or_path: str, folder: Path) -> Path:
    """Write the model with heads of twice the width, its tokenizer and its heads.json."""
    source = resolve_model(name_or_path)
    config = AutoConfig.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    config.head_dim *= 2
    config.rope_parameters["rope_theta"] **= 2
    wide = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    wide.load_state_dict(widened(model.state_dict(), config.num_attention_heads, config.num_key_value_heads))
    wide.generation_config = model.generation_config
    wide.save_pretrained(folder)
    for file in Path(source).iterdir():
        if not (folder / file.name).exists() and file.name != "training_record.json":
            shutil.copy(file, folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="overthinker")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    print(write_wider(args.model, args.folder))


if __name__ == "__main__":
    main()
