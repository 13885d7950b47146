"""Names by which the page tells its sources apart."""

from __future__ import annotations

from pathlib import Path


def distinct(named: list[tuple[str, Path]]) -> list[str]:
    """One name for each (name, folder): those that share a name get their folder's, or else a count, beside it.

    >>> distinct([("same", Path("one")), ("same", Path("two")), ("same", Path("two")), ("own", Path("three"))])
    ['same (one)', 'same (two)', 'same (two) #2', 'own']
    """
    names: list[str] = []
    for name, path in named:
        shared = sum(name == other for other, _ in named) > 1
        folder = path.resolve().name
        base = f"{name} ({folder})" if shared and folder != name else name
        candidates = [base, *(f"{base} #{count}" for count in range(2, len(named) + 1))]
        names.append(next(candidate for candidate in candidates if candidate not in names))
    return names
