"""How the time of a function grows with its input: a bound that holds on a slow or busy machine too."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sized


def grows_linearly(run: Callable[[Sized], object], make: Callable[[int], Sized], size: int) -> None:
    """`run(make(size))` takes less than twice what eight times `run(make(size // 8))` do; quadratic: eight times.

    Processor time, of runs that follow each other, in the best of seven rounds: what else the machine does makes some
    rounds look worse, none of a quadratic function's look good.
    """
    small, large = make(size // 8), make(size)
    ratios: list[float] = []
    while len(ratios) < 7 and min(ratios, default=2.0) >= 2:
        started = time.process_time()
        for _ in range(8):
            run(small)
        between = time.process_time()
        run(large)
        ratios.append((time.process_time() - between) / max(between - started, 1e-9))
    assert min(ratios) < 2, ratios
