"""The state of a run, written without pickle; damaged checkpoints, and full disks."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnpo.errors import InputError, RunError
from attnpo.training.checkpoints import (
    FILES,
    checkpoint_of,
    pack,
    passed_over,
    read_packed,
    unpack,
    what_is_broken,
    write_list_of_files,
    write_packed,
)
from attnpo.training.records import WARNINGS, RunFolder
from attnpo.training.run_state import stem_of
from attnpo.training.saving import ASIDE

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=12
)


@given(values)
def test_values_come_back(value):
    """Numbers to the last bit, dicts named like the marks of tensors too."""
    packed = json.loads(json.dumps(pack([value, {"tensor": value, "entries": value}], {})))
    assert unpack(packed, {}) == [value, {"tensor": value, "entries": value}]


def test_tensors_come_back(tmp_path):
    """Of every type, also those that share memory."""
    whole = torch.arange(12.0).view(4, 3)
    value = {
        "parts": [whole[:2], whole[2:]],
        "scalar": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "half": torch.tensor([1.1, float("nan")], dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
    }
    tensors: dict[str, torch.Tensor] = {}
    write_packed(tmp_path / "state", pack(value, tensors), tensors)
    back = read_packed(tmp_path / "state", torch.device("cpu", 0))  # as Accelerate calls it on several CPU processes
    assert back.keys() == value.keys()
    for name in ("scalar", "mask", "empty"):
        assert torch.equal(back[name], value[name])
        assert back[name].dtype == value[name].dtype
    torch.testing.assert_close(back["half"], value["half"], equal_nan=True, atol=0, rtol=0)
    assert [torch.equal(a, b) for a, b in zip(back["parts"], value["parts"], strict=True)] == [True, True]


def test_nothing_else_is_packed(tmp_path):
    with pytest.raises(TypeError, match="found set, expected numbers, text, lists"):
        pack({"a": {1, 2}}, {})
    with pytest.raises(TypeError, match="found dict"):
        pack({1: 2}, {})
    assert read_packed(tmp_path / "absent") is None
    (tmp_path / "cut.json").write_text('{"entries": {"a": {"tens')
    with pytest.raises(InputError, match=r"cut\.json: damaged"):
        read_packed(tmp_path / "cut")
    (tmp_path / "other.json").write_text('{"entries": {"a": {"tensor": "3"}}}')
    with pytest.raises(InputError, match=r"other\.json: damaged"):
        read_packed(tmp_path / "other")


@pytest.fixture
def run(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """A trainer of three steps, saved after each."""

    def build(name: str = "run", **changes: Any):
        options = {"max_steps": 3, "max_completion_length": 16, "save_strategy": "steps", "save_steps": 1}
        return trainer_kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path / name, **{**options, **changes})

    return build


def test_checkpoint_contents(run, tmp_path):
    run().train()
    checkpoint = tmp_path / "run" / "checkpoint-3"
    listed = json.loads((checkpoint / FILES).read_text())
    assert {f"{stem_of(0)}.json", "model.safetensors", "optimizer.pt", "rng_state.pth"} <= listed.keys()
    assert listed.keys() | {FILES} == {path.name for path in checkpoint.iterdir()}
    assert not (tmp_path / "run" / ASIDE).exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "model.safetensors", f"{stem_of(0)}.json", FILES])
def test_damage_of_any_kind_is_named_and_the_one_before_used(name, run, tmp_path):
    """A few bytes that are others do not change a file's size."""
    run().train()
    folder = tmp_path / "run"
    file = folder / "checkpoint-3" / name
    content = file.read_bytes()
    middle = len(content) // 2
    flipped = bytes(byte ^ 255 for byte in content[middle : middle + 8])
    file.write_bytes(content[:middle] + flipped + content[middle + 8 :])
    said = what_is_broken(folder / "checkpoint-3") or ""
    assert name in said
    before = checkpoint_of(folder, "true")
    assert before == folder / "checkpoint-2"
    assert before is not None
    assert passed_over(folder, before) == [f"{folder}/checkpoint-3 is skipped: {said}; resuming from {before}"]
    with pytest.raises(InputError, match=r"checkpoint-3 is damaged: "):
        checkpoint_of(folder, str(folder / "checkpoint-3"))


def test_a_trainer_passes_over_a_damaged_checkpoint(run, tmp_path):
    run().train()
    last = tmp_path / "run" / "checkpoint-3"
    (last / "optimizer.pt").unlink()
    trainer = run()
    with pytest.warns(UserWarning, match=r"checkpoint-3 is skipped: optimizer\.pt is missing; resuming from"):
        trainer.train(resume_from_checkpoint=True)
    assert what_is_broken(last) is None  # saved again
    with pytest.raises(InputError, match="no checkpoint in"):
        run("other").train(resume_from_checkpoint=True)


def test_resuming_from_an_earlier_checkpoint_sets_later_ones_aside(run, tmp_path, capsys):
    """Otherwise a second interruption, before the third step, would resume from the third step of the first run."""
    run().train()
    folder = tmp_path / "run"
    first = folder / "checkpoint-1"
    trainer = run(max_steps=2)
    trainer.train(resume_from_checkpoint=str(first))
    names = sorted(path.name for path in folder.glob("*checkpoint-*"))
    assert names == ["_replaced-checkpoint-2", "_replaced-checkpoint-3", "checkpoint-1", "checkpoint-2"]
    assert what_is_broken(folder / "_replaced-checkpoint-3") is None
    assert checkpoint_of(folder, "auto") == folder / "checkpoint-2"
    words = "continues from step 1; later checkpoints stay as _replaced-checkpoint-3, _replaced-checkpoint-2"
    assert words in capsys.readouterr().err
    assert words in (folder / WARNINGS).read_text()
    RunFolder(folder).clear()
    assert not list(folder.glob("*checkpoint-*"))


def test_damage_within_a_header(run, tmp_path):
    """Still JSON, and no longer what safetensors writes."""
    run().train()
    file = tmp_path / "run" / "checkpoint-3" / "model.safetensors"
    file.write_bytes(file.read_bytes().replace(b"data_offsets", b"data_offsetz", 1))
    assert "model.safetensors" in (what_is_broken(file.parent) or "")
    assert checkpoint_of(tmp_path / "run", "true") == tmp_path / "run" / "checkpoint-2"


def test_auto_starts_without_a_checkpoint(tmp_path):
    assert checkpoint_of(tmp_path / "absent", "auto") is None
    (tmp_path / "checkpoint-4").mkdir()  # a run of before, cut off: beginning again would remove it
    with pytest.raises(InputError, match=r"checkpoint-4: it has no trainer_state\.json"):
        checkpoint_of(tmp_path, "auto")


def test_a_checkpoint_without_a_list(tmp_path):
    """A checkpoint without a list is taken by what its files tell."""
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    (folder / "trainer_state.json").write_text('{"global_step": 1}')
    assert what_is_broken(folder) is None
    write_list_of_files(folder)
    (folder / "more.bin").write_bytes(b"of another program")
    assert what_is_broken(folder) is None


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, for whoever writes it: the kernel refuses, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("share", [0.5, 1.2])  # the weights do not fit; they do, the optimiser's moments do not
def test_full_disk_is_reported_and_the_last_good_checkpoint_stays(share, run, tmp_path, capsys):
    from transformers import TrainerCallback

    folder = tmp_path / "run"
    trainer = run(save_total_limit=1)
    limits: list[Any] = []

    class FillUp(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            if state.global_step == 1:
                size = (folder / "checkpoint-1" / "model.safetensors").stat().st_size
                limits.append(full_disk(int(size * share)))
                limits[0].__enter__()

    trainer.add_callback(FillUp())
    try:
        trainer.train()
        with pytest.raises(RunError, match="checkpoint-3 could not be saved"):
            trainer.save_checkpoint()
    finally:
        limits[0].__exit__(None, None, None)
    said = capsys.readouterr().err
    assert "warning: the checkpoint of step 2 could not be saved (" in said
    assert "the checkpoint of step 3 could not be saved (" in said
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-1"]
    assert what_is_broken(folder / "checkpoint-1") is None
    assert not (folder / ASIDE).exists()
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    trainer.save_checkpoint()  # there is room again
    assert what_is_broken(folder / "checkpoint-3") is None


def test_partial_save_is_not_a_checkpoint(run, tmp_path):
    left = tmp_path / "run" / ASIDE / "checkpoint-1"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    run(max_steps=1).train()
    assert not left.parent.exists()
    assert what_is_broken(tmp_path / "run" / "checkpoint-1") is None


def test_a_checkpoint_of_an_earlier_version_within_a_generation(run, tmp_path, capsys):
    """It is resumed at the right place in the data, with a note that the run differs."""
    options = {"num_iterations": 2}
    run(**options).train()
    folder: Path = tmp_path / "run"
    for step in (2, 3):
        shutil.rmtree(folder / f"checkpoint-{step}")
    for file in (FILES, f"{stem_of(0)}.json", f"{stem_of(0)}.safetensors"):
        (folder / "checkpoint-1" / file).unlink()
    capsys.readouterr()
    run(**options).train(resume_from_checkpoint=True)
    assert "was saved by an earlier version, without the responses that were in use" in capsys.readouterr().err
    rows = [json.loads(line) for line in (folder / "warnings.jsonl").read_text().splitlines()]
    assert any("this is not number for number" in row["message"] for row in rows)
