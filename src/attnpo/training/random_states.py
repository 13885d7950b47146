"""The random states of every library that a run draws from: taken, put back, and left alone around an evaluation."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import set_seed

RandomStates = tuple[Any, ...]


def random_states() -> RandomStates:
    """Of every library that is drawn from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    numpy = np.random.get_state()  # noqa: NPY002 - transformers seeds and saves it
    return random.getstate(), numpy, torch.random.get_rng_state(), cuda


def set_random_states(states: RandomStates) -> None:
    """Put back `random_states`."""
    python, numpy, cpu, cuda = states
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.random.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)


@contextmanager
def isolated_random_state(seed: int) -> Iterator[None]:
    """Run with `seed`, then put back every random state, so that evaluating never changes a training run."""
    states = random_states()
    try:
        set_seed(seed)
        yield
    finally:
        set_random_states(states)
