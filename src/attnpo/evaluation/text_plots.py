"""Small pictures made of characters, readable without colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

EIGHTHS = " ▁▂▃▄▅▆▇█"
BAR = " ▏▎▍▌▋▊▉█"


def sparkline(counts: Sequence[int]) -> str:
    """One character per count, the largest one full; a count above 0 is never blank.

    >>> sparkline([0, 1, 4, 8])
    ' ▁▄█'
    """
    top = max(counts, default=0)
    return "".join(EIGHTHS[-(-8 * count // top)] if count else " " for count in counts)


def bar(share: float, width: int) -> str:
    """A bar of `width` characters of which `share` (0 … 1) is filled.

    >>> bar(0.5, 5)
    '██▌  '
    """
    eighths = round(8 * width * min(max(share, 0.0), 1.0))
    full, rest = divmod(eighths, 8)
    return ("█" * full + (BAR[rest] if rest else "")).ljust(width)


def scatter(points: Mapping[str, tuple[float, float]], width: int, height: int) -> list[str]:
    """Points drawn as the first character of their name in a field of `width` × `height`, higher values further up.

    A character that is taken is drawn as `+`: two points or more at one place.
    """
    field = [[" "] * width for _ in range(height)]
    places = {}
    for axis, size in ((0, width), (1, height)):
        values = [point[axis] for point in points.values()]
        low, span = min(values), (max(values) - min(values)) or 1.0
        places[axis] = [round((value - low) / span * (size - 1)) for value in values]
    for name, column, row in zip(points, places[0], places[1], strict=True):
        line = field[height - 1 - row]
        line[column] = name[0] if line[column] == " " else "+"
    return ["".join(line) for line in field]
