"""environment.json of an evaluation: under what its samples came about."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

from attnpo.data.jsonl import write_whole
from attnpo.errors import InputError
from attnpo.versions import device_names, versions_of

ENVIRONMENT = "environment.json"
_PACKAGES = ("attnpo", "torch", "transformers", "tokenizers", "peft", "math-verify", "vllm")


class Environment:
    """The file, written anew whenever something is added. A continued run adds a call and keeps the earlier ones."""

    def __init__(self, folder: Path, command: str) -> None:
        self._file = folder / ENVIRONMENT
        self._facts: dict[str, Any] = {"calls": []}
        if self._file.is_file():
            try:
                self._facts = json.loads(self._file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{self._file}: not valid JSON: {error}") from error
        self._started = time.monotonic()
        self._call = {
            "command": command,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": versions(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "devices": device_names(),
            "threads": torch.get_num_threads(),
        }
        self._facts["calls"].append(self._call)

    @property
    def changed_versions(self) -> list[str]:
        """Packages whose version is not that of the first call."""
        first, now = self._facts["calls"][0]["versions"], self._call["versions"]
        return [f"{name} {first.get(name)} → {now.get(name)}" for name in now if first.get(name) != now[name]]

    def write(self, *, call: dict[str, Any] | None = None, **facts: Any) -> None:
        """Add facts about the run, and about this call."""
        self._facts |= facts
        self._call |= {**(call or {}), "seconds": round(time.monotonic() - self._started, 1)}
        write_whole(self._file, json.dumps(self._facts, indent=1, ensure_ascii=False).encode() + b"\n")


def versions() -> dict[str, str]:
    """Those of the packages on which samples and results depend, as far as they are installed."""
    return versions_of(_PACKAGES)
