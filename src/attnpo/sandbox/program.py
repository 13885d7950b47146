"""The forked process: sets up streams and confinement, runs the program, and exits."""

from __future__ import annotations

import atexit
import builtins
import json
import os
import sys
import threading
import traceback
from types import ModuleType
from typing import Any, NoReturn

from attnpo.sandbox import confine

READY = b"ready\n"
"""First bytes on the result descriptor, when the confinement is in force and the program is about to start."""
RESULT = 3
RECURSION_LIMIT = INTEGER_DIGITS = 50_000
"""As in LiveCodeBench's checker."""
MOST_FRAMES = 5
"""Innermost frames of a traceback that are printed: printing 50,000 takes longer than most programs."""

# Answers are written for a checker that has imported all of this, as LiveCodeBench's has.
PRELUDE = """
from string import *
from re import *
from datetime import *
from collections import *
from heapq import *
from bisect import *
from copy import *
from math import *
from random import *
from statistics import *
from itertools import *
from functools import *
from operator import *
from io import *
from sys import *
from json import *
from builtins import *
from typing import *
import string, re, datetime, collections, heapq, bisect, copy, math, random, statistics
import itertools, functools, operator, io, sys, json
"""


def import_prelude() -> dict[str, Any]:
    """Return the names that are defined in every program."""
    builtins.exit = builtins.quit = sys.exit  # site defines them otherwise
    names: dict[str, Any] = {}
    exec(PRELUDE, names)
    return {name: value for name, value in names.items() if not name.startswith("__")}


def become(
    request: dict[str, Any], names: dict[str, Any], descriptors: tuple[int, int, int, int], ruleset: int | None
) -> NoReturn:
    """Turn this process into a run of the program.

    Args:
        request: program, function, arguments and limits, as in :mod:`.server`.
        descriptors: of standard input, output, errors, and the result; all above 3, like the ruleset.
        ruleset: descriptor of the Landlock rules, if there are any.
    """
    status = 1
    try:
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
        _open_streams()
        os.setsid()
        confine.die_with(request["parent"])
        if request["confined"]:
            confine.be_first_to_go()
            confine.drop_privileges(ruleset)
        os.closerange(RESULT + 1, confine.DESCRIPTORS)  # the server's own pipes among them
        confine.set_limits(request["seconds"], request["memory_mb"])
        if request["confined"]:
            confine.filter_system_calls()
        os.write(RESULT, READY)
        status = _run(request, names)
    except BaseException as error:  # noqa: BLE001 - before the program: the sandbox failed; after it: a broken stream
        os.write(2, f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
    finally:
        os._exit(status)


def _open_streams() -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        mode = "r" if number == 0 else "w"
        stream = open(number, mode, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _run(request: dict[str, Any], names: dict[str, Any]) -> int:
    """Run the program to its end and return the exit status. sys.exit is a normal end, as in LiveCodeBench."""
    stdout = sys.stdout
    sys.argv = ["program.py"]
    sys.setrecursionlimit(RECURSION_LIMIT)
    sys.set_int_max_str_digits(INTEGER_DIGITS)
    function = request["function"]
    # A program for a function often ends with examples under __main__, which must not run.
    module = ModuleType("__main__" if function is None else "solution")
    module.__dict__.update(names, stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr)
    sys.modules[module.__name__] = module
    status = 0
    try:
        exec(compile(request["program"], "program.py", "exec"), module.__dict__)
        if function is not None:
            _send(_find(module, function)(*request["arguments"]))
    except SystemExit:
        pass
    except BaseException as error:  # noqa: BLE001 - any exception ends the program
        status = 1
        traceback.print_exception(error, limit=-MOST_FRAMES)
    threading._shutdown()  # type: ignore[attr-defined] - waits for threads, as at the end of any program
    atexit._run_exitfuncs()
    for stream in (sys.stdout, stdout, sys.stderr):
        stream.flush()
    return status


def _find(module: ModuleType, function: str) -> Any:
    """Return the function under test: a method of class Solution (LeetCode's form), or a function of the module."""
    holder = module.Solution() if hasattr(module, "Solution") else module
    return getattr(holder, function)


def _send(value: Any) -> None:
    """Write the function's return value. Arrays and numbers of numpy are sent as lists and numbers."""
    payload = json.dumps(value, default=lambda other: other.tolist()).encode()
    while payload:
        payload = payload[os.write(RESULT, payload) :]
