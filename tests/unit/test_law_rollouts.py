"""The experiments' fast rollouts sample the same tokens as transformers."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

END, PAD = 1, 0


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch, repository: Path):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    monkeypatch.setattr(LlamaForCausalLM, "generate", LlamaForCausalLM.generate)  # taken back after the test
    return importlib.import_module("law_rollouts")


@pytest.fixture(params=[False, True], ids=["no biases", "biases"])
def model(request) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=24, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, attention_bias=request.param, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=END, pad_token_id=PAD,
    )  # fmt: skip
    made = LlamaForCausalLM(config).double().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def settings(most: int = 60, **changes) -> GenerationConfig:
    given = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "eos_token_id": END, "pad_token_id": PAD}
    return GenerationConfig(max_new_tokens=most, **(given | changes))


def prompts() -> dict[str, torch.Tensor]:
    """Six prompts of different lengths, padded on the left."""
    ids = torch.randint(2, 24, (6, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    for row, padding in enumerate((0, 3, 8, 0, 5, 1)):
        ids[row, :padding], mask[row, :padding] = PAD, 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("most", [1, 60, 300])
def test_same_samples_as_transformers(fast, model, seed, most) -> None:
    """Rows end at different times and leave; 300 tokens are more than one buffer holds."""
    found = []
    for run in (fast.STOCK, fast.generate):
        torch.manual_seed(seed)
        found.append(run(model, **prompts(), generation_config=settings(most)))
    assert torch.equal(*found)
    if most == 300:
        ends = (found[0][:, 9:] == END).any(dim=1)
        assert ends.any(), "no row ended: the test would not see rows that leave"


def test_several_end_tokens(fast, model) -> None:
    found = []
    for run in (fast.STOCK, fast.generate):
        torch.manual_seed(0)
        found.append(run(model, **prompts(), generation_config=settings(eos_token_id=[1, 5, 7])))
    assert torch.equal(*found)


@pytest.mark.parametrize("changes", [{"temperature": 0.7}, {"top_k": 3}, {"top_p": 0.5}, {"do_sample": False}])
def test_other_calls_use_transformers(fast, model, changes, monkeypatch) -> None:
    monkeypatch.setattr(fast, "STOCK", lambda *args, **kwargs: "stock")
    assert fast.generate(model, **prompts(), generation_config=settings(**changes)) == "stock"
    assert fast.generate(model, **prompts(), generation_config=settings(), logits_processor=[]) == "stock"
