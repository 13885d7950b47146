"""Scores of a row that two processes share, compared with those of every single sequence."""

from __future__ import annotations

import pytest
import torch

from attnpo.attention.sequence_parallel import SequenceParts
from attnpo.errors import InputError
from processes import run_processes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
def test_two_processes_of_one_row(tmp_path, name):
    run_processes(2, "two_sequence_parallel.py", name, tmp_path / "rank", port=29400)
    found = [torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2)]
    assert torch.equal(found[0]["scores"], found[1]["scores"])
    for n, expected in enumerate(found[0]["alone"]):
        assert float(expected.max()) > 0.05
        torch.testing.assert_close(found[0]["scores"][:, n, : expected.shape[1]], expected, rtol=0, atol=1e-6)
    assert "'eager'" in found[0]["refused"]
    assert "expected flash attention over packed rows" in found[0]["refused"]


def test_a_row_without_equal_parts():
    parts = object.__new__(SequenceParts)
    parts.size = 2
    assert parts.width(6) == 3
    with pytest.raises(InputError, match="a row of 7 positions over 2 processes"):
        parts.width(7)
