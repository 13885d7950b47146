"""Would torch.compile make the attention rows cheaper on a CPU? Times the operations after q·k, plain and compiled.

    python benchmarks/compiled_rows.py

Scaling, mask, softmax and sum over the rows of one layer (9 heads of SmolLM2's shape, 2,048 columns), one thread;
medians of CPU milliseconds, and the largest difference. `attention/rows.py` keeps the plain form (docs/log.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

HEADS, COLUMNS, SIZE, SCALING = 9, 2048, 64, 0.125
HIDDEN = torch.finfo(torch.float32).min
Rows = Callable[[Tensor, Tensor], Tensor]


def plain(logits: Tensor, mask: Tensor) -> Tensor:
    """Compute the rows as in attention/rows.py: in place, so that no second tensor of this size is written."""
    logits.mul_(SCALING).masked_fill_(~mask, HIDDEN)
    return torch.softmax(logits, dim=-1, out=logits).sum(dim=2)


def to_compile(logits: Tensor, mask: Tensor) -> Tensor:
    """Compute the same without in-place operations, for the compiler to fuse."""
    return torch.softmax(torch.where(mask, logits * SCALING, HIDDEN), dim=-1).sum(dim=2)


def milliseconds(function: Rows, query: Tensor, key: Tensor, mask: Tensor, turns: int = 15) -> float:
    found = []
    for _ in range(turns):
        logits = query @ key.transpose(2, 3)
        started = time.process_time()
        function(logits, mask)
        found.append(1000 * (time.process_time() - started))
    return median(found)


def main() -> None:
    torch.set_num_threads(1)
    compiled = torch.compile(to_compile, dynamic=True)
    print("| rows | plain | compiled | largest difference |\n|---|---|---|---|")
    for rows in (64, 256, 512):
        query, key = torch.randn(1, HEADS, rows, SIZE), torch.randn(1, HEADS, COLUMNS, SIZE)
        mask = torch.arange(COLUMNS) <= torch.arange(COLUMNS - rows, COLUMNS)[:, None]
        logits = query @ key.transpose(2, 3)
        difference = (compiled(logits, mask) - plain(logits.clone(), mask)).abs().max()
        times = [milliseconds(function, query, key, mask) for function in (plain, compiled)]
        print(f"| {rows} | {times[0]:.1f} ms | {times[1]:.1f} ms | {difference:.0e} |", flush=True)


if __name__ == "__main__":
    main()
