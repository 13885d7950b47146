"""`heads: auto` on two processes: both find the same heads, and if one fails neither waits for the other."""

from __future__ import annotations

import json

import pytest

from processes import run_processes


def raised(rank: int) -> str:
    return f"step 0: the reward function 'accuracy' failed: ValueError: no verdict on {rank}"


@pytest.fixture(scope="module")
def ends(trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path_factory):
    """How each case of `two_find_heads.py` ended on both processes, and their folder."""
    folder = tmp_path_factory.mktemp("processes")
    model = trainer_kit.save_model(folder / "model", trainer_kit.sharpen(new_tiny_qwen2()), tiny_tokenizer)
    (model / "heads.json").unlink()
    run_processes(2, "two_find_heads.py", model, folder, port=30500)
    return folder, *(json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["found", "harder"])
def test_same_heads(ends, case):
    """`harder`: no problem of one process can be used, so the other has to find all responses."""
    folder, main, other = ends
    written = json.loads((folder / case / "heads.json").read_text())
    assert main[case] == other[case] == written["heads"]
    assert written["traces"] == 16
    assert written["model"] == str(folder / "model")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "failed", "own", "other"),
    [
        ("reward", 1, ["RewardError", raised(1)], ["RewardError", f"process 1: {raised(1)}"]),
        ("generation", 1, ["MemoryError", "too long"], ["RunError", "process 1: MemoryError: too long"]),
        ("labels", 0, ["InputError", "prepared[3]: bad"], ["InputError", "process 0: prepared[3]: bad"]),
    ],
)
def test_an_error_of_one_process_ends_both(ends, case, failed, own, other):
    assert ends[1 + failed][case] == own
    assert ends[2 - failed][case] == other


@pytest.mark.slow
def test_error_on_both_is_reported_by_each(ends):
    assert [end["both"] for end in ends[1:]] == [["RewardError", raised(rank)] for rank in (0, 1)]


@pytest.mark.slow
def test_unwritable_folder_on_the_main_process(ends):
    _, main, other = ends
    kind, message = main["writing"]
    assert "heads-traces.jsonl.gz" in message
    assert other["writing"] == [kind, f"process 0: {message}"]


@pytest.mark.slow
def test_existing_heads_are_decided_by_the_main_process(ends):
    folder, main, other = ends
    assert main["resumed"] == other["resumed"] == [[0, 3]]
    assert not (folder / "resumed-1" / "heads.json").exists()
