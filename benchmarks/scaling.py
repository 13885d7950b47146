"""Training memory per GPU for three sizes of model, 16k-token responses: the table of docs/scaling.md.

    python benchmarks/scaling.py            # nothing is loaded; half a minute

Shapes of Qwen2.5 (and so of the DeepSeek-R1 distillations): 1.5B on one GPU of 80 GB, 7B on 8, 32B on 64. Master
weights, gradients and AdamW in float32, arithmetic in bfloat16, activation checkpointing, one response of 1,024 +
16,384 tokens at a time, vLLM on the same GPUs. `attnpo train --dry_run` prints the same for your run.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from attnpo import AttnPOConfig
from attnpo.training.dry_run import GB, OWN, Machine, memory_rows, need_of

SHAPES = {
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "layers": 28, "heads": 12, "keys": 2, "words": 151936},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "layers": 28, "heads": 28, "keys": 4, "words": 152064},
    "32B": {"hidden_size": 5120, "intermediate_size": 27648, "layers": 64, "heads": 40, "keys": 8, "words": 152064},
}
RUNS = {  # GPUs, sharded, vLLM's share of each, GPUs that hold one copy of vLLM's weights
    "1.5B": (1, False, 0.3, 1),
    "7B": (8, True, 0.35, 1),
    "32B": (64, True, 0.35, 4),
}


def config_of(name: str) -> Any:
    shape = SHAPES[name]
    return Qwen2Config(
        vocab_size=shape["words"], hidden_size=shape["hidden_size"], intermediate_size=shape["intermediate_size"],
        num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"], num_key_value_heads=shape["keys"],
        max_position_embeddings=131072, tie_word_embeddings=False,
    )  # fmt: skip


def main() -> None:
    columns: dict[str, dict[str, str]] = {}
    for name, (gpus, sharded, share, copies) in RUNS.items():
        with tempfile.TemporaryDirectory() as folder, torch.device("meta"):
            args = AttnPOConfig(
                folder, per_device_train_batch_size=1, max_completion_length=16384, bf16=True, use_cpu=True,
                gradient_checkpointing=True, use_vllm=True, vllm_mode="colocate", vllm_gpu_memory_utilization=share,
            )  # fmt: skip
            model = AutoModelForCausalLM.from_config(config_of(name), dtype=torch.float32)
        count = sum(p.numel() for p in model.parameters())
        machine = Machine(gpus, sharded, 80 * GB)
        need = need_of(model, args, machine, prompt=1024, heads=[(16, 2), (20, 9), (23, 2)], attention="sdpa")
        found = {line: f"{value / GB:.1f}" for line, value in memory_rows(need, vllm=True).items()}
        found["of vLLM's share, its weights"] = f"{2 * count / copies / GB:.1f}"
        found["at most, CUDA's own with it"] = f"{(need.update + need.cache + OWN) / GB:.1f}"
        columns[f"{name} on {gpus}"] = {"parameters": f"{count / 1e9:.2f} billion", **found}
    lines = list(dict.fromkeys(line for column in columns.values() for line in column))
    print("| GB on every GPU |", " | ".join(columns), "|")
    print("|---|" + "---|" * len(columns))
    for line in sorted(lines, key=lambda line: line.startswith("at most")):
        print(f"| {line} |", " | ".join(column.get(line, "") for column in columns.values()), "|")


if __name__ == "__main__":
    main()
