"""Kernel launches and synchronisations of capturing scores and computing credit: few launches, no synchronisation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from attnpo.attention.capture import capture_scores
from attnpo.attention.layout import StepLayout
from attnpo.attention.model import all_heads, runs_compiled
from attnpo.attention.rows import step_scores
from launches import Launches, Waits
from plain_rows import step_scores as plain_scores

SETUP, LAYER, SEVERAL = 18, 9, 1
"""Kernels: once a forward; for every layer with one head; one more where a layer has several."""

CREDIT = 72
"""Kernels on [B, S] and [B, C] once a micro-batch: layout, baselines, scales, their spread over tokens, notes."""


@pytest.fixture
def batch(tiny_qwen2):
    ids = torch.randint(0, 200, (2, 90))
    mask = torch.ones_like(ids)
    mask[0, :7] = 0
    steps = [[(10, 30), (30, 55), (55, 70)], [(10, 40), (40, 70)]]
    return tiny_qwen2, ids, mask, StepLayout.from_spans(steps, [(72, 90), (75, 90)], mask)


def count(model: Any, ids: Any, mask: Any, layout: Any = None, heads: Any = ()) -> tuple[int, int]:
    """Kernels and waits of one forward, with the scores of these heads."""
    with torch.no_grad(), Launches() as launches, Waits() as waits:
        if layout is None:
            model(input_ids=ids, attention_mask=mask, use_cache=False)
        else:
            with capture_scores(model, layout, heads) as captured:
                model(input_ids=ids, attention_mask=mask, use_cache=False)
            assert captured.scores.shape == (len(heads), 2, 3)
    return launches.count, waits.count


@pytest.mark.parametrize(
    ("heads", "kernels"),
    [
        ([(1, 0)], SETUP + LAYER),
        ([(0, 3), (1, 0), (2, 1)], SETUP + 3 * LAYER),
        ([(1, 0), (1, 2)], SETUP + LAYER + SEVERAL - 1),  # of one layer: nothing to put together
        ("all", SETUP + 3 * (LAYER + SEVERAL)),
        ([(2, 1), (0, 3)], SETUP + 2 * LAYER + 1),  # and put in the order asked for
    ],
)
def test_kernels_of_the_scores(heads, kernels, batch):
    model, ids, mask, layout = batch
    heads = all_heads(model) if heads == "all" else heads
    count(model, ids, mask, layout, heads)  # index tensors are made once a process
    plain, with_scores = count(model, ids, mask), count(model, ids, mask, layout, heads)
    assert with_scores[0] - plain[0] <= kernels
    assert with_scores[1] == plain[1]


def test_layers_with_masks_of_their_own_are_kept_apart(batch):
    """Sliding windows in every other layer: two masks, each read once, and the right one for every layer."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    _, ids, mask, layout = batch
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=200,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            sliding_window=8,
            attn_implementation="eager",
        )
    ).eval()
    heads = all_heads(model)
    with torch.no_grad(), capture_scores(model, layout, heads) as captured:
        found = model(input_ids=ids, attention_mask=mask, output_attentions=True, use_cache=False)
    for i, (layer, head) in enumerate(heads):
        attention = found.attentions[layer][1, head]
        assert captured.scores[i, 1, 0] == pytest.approx(attention[75:90, 10:40].sum().item() / 30, abs=1e-6)
    assert len(captured.read_mask._read) == 2


@pytest.mark.parametrize("chunk", [1 << 25, 3000, 500])
@pytest.mark.parametrize("heads", [(2,), (0, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("form", [None, "flash", "bool", "added"])
def test_rows_equal_the_plain_ones_to_the_bit(form, heads, chunk, batch):
    *_, mask, layout = batch
    torch.manual_seed(1)
    query, key = torch.randn(2, 4, 90, 8), torch.randn(2, 2, 90, 8)
    allowed = torch.ones(90, 90).tril().bool() & mask.bool()[:, None, None, :]
    given = {"flash": mask, "bool": allowed, "added": torch.zeros(allowed.shape).masked_fill(~allowed, -1e30)}.get(form)
    options = {"softcap": 20.0, "chunk_elements": chunk, "scaling": 0.3}
    assert torch.equal(
        step_scores(query, key, given, layout, heads, **options),
        plain_scores(query, key, given, layout, heads, **options),
    )


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * 2


def test_compiled_models_are_recognised():
    assert not runs_compiled(Doubled())
    assert runs_compiled(torch.compile(Doubled()))
    part = Doubled()
    part.inner[0] = torch.compile(part.inner[0])
    assert runs_compiled(part)
    in_place = Doubled()
    in_place.inner[1].compile()
    assert runs_compiled(in_place)
    method = Doubled()
    method.inner[0].forward = torch.compile(method.inner[0].forward)
    assert runs_compiled(method)
    assert not runs_compiled(copy.deepcopy(Doubled()))


def test_a_replaced_attention_is_found(batch):
    """What is known of a model's modules is not taken for granted."""
    model, ids, mask, layout = batch
    count(model, ids, mask, layout, [(1, 0), (2, 0)])
    model.model.layers[1].self_attn = copy.deepcopy(model.model.layers[1].self_attn)
    count(model, ids, mask, layout, [(1, 0), (2, 0)])


def counted_loss(kit: Any, model: Any, tokenizer: Any, folder: Any, credit: str) -> tuple[int, int]:
    """Kernels and waits of one call of the loss, the forward included."""
    trainer = kit.make_trainer(
        model,
        tokenizer,
        folder,
        responses=kit.MIXED,
        credit=credit,
        max_steps=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
    )
    found, inner = [], trainer._compute_loss

    def compute_loss(model, inputs):
        with Launches() as launches, Waits() as waits:
            loss = inner(model, inputs)
        found.append((launches.count, waits.count))
        return loss

    trainer._compute_loss = compute_loss
    trainer.train()
    assert len(set(found[1:])) == 1
    return found[-1]


def test_credit_in_the_loss_does_not_synchronise(trainer_kit, new_tiny_qwen2, tiny_tokenizer, tmp_path):
    """Scores of two heads in two layers, layout, credit and notes for the records: what is added to a micro-batch."""
    kit = trainer_kit
    plain, stepwise = (
        counted_loss(kit, new_tiny_qwen2(), tiny_tokenizer, tmp_path / credit, credit)
        for credit in ("outcome", "attnpo")
    )
    assert stepwise[1] == plain[1]
    assert stepwise[0] - plain[0] <= SETUP + 2 * LAYER + CREDIT
