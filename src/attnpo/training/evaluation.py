"""Keeping evaluation apart from training."""

from __future__ import annotations

import random
from contextlib import contextmanager

import numpy as np
import torch
from transformers import set_seed


@contextmanager
def isolated_random_state(seed: int):
    """Run with `seed`, then put back every random state, so that evaluating never changes a training run."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - transformers seeds it
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=list(devices)):
        try:
            set_seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
