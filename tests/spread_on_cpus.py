"""FSDP2 and DeepSpeed on CPU processes: import this before a trainer is made; as a script, `attnpo` with it.

Accelerate takes FSDP for accelerators alone (`AcceleratorState.__init__`) and overlooks ACCELERATE_USE_FSDP where CPU
processes speak over gloo. Everything below it works there: PyTorch's `fully_shard`, its checkpoints, transformers and
TRL. So the one thing replaced is the name of what the processes are, while that question is asked. DeepSpeed compiles a
kernel for the shared memory of its processes, which takes minutes of a busy core; without it, it speaks over gloo.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

_init = PartialState.__init__


def _as_accelerators(self: PartialState, *args: Any, **kwargs: Any) -> None:
    _init(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_XPU


if os.environ.get("ACCELERATE_USE_FSDP") == "true":
    PartialState.__init__ = _as_accelerators
if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
    deepspeed_torch: Any = importlib.import_module("deepspeed.comm.torch")  # in an environment of its own
    deepspeed_torch.build_shm_op = lambda: None


if __name__ == "__main__":
    import torch

    from attnpo.cli.main import main

    code = main(sys.argv[1:])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # one that ends with it open may abort on the way out
    sys.exit(code)
