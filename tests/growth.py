"""How the time of a function grows with its input: a bound that holds on a slow or busy machine too."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sized


def grows_linearly(run: Callable[[Sized], object], make: Callable[[int], Sized], size: int) -> None:
    """`run(make(size))` takes less than twice what eightfold `run(make(size // 8))` does; quadratic: eight times.

    The best of three processor times of each, taken in turn, so that what else the machine does meets both.
    """
    small, large = make(size // 8), make(size)
    best = {"small": float("inf"), "large": float("inf")}
    for _ in range(3):
        for name, value in (("small", small), ("large", large)):
            started = time.process_time()
            run(value)
            best[name] = min(best[name], time.process_time() - started)
    assert best["large"] < 2 * 8 * best["small"], best
