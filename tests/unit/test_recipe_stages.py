"""Stages of recipes: finished, continued, and the division of time. The commands are small Python programs."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attnpo.errors import InputError, RunError


@pytest.fixture(scope="module")
def recipes(repository) -> Path:
    return repository / "recipes"


@pytest.fixture
def stages(recipes, monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(recipes))
    return importlib.import_module("stages")


def program(text: str) -> list[str]:
    return [sys.executable, "-S", "-c", textwrap.dedent(text)]


def touch(file: Path) -> list[str]:
    """Appends a line to a file."""
    return program(f"open({str(file)!r}, 'a').write('done\\n')")


@pytest.fixture
def stage(stages, tmp_path):
    """A stage that makes the file of its name by these commands (default: one that appends a line to it)."""

    def make(name: str, *commands: list[str], share: float = 0.5, **more: Any):
        file = tmp_path / name
        seen: list[float] = []

        def given(left: float) -> list[list[str]]:
            seen.append(left)
            return [*commands] or [touch(file)]

        made = stages.Stage(name, share, given, file.is_file, **more)
        return made, file, seen

    return make


def test_a_finished_stage_is_not_repeated(stages, stage, tmp_path):
    one, first, _ = stage("one", outcome=lambda: "3 of 4 steps")
    broken, _, _ = stage("two", program("raise SystemExit(3)"))
    two, second, _ = stage("two")
    said: list[str] = []
    with pytest.raises(RunError, match=r"two: exit code 3 of .*SystemExit"):
        stages.run_stages([one, broken], tmp_path, 1, say=said.append)
    state = stages.run_stages([one, two], tmp_path, 1, say=said.append)
    assert first.read_text() == second.read_text() == "done\n"
    assert [known["done"] for known in state.values()] == ["finished", "finished"]
    assert json.loads((tmp_path / "stages.json").read_text()) == state
    assert said[-3].startswith("[1/2] one: finished, ")
    assert said[-3].endswith(", 3 of 4 steps, not repeated")


def test_the_minutes_are_divided_as_stated(stages, stage, tmp_path):
    """10 minutes: a share of 0.3 has 3; where 60 s were used before, 2."""
    one, _, first = stage("one", share=0.3)
    two, _, second = stage("two", share=0.05)
    stages.run_stages([one, two], tmp_path, 10, say=lambda text: None)
    assert (first, second) == ([pytest.approx(3)], [pytest.approx(0.5)])
    (tmp_path / "stages.json").write_text('{"one": {"done": null, "seconds": 60}}')
    stages.run_stages([one], tmp_path, 10, say=lambda text: None)
    assert first[1] == pytest.approx(2)


SLOW = """
    import signal, sys, time
    def end(*_):
        if {saves}:
            open({file!r}, 'w').write('part')
        sys.exit(1)
    signal.signal(signal.SIGTERM, end)
    open({file!r} + '.began', 'w')
    time.sleep(60)
"""


def test_timeout_with_a_result(stages, stage, tmp_path):
    """SIGTERM lets the command save; its further commands are left out, and the next stage begins."""
    file = tmp_path / "one"
    one, _, _ = stage("one", program(SLOW.format(file=str(file), saves=True)), touch(file), share=0.4)
    two, second, _ = stage("two")
    state = stages.run_stages([one, two], tmp_path, 5 / 60, say=lambda text: None)
    assert file.read_text() == "part"
    assert second.exists()
    assert (state["one"]["done"], state["two"]["done"]) == ("out of time", "finished")
    assert 2 <= state["one"]["seconds"] < 30


def test_timeout_without_a_result(stages, stage, tmp_path):
    """Then there is nothing to go on with; the next call has the whole time again."""
    one, file, seen = stage("one", program(SLOW.format(file=str(tmp_path / "one"), saves=False)))
    for _ in range(2):
        with pytest.raises(RunError, match="one: its time was up before it had made anything"):
            stages.run_stages([one], tmp_path, 2 / 60, say=lambda text: None)
    assert seen == [pytest.approx(1 / 60)] * 2
    assert not file.exists()


def test_time_that_was_used_up_before(stages, stage, tmp_path):
    (tmp_path / "stages.json").write_text(
        '{"one": {"done": null, "seconds": 500}, "two": {"done": null, "seconds": 500}}'
    )
    one, first, seen = stage("one")
    two, _, _ = stage("two")
    first.write_text("part")
    with pytest.raises(RunError, match="two: its time was up"):
        stages.run_stages([one, two], tmp_path, 1, say=lambda text: None)
    state = json.loads((tmp_path / "stages.json").read_text())
    assert state["one"]["done"] == "out of time"
    assert state["two"] == {"done": None, "seconds": 0.0}
    assert (first.read_text(), seen) == ("part", [])


def test_a_command_that_does_not_end_is_killed(stages, stage, tmp_path):
    deaf = program("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")
    one, _, _ = stage("one", deaf)
    began = time.monotonic()
    with pytest.raises(RunError, match="its time was up"):
        stages.run_stages([one], tmp_path, 2 / 60, say=lambda text: None, grace=0.5)
    assert time.monotonic() - began < 30


def test_success_without_a_result_is_an_error(stages, stage, tmp_path):
    one, _, _ = stage("one", program("pass"))
    with pytest.raises(RunError, match="one: its commands ended without the expected output"):
        stages.run_stages([one], tmp_path, 1, say=lambda text: None)


RECIPE = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {recipes!r})
    from stages import Stage, main_of, run_stages
    folder = Path({folder!r})
    slow = [sys.executable, "-S", "-c", {slow!r}]
    quick = [sys.executable, "-S", "-c", "open({two!r}, 'a').write('done')"]
    one = Stage("one", 0.5, lambda left: [slow if not (folder / "one").exists() else ["true"]], (folder / "one").exists)
    two = Stage("two", 0.5, lambda left: [quick], (folder / "two").exists)
    main_of(lambda: run_stages([one, two], folder, 2, patience=0.3))
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_and_called_again(how, recipes, tmp_path, repository):
    """The command saves, its seconds count, no further stage starts; the next call continues."""
    slow = textwrap.dedent(SLOW.format(file=str(tmp_path / "one"), saves=True))
    text = RECIPE.format(recipes=str(recipes), folder=str(tmp_path), slow=slow, two=str(tmp_path / "two"))
    file = tmp_path / "recipe.py"
    file.write_text(textwrap.dedent(text))
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    # A shell's background jobs inherit "ignore".
    process = subprocess.Popen(
        [sys.executable, str(file)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(tmp_path / "one.began")
    again = subprocess.run([sys.executable, str(file)], env=environment, capture_output=True, text=True, timeout=60)
    assert again.returncode == 2
    assert "another call of the recipe, or one of its commands, is running there" in again.stderr
    process.send_signal(how)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.startswith("stopped; the progress is saved")
    state = json.loads((tmp_path / "stages.json").read_text())
    assert list(state) == ["one"]
    assert state["one"]["done"] is None
    assert state["one"]["seconds"] > 0
    assert (tmp_path / "one").read_text() == "part"
    again = subprocess.run([sys.executable, str(file)], env=environment, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    after = json.loads((tmp_path / "stages.json").read_text())
    assert [known["done"] for known in after.values()] == ["finished", "finished"]
    assert after["one"]["seconds"] > state["one"]["seconds"]


def test_waiting_for_another_call_to_end(stages, stage, tmp_path):
    one, file, _ = stage("one")
    held = program(f"""
        import fcntl, time
        fcntl.flock(open({str(tmp_path / ".lock")!r}, "w"), fcntl.LOCK_EX)
        open({str(tmp_path / "held")!r}, "w")
        time.sleep(0.5)
    """)
    with subprocess.Popen(held):
        wait_for(tmp_path / "held")
        assert stages.run_stages([one], tmp_path, 1)["one"]["done"] == "finished"
    assert file.exists()


def wait_for(file: Path) -> None:
    end = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < end, f"{file} did not come"
        time.sleep(0.02)


@pytest.mark.parametrize("text", ["{", "[1]", '{"one": {}}', '{"one": {"done": null, "seconds": "long"}}'])
def test_invalid_state_file(text, stages, stage, tmp_path):
    (tmp_path / "stages.json").write_text(text)
    one, _, _ = stage("one")
    with pytest.raises(InputError, match=r"stages\.json: (not valid JSON|found something else)"):
        stages.run_stages([one], tmp_path, 1)


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_no_minutes(minutes, stages, stage, tmp_path):
    one, _, _ = stage("one")
    with pytest.raises(InputError, match=r"minutes: found .*, expected more than 0"):
        stages.run_stages([one], tmp_path, minutes)
