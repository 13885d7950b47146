"""A warm interpreter that forks one process per run. :class:`.process.ServerProcess` starts it and talks to it.

It reads a JSON request per line, answers with a JSON line, and ends when its input ends. Nothing of a program is run,
or even compiled, in this process.

Requests: {"id", "program", "stdin", "function", "arguments", "seconds", "wall_seconds", "memory_mb", "output_bytes"};
"function" is null for a program that reads standard input. Replies: {"id", "end", "output", "result", "error",
"seconds"}; see :class:`.records.Run`.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import sysconfig
from typing import Any

from attnpo.evaluation.sandbox import confine, landlock
from attnpo.evaluation.sandbox.program import become, import_prelude
from attnpo.evaluation.sandbox.supervise import Supervised


def readable() -> list[str]:
    """What importing modules needs: Python's folders, shared libraries, time zones; and the empty current folder."""
    python = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")] + [f"{sys.base_prefix}/lib", *sys.path]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache"]
    devices = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"]
    return list(dict.fromkeys(path for path in [*python, *system, *devices, os.getcwd()] if path))


def main() -> None:
    """Command line: the folders to import from, then "confined" or "limits only"."""
    *folders, mode = sys.argv[1:]
    home = os.environ.pop("PYTHONPATH")  # where this package is, which programs have no use for
    sys.path[:] = [*(path for path in sys.path if path != home), *folders]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (confine.DESCRIPTORS, most))
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")  # descriptor 3
    os.dup2(2, 1)
    confined = mode == "confined"
    ruleset = landlock.make_ruleset(readable()) if confined and landlock.version() else None
    names = import_prelude()
    gc.freeze()  # never collected, so that the forks go on sharing it

    def send(reply: dict[str, Any]) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    send({"landlock": ruleset is not None})
    for line in sys.stdin:
        request = {**json.loads(line), "parent": os.getpid(), "confined": confined}
        run = Supervised(request, lambda ends: become(request, names, ends, ruleset), sys.stdin.fileno())  # noqa: B023
        send({"id": request["id"], **run.see_to_its_end()})


if __name__ == "__main__":
    main()
