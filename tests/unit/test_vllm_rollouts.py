"""Requirements of rollouts by vLLM, as far as they can be tested without vLLM (tests/on_vllm has the rest)."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attnpo.errors import InputError
from attnpo.training.vllm_rollouts import check_vllm, in_process, seed_sampling


def options(**changes: Any) -> Any:
    values = {"use_vllm": True, "vllm_mode": "colocate", "vllm_tensor_parallel_size": 1, "seed": 5}
    return SimpleNamespace(**{**values, "device": torch.device("cpu"), **changes})


def test_a_server_cannot_be_fed_from_a_cpu():
    with pytest.raises(InputError, match="option vllm_mode: found 'server' on a CPU, expected 'colocate'"):
        check_vllm(options(vllm_mode="server"))
    check_vllm(options(vllm_mode="server", use_vllm=False))


def test_missing_vllm_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"option use_vllm: the package vllm is not installed; pip install 'attnpo\[vllm\]'"
    ):
        check_vllm(options())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    check_vllm(options())
    check_vllm(options(vllm_mode="server", device=torch.device("cuda")))


@pytest.mark.parametrize(
    ("use", "mode", "expected"), [(True, "colocate", True), (True, "server", False), (False, "colocate", False)]
)
def test_mode_of_the_engine(use, mode, expected):
    assert in_process(options(use_vllm=use, vllm_mode=mode)) is expected


def test_sampling_is_seeded_by_the_run():
    with torch.random.fork_rng(devices=[]):
        for process, shared_by, seed in ((0, 1, 5), (3, 1, 8), (3, 2, 6), (2, 2, 6)):
            torch.manual_seed(0)
            seed_sampling(options(vllm_tensor_parallel_size=shared_by), process)
            assert torch.initial_seed() == seed
        torch.manual_seed(0)  # elsewhere nothing is touched
        seed_sampling(options(use_vllm=False), 0)
        seed_sampling(options(vllm_mode="server"), 0)
        assert torch.initial_seed() == 0
