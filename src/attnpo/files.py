"""Files that a reader never sees half-written."""

from __future__ import annotations

from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Put `content` in place at once: whoever is killed in between leaves the file as it was."""
    partial = file.with_name(f".{file.name}.part")
    partial.write_bytes(content)
    partial.replace(file)
