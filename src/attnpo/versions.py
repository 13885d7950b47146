"""Versions of the packages that a run depends on, and its accelerators."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those `packages` that are installed."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def device_names() -> list[str]:
    """Return the names of the GPUs visible to this process."""
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
