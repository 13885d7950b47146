"""The state that training holds between two optimiser steps and that transformers does not save.

transformers saves weights, optimiser, schedule, random states and its counters. TRL's trainer also holds responses that
further updates will use and sums of metrics not yet logged; the recorder and the counting callbacks hold more
(`state_of`). Without them a resumed run is another run. Random states are taken and put back here too.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.optim.lr_scheduler import LambdaLR
from transformers import set_seed

from attnpo.errors import InputError
from attnpo.training.checkpoints import pack, read_packed

REFERENCE = "reference.safetensors"
"""In a checkpoint: the reference model, where it follows the policy (`sync_ref_model`)."""

RandomStates = tuple[Any, ...]


def random_states() -> RandomStates:
    """Return the states of all random generators that a run draws from: Python, NumPy, torch and its GPUs."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    numpy = np.random.get_state()  # noqa: NPY002 - transformers seeds and saves it
    return random.getstate(), numpy, torch.random.get_rng_state(), cuda


def set_random_states(states: RandomStates) -> None:
    """Put back what `random_states` returned."""
    python, numpy, cpu, cuda = states
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.random.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)


@contextmanager
def isolated_random_state(seed: int) -> Iterator[None]:
    """Run with `seed`, then put back every random state, so that evaluating never changes a training run."""
    states = random_states()
    try:
        set_seed(seed)
        yield
    finally:
        set_random_states(states)


def stem_of(process: int) -> str:
    """File name, without suffix, of the state that a process saves in a checkpoint."""
    return f"attnpo_state-{process:05d}"


def generate_every(trainer: Any) -> int:
    """Micro-batches that one generation of responses is used for."""
    return trainer.args.steps_per_generation * trainer.num_iterations


def state_of(trainer: Any) -> dict[str, Any]:
    """Return this process's state between two optimiser steps, except what transformers saves; see `restore`."""
    half_used = trainer._step % generate_every(trainer) != 0
    logs = trainer._logs
    tables: dict[str, Any] = {}
    rewards: dict[str, Any] = {}
    if trainer.log_completions:
        rewards = {name: list(values) for name, values in logs["rewards"].items()}
        if not trainer._is_vlm:  # there the prompts have images in them, which are neither numbers nor text
            tables = {name: list(values) for name, values in logs.items() if isinstance(values, deque)}
            del tables["images"]
    return {
        "version": 1,
        "processes": trainer.args.world_size,
        "micro_batches": trainer._step,
        "responses": trainer._buffered_inputs if half_used else None,
        "metrics": dict(trainer._metrics["train"]),
        "loss": trainer._tr_loss.clone(),  # added to in place
        "total_loss": trainer._total_loss_scalar,
        "logged": trainer._globalstep_last_logged,
        "recorder": trainer._recorder.state(),
        "callbacks": {
            type(callback).__name__: callback.attnpo_state()
            for callback in trainer.callback_handler.callbacks
            if hasattr(callback, "attnpo_state")
        },
        "tables": tables,
        "rewards": rewards,
    }


@dataclass
class Boundary:
    """The state of a run before a step, without weights and optimiser.

    A checkpoint saved during a step has this state, so that an abandoned step leaves no trace in it. The tensors are
    not copied; nothing writes into them.
    """

    state: Any
    tensors: dict[str, torch.Tensor]
    random: RandomStates
    tokens_seen: int

    @classmethod
    def of(cls, trainer: Any) -> Boundary:
        """The current state."""
        tensors: dict[str, torch.Tensor] = {}
        return cls(pack(state_of(trainer), tensors), tensors, random_states(), trainer.state.num_input_tokens_seen)


def restore(trainer: Any, checkpoint: Path) -> str | None:
    """Put `state_of` back when training begins. Returns a warning where the checkpoint does not contain it.

    Raises:
        InputError: the checkpoint is damaged, or was saved within a generation with another number of processes or
            another micro-batch size.
    """
    state = _saved_state(trainer, checkpoint)
    if state is None:
        return _restore_old_version(trainer, checkpoint)
    trainer._step, trainer._buffered_inputs = _micro_batches(trainer, checkpoint, state), state["responses"]
    trainer._metrics["train"].update(state["metrics"])
    trainer._tr_loss, trainer._total_loss_scalar = state["loss"], state["total_loss"]
    trainer._globalstep_last_logged = state["logged"]
    trainer._recorder.load_state(state["recorder"])
    for callback in trainer.callback_handler.callbacks:
        saved = state["callbacks"].get(type(callback).__name__)
        if saved is not None and hasattr(callback, "load_attnpo_state"):
            callback.load_attnpo_state(saved)
    for name, values in state["tables"].items():
        trainer._logs[name].extend(values)
    for name, values in state["rewards"].items():
        trainer._logs["rewards"][name].extend(values)
    if (checkpoint / REFERENCE).is_file() and trainer.ref_model is not None:
        reference = trainer.accelerator.unwrap_model(trainer.ref_model)
        reference.load_state_dict(load_file(checkpoint / REFERENCE))
    return None


def _saved_state(trainer: Any, checkpoint: Path) -> Any:
    """The state saved by this process, else by the first one; None: an earlier version saved the checkpoint."""
    device = trainer.accelerator.device
    own = read_packed(checkpoint / stem_of(trainer.args.process_index), device)
    # Now there may be more processes than there were.
    return own if own is not None else read_packed(checkpoint / stem_of(0), device)


def _restore_old_version(trainer: Any, checkpoint: Path) -> str | None:
    """Resume without saved state. Returns a warning where responses were half used."""
    trainer._step = trainer.state.global_step * trainer.args.gradient_accumulation_steps
    if trainer._step % generate_every(trainer) == 0:
        return None
    return (
        f"{checkpoint} was saved by an earlier version, without the responses that were in use: they are sampled "
        "again, so this is not number for number the run that was stopped"
    )


def _micro_batches(trainer: Any, checkpoint: Path, state: Any) -> int:
    """Micro-batches done, counted in those of the resumed run.

    Raises:
        InputError: half-used responses were split for another number of processes or into other micro-batches.
    """
    args, responses = trainer.args, state["responses"]
    same_processes = state["processes"] == args.world_size
    if responses is None:
        steps = trainer.state.global_step
        done = state["micro_batches"] if same_processes else steps * args.gradient_accumulation_steps
        # The checkpoint ends a generation. Where micro-batches had another size, the count does not show it: from 0.
        return done if done % generate_every(trainer) == 0 else 0
    if not same_processes:
        raise InputError(
            f"option resume_from_checkpoint: {checkpoint} was saved by {state['processes']} processes between two "
            f"updates on the same responses, found {args.world_size} processes now. Resume with the same number, or "
            f"from a checkpoint of a step that ends a generation (every {generate_every(trainer)} micro-batches)"
        )
    if len(responses) != args.steps_per_generation:
        raise InputError(
            f"option resume_from_checkpoint: {checkpoint} was saved between two updates on the same responses, in "
            f"{len(responses)} micro-batches, found {args.steps_per_generation} now. Resume with the same "
            "per_device_train_batch_size and gradient_accumulation_steps"
        )
    return state["micro_batches"]


def realign(scheduler: Any, optimizer: Any) -> None:
    """Set the learning rates of the next step by the current schedule.

    A checkpoint has the rates of the schedule that it was saved under: 0 at the end of that run, so that the first step
    of a longer one would change nothing. Schedules without a function of the step are left alone.
    """
    inner = getattr(scheduler, "scheduler", scheduler)  # accelerate wraps it
    if not isinstance(inner, LambdaLR):
        return
    rates = [base * rate(inner.last_epoch) for base, rate in zip(inner.base_lrs, inner.lr_lambdas, strict=True)]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    inner._last_lr = rates
