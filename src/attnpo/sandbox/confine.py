"""What a run gives up before its program is read: limits, privileges, files, system calls. Nothing brings them back.

Landlock (Linux, see landlock(7)) makes a list of folders all that a run can read of the file system. The rules are made
once and put in force by every run for itself; no privilege is needed, and nothing can lift them.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable

from attnpo.sandbox.syscall_filter import build_filter

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every processor
VERSION_FLAG, RULE_PATH_BENEATH = 1, 1
READ_FILE, READ_DIR = 1 << 2, 1 << 3

RIGHTS_OF_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many kinds of access to files a landlock_version of Landlock knows; 16 since landlock_version 5."""

_libc = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """Version of Landlock on this kernel; 0 where it is absent or switched off."""
    return max(0, _libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG)))


def make_ruleset(readable: Iterable[str]) -> int:
    """A descriptor of rules: these files and folders can be read, nothing else can be done with any file.

    Connections, abstract Unix sockets and signals to outside are refused too where the landlock_version knows of them.
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
    """Put the rules in force for this thread, for good; needs no_new_privs."""
    _landlock(RESTRICT_SELF, ruleset, ctypes.c_uint32(0))


def _landlock(number: int, *arguments: object) -> int:
    result = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock (system call {number}): {os.strerror(code)}")
    return result


DESCRIPTORS = 64
STACK = 128 * 2**20
"""Bytes of the main thread's stack: what the kernel keeps free below it in any case."""

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def set_limits(seconds: float, memory_mb: int) -> None:
    """CPU time, address space, files, descriptors, core dumps and stack."""
    # The server keeps the exact time. This is for when it cannot: whole seconds, and measured by samples.
    # Hard and soft limits are the same: at the soft one comes SIGXCPU, which a program can ignore.
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
    """Give up all capabilities (root has them) and the right to gain any; then all files but the ruleset's."""
    header = struct.pack("<Ii", CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, struct.pack("<6I", *[0] * 6)) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    if ruleset is not None:
        restrict_files(ruleset)


def filter_system_calls() -> None:
    """Keep the listed system calls only."""
    instructions = build_filter(os.getpid())
    program = _Program(len(instructions) // 8, instructions)
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))


def be_first_to_go() -> None:
    """When the machine runs out of memory, this process shall be ended and no other (Linux)."""
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
