r"""The parser's runtime of the verifying processes: one release, whatever else is installed.

math-verify reads LaTeX by a parser of ANTLR's, in one of three versions by the runtime it finds. Hydra, and so verl,
pins runtime 4.9.3, under which `50\%` cannot be read: verdicts would depend on what is installed beside this package.
The processes get 4.13.2 put before it, from the wheel that this package ships; nothing else sees it.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RELEASE = "4.13.2"
WHEEL = Path(__file__).parent / "runtime" / f"antlr4_python3_runtime-{RELEASE}-py3-none-any.whl"


def needed() -> list[str]:
    """What has to stand first in a verifying process's module path; nothing where that release is installed."""
    return [] if installed() == RELEASE else [str(WHEEL)]


def installed() -> str | None:
    """The release of the runtime that other processes get; None: there is none."""
    try:
        return version("antlr4-python3-runtime")
    except PackageNotFoundError:
        return None
