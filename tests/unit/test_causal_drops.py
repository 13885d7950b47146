"""Drops of a model that can be computed on paper, and models in which a step cannot be hidden."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig

from attnpo.errors import InputError
from attnpo.labels.hiding import iterate_drops, step_drops
from attnpo.traces.prepared import PreparedTrace

VOCABULARY = 10


class CountingModel(nn.Module):
    """π(next token = v) = (1 + times that v is shown so far) / (10 + tokens shown so far)."""

    def __init__(self, reads_hidden: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = LlamaConfig(vocab_size=VOCABULARY)
        self.reads_hidden = reads_hidden
        self.forwards = []

    def get_decoder(self):
        return self

    def forward(self, input_ids, attention_mask, position_ids, use_cache, logits_to_keep):
        assert position_ids.tolist() == [list(range(input_ids.shape[1]))] * len(input_ids)
        self.forwards.append(attention_mask.clone())
        shown = torch.ones_like(attention_mask) if self.reads_hidden else attention_mask
        counts = (nn.functional.one_hot(input_ids, VOCABULARY) * shown[:, :, None]).cumsum(dim=1)
        logits = ((1 + counts) / (VOCABULARY + counts.sum(dim=-1, keepdim=True))).log()
        return SimpleNamespace(logits=logits[:, logits_to_keep])


class NoPositions(CountingModel):
    def forward(self, input_ids, attention_mask):
        raise AssertionError("never called")


def trace(ids, spans, answer, skipped=None):
    return PreparedTrace(ids, [{} for _ in spans], spans, answer, skipped)


# prompt 0; steps (7 7) and (5) and one without tokens; closing tag 1; answer 7, end 2
EXAMPLE = trace([0, 7, 7, 5, 1, 7, 2], [(1, 3), (3, 3), (3, 4)], (5, 7), None)


def test_numbers_of_a_hand_computation():
    """Everything shown: 3/15 · 1/16. First step hidden: 1/13 · 1/14. Last one: 3/14 · 1/15."""
    model = CountingModel().eval()
    ((place, drops),) = iterate_drops(model, [EXAMPLE])
    assert place == 0
    expected = [[(3 / 15) / (1 / 13), (1 / 16) / (1 / 14)], [1, 1], [(3 / 15) / (3 / 14), (1 / 16) / (1 / 15)]]
    torch.testing.assert_close(drops, torch.tensor(expected).log())
    (summed,) = step_drops(model, [EXAMPLE])
    assert summed is not None
    torch.testing.assert_close(summed, torch.tensor([(39 / 15) * (14 / 16), 1, (14 / 15) * (15 / 16)]).log())
    assert summed[1] == 0  # hiding nothing


def test_one_row_for_each_step_with_tokens():
    model = CountingModel().eval()
    list(iterate_drops(model, [EXAMPLE, EXAMPLE], batch_size=2))
    *check, first, second, third = model.forwards
    assert [len(mask) for mask in check] == [1, 1]
    assert torch.cat([first, second, third]).tolist() == 2 * [[1] * 7, [1, 0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1]]


def test_skipped_traces_empty_answers_and_no_steps():
    model = CountingModel().eval()
    skipped = trace([0, 7, 1], [(1, 2)], None, "no closing tag")
    empty = trace([0, 7, 1], [(1, 2)], (3, 3))
    stepless = trace([0, 1, 7], [], (2, 3))
    drops = step_drops(model, [skipped, empty, stepless, EXAMPLE])
    assert drops[0] is None
    assert drops[1] is not None
    assert drops[1].tolist() == [0]
    assert drops[2] is not None
    assert drops[2].shape == (0,)
    assert drops[3] is not None
    assert drops[3][0] > 0
    assert step_drops(model, [skipped]) == [None]
    assert step_drops(model, []) == []


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_batch_gives_the_numbers_of_the_single_trace(data):
    """Batch size, order and the other traces of a batch do not matter."""
    model = CountingModel().eval()
    traces = []
    for _ in range(data.draw(st.integers(1, 4))):
        cuts = [1, *sorted(data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=4)))]
        spans = list(pairwise(cuts))
        start = cuts[-1] + 1
        end = start + data.draw(st.integers(0, 4))
        ids = data.draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=end, max_size=end))
        traces.append(trace(ids, spans, (start, end)))
    together = step_drops(model, traces, batch_size=data.draw(st.integers(1, 9)))
    for one, drops in zip(traces, together, strict=True):
        (alone,) = step_drops(model, [one], batch_size=1)
        assert drops is not None
        torch.testing.assert_close(drops, alone, rtol=0, atol=1e-5)


def test_refused_models_and_spans():
    model = CountingModel().eval()
    with pytest.raises(InputError, match="batch_size is 0"):
        step_drops(model, [EXAMPLE], batch_size=0)
    with pytest.raises(InputError, match="CountingModel reads tokens that the attention mask hides"):
        step_drops(CountingModel(reads_hidden=True).eval(), [EXAMPLE])
    with pytest.raises(InputError, match="NoPositions takes no positions"):
        step_drops(NoPositions().eval(), [EXAMPLE])
    with pytest.raises(InputError, match="is in training mode"):
        step_drops(model.train(), [EXAMPLE])
    model.eval()
    broken = CountingModel().eval()
    broken.config.vocab_size = VOCABULARY
    with torch.no_grad():
        broken.register_forward_hook(lambda *args: SimpleNamespace(logits=args[2].logits * float("nan")))
    with pytest.raises(InputError, match="not finite"):
        step_drops(broken, [EXAMPLE])
    for spans, answer in (([(1, 3)], (2, 4)), ([(2, 1)], (4, 5)), ([(1, 2)], None), ([(1, 2)], (4, 9))):
        with pytest.raises(InputError, match=r"prepared\[0\]"):
            step_drops(model, [trace([0, 7, 7, 5, 1, 7, 2], spans, answer)])


def test_flash_attention_with_a_window_is_refused():
    """It drops hidden tokens first and counts the window afterwards."""
    model = CountingModel().eval()
    model.config._attn_implementation = "flash_attention_2"
    step_drops(model, [EXAMPLE])
    model.config.sliding_window = 7
    step_drops(model, [EXAMPLE])
    model.config.sliding_window = 6
    with pytest.raises(InputError, match="sliding window"):
        step_drops(model, [EXAMPLE])
    model.config._attn_implementation = "sdpa"
    step_drops(model, [EXAMPLE])
