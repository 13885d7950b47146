"""Landlock: of the whole file system, a run can read a list of folders. See landlock(7).

The rules are made once and put in force by every run for itself. No privilege is needed, and nothing can lift them.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every processor
VERSION_FLAG, RULE_PATH_BENEATH = 1, 1
READ_FILE, READ_DIR = 1 << 2, 1 << 3

RIGHTS_OF_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many kinds of access to files a version of Landlock knows; 16 since version 5."""

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Version of Landlock on this kernel; 0 where it is absent or switched off."""
    return max(0, _libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG)))


def make_ruleset(readable: Iterable[str]) -> int:
    """A descriptor of rules: these files and folders can be read, nothing else can be done with any file.

    Connections, abstract Unix sockets and signals to outside are refused too where the version knows of them.
    """
    known = version()
    handled = (1 << RIGHTS_OF_VERSION.get(known, 16)) - 1
    network = 0b11 if known >= 4 else 0
    scopes = 0b11 if known >= 6 else 0
    attributes = struct.pack("<QQQ", handled, network, scopes)[: 24 if known >= 6 else 16 if known >= 4 else 8]
    ruleset = _call(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    for path in readable:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        rights = READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE
        try:
            _call(ADD_RULE, ruleset, RULE_PATH_BENEATH, struct.pack("<Qi", rights, descriptor), ctypes.c_uint32(0))
        finally:
            os.close(descriptor)
    return ruleset


def restrict(ruleset: int) -> None:
    """Put the rules in force for this thread, for good; needs no_new_privs."""
    _call(RESTRICT_SELF, ruleset, ctypes.c_uint32(0))


def _call(number: int, *arguments: object) -> int:
    result = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock (system call {number}): {os.strerror(code)}")
    return result
