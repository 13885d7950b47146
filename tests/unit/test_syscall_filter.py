"""The filter of both processors, run by a small BPF machine: what the kernel would answer to a system call."""

from __future__ import annotations

import errno
import os
import signal
import struct

import pytest

from attnpo.sandbox.confine import AUDIT_ARCH, CONDITIONAL, MACHINES, UNCONDITIONAL, build_filter

ALLOWED, PID = None, 4321
MACHINE = pytest.mark.parametrize("machine", MACHINES)


def answer(machine: str, number: int, *arguments: int, arch: int | None = None) -> int | str | None:
    """None: the call is made; "killed"; or the error number, where 0 pretends that it was made."""
    arch = AUDIT_ARCH[machine] if arch is None else arch
    data = struct.pack("<iIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    program = list(struct.iter_unpack("<HBBI", build_filter(PID, machine)))
    word = at = 0
    while True:
        code, yes, no, constant = program[at]
        at += 1
        if code == 0x20:
            (word,) = struct.unpack_from("<I", data, constant)
        elif code == 0x15:
            at += yes if word == constant else no
        elif code == 0x45:
            at += yes if word & constant else no
        else:
            assert code == 0x06
            return {0x7FFF0000: ALLOWED, 0x80000000: "killed"}.get(constant, constant & 0xFFFF)


def number_of(name: str, machine: str) -> int:
    rows = [row.split() for row in (UNCONDITIONAL + "," + CONDITIONAL).split(",")]
    return int(next(row for row in rows if row[0] == name)[1 + MACHINES.index(machine)])


@MACHINE
def test_everything_listed_is_allowed_and_nothing_else(machine: str) -> None:
    rows = [row.split() for row in UNCONDITIONAL.split(",")]
    listed = {int(row[1 + MACHINES.index(machine)]) for row in rows if row[1 + MACHINES.index(machine)] != "-"}
    conditional = {number_of(row.split()[0], machine) for row in CONDITIONAL.split(",") if "-" not in row}
    conditional |= {number_of("open", machine)} if machine == "x86_64" else set()
    for number in set(range(600)) - conditional:
        assert answer(machine, number) == (ALLOWED if number in listed else errno.ENOSYS), number


@pytest.mark.parametrize(
    ("machine", "forbidden"),
    [
        # socket, socketpair, fork, vfork, execve, ptrace, unlink, memfd_create, clone3, io_uring_setup, openat2
        ("x86_64", [41, 53, 57, 58, 59, 101, 87, 319, 435, 425, 437]),
        # socket, socketpair, execve, ptrace, unlinkat, memfd_create, clone3, io_uring_setup, openat2
        ("aarch64", [198, 199, 221, 117, 35, 279, 435, 425, 437]),
    ],
)
def test_dangerous_calls_are_not_listed(machine: str, forbidden: list[int]) -> None:
    for number in forbidden:
        assert answer(machine, number, 1, 1, 1) == errno.ENOSYS


@MACHINE
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("openat", (0, 0, os.O_RDONLY | os.O_CLOEXEC), ALLOWED),
        ("openat", (0, 0, os.O_WRONLY), errno.EROFS),
        ("openat", (0, 0, os.O_RDWR), errno.EROFS),
        ("openat", (0, 0, os.O_RDONLY | os.O_CREAT), errno.EROFS),
        ("openat", (0, 0, os.O_RDONLY | os.O_TRUNC), errno.EROFS),
        ("openat", (0, 0, 2**32 + os.O_WRONLY), errno.EROFS),
        ("clone", (0x3D0F00,), ALLOWED),  # as glibc starts a thread
        ("clone", (signal.SIGCHLD,), errno.EPERM),
        ("clone", (0x4000 | 0x100 | signal.SIGCHLD,), errno.EPERM),  # vfork
        ("kill", (PID, signal.SIGTERM), ALLOWED),
        ("kill", (PID, signal.SIGKILL), errno.EPERM),
        ("kill", (PID + 1, signal.SIGTERM), errno.EPERM),
        ("kill", (2**64 - 1, signal.SIGTERM), errno.EPERM),
        ("tgkill", (PID, PID, signal.SIGABRT), ALLOWED),
        ("tgkill", (PID + 1, PID, signal.SIGABRT), errno.EPERM),
        ("prctl", (15,), ALLOWED),
        ("prctl", (1,), errno.EINVAL),
        ("fcntl", (0, 3), ALLOWED),
        ("fcntl", (0, 8), errno.EINVAL),
        ("ioctl", (0, 0x5401), ALLOWED),
        ("ioctl", (0, 0x5412), errno.EINVAL),
        ("prlimit64", (0, 3, 0), ALLOWED),
        ("prlimit64", (0, 3, 0x7FFF0000), 0),
        ("prlimit64", (0, 3, 0x7FFF00000000), 0),
        ("setrlimit", (3, 0x7FFF0000), 0),
    ],
)
def test_arguments_decide(machine: str, name: str, arguments: tuple[int, ...], expected: int | None) -> None:
    assert answer(machine, number_of(name, machine), *arguments) == expected


@MACHINE
def test_other_architectures_are_killed(machine: str) -> None:
    """32-bit programs on the same processor have other numbers for the same calls."""
    assert answer(machine, 0, arch=0x40000003) == "killed"


@MACHINE
def test_filter_is_a_valid_bpf_program(machine: str) -> None:
    """Its own conditions: at most 4096 instructions, every jump lands inside, the last one returns."""
    steps = list(struct.iter_unpack("<HBBI", build_filter(PID, machine)))
    assert len(steps) <= 4096
    for index, (code, yes, no, _) in enumerate(steps):
        assert code == 0x06 or index + 1 + max(yes, no) < len(steps)
    assert steps[-1][0] == 0x06
