"""One killable process, and a group of them: replies, deaths, lateness, the environment, the end."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from attnpo.errors import RunError
from attnpo.workers import ERROR_CHARACTERS, WorkerDied, WorkerGroup, WorkerLate, WorkerNotStarted, WorkerProcess

WORKER = """
import json, os, sys, time
print("a warning", file=sys.stderr, flush=True)
print(json.dumps({"variables": sorted(os.environ), "folder": os.getcwd()}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if "error" in request:
        sys.exit(request["error"])
    if "sleep" in request:
        time.sleep(request["sleep"])
    print(json.dumps({"id": request["id"], "text": request.get("text", "")[::-1]}), flush=True)
"""


def command(script: str = WORKER) -> list[str]:
    return [sys.executable, "-S", "-c", script]


@pytest.fixture
def group() -> Iterator[WorkerGroup]:
    made = WorkerGroup("the pool of the test")
    yield made
    made.end()
    made.release_all()


def started(group: WorkerGroup, script: str = WORKER, start_timeout: float = 60.0) -> WorkerProcess:
    return group.start(command(script), {}, start_timeout=start_timeout)


def test_replies_in_turn(group):
    worker = started(group)
    assert [worker.ask({"id": i, "text": f"{i} é"}, 60)["text"] for i in range(3)] == ["é 0", "é 1", "é 2"]


def test_a_request_and_a_reply_larger_than_any_pipe(group):
    text = "ab" * 4_000_000
    assert started(group).ask({"id": 1, "text": text}, 60)["text"] == "ba" * 4_000_000


def test_nothing_of_the_environment_is_inherited(group, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    worker = group.start(command(), {"MINE": "1"}, start_timeout=60, folder=str(tmp_path))
    greeting = worker.greeting()
    assert set(greeting["variables"]) <= {"MINE", "LC_CTYPE"}  # Python sets the second one itself
    assert greeting["folder"] == os.path.realpath(tmp_path)
    assert worker.greeting() is greeting


def test_a_death_reports_the_end_of_standard_error(group):
    with pytest.raises(WorkerDied) as caught:
        started(group).ask({"id": 1, "error": "x" * 5000 + " no memory left"}, 60)
    assert str(caught.value).endswith(" no memory left")
    assert len(str(caught.value)) == ERROR_CHARACTERS


def test_a_worker_that_was_killed_died(group):
    worker = started(group)
    worker.greeting()
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    with pytest.raises(WorkerDied):
        worker.ask({"id": 1, "text": "x" * 200_000}, 60)


def test_late(group):
    worker = started(group)
    worker.greeting()
    began = time.monotonic()
    with pytest.raises(WorkerLate, match="a warning"):
        worker.ask({"id": 1, "sleep": 60}, 0.5)
    assert 0.5 <= time.monotonic() - began < 30
    assert worker.process.poll() is None
    group.release(worker)
    assert worker.process.returncode == -signal.SIGKILL
    assert group.live == set()


@pytest.mark.parametrize(
    ("script", "seconds", "message"),
    [("raise SystemExit('no such module')", 60.0, "no such module"), ("input()", 0.1, "^$")],
    ids=["died", "late"],
)
def test_one_that_does_not_start(group, script, seconds, message):
    with pytest.raises(WorkerNotStarted, match=message):
        started(group, script, seconds).ask({"id": 1}, 60)


def test_the_end_of_the_group_ends_a_request_in_another_thread(group):
    worker = started(group)
    worker.greeting()
    outcome: list[Exception] = []

    def wait() -> None:
        try:
            worker.ask({"id": 1, "sleep": 60}, 60)
        except WorkerDied as error:
            outcome.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    group.end()
    thread.join(timeout=30)
    assert len(outcome) == 1
    with pytest.raises(RunError, match="the pool of the test is closed"):
        started(group)
    group.end()  # again


def test_a_forgotten_group_kills_its_workers():
    group = WorkerGroup("the pool")
    process = started(group).process
    del group
    gc.collect()
    assert process.wait(timeout=30) == -signal.SIGKILL


def test_importing_it_is_light():
    script = "import sys, attnpo.workers; print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
