"""Fixtures of the tests that need verl: a tiny model on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from verl_runs import Left


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, new_tiny_qwen2, tiny_tokenizer, trainer_kit) -> Path:
    """The tiny model of the trainer tests with uneven attention, as a folder."""
    folder = tmp_path_factory.mktemp("tiny")
    model = trainer_kit.sharpen(new_tiny_qwen2())
    model.generation_config.eos_token_id = tiny_tokenizer.eos_token_id
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def left() -> Left:
    return Left()
