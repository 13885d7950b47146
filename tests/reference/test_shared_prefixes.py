"""Continuing from a shared cache compared with recomputing every prefix: the same tokens, greedily, in float32."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from attnpo.models import OVERTHINKER, resolve_model
from attnpo.task.dataset import build_dataset
from attnpo.training.policy import Policy
from attnpo.training.stages.potentials import read, until_end
from tiny_shapes import random_model


def both_ways(
    trainer: Any, sequences: list[list[int]], prefixes: list[tuple[int, int]], ending: list[int], **limits: Any
):
    """Continuations and entropies, with a shared cache and without."""
    tools = Policy(trainer)
    assert tools.can_share_prefixes
    trainer.generation_config.do_sample = False
    found = []
    for share in (True, False):
        reading = read(tools, sequences, entropy=True, share=share)
        assert (reading.cache is not None) == share
        found.append((reading.continue_from(prefixes, ending, 2, **limits), reading.entropy))
    (shared, entropy), (anew, other) = found
    assert torch.allclose(entropy, other, atol=1e-5)
    return shared, anew


def drawn_prefixes(sequences: list[list[int]], seed: int) -> list[tuple[int, int]]:
    """Short and long, in no order, some twice, one of them the whole sequence and one a single token."""
    draw = random.Random(seed)
    prefixes = [(row, draw.randint(1, len(ids))) for row, ids in enumerate(sequences) for _ in range(3)]
    prefixes += [(0, len(sequences[0])), (1, 1), prefixes[0]]
    draw.shuffle(prefixes)
    return prefixes


@pytest.mark.parametrize("ending", [[], [7, 11, 13]])
@pytest.mark.parametrize("at_once", [1, 6, 100])
def test_tiny_qwen2(ending, at_once, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    draw = random.Random(at_once)
    sequences = [[draw.randrange(250) for _ in range(n)] for n in (30, 5, 61, 17)]
    tiny_qwen2.config.tie_word_embeddings = False  # tied, a random model repeats its last token whatever came before
    model = random_model(tiny_qwen2.config, "sdpa")
    trainer = trainer_kit.make_trainer(model, tiny_tokenizer, tmp_path, credit="shape")
    prefixes = drawn_prefixes(sequences, at_once)
    shared, anew = both_ways(trainer, sequences, prefixes, ending, max_new_tokens=12, at_once=at_once)
    assert shared == anew
    assert len(shared) == len(prefixes)
    assert len({tuple(ids) for pair in shared for ids in pair}) > 3  # they do depend on the prefix
    # and against a loop over single prefixes, without any padding or cache of ours
    for (row, n), pair in zip(prefixes, shared, strict=True):
        ids = torch.tensor([sequences[row][:n] + ending])
        out = trainer.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        expected = until_end(out[0, ids.shape[1] :].tolist(), set(trainer.eos_token_ids))
        assert pair == [expected, expected]


def test_packaged_model(trainer_kit, tmp_path):
    """A Llama that has learnt something: answers asked for in the middle of real thinking."""
    folder = resolve_model(OVERTHINKER)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    trainer = trainer_kit.make_trainer(model, tokenizer, tmp_path, credit="shape")
    sequences, prefixes = [], []
    for i, row in enumerate(build_dataset(4, 3, "test", (1, 2))):
        message = [{"role": "user", "content": row["problem"]}]
        prompt = tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"]
        thinking = tokenizer(row["response"][: row["steps"][-1]["end"]], add_special_tokens=False)["input_ids"]
        sequences.append(prompt + thinking)
        prefixes += [(i, len(prompt)), (i, len(prompt) + len(thinking) // 2), (i, len(prompt) + len(thinking))]
    ending = tokenizer("</think>\n\n", add_special_tokens=False)["input_ids"]
    shared, anew = both_ways(trainer, sequences, prefixes, ending, max_new_tokens=30, at_once=8)
    assert shared == anew
    assert "boxed" in tokenizer.decode(shared[2][0])


def test_sampling_uses_the_temperature_of_the_run(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """All but greedy at a temperature near 0: continuations of one prefix agree; at 1 they do not."""
    sequences, prefixes = [[5, 9, 30, 4, 77, 12]], [(0, 3), (0, 6)]
    for temperature, agree in ((1e-4, True), (1.0, False)):
        trainer = trainer_kit.make_trainer(
            trainer_kit.sharpen(tiny_qwen2), tiny_tokenizer, tmp_path, credit="shape", temperature=temperature
        )
        reading = read(Policy(trainer), sequences, entropy=True, share=True)
        found = reading.continue_from(prefixes, [], 2, max_new_tokens=20, at_once=8)
        assert all((one == other) == agree for one, other in found)


def test_sliding_windows_are_computed_anew(trainer_kit, tiny_tokenizer, tmp_path):
    config = Qwen2Config(
        vocab_size=len(tiny_tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        use_sliding_window=True,
        sliding_window=8,
        max_window_layers=1,
        eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
    )
    trainer = trainer_kit.make_trainer(
        Qwen2ForCausalLM(config),
        tiny_tokenizer,
        tmp_path,
        credit="shape",
        credit_kwargs={"rollouts": 2, "segments": 2, "rollout_tokens": 3},
        max_completion_length=16,
    )
    assert not trainer.policy.can_share_prefixes
    trainer.train()
    assert '"extra/prefix_tokens_saved"' not in (tmp_path / "metrics.jsonl").read_text()


def test_until_end():
    assert until_end([3, 4, 9, 5], {9, 8}) == [3, 4, 9]
    assert until_end([3, 4], {9}) == [3, 4]
    assert until_end([], {9}) == []
