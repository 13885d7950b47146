"""Additions to TRL's code for rollouts by vLLM.

TRL starts the engine, sends it the weights after every update, and samples. Three additions are needed:

- A server gets its weights over NCCL, so only from a GPU: refused on a CPU before anything is loaded (`check_server`).
- On a CPU vLLM packs weights into the layout of its kernels when it loads them, and removes the originals or keeps them
  unused. TRL's weights, sent one by one later, would then be refused (`'Parameter' object has no attribute
  'weight_loader'`) or, for the output head, have no effect (`keep_weights_as_loaded`).
- An engine in the trainer's process sets torch's random state to its own seed, 0, when it starts, and samples with it:
  runs with any `seed` would sample the same (`seed_sampling`).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import set_seed

from attnpo.errors import InputError


def check_vllm(args: Any) -> None:
    """Raise InputError where vLLM is not installed, or a server would have to get weights from a CPU.

    args: TRL's `GRPOConfig`.
    """
    if not args.use_vllm:
        return
    check_server(args, on_cpu=args.device.type == "cpu")
    if importlib.util.find_spec("vllm") is None:
        raise InputError("option use_vllm: the package vllm is not installed; pip install 'attnpo[vllm]'")


def check_server(args: Any, *, on_cpu: bool) -> None:
    """Raise InputError where a server would have to get weights from a CPU."""
    if args.use_vllm and args.vllm_mode == "server" and on_cpu:
        raise InputError(
            "option vllm_mode: found 'server' on a CPU, expected 'colocate': TRL sends weights to a server over NCCL, "
            "between GPUs"
        )


def in_process(args: Any) -> bool:
    """Whether the engine runs in the trainer's process."""
    return args.use_vllm and args.vllm_mode == "colocate"


def keep_weights_as_loaded(args: Any) -> None:
    """Let the layers of an engine in this process on a CPU use unpacked weights.

    vLLM does the same for layers that it excludes from packing, and where its build has no oneDNN.
    """
    if not (in_process(args) and args.device.type == "cpu" and importlib.util.find_spec("vllm")):
        return
    from vllm.model_executor.layers import utils  # pyright: ignore[reportMissingImports]

    def plain(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = plain


def seed_sampling(args: Any, process: int) -> None:
    """Seed the random states by the run's seed, once the engine exists; processes that share an engine get the same."""
    if in_process(args):
        set_seed(args.seed + process // args.vllm_tensor_parallel_size)
