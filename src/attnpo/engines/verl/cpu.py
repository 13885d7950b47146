"""verl without an accelerator: for tests and for trying out a configuration, not for training.

Registers a verl platform, and rollouts by transformers (`rollout.name=attnpo_cpu`) in one Ray actor per worker, which
receives the weights after every update. VERL_USE_EXTERNAL_MODULES loads this module in every process, before the rest
of verl.

verl 0.9.1 assumes an accelerator in places that its platforms do not cover; they are handled here: the process group
would be "cpu:gloo,cpu:gloo", and torch.cpu has no memory statistics.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
import verl.utils.distributed as verl_distributed
from verl.plugin.platform import PlatformBase, PlatformRegistry
from verl.workers.rollout import base as rollout_base
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

NAME = "attnpo_cpu"


class CpuModule(ModuleType):
    """torch.cpu with the functions that verl calls on torch.cuda, such as memory statistics, which are all 0."""

    def __init__(self) -> None:
        super().__init__("attnpo_cpu_device")

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("memory_", "max_memory_")):
            return lambda *_, **__: 0
        if name in ("empty_cache", "ipc_collect", "reset_peak_memory_stats", "manual_seed", "manual_seed_all"):
            return lambda *_, **__: None
        if name == "mem_get_info":
            return lambda *_, **__: (1 << 34, 1 << 34)
        if name == "get_device_name":
            return lambda *_, **__: "CPU"
        if name == "get_rng_state":
            return lambda *_, **__: torch.get_rng_state()
        if name == "set_rng_state":
            return lambda state, *_, **__: torch.set_rng_state(state)
        return getattr(torch.cpu, name)


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """The platform `VERL_PLATFORM=cpu`. A worker takes one Ray GPU; the launcher declares as many GPUs as workers."""

    device_name = "cpu"  # pyright: ignore[reportAssignmentType]
    vendor_name = "cpu"  # pyright: ignore[reportAssignmentType]
    device_module = CpuModule()  # pyright: ignore[reportAssignmentType]

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        return torch.device("cpu")  # PyTorch reads a number as a CUDA device

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Any:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> Any:
        return None


verl_distributed.initialize_global_process_group_ray.__defaults__ = (None, "gloo")  # (timeout_second, backend)


# -------------------------------------------------------------------- rollouts by transformers


class CpuServer:
    """A Ray actor that generates for one worker. Requests that arrive within 0.2 s are one batch.

    canned: a JSON file {prompt ids joined by commas: [response ids, …]}; its responses are returned in turn instead of
    sampled ones.
    """

    def __init__(self, path: str, limit: int, canned: str | None, rank: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        torch.manual_seed(rank)
        self.rank, self.limit, self.canned = rank, limit, None
        self.served: dict[str, int] = {}
        self.model: Any = None
        if canned is None:
            self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
            self.pad = AutoTokenizer.from_pretrained(path).pad_token_id
        else:
            with open(canned, encoding="utf-8") as file:
                self.canned = json.load(file)
        self.steps = 0
        self._waiting: list[tuple[list[int], dict[str, Any], asyncio.Future[list[int]]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> TokenOutput:
        """Return one response and the version (`global_steps`) of the weights that generated it."""
        steps = self.steps
        if self.canned is not None:
            key = ",".join(map(str, prompt_ids))
            ids = self.canned[key][await self._turn(key) % len(self.canned[key])]
        else:
            future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
            self._waiting.append((list(prompt_ids), sampling_params, future))
            if self._worker is None or self._worker.done():
                self._worker = asyncio.create_task(self._work())
            ids = await future
        return TokenOutput(token_ids=ids, stop_reason="completed", extra_fields={"global_steps": steps})

    async def turn(self, key: str) -> int:
        """Return how many canned responses to a prompt were returned before. The first server counts for all."""
        self.served[key] = self.served.get(key, -1) + 1
        return self.served[key]

    async def _turn(self, key: str) -> int:
        import ray

        return await (self.turn(key) if self.rank == 0 else ray.get_actor(f"{NAME}_0").turn.remote(key))

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(0.2)  # collect requests for a batch
            batch, self._waiting = self._waiting, []
            try:
                found = await asyncio.to_thread(self._sample, [row[0] for row in batch], batch[0][1])
            except Exception as error:  # noqa: BLE001 - passed to the callers that wait for a response
                for _, _, future in batch:
                    future.set_exception(RuntimeError(f"rollouts on a CPU: {error}"))
                continue
            for (_, _, future), ids in zip(batch, found, strict=True):
                future.set_result(ids)

    @torch.no_grad()
    def _sample(self, prompts: list[list[int]], params: dict[str, Any]) -> list[list[int]]:
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (width - len(row)) + row for row in prompts])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
        how: dict[str, Any] = {"do_sample": False}
        if params.get("temperature", 1.0) > 0:
            how = {"do_sample": True, "temperature": params.get("temperature", 1.0), "top_p": params.get("top_p", 1.0)}
            how["top_k"] = max(0, params.get("top_k") or 0)
        out = self.model.generate(ids, attention_mask=mask, max_new_tokens=self.limit, pad_token_id=self.pad, **how)[
            :, width:
        ]
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        return [until_end(row, ends) for row in out.tolist()]

    async def load(self, weights: dict[str, torch.Tensor], steps: int | None) -> None:
        """Load the weights of the worker."""
        if self.model is not None:
            self.model.load_state_dict(weights, strict=False)
        self.steps = steps or 0

    async def wake_up(self) -> None: ...

    async def sleep(self) -> None: ...

    async def clear_kv_cache(self) -> None: ...

    async def start_profile(self, **_: Any) -> None: ...

    async def stop_profile(self) -> None: ...


def until_end(row: list[int], ends: set[int]) -> list[int]:
    """Return the tokens up to and including the first end token."""
    for place, token in enumerate(row):
        if token in ends:
            return row[: place + 1]
    return row


class CpuReplica(RolloutReplica):
    """One server per worker."""

    async def launch_servers(self) -> None:
        import ray

        options = dict(self.config.engine_kwargs.get(NAME) or {})
        name = f"{NAME}_{self.replica_rank}{self.name_suffix}"
        server = ray.remote(CpuServer).options(name=name, max_concurrency=self.max_concurrency, num_cpus=0)
        handle = server.remote(
            self.model_config.path, self.config.response_length, options.get("canned"), self.replica_rank
        )
        await handle.sleep.remote()  # wait until the actor has started
        self.servers, self._server_handle, self._server_address = [handle], handle, name


class CpuRollout(BaseRollout):
    """The worker's side: sends its weights to its server."""

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    async def update_weights(
        self, weights: Any, wire_format: str = "named_tensors", global_steps: int | None = None, **_: Any
    ) -> None:
        import ray

        assert wire_format == "named_tensors", wire_format
        state = {name: tensor.detach().to(torch.float32).cpu().clone() for name, tensor in weights}
        handle = ray.get_actor(f"{NAME}_{os.environ['RANK']}")
        await handle.load.remote(state, global_steps)


RolloutReplicaRegistry.register(NAME, lambda: CpuReplica)
rollout_base._ROLLOUT_REGISTRY[(NAME, "async")] = f"{__name__}.CpuRollout"
