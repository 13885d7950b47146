"""One process writes into a run folder at a time.

The lock is the operating system's and goes with the process that holds it, however it ends; the file it is on says who.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attnpo.errors import InputError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock.

    Raises:
        InputError: another process holds it; says which, on which machine, since when.
    """
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"option output_dir: a run is writing into {folder} already: {_holder(file.read())}. Wait for it, "
                "or take another folder"
            ) from None
        except OSError:
            yield  # a file system without locks: better a run than none
            return
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = {"process": os.getpid(), "machine": platform.node(), "since": since, "command": sys.argv}
        file.write(json.dumps(holder) + "\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _holder(text: str) -> str:
    """Who holds a lock, out of what its file says."""
    try:
        holder = json.loads(text)
        return f"process {holder['process']} on {holder['machine']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # being written this very moment
        return "another process"
