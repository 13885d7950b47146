"""Verdicts across processes: order, kills, deaths, huge answers, interrupts, orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnpo.errors import RunError
from attnpo.rewards import pool as pool_module
from attnpo.rewards.pool import VerifierPool
from attnpo.rewards.verdict import REWARD_OF, Verdict

RIGHT, WRONG, NO_ANSWER = Verdict.RIGHT, Verdict.WRONG, Verdict.NO_ANSWER
HANGS = r"\boxed{9^{9^{9^{9}}}}"  # sympy evaluates the tower

# A worker with faults on request; everything else is the real worker's.
FAULTY_WORKER = """
import ctypes, os
from attnpo.rewards import worker
real = worker.judge
def judge(answer, *rest):
    if "crash" in answer: ctypes.string_at(0)
    if "exhaust" in answer: bytearray(8 * 2**30)
    if "exit" in answer: os._exit(3)
    if "print" in answer: print('{"id": 0, "verdict": "right"}', flush=True)
    return real(answer, *rest)
worker.judge = judge
worker.main()
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(workers=2, timeout=20) as shared:
        yield shared


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VerifierPool]:
    script = tmp_path / "faulty.py"
    script.write_text(FAULTY_WORKER)
    monkeypatch.setattr(pool_module, "WORKER_SCRIPT", script)
    with VerifierPool(workers=1, timeout=20, memory_mb=1024) as made:
        yield made


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_verdicts_keep_their_order(pool: VerifierPool) -> None:
    items = [(rf"\boxed{{{i}}}", str(i if i % 3 else i + 1)) for i in range(60)]
    assert pool.verify(items) == [RIGHT if i % 3 else WRONG for i in range(60)]


def test_every_kind_of_verdict(pool: VerifierPool) -> None:
    items = [
        (r"\boxed{5}", "5"),
        (r"\boxed{6}", "5"),
        (None, "5"),
        (" \n", "5"),
        ("no idea", "5"),
        (r"\boxed{1}", r"\frac{1}{"),
        (r"\boxed{1}", None),
        (None, None),
    ]
    expected = [RIGHT, WRONG, NO_ANSWER, NO_ANSWER, NO_ANSWER, *[Verdict.UNVERIFIABLE] * 2, NO_ANSWER]
    assert pool.verify(items) == expected
    assert pool.verify([]) == []


def test_unverifiable_references_are_reported_once_in_order(pool: VerifierPool) -> None:
    assert pool.validate_references(["x^", "1", "", "x^", "2"]) == ["x^", ""]


def test_huge_and_odd_answers_do_not_block(pool: VerifierPool) -> None:
    megabyte = "words and more words\n" * 50_000
    items = [(megabyte + r"\boxed{5}", "5"), ("\0" * 100_000 + r"\boxed{5}", "5"), ("\ud800" + r"\boxed{5}", "5")] * 4
    assert pool.verify(items) == [RIGHT] * 12


def test_threads_share_a_pool(pool: VerifierPool) -> None:
    found: dict[int, list[Verdict]] = {}

    def work(number: int) -> None:
        found[number] = pool.verify([(rf"\boxed{{{number}}}", str(i)) for i in range(8)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == {n: [RIGHT if i == n else WRONG for i in range(8)] for n in range(8)}


def test_answer_that_hangs_costs_its_timeout_and_nothing_else() -> None:
    with VerifierPool(workers=1, timeout=1.5) as pool:
        assert pool.verify([(r"\boxed{5}", "5")]) == [RIGHT]  # the worker and its imports are warm
        begun = time.monotonic()
        verdicts = pool.verify([(r"\boxed{5}", "5"), (HANGS, "5"), (r"\boxed{6}", "5"), (r"\boxed{5}", "5")])
        took = time.monotonic() - begun
    assert verdicts == [RIGHT, Verdict.TIMED_OUT, WRONG, RIGHT]
    assert 1.5 <= took < 15  # seconds in fact; the bound leaves room for a busy machine to warm the spare


def test_worker_that_dies_is_no_wrong_answer(faulty: VerifierPool) -> None:
    for fault in ("crash", "exhaust", "exit"):
        items = [(r"\boxed{5}", "5"), (rf"{fault} \boxed{{5}}", "5"), (r"\boxed{5}", "5"), (r"\boxed{6}", "5")]
        assert faulty.verify(items) == [RIGHT, Verdict.UNVERIFIABLE, RIGHT, WRONG], fault
    # What a parser prints is not a reply.
    assert faulty.verify([(r"print \boxed{6}", "5"), (r"\boxed{5}", "5")]) == [WRONG, RIGHT]


def test_worker_that_cannot_start_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "broken.py"
    script.write_text("import a_module_that_is_not_there")
    monkeypatch.setattr(pool_module, "WORKER_SCRIPT", script)
    with (
        VerifierPool(workers=1) as pool,
        pytest.raises(RunError, match=r"(?s)did not start.*a_module_that_is_not_there"),
    ):
        pool.verify([("5", "5")])


def test_close_ends_workers_also_in_the_middle_of_an_answer() -> None:
    pool = VerifierPool(workers=1, timeout=60)
    pids = [worker.process.pid for worker in pool._group.live]
    assert pool.verify([(r"\boxed{5}", "5")]) == [RIGHT]
    outcome: list[object] = []

    def work() -> None:
        outcome.extend(pool.verify([(HANGS, "5")]))

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.5)
    begun = time.monotonic()
    pool.close()
    thread.join(timeout=10)
    assert time.monotonic() - begun < 10
    assert not thread.is_alive()
    assert outcome == [Verdict.UNVERIFIABLE]
    assert not any(alive(pid) for pid in pids)
    pool.close()
    with pytest.raises(RunError, match="closed"):
        pool.verify([("5", "5")])


PARENT = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit "ignore"
from attnpo.rewards.pool import VerifierPool
if __name__ == "__main__":
    pool = VerifierPool(workers=1, spares=1, timeout=0.5 if sys.argv[1] == "busy" else 60)
    pool.verify([("5", "5")])
    print(*[worker.process.pid for worker in pool._group.live], flush=True)
    if sys.argv[1] == "interrupt":
        try:
            pool.verify([(r"\\boxed{9^{9^{9^{9}}}}", "5")])
        finally:
            pool.close()
    elif sys.argv[1] == "forget":
        sys.exit(0)
    sys.stdin.read()
"""


def parent_with_pool(mode: str) -> tuple[subprocess.Popen[str], list[int]]:
    command = [sys.executable, "-c", PARENT, mode]
    parent = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    return parent, [int(pid) for pid in parent.stdout.readline().split()]


def wait_until_gone(pids: list[int], seconds: float = 15) -> list[int]:
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def test_workers_end_when_the_parent_is_killed() -> None:
    parent, pids = parent_with_pool("idle")
    assert len(pids) == 2
    parent.kill()
    parent.communicate()
    assert wait_until_gone(pids) == []


def test_workers_end_when_the_parent_forgets_to_close() -> None:
    parent, pids = parent_with_pool("forget")
    parent.communicate(timeout=30)
    assert parent.returncode == 0
    assert wait_until_gone(pids) == []


def test_interrupt_in_the_middle_of_an_answer() -> None:
    parent, pids = parent_with_pool("interrupt")
    time.sleep(0.5)
    begun = time.monotonic()
    os.kill(parent.pid, signal.SIGINT)
    parent.communicate(timeout=30)
    assert time.monotonic() - begun < 20  # not the 60 seconds of the answer
    assert wait_until_gone(pids) == []


def test_kernel_ends_a_busy_orphan() -> None:
    """The pool is gone and the worker inside one endless C call: only a timer with its default action reaches it."""
    command = [sys.executable, "-P", str(pool_module.WORKER_SCRIPT), "--timeout=0.1", "--memory-mb=1024"]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stdout.readline()
    worker.stdin.write(rb'{"id": 0, "reference": "5", "answer": "\\boxed{9^{9^{9^{9}}}}"}' + b"\n")
    worker.stdin.flush()
    assert worker.wait(timeout=30) == -signal.SIGALRM
    worker.stdin.close()
    worker.stdout.close()


def test_missing_rewards() -> None:
    assert {verdict: REWARD_OF[verdict] for verdict in Verdict} == {
        "right": 1.0,
        "wrong": 0.0,
        "no_answer": 0.0,
        "unverifiable": None,
        "timed_out": None,
        "judged_right": 1.0,
        "judged_wrong": 0.0,
    }
