"""Runs of several processes: decisions and errors of one process are shared with all.

A process that raised alone would leave the others waiting for it in their next gather.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from attnpo.errors import AttnPOError, InputError, RunError

T = TypeVar("T")


@contextmanager
def together(accelerator: Accelerator) -> Iterator[None]:
    """Raise on all processes if the block raises on one of them.

    A process that failed raises its own error, the others that of the first that failed (InputError where it was one,
    else RunError), with its number. The block must not contain gathers that a failing process would miss.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as found:  # noqa: BLE001 - the others must learn of any error; it is raised again below
        error = found
    if accelerator.num_processes > 1:
        here = None if error is None else _message_of(error, accelerator.process_index)
        failed = [there for there in gather_object([here]) if there is not None]
        if error is None and failed:
            is_input, text = failed[0]
            raise InputError(text) if is_input else RunError(text)
    if error is not None:
        raise error


def _message_of(error: Exception, process: int) -> tuple[bool, str]:
    """Return whether it is an InputError, and the message. The error itself may not be picklable."""
    name = "" if isinstance(error, AttnPOError) else f"{type(error).__name__}: "
    return isinstance(error, InputError), f"process {process}: {name}{error}"


def from_main(accelerator: Accelerator, make: Callable[[], T]) -> T:
    """Run `make` on the main process and return its result on every process; if it raises, all raise (`together`)."""
    made: list[Any] = [None]
    with together(accelerator):
        if accelerator.is_main_process:
            made[0] = make()
    return broadcast_object_list(made)[0]


def updates_in_backward(args: Any) -> bool:
    """Whether the update is made within the backward pass, as by DeepSpeed: no callback is called before it.

    args: the trainer's. `args.deepspeed` would not do: it is None where `accelerate launch` turns DeepSpeed on.
    """
    return args.deepspeed_plugin is not None


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is set in at least one process of the run."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return flag
    flags = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return bool(flags)
