"""One process of verl's engine without Ray, run by torchrun: `engine_process.py MODEL OUTPUT KIND …`.

KIND: packed, padded, eager, lora, ulysses, bucket. Writes scores and log-probabilities of this process's sequences,
with and without the capture, and what `score_steps` gives every sequence alone, unpacked.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["VERL_PLATFORM"] = "cpu"
os.environ["VERL_USE_EXTERNAL_MODULES"] = "attnpo.engines.verl.cpu"

import torch
import torch.distributed as dist
from tensordict import TensorDict
from transformers import AutoModelForCausalLM
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.dataset_utils import DatasetPadMode
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.engine import EngineRegistry

from attnpo.attention.capture import score_steps
from attnpo.engines.verl import engine as _engine
from attnpo.engines.verl.wire import HEADS, SCORES, SPANS, heads_as_text

CHOSEN = [(1, 3), (0, 0), (2, 1)]
LENGTHS = [21, 13, 17, 9, 25, 11]
STEPS = [
    [(2, 7), (7, 12)],
    [(1, 4), (4, 6), (6, 8)],
    [],
    [(1, 3), (3, 5)],
    [(3, 9), (9, 10), (10, 18)],
    [(0, 4), (4, 7)],
]
ANSWERS = [(15, 21), (9, 13), (0, 0), (6, 9), (19, 25), (8, 11)]


def exchanged(query, key, value, attention_mask, query_length, *args, position_ids=None, softmax_scale=None, **kwargs):
    """Flash attention over packed rows, played by PyTorch; verl's exchange of parts of the row lies above it."""
    sequence = (position_ids[0] == 0).cumsum(0)
    place = position_ids[0]
    allowed = (sequence[:, None] == sequence) & (place[:, None] >= place)
    key, value = (x.repeat_interleave(query.shape[2] // x.shape[2], dim=2) for x in (key, value))
    logits = torch.einsum("bmhd,bnhd->bhmn", query, key) * (softmax_scale or query.shape[-1] ** -0.5)
    weights = logits.masked_fill(~allowed, -torch.inf).softmax(-1)
    return torch.einsum("bhmn,bnhd->bmhd", weights, value)


def play_flash() -> None:
    import transformers.modeling_flash_attention_utils as utils
    import verl.models.transformers.monkey_patch as patch

    patch._flash_attention_forward = exchanged
    utils._flash_attention_forward = exchanged


def batch(places: list[int], kind: str, with_heads: bool) -> TensorDict:
    draw = torch.Generator().manual_seed(3)
    rows = [torch.randint(0, 250, (length,), generator=draw) for length in LENGTHS]
    chosen = [rows[i] for i in places]
    spans = [torch.tensor([ANSWERS[i], *STEPS[i]]).flatten() for i in places]
    return batch_of(chosen, spans, kind, CHOSEN if with_heads else None, 45 if kind != "ulysses" else 24)


def batch_of(
    rows: list[torch.Tensor], spans: list[torch.Tensor], kind: str, heads: list[tuple[int, int]] | None, tokens: int
) -> TensorDict:
    """These sequences as verl's trainer hands them to the engine, at most `tokens` of them in a micro-batch."""
    nested = lambda parts: torch.nested.as_nested_tensor(parts, layout=torch.jagged)  # noqa: E731
    data = TensorDict(
        {
            "input_ids": nested(rows),
            "position_ids": nested([torch.arange(len(row)) for row in rows]),
            "loss_mask": nested([torch.ones_like(row) for row in rows]),
            SPANS: nested(spans),
        },
        batch_size=len(rows),
    )
    tu.assign_non_tensor(
        data,
        use_remove_padding=kind != "padded",
        use_dynamic_bsz=True,
        max_token_len_per_gpu=tokens,
        temperature=1.0,
        calculate_entropy=True,
        pad_mode=DatasetPadMode.NO_PADDING,
    )
    if heads is not None:
        tu.assign_non_tensor(data, **{HEADS: heads_as_text(heads)})
    return data


def new_engine(path: str, kind: str, ulysses: int = 1) -> Any:
    """The registered engine, before `initialize`."""
    attention = {"eager": "eager", "ulysses": "eager"}.get(kind, "sdpa")
    model_config = HFModelConfig(
        path=path,
        override_config={"attn_implementation": attention},
        use_remove_padding=kind != "padded",
        enable_gradient_checkpointing=False,
        lora_rank=4 if kind == "lora" else 0,
    )
    fp32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    return EngineRegistry.new(
        model_type="attnpo",
        backend="fsdp2",
        model_config=model_config,
        engine_config=FSDPEngineConfig(
            strategy="fsdp2",
            mixed_precision=fp32,
            use_torch_compile=False,
            ulysses_sequence_parallel_size=ulysses,
            pad_to_length=kind == "bucket",
            pad_to_length_bucket=32,
            use_remove_padding=kind != "padded",
        ),
        optimizer_config=FSDPOptimizerConfig(lr=1e-6),
        checkpoint_config=CheckpointConfig(),
    )


def main(path: str, output: Path, kind: str) -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    ulysses = size if kind == "ulysses" else 1
    engine = new_engine(path, kind, ulysses)
    if kind == "ulysses":
        play_flash()
    engine.initialize()
    if kind == "ulysses":
        engine.module.config._attn_implementation = "flash_attention_2"
    assert type(engine) is _engine.AttnPOEngine
    places = list(range(len(LENGTHS))) if size == 1 or ulysses > 1 else list(range(rank, len(LENGTHS), size))
    results = {}
    for name, with_heads in (("plain", False), ("captured", True)):
        with engine.eval_mode():
            results[name] = engine.infer_batch(batch(places, kind, with_heads), None)["model_output"]
    if not engine.is_mp_src_rank_with_outputs():
        return
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    draw = torch.Generator().manual_seed(3)
    rows = [torch.randint(0, 250, (length,), generator=draw) for length in LENGTHS]
    alone = []
    for i in places:
        answer = ANSWERS[i] if STEPS[i] else None
        alone += score_steps(model, rows[i][None], None, steps=[STEPS[i]], answers=[answer], heads=CHOSEN)
    torch.save(
        {
            "scores": list(results["captured"][SCORES].unbind()),
            "without": SCORES in results["plain"],
            "logps": [list(results[name]["log_probs"].unbind()) for name in ("plain", "captured")],
            "alone": [table.mean(dim=0) for table in alone],
            "places": places,
        },
        f"{output}-{kind}-{rank}.pt",
    )


if __name__ == "__main__":
    dist.init_process_group("gloo")
    for each in sys.argv[3:]:
        main(sys.argv[1], Path(sys.argv[2]), each)
    dist.destroy_process_group()
