"""One process of a sequence-parallel forward, run by torchrun: `two_sequence_parallel.py MODEL OUTPUT`.

Flash attention is emulated with PyTorch, and the exchange below it by gathering everything; the code of transformers
between the model and the kernel is real. Writes the scores of the row, and those of every single sequence.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import transformers.integrations.flash_attention as integration
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, Qwen3Config

from attnpo.attention import masks
from attnpo.attention.capture import capture_scores, score_steps
from attnpo.attention.layout import PackedLayout
from attnpo.errors import InputError
from tiny_shapes import TWO_LAYERS

HEADS = [(1, 3), (0, 0), (0, 2), (1, 1)]
LENGTHS = [11, 8, 13]
STEPS = [[(1, 4), (4, 7)], [(0, 2), (2, 4)], [(0, 5), (5, 10)]]
ANSWERS = [(8, 11), (5, 8), (11, 13)]
LAYERS = ["sliding_attention", "full_attention"]
CONFIGS = {
    "llama": LlamaConfig(**TWO_LAYERS),
    "qwen3": Qwen3Config(**TWO_LAYERS, use_sliding_window=True, sliding_window=5, layer_types=LAYERS),
    "gemma2": Gemma2Config(
        **TWO_LAYERS, sliding_window=6, attn_logit_softcapping=2.0, query_pre_attn_scalar=5, layer_types=LAYERS
    ),
}


def gathered(part: torch.Tensor, dim: int) -> torch.Tensor:
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts, dim=dim)


def exchanged_attention(query, key, value, attention_mask, *args, position_ids, softcap=None, **kwargs):
    """In place of transformers' function above the kernels: the whole row, then this process's part of the output."""
    own = query.shape[1]
    query, key, value = (gathered(x, 1) for x in (query, key, value))
    place = gathered(position_ids, -1)
    sequence = (place[0] == 0).cumsum(0)
    allowed = (sequence[:, None] == sequence) & (place[0][:, None] >= place[0])
    if kwargs.get("sliding_window"):
        allowed &= place[0][:, None] - place[0] < kwargs["sliding_window"]
    key, value = (x.repeat_interleave(query.shape[2] // x.shape[2], dim=2) for x in (key, value))
    scaling = kwargs.get("softmax_scale") or query.shape[-1] ** -0.5
    logits = torch.einsum("bmhd,bnhd->bhmn", query, key) * scaling
    if softcap:
        logits = (logits / softcap).tanh() * softcap
    logits = logits.masked_fill(~allowed, -torch.inf)
    out = torch.einsum("bhmn,bnhd->bmhd", logits.softmax(-1), value)
    first = dist.get_rank() * own
    return out[:, first : first + own]


def main(name: str, output: Path) -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    row = torch.randint(0, 61, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(2))
    alone = []
    for at, (length, steps, answer) in enumerate(zip(LENGTHS, STEPS, ANSWERS, strict=True)):
        start = sum(LENGTHS[:at])
        alone += score_steps(model, row[:, start : start + length], None, steps=[steps], answers=[answer], heads=HEADS)

    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    own = row.shape[1] // dist.get_world_size()
    part = slice(dist.get_rank() * own, (dist.get_rank() + 1) * own)
    layout = PackedLayout.from_spans(STEPS, ANSWERS, [LENGTHS], row.shape[1])
    refused = ""
    try:  # eager attention stays within the part of a process
        with torch.no_grad(), capture_scores(model, layout, HEADS, group=dist.group.WORLD):
            model(input_ids=row[:, part], position_ids=positions[:, part], use_cache=False)
    except InputError as error:
        refused = str(error)
    integration._flash_attention_forward = exchanged_attention
    masks._kernel_takes = lambda *_: True  # no kernel is installed that could be asked for its arguments
    model.config._attn_implementation = "flash_attention_2"
    with torch.no_grad(), capture_scores(model, layout, HEADS, group=dist.group.WORLD) as captured:
        logits = model(input_ids=row[:, part], position_ids=positions[:, part], use_cache=False).logits
    torch.save(
        {"scores": captured.scores, "alone": alone, "refused": refused, "logits": logits},
        f"{output}-{dist.get_rank()}.pt",
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
