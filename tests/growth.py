"""How the time of a function grows with its input: a bound that holds on a slow or busy machine too."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sized


TIMES = 32  # the larger input over the smaller one
BOUND = 4  # not 2: an input that no longer fits the processor's caches costs up to twice or three times as much


def grows_linearly(run: Callable[[Sized], object], make: Callable[[int], Sized], size: int) -> None:
    """`run(make(size))` takes less than BOUND times what TIMES `run(make(size // TIMES))` do; quadratic: TIMES.

    Processor time, of runs that follow each other, in the best of seven rounds: what else the machine does makes some
    rounds look worse, none of a quadratic function's look good. The garbage collector rests meanwhile: it goes through
    all that the test process holds, as often as the larger input makes objects.
    """
    small, large = make(size // TIMES), make(size)
    ratios: list[float] = []
    gc.collect()
    gc.disable()
    try:
        while len(ratios) < 7 and min(ratios, default=BOUND) >= BOUND:
            started = time.process_time()
            for _ in range(TIMES):
                run(small)
            between = time.process_time()
            run(large)
            ratios.append((time.process_time() - between) / max(between - started, 1e-9))
    finally:
        gc.enable()
    assert min(ratios) < BOUND, ratios
