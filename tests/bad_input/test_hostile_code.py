"""Programs that attack the machine: none gets anything, leaves anything, or keeps the next one from running.

Every attack prints ESCAPED where it succeeds. `{outside}` is a folder of the test's with a file `secret`, and `{tcp}` a
port that listens on this machine.
"""

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
from attnpo.evaluation.sandbox import process
from attnpo.evaluation.sandbox import sandbox as sandbox_module
from attnpo.evaluation.sandbox.records import End, Limits, Run
from attnpo.evaluation.sandbox.sandbox import Sandbox
from attnpo.evaluation.sandbox.syscall_filter import supported

pytestmark = pytest.mark.skipif(not supported(), reason="programs are confined on Linux, x86-64 and ARM64")


class ShortLimits(Limits):
    wall_seconds = 2.0


LIMITS = ShortLimits(seconds=0.5, memory_mb=512, output_bytes=2**20)
WITHOUT_LANDLOCK = """
from attnpo.evaluation.sandbox import landlock, server
landlock.version = lambda: 0
server.main()
"""

# What follows "try:" prints ESCAPED unless it raises OSError.
TRY = """
import os, sys, socket, signal, shutil, struct, ctypes, subprocess
try:
    {}
    print('ESCAPED')
except OSError:
    pass
"""
LIBC = "libc = ctypes.CDLL(None, use_errno=True); "
FAILS = "; (_ for _ in ()).throw(OSError()) if r == -1 else 0"

REFUSED = {
    # processes
    "fork": "os.fork()",
    "vfork and exec": "subprocess.run(['/bin/true'])",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {{}})",
    "shell": "assert os.system('true') != 0; raise OSError",
    "exec": "os.execv('/bin/echo', ['echo', 'ESCAPED'])",
    "raw clone": LIBC + "r = libc.syscall(56 if os.uname().machine == 'x86_64' else 220, 17, 0, 0, 0, 0)" + FAILS,
    "raw clone3": LIBC + "r = libc.syscall(435, bytes(64), 64)" + FAILS,
    # other processes
    "kills its parent": "os.kill(os.getppid(), signal.SIGKILL)",
    "kills its group": "os.kill(0, signal.SIGKILL)",
    "kills everything": "os.kill(-1, signal.SIGKILL)",
    "kills itself to look like out of memory": "os.kill(os.getpid(), signal.SIGKILL)",
    "pidfd": "signal.pidfd_send_signal(os.pidfd_open(os.getppid()), signal.SIGKILL)",
    "signals through a descriptor": "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
    "ptrace": LIBC + "r = libc.ptrace(16, os.getppid(), 0, 0)" + FAILS,
    "memory of its parent": LIBC + "r = libc.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0)" + FAILS,
    "writes to memory of its parent": "open(f'/proc/{{os.getppid()}}/mem', 'r+b')",
    "priority": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    # network
    "tcp": "socket.create_connection(('127.0.0.1', {tcp}))",
    "udp": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))",
    "unix socket": "socket.socket(socket.AF_UNIX)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "dns": "socket.getaddrinfo('example.org', 80)",
    "socket pair": "socket.socketpair()",
    # files
    "writes outside": "open('{outside}/new', 'w')",
    "appends": "open('{outside}/secret', 'a')",
    "truncates": "os.truncate('{outside}/secret', 0)",
    "opens to truncate": "os.open('{outside}/secret', os.O_RDONLY | os.O_TRUNC)",
    "deletes": "os.remove('{outside}/secret')",
    "deletes a tree": "shutil.rmtree('{outside}')",
    "renames": "os.rename('{outside}/secret', '{outside}/new')",
    "links": "os.symlink('{outside}/secret', 'link')",
    "hard link": "os.link('{outside}/secret', 'link')",
    "makes a folder": "os.mkdir('{outside}/new')",
    "makes a fifo": "os.mkfifo('{outside}/new')",
    "changes the mode": "os.chmod('{outside}/secret', 0)",
    "changes the owner": "os.chown('{outside}/secret', 1, 1)",
    "changes the time": "os.utime('{outside}/secret')",
    "/tmp": "open('/tmp/attnpo-escaped', 'w')",
    "/dev/shm": "open('/dev/shm/attnpo-escaped', 'w')",
    "shared memory": "from multiprocessing.shared_memory import SharedMemory; SharedMemory('attnpo-escaped', True, 9)",
    "unnamed file": "os.open('/tmp', os.O_TMPFILE | os.O_RDWR)",
    "its own folder": "open('file', 'w')",
    "many files": "[open(str(number), 'w') for number in range(10**6)]",
    "huge file": "os.write(os.memfd_create('x'), bytes(2**20))",
    "writes to its input": "os.write(0, b'x')",
    "raw openat2": LIBC + "r = libc.syscall(437, -100, b'{outside}/new', struct.pack('3Q', 65, 384, 0), 24)" + FAILS,
    "io_uring": LIBC + "r = libc.syscall(425, 8, bytes(120))" + FAILS,
    # the machine
    "mount": LIBC + "r = libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)" + FAILS,
    "namespaces": LIBC + "r = libc.unshare(0x10000000)" + FAILS,
    "chroot": "os.chroot('/')",
    "becomes root": "os.setuid(0)",
    "keyring": LIBC + "r = libc.syscall(250 if os.uname().machine == 'x86_64' else 219, 0, -3, 0)" + FAILS,
    "undoes its end with the parent": LIBC + "r = libc.prctl(1, 0, 0, 0, 0)" + FAILS,
    "many descriptors": "[os.dup(0) for _ in range(10**6)]",
    "reads the control pipe": "[os.read(number, 1) for number in range(4, 10**4)]",
}
HIDDEN = {  # by Landlock
    "a file": "open('{outside}/secret').read()",
    "a folder": "os.listdir('{outside}')",
    "home": "os.listdir({home!r})",
    "/etc/passwd": "open('/etc/passwd')",
    "environment of its parent": "open(f'/proc/{{os.getppid()}}/environ', 'rb').read()",
    "other processes": "os.listdir('/proc')",
    "a disk": "open('/dev/vda', 'rb')",
    "/tmp": "os.listdir('/tmp')",
}
ENDS = {
    "infinite loop": ("while True: pass", End.TOO_SLOW),
    "catches everything": (
        "import signal\nfor number in (signal.SIGXCPU, signal.SIGTERM, signal.SIGALRM, signal.SIGINT):\n"
        "    signal.signal(number, signal.SIG_IGN)\nwhile True:\n    try:\n        while True: pass\n"
        "    except BaseException: pass",
        End.TOO_SLOW,
    ),
    "sleeps": ("import time; time.sleep(1000)", End.TOO_SLOW),
    "stops itself": ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", End.TOO_SLOW),
    "never exits": ("import atexit, time; atexit.register(time.sleep, 1000)", End.TOO_SLOW),
    "closes its output and goes on": ("import os\nos.closerange(0, 9)\nwhile True: pass", End.TOO_SLOW),
    "a C call that never returns": ("10**10**10", End.TOO_SLOW),
    "slow regex": ("import re; re.match('(a|a)*b', 'a' * 99)", End.TOO_SLOW),
    "fork bomb": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", End.TOO_SLOW),
    "raises its limits": (
        "import resource\nfor kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS):\n"
        "    resource.setrlimit(kind, (-1, -1))\nwhile True: pass",
        End.TOO_SLOW,
    ),
    "prints gigabytes": ("while True: print('x' * 10**6)", End.TOO_MUCH_OUTPUT),
    "prints gigabytes of errors": ("import sys\nwhile True: print('x' * 10**6, file=sys.stderr)", End.TOO_MUCH_OUTPUT),
    "writes gigabytes to the result": ("import os\nwhile True: os.write(3, bytes(10**6))", End.TOO_MUCH_OUTPUT),
    "thread bomb": (
        "import threading, time\nthreading.stack_size(32768)\n"
        "while True: threading.Thread(target=time.sleep, args=(99,)).start()",
        End.TOO_MANY_THREADS,
    ),
    "allocates": ("x = bytearray(2**33)", End.CRASHED),
    "allocates bit by bit": ("x = []\nwhile True: x.append(bytes(2**20))", End.CRASHED),
    "maps shared memory": ("import mmap\nx = [mmap.mmap(-1, 2**26) for _ in range(99)]", End.CRASHED),
    "segfault": ("import ctypes; ctypes.string_at(0)", End.CRASHED),
    "aborts": ("import os; os.abort()", End.CRASHED),
    "deep recursion": ("def f(): f()\nf()", End.CRASHED),
    "deep recursion in C": (
        "import sys, functools; sys.setrecursionlimit(10**9)\nf = functools.cache(lambda n: f(n + 1))\nf(0)",
        End.CRASHED,
    ),
    "deep expression": ("(" * 10**5, End.CRASHED),
    "too deep for the compiler": ("x = " + "-" * 10**6 + "1", End.CRASHED),
    "leaves at once": ("import os; os._exit(3)", End.CRASHED),
    "no program": ("This is not Python.", End.CRASHED),
    "null bytes": ("print('\0')", End.CRASHED),
    "lone surrogate": ("print('\ud800')", End.CRASHED),
    "raises something odd": ("class E(BaseException):\n    def __str__(self): raise self\nraise E", End.CRASHED),
    "breaks its streams": ("import sys; sys.stdout = sys.stderr = None; 1 / 0", End.CRASHED),
    "raw system call of 32 bits": ("import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39)", End.FINISHED),
    "ends well at once": ("import os; os._exit(0)", End.FINISHED),
    "binary garbage": ("import os; os.write(1, bytes(range(256)))", End.FINISHED),
    "no newline": ("print(42, end='')", End.FINISHED),
    "100,000 characters": ("x = 0\n" + "x += 1\n" * 14_300 + "print(x)", End.FINISHED),
}


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
            patch.setattr(process, "SERVER", ["-c", WITHOUT_LANDLOCK])
        with Sandbox(1, limits=LIMITS) as made:
            yield made


@pytest.fixture
def attack(sandbox: Sandbox, outside: Outside):
    """Runs a program, and checks that nothing outside changed and that the next program is graded."""

    def run(program: str) -> Run:
        began = time.monotonic()
        result = sandbox.run(program, "input\n")
        assert time.monotonic() - began < LIMITS.wall_seconds + 5
        assert "ESCAPED" not in result.output, result
        assert result.end.is_the_programs_doing, result
        folder = Path(sandbox._folder.name)
        assert processes_in(folder) == {server._process.pid for server in sandbox._live}
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
    """Processes that stand in `folder`, whoever their parent is: a server, its runs, and all they could start."""
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
def test_what_reaches_out_is_refused(attack, outside: Outside, name: str) -> None:
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
    assert attack(program).end is end


def test_environment_and_folder_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Sandbox(1, limits=LIMITS) as made:
        listing = made.run("import os, json; print(json.dumps([sorted(os.environ), os.listdir('.')]))").output
    names, files = json.loads(listing)
    allowed = {"HOME", "LANG", "LC_CTYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    assert {name for name in names if not name.startswith("PYTHON")} <= allowed
    assert files == []


@pytest.mark.parametrize("sandbox", ["strongest"], indirect=True)
def test_a_killed_run_is_not_the_programs_doing(sandbox: Sandbox) -> None:
    """As when the kernel runs out of memory: SIGKILL from outside, and the program had time left."""
    folder, (server,) = Path(sandbox._folder.name), {server._process.pid for server in sandbox._live}

    def started() -> set[int]:
        runs = processes_in(folder) - {server}
        return {run for run in runs if "Seccomp:\t2" in Path(f"/proc/{run}/status").read_text()}

    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(sandbox.run, "import time; time.sleep(1000)")
        wait_for(lambda: bool(started()))
        time.sleep(0.05)  # from the filter to the first line
        os.kill(started().pop(), signal.SIGKILL)
        assert run.result().end is End.KILLED
    assert not End.KILLED.is_the_programs_doing


def test_a_killed_server_is_replaced() -> None:
    with Sandbox(1, limits=LIMITS) as made:
        (server,) = made._live
        os.kill(server._process.pid, signal.SIGKILL)
        assert made.run("print(1)").end is End.NOT_STARTED
        assert made.run("print(1)").output == "1\n"


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_runs_end_with_the_process_that_started_them(tmp_path: Path, ending: signal.Signals) -> None:
    script = (
        "import sys; from attnpo.evaluation.sandbox.sandbox import Sandbox\n"
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
        assert made.run("while True: pass").end is End.TOO_SLOW
        # A child in the run's own session goes with it.
        assert made.run("import os, time\nif os.fork() == 0: os.closerange(0, 9); time.sleep(99)").end is End.FINISHED
        wait_for(lambda: len(processes_in(Path(made._folder.name))) == 1)


def test_refuses_a_kernel_without_seccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = (
        "from attnpo.evaluation.sandbox import confine, server\n"
        "def refuse(): raise OSError(22, 'seccomp refused')\n"
        "confine.filter_system_calls = refuse\nserver.main()"
    )
    monkeypatch.setattr(process, "SERVER", ["-c", refusing])
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
