"""What rollouts by vLLM need besides TRL's own code for them.

TRL starts the engine, hands it the weights whenever the policy has moved, and samples. Three things are left:

- A server gets its weights over NCCL, so only from a GPU: refused on a CPU before anything is loaded (`check_vllm`).
- On a CPU vLLM packs weights into the layout of its kernels when it loads them, and drops the originals or keeps them
  unused. TRL's weights, pushed one by one later, would then be refused (`'Parameter' object has no attribute
  'weight_loader'`) or, for the output head, have no effect (`keep_weights_as_loaded`).
- An engine in the trainer's process sets torch's random state to its own seed, 0, when it starts, and samples with it:
  runs of any `seed` would sample alike (`seed_sampling`).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import set_seed

from attnpo.errors import InputError


def check_vllm(args: Any) -> None:
    """InputError where a run by vLLM cannot work here: vLLM is missing, or a server would have to be fed from a CPU.

    args: TRL's `GRPOConfig`.
    """
    if not args.use_vllm:
        return
    if args.vllm_mode == "server" and args.device.type == "cpu":
        raise InputError(
            "option vllm_mode: found 'server' on a CPU, expected 'colocate': TRL sends weights to a server over NCCL, "
            "between GPUs"
        )
    if importlib.util.find_spec("vllm") is None:
        raise InputError("option use_vllm: the package vllm is not installed; pip install 'attnpo[vllm]'")


def in_process(args: Any) -> bool:
    """Whether the engine lives in the trainer's process."""
    return args.use_vllm and args.vllm_mode == "colocate"


def keep_weights_as_loaded(args: Any) -> None:
    """Where the engine will run in this process on a CPU: let its layers multiply with the weights as they are.

    As vLLM does itself for layers that it excludes from packing, and where its build has no oneDNN.
    """
    if not (in_process(args) and args.device.type == "cpu" and importlib.util.find_spec("vllm")):
        return
    from vllm.model_executor.layers import utils  # pyright: ignore[reportMissingImports]

    def plain(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = plain


def seed_sampling(args: Any, process: int) -> None:
    """Once the engine is there: random states of the run's own seed; processes that share an engine have the same."""
    if in_process(args):
        set_seed(args.seed + process // args.vllm_tensor_parallel_size)
