"""Programs that attack the machine: they get no data, leave nothing, and do not block the next one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from attnpo.errors import InputError, RunError
from attnpo.sandbox import sandbox as sandbox_module
from attnpo.sandbox.confine import supported
from attnpo.sandbox.sandbox import End, Limits, Run, Sandbox
from hostile_programs import ENDS, HIDDEN, REFUSED, TRY

pytestmark = pytest.mark.skipif(not supported(), reason="programs are confined on Linux, x86-64 and ARM64")


class ShortLimits(Limits):
    wall_seconds = 2.0


LIMITS = Limits(seconds=10, memory_mb=512, output_bytes=2**20)  # a busy machine must not change how a program ends
SHORT = ShortLimits(seconds=0.5, memory_mb=512, output_bytes=2**20)  # for those that never end
WITHOUT_LANDLOCK = """
from attnpo.sandbox import confine, server
confine.landlock_version = lambda: 0
server.main()
"""


@dataclass
class Outside:
    folder: Path
    listener: socket.socket

    def fill(self, code: str) -> str:
        return code.format(outside=self.folder, tcp=self.listener.getsockname()[1], home=str(Path.home()))


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret").write_text("the expected output")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield Outside(folder, listener)


@pytest.fixture(scope="module", params=["strongest", "without Landlock"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "without Landlock":
            patch.setattr(sandbox_module, "SERVER", ["-c", WITHOUT_LANDLOCK])
        with Sandbox(1, limits=LIMITS) as made:
            yield made


@pytest.fixture
def attack(sandbox: Sandbox, outside: Outside):
    """Runs a program, and checks that nothing outside changed and that the next program is graded."""

    def run(program: str, limits: Limits = LIMITS) -> Run:
        began = time.monotonic()
        sandbox.limits = limits
        result = sandbox.run(program, "input\n")
        sandbox.limits = LIMITS
        assert time.monotonic() - began < 60
        assert "ESCAPED" not in result.output, result
        assert result.end.is_the_programs_doing, result
        folder = Path(sandbox._folder.name)
        assert processes_in(folder) == {server.process.pid for server in sandbox._group.live}
        assert not list(folder.iterdir())
        assert [path.name for path in outside.folder.iterdir()] == ["secret"]
        assert (outside.folder / "secret").read_text() == "the expected output"
        assert not os.path.exists("/tmp/attnpo-escaped")
        assert not os.path.exists("/dev/shm/attnpo-escaped")
        with pytest.raises(BlockingIOError):
            outside.listener.accept()
        assert sandbox.run("print(6 * 7, input())", "times").output == "42 times\n"
        return result

    return run


def processes_in(folder: Path) -> set[int]:
    """Processes with the working directory `folder`, of any parent: a server, its runs, and all they could start."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.readlink(f"/proc/{entry}/cwd") == str(folder):
                    found.add(int(entry))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_access_outside_the_sandbox_is_refused(attack, outside: Outside, name: str) -> None:
    result = attack(outside.fill(TRY.format(REFUSED[name])))
    assert result.end is End.FINISHED, result


@pytest.mark.parametrize("sandbox", ["strongest"], indirect=True)
@pytest.mark.parametrize("name", HIDDEN)
def test_files_are_hidden(attack, sandbox: Sandbox, outside: Outside, name: str) -> None:
    if sandbox.isolation == "seccomp":
        pytest.skip("this kernel has no Landlock")
    attack(outside.fill(TRY.format(HIDDEN[name])))


@pytest.mark.parametrize("sandbox", ["strongest"], indirect=True)
@pytest.mark.parametrize("name", ENDS)
def test_every_program_ends(attack, name: str) -> None:
    program, end = ENDS[name]
    assert attack(program, SHORT if end is End.TOO_SLOW else LIMITS).end is end


def test_no_inherited_file_descriptors(attack) -> None:
    program = """
import os
def is_open(number):
    try: os.fstat(number)
    except OSError: return False
    return True
print([number for number in range(1000) if is_open(number)])
"""
    assert attack(program).output == "[0, 1, 2, 3]\n"


def test_environment_and_folder_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Sandbox(1, limits=LIMITS) as made:
        listing = made.run("import os, json; print(json.dumps([sorted(os.environ), os.listdir('.')]))").output
    names, files = json.loads(listing)
    allowed = {"HOME", "LANG", "LC_CTYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    assert {name for name in names if not name.startswith("PYTHON")} <= allowed
    assert files == []


@pytest.mark.parametrize("sandbox", ["strongest"], indirect=True)
def test_a_run_without_privileges_killed_from_outside(sandbox: Sandbox) -> None:
    """As when the kernel runs out of memory: SIGKILL from outside, and the program had time left."""
    folder, (server,) = Path(sandbox._folder.name), {server.process.pid for server in sandbox._group.live}

    def started() -> set[int]:
        runs = processes_in(folder) - {server}
        return {run for run in runs if "Seccomp:\t2" in Path(f"/proc/{run}/status").read_text()}

    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(sandbox.run, "import time; time.sleep(1000)")
        wait_for(lambda: bool(started()))
        time.sleep(0.05)  # from the filter to the first line
        (pid,) = started()
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        os.kill(pid, signal.SIGKILL)
        assert run.result().end is End.KILLED
    assert not End.KILLED.is_the_programs_doing


def test_a_killed_server_takes_its_run_along_and_is_replaced() -> None:
    with Sandbox(1, limits=LIMITS) as made, ThreadPoolExecutor(1) as threads:
        (server,), folder = made._group.live, Path(made._folder.name)
        run = threads.submit(made.run, "import signal, time; time.sleep(1000)")
        wait_for(lambda: len(processes_in(folder)) == 2)
        time.sleep(0.05)  # from the fork to the first line
        os.kill(server.process.pid, signal.SIGKILL)
        assert run.result().end is End.NOT_STARTED
        wait_for(lambda: not processes_in(folder), seconds=1)
        assert made.run("print(1)").output == "1\n"


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_runs_end_with_the_process_that_started_them(tmp_path: Path, ending: signal.Signals) -> None:
    script = (
        "import sys; from attnpo.sandbox.sandbox import Sandbox\n"
        "made = Sandbox(1); print(made._folder.name, flush=True); made.run('import time; time.sleep(1000)')"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        folder = Path(starter.stdout.readline().strip())
        wait_for(lambda: len(processes_in(folder)) == 2)
        starter.send_signal(ending)
    wait_for(lambda: not processes_in(folder))
    folder.rmdir()


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_waiting_for_a_core_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hasty(Limits):
        wall_seconds = 0.5

    starved = "from attnpo.sandbox import server\nserver._waited = lambda pid: 60.0\nserver.main()"
    monkeypatch.setattr(sandbox_module, "SERVER", ["-c", starved])
    with Sandbox(1) as made:
        made.limits = Hasty()
        assert made.run("import time; time.sleep(1)").end is End.FINISHED


def test_close_ends_a_run_in_another_thread() -> None:
    with ThreadPoolExecutor(2) as threads, Sandbox(1) as made:
        runs = [threads.submit(made.run, "import time; time.sleep(1000)") for _ in range(2)]
        wait_for(lambda: len(processes_in(Path(made._folder.name))) == 2)
        made.close()
        for run in runs:
            with pytest.raises(RunError, match="closed"):
                run.result(timeout=10)


def test_refuses_where_programs_cannot_be_confined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "supported", lambda: False)
    with pytest.raises(InputError, match="cannot be confined here"):
        Sandbox(1)
    with Sandbox(1, limits=LIMITS, allow_weaker=True) as made:
        assert made.isolation == "limits only"
        assert made.run("print(6 * 7)").output == "42\n"
        made.limits = SHORT
        assert made.run("while True: pass").end is End.TOO_SLOW
        made.limits = LIMITS
        # A child in the run's own session goes with it.
        assert made.run("import os, time\nif os.fork() == 0: os.closerange(0, 9); time.sleep(99)").end is End.FINISHED
        wait_for(lambda: len(processes_in(Path(made._folder.name))) == 1)


def test_refuses_a_kernel_without_seccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = (
        "from attnpo.sandbox import confine, server\n"
        "def refuse(): raise OSError(22, 'seccomp refused')\n"
        "confine.filter_system_calls = refuse\nserver.main()"
    )
    monkeypatch.setattr(sandbox_module, "SERVER", ["-c", refusing])
    with pytest.raises(InputError, match="seccomp refused"):
        Sandbox(1)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"seconds": 0}, "seconds"), ({"seconds": float("inf")}, "seconds"), ({"memory_mb": 1}, "memory_mb")],
)
def test_limits_out_of_range(options: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Limits(**options)


def test_workers_out_of_range() -> None:
    with pytest.raises(InputError, match="workers: found 0"):
        Sandbox(0)
