"""One process of `tests/invariant/test_two_sharded.py`: scores read in a forward of a model that FSDP2 has sharded.

torchrun --nproc-per-node 2 tests/two_sharded.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import Qwen2Config

from attnpo.attention.capture import capture_scores
from attnpo.attention.layout import StepLayout
from tiny_shapes import COMMON, random_model

HEADS = [(2, 3), (0, 0), (1, 2)]
ROWS, LENGTH, STEPS = 3, 24, 2


def layout() -> StepLayout:
    """Two steps of eight tokens after four of the prompt, and an answer of four."""
    ids = torch.full((ROWS, LENGTH), STEPS)
    ids[:, 4:12], ids[:, 12:20] = 0, 1
    return StepLayout(
        step_ids=ids,
        step_lengths=torch.full((ROWS, STEPS), 8),
        answers=torch.tensor([[20, 24]] * ROWS),
        attention_mask=torch.ones(ROWS, LENGTH, dtype=torch.bool),
        longest_answer=4,
    )


def step(model: torch.nn.Module, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits and scores of a forward, and the gradient of one weight after the backward."""
    with capture_scores(model, layout(), HEADS) as captured:
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    logits.logsumexp(-1).mean().backward()
    gradient = model.get_parameter("model.layers.1.self_attn.q_proj.weight").grad
    assert gradient is not None
    return logits, captured.scores, gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


def main() -> None:
    dist.init_process_group("gloo")
    rank, mesh = dist.get_rank(), init_device_mesh("cpu", (dist.get_world_size(),))
    ids = torch.randint(COMMON["vocab_size"], (2, ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    config = Qwen2Config(**COMMON, tie_word_embeddings=False)
    whole = [step(random_model(config, "sdpa"), rows) for rows in ids]
    model = random_model(config, "sdpa")
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    weight = model.get_parameter("model.layers.0.mlp.up_proj.weight")
    assert isinstance(weight, DTensor)
    assert weight.to_local().numel() < weight.numel()  # it is sharded
    logits, scores, gradient = step(model, ids[rank])
    torch.testing.assert_close(logits, whole[rank][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(scores, whole[rank][1], rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, (whole[0][2] + whole[1][2]) / 2, rtol=1e-4, atol=1e-6)
    assert scores.std() > 1e-3
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
