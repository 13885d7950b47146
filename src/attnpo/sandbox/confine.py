"""Confinement of a run before its program is read: limits, privileges, files, system calls. It cannot be undone.

Landlock (Linux, see landlock(7)) restricts a run to reading a list of folders. The rules are made once, and every run
puts them in force for itself; no privilege is needed, and nothing can lift them.

A seccomp filter, a classic BPF program, restricts the system calls. Calls that are not listed fail with ENOSYS, as on a
kernel too old to have them: libraries fall back (clone3 to clone) and Python raises OSError. The listed calls are those
that a computing Python program with threads needs; none of them creates, changes or removes files, opens sockets,
starts processes or reaches another process. Calls that are harmless only with some arguments are allowed with those;
the kernel reads these arguments as 32-bit numbers or flags, so only the lower half is compared. See seccomp(2) and
the kernel's Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import math
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every processor
VERSION_FLAG, RULE_PATH_BENEATH = 1, 1
READ_FILE, READ_DIR = 1 << 2, 1 << 3

RIGHTS_OF_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}
"""Number of kinds of file access that a version of Landlock knows; 16 since version 5."""

_libc = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """Return the version of Landlock on this kernel; 0 if it is absent or disabled."""
    return max(0, _libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG)))


def make_ruleset(readable: Iterable[str]) -> int:
    """Return a descriptor of rules: these files and folders can be read, no other access to any file is possible.

    Connections, abstract Unix sockets and signals to other processes are refused too if the version supports it.
    """
    known = landlock_version()
    handled = (1 << RIGHTS_OF_VERSION.get(known, 16)) - 1
    network = 0b11 if known >= 4 else 0
    scopes = 0b11 if known >= 6 else 0
    attributes = struct.pack("<QQQ", handled, network, scopes)[: 24 if known >= 6 else 16 if known >= 4 else 8]
    ruleset = _landlock(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    for path in readable:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        rights = READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE
        try:
            _landlock(ADD_RULE, ruleset, RULE_PATH_BENEATH, struct.pack("<Qi", rights, descriptor), ctypes.c_uint32(0))
        finally:
            os.close(descriptor)
    return ruleset


def restrict_files(ruleset: int) -> None:
    """Put the rules in force for this thread, permanently; needs no_new_privs."""
    _landlock(RESTRICT_SELF, ruleset, ctypes.c_uint32(0))


def _landlock(number: int, *arguments: object) -> int:
    result = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock (system call {number}): {os.strerror(code)}")
    return result


DESCRIPTORS = 64
STACK = 128 * 2**20
"""Bytes of the main thread's stack: the space that the kernel keeps free below it in any case."""

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def set_limits(seconds: float, memory_mb: int) -> None:
    """Limit CPU time, address space, files, descriptors, core dumps and stack."""
    # The server enforces the exact time; this is a second limit, in whole seconds and measured by samples.
    # Hard and soft limits are equal: at the soft limit the kernel sends SIGXCPU, which a program can ignore.
    _lower(resource.RLIMIT_CPU, math.ceil(1.5 * seconds))
    _lower(resource.RLIMIT_FSIZE, 0)  # pipes are not files
    _lower(resource.RLIMIT_NOFILE, DESCRIPTORS)
    _lower(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":  # elsewhere the kernel refuses or ignores these
        _lower(resource.RLIMIT_AS, memory_mb * 2**20)
        _lower(resource.RLIMIT_STACK, STACK)


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies (Linux)."""
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def drop_privileges(ruleset: int | None) -> None:
    """Drop all capabilities (root has them) and the right to gain any; then access to all files not in the ruleset."""
    header = struct.pack("<Ii", CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, struct.pack("<6I", *[0] * 6)) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    if ruleset is not None:
        restrict_files(ruleset)


def filter_system_calls() -> None:
    """Allow the listed system calls only."""
    instructions = build_filter(os.getpid())
    program = _Program(len(instructions) // 8, instructions)
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))


def be_first_to_go() -> None:
    """Have the kernel end this process before all others if the machine runs out of memory (Linux)."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:  # no /proc, or not Linux: a preference, not a guarantee
        pass


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _prctl(option: int, *values: int) -> None:
    arguments = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    if _libc.prctl(option, *arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option}: {os.strerror(code)}")


# name, number on x86-64, number on ARM64 (-: none). The most frequent ones come first.
UNCONDITIONAL = """
    read 0 63, write 1 64, mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, brk 12 214, madvise 28 233,
    futex 202 98, lseek 8 62, close 3 57, fstat 5 80, newfstatat 262 79, stat 4 -, lstat 6 -, statx 332 291,
    readv 19 65, pread64 17 67, access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78,
    getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, statfs 137 43, fstatfs 138 44, fadvise64 221 223,
    writev 20 66, pwrite64 18 68, dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -, pipe2 293 59, close_range 436 436,
    poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -,
    epoll_pwait 281 22, eventfd2 290 19, mincore 27 232, msync 26 227, membarrier 324 283, set_robust_list 273 99,
    get_robust_list 274 100, set_tid_address 218 96, rseq 334 293, arch_prctl 158 -, sched_yield 24 124,
    sched_getaffinity 204 123, sched_getparam 143 121, sched_getscheduler 145 120, getcpu 309 168, nanosleep 35 101,
    clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169, time 201 -,
    times 100 153, getitimer 36 102, setitimer 38 103, alarm 37 -, pause 34 -, getrusage 98 165, sysinfo 99 179,
    uname 63 160, getrandom 318 278, getpid 39 172, gettid 186 178, getppid 110 173, getuid 102 174, geteuid 107 175,
    getgid 104 176, getegid 108 177, getgroups 115 158, getresuid 118 148, getresgid 120 150, getpgrp 111 -,
    getpgid 121 155, getsid 124 156, getpriority 140 141, getrlimit 97 163, umask 95 166, sigaltstack 131 132,
    restart_syscall 219 128, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
    rt_sigtimedwait 128 137, rt_sigsuspend 130 133, wait4 61 260, waitid 247 95, exit 60 93, exit_group 231 94
"""
CONDITIONAL = """
    open 2 -, openat 257 56, fcntl 72 25, ioctl 16 29, prctl 157 167, kill 62 129, tgkill 234 131, clone 56 220,
    setrlimit 160 164, prlimit64 302 261
"""
MACHINES = ("x86_64", "aarch64")
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Opcodes of classic BPF (linux/bpf_common.h): load a word; jump if equal, if any bit is set; return.
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h
NUMBER_AT, ARCH_AT, ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data

CLONE_THREAD = 0x10000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
FCNTL = (  # not F_SETOWN and F_SETSIG, which send signals to other processes, nor locks, which block other processes
    fcntl.F_DUPFD,
    fcntl.F_DUPFD_CLOEXEC,
    fcntl.F_GETFD,
    fcntl.F_SETFD,
    fcntl.F_GETFL,
    fcntl.F_SETFL,
)
IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS (isatty), TIOCGWINSZ, FIONREAD, FIONBIO, FIO(N)CLEX
PRCTL = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA

Instruction = tuple[int, int, int, int]
"""Opcode, jump if true, jump if false (both count instructions to skip), constant."""


def supported() -> bool:
    """Return whether there is a filter for this system; the kernel may still refuse it."""
    return platform.system() == "Linux" and platform.machine() in MACHINES and struct.calcsize("P") == 8


def build_filter(pid: int, machine: str | None = None) -> bytes:
    """Return the filter for the process `pid`, a sequence of struct sock_filter."""
    machine = machine or platform.machine()
    plain, number = _numbers(UNCONDITIONAL, machine), _numbers(CONDITIONAL, machine)
    program: list[Instruction] = [
        _load(ARCH_AT),
        (EQUAL, 1, 0, AUDIT_ARCH[machine]),
        _answer(KILL),  # 32-bit calls have other numbers
        _load(NUMBER_AT),
    ]
    for value in plain.values():
        program += [(EQUAL, 0, 1, value), _answer(ALLOW)]

    def rule(name: str, body: list[Instruction]) -> None:
        if name in number:
            program.extend([(EQUAL, 0, len(body), number[name]), *body])

    for name, flags in (("open", 1), ("openat", 2)):
        rule(name, [_argument(flags), (ANY_BIT, 0, 1, WRITING), _answer(ERRNO | errno.EROFS), _answer(ALLOW)])
    for name, option, values in (("fcntl", 1, FCNTL), ("ioctl", 1, IOCTL), ("prctl", 0, PRCTL)):
        rule(name, [_argument(option), *_allow_only(values)])
    # abort() and raise() are allowed, SIGKILL is not: a run that ended by SIGKILL was killed from outside.
    for name, signal_at in (("kill", 1), ("tgkill", 2)):
        to_itself = [_argument(0), (EQUAL, 1, 0, pid), _answer(ERRNO | errno.EPERM)]
        not_killing = [_argument(signal_at), (EQUAL, 0, 1, signal.SIGKILL), _answer(ERRNO | errno.EPERM)]
        rule(name, [*to_itself, *not_killing, _answer(ALLOW)])
    rule("clone", [_argument(0), (ANY_BIT, 1, 0, CLONE_THREAD), _answer(ERRNO | errno.EPERM), _answer(ALLOW)])
    # Programs often raise their stack limit, which is high already: the call does nothing and succeeds (errno 0).
    rule("setrlimit", [_answer(ERRNO)])
    reads_only = [
        _load(ARGUMENTS_AT + 8 * 2), (EQUAL, 0, 3, 0),
        _load(ARGUMENTS_AT + 8 * 2 + 4), (EQUAL, 0, 1, 0), _answer(ALLOW), _answer(ERRNO),
    ]  # fmt: skip
    rule("prlimit64", reads_only)
    program.append(_answer(ERRNO | errno.ENOSYS))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _numbers(table: str, machine: str) -> dict[str, int]:
    column = 1 + MACHINES.index(machine)
    rows = [row.split() for row in table.split(",")]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def _load(offset: int) -> Instruction:
    return (LOAD, 0, 0, offset)


def _argument(index: int) -> Instruction:
    """Load the lower 32 bits of an argument (both machines are little-endian)."""
    return _load(ARGUMENTS_AT + 8 * index)


def _answer(action: int) -> Instruction:
    return (RETURN, 0, 0, action)


def _allow_only(values: Iterable[int]) -> list[Instruction]:
    checks = [step for value in values for step in ((EQUAL, 0, 1, value), _answer(ALLOW))]
    return [*checks, _answer(ERRNO | errno.EINVAL)]
