"""Fixtures shared by all tests. Nothing here reaches the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with the larger real data files: $ATTNPO_DATA, or `shared` beside the repository.

    Tests that need it are marked slow; they fail, rather than skip, where it is absent.
    """
    return Path(os.environ.get("ATTNPO_DATA", REPOSITORY.parent / "shared"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    return Path(__file__).resolve().parent / "data"
