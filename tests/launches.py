"""Counts, on a CPU, of the work for a GPU: kernel launches, and synchronisations with the device.

`Launches` counts the operations that torch runs, without those that make a view or an empty tensor: each is a kernel
or two. `Waits` counts what makes the host wait until the device has finished: reading a value, choosing by a mask.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor
from torch import bool as boolean
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = "view _unsafe_view alias t transpose permute slice select narrow split unbind unsqueeze squeeze expand detach"
EMPTY = "as_strided reshape unflatten empty empty_like new_empty empty_strided lift_fresh"
NO_KERNEL = frozenset(f"{VIEWS} {EMPTY}".split(" "))
READS = ("item", "tolist", "cpu", "numpy", "nonzero", "masked_select", "is_nonzero", "equal")
WAITS = frozenset((*READS, "__bool__", "__float__", "__int__", "__index__"))


class Launches(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.by_name[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def count(self) -> int:
        return sum(count for name, count in self.by_name.items() if name not in NO_KERNEL)


class Waits(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in WAITS:
            self.by_name[name] += 1
        if name in ("__getitem__", "__setitem__"):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, Tensor) and part.dtype == boolean for part in index):
                self.by_name["a mask as index"] += 1
        return func(*args, **(kwargs or {}))

    @property
    def count(self) -> int:
        return sum(self.by_name.values())
