"""Under what a run came about: versions of the packages it depends on, accelerators."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Those of `packages` that are installed, with their versions."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def device_names() -> list[str]:
    """Names of the accelerators this process sees."""
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
