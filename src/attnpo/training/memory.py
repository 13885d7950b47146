"""Bytes of tensors that live at once, counted rather than measured: the same number on every machine.

`LiveBytes` sees every tensor that torch makes while it is open. With torch's FakeTensorMode, whose tensors have shapes
and no numbers, it says what a step of a 32-billion-parameter model would take, in seconds and without the memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors made while it is open: `live` now, `peak` at most. Views count once.

    held: tensors made before (weights, inputs), which are not counted when a view of them comes along.
    What a kernel takes for itself while it runs is not seen, nor what an allocator rounds up.
    """

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: dict[int, int] = {}
        for tensor in held:
            self._hold(tensor, counts=False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._hold(leaf)
        return output

    def _hold(self, tensor: Tensor, *, counts: bool = True) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = size = storage.nbytes() if counts else 0
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.live -= self._known.pop(key)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Of their storages, each once (tied weights share theirs)."""
    return sum({(s := tensor.untyped_storage())._cdata: s.nbytes() for tensor in tensors}.values())
