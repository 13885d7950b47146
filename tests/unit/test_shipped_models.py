"""Names of the models that ship with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnpo.models import SHIPPED, model_name, nearest_model, resolve_model, shipped_model


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_a_folder_of_that_name(name):
    folder = Path(resolve_model(name))
    assert {"config.json", "model.safetensors", "tokenizer.json", "heads.json", "training_record.json"} <= {
        file.name for file in folder.iterdir()
    }
    assert model_name(str(folder)) == name


@pytest.mark.parametrize(
    ("redundancy", "expected"),
    [
        *((None, "overthinker"), (0, "overthinker"), (4, "overthinker"), (7, "overthinker")),
        *((8, "overthinker-medium"), (18, "overthinker-medium")),  # √(5 · 12) = 7.7
        *((19, "overthinker-long"), (40, "overthinker-long")),  # √(12 · 30) = 19.0
    ],
)
def test_the_nearest_model_is_taken(redundancy, expected):
    assert shipped_model(redundancy) == expected


def test_other_names_are_unchanged():
    assert resolve_model("some/model") == model_name("some/model") == "some/model"
    assert resolve_model(None) == resolve_model("overthinker")


def test_a_missing_folder_has_a_neighbour_or_a_shipped_model_of_nearly_that_name(tmp_path):
    for name in ("qwen-task", "other", "qwen-tusk"):
        (tmp_path / name).mkdir()
    (tmp_path / "qwen-task" / "config.json").write_text("{}")  # only that one is a model
    assert nearest_model(str(tmp_path / "qwen-tsk")) == f"; did you mean {tmp_path / 'qwen-task'}?"
    assert nearest_model(str(tmp_path / "overthink")) == "; did you mean overthinker?"
    assert nearest_model(str(tmp_path / "nowhere" / "m")) == ""
