"""`attnpo train --dry_run`: batches, memory and settings of a run, without loading weights.

Options, data, tokenizer, heads and methods are created as in a run; the model has shapes only.
`attnpo.training.sizes` counts the memory of every GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import is_peft_model
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.model_config import ModelConfig
from trl.trainer.utils import get_peft_config

from attnpo.attention.heads import Head, check_heads, file_of_option, load_heads
from attnpo.attention.rows import rows_bytes
from attnpo.data.problems import check_enough_problems
from attnpo.errors import InputError
from attnpo.rewards.pool import VerifierPool
from attnpo.training.config import AttnPOConfig
from attnpo.training.defaults import accumulation, without_effect
from attnpo.training.options import parse, quantised, resolved_options
from attnpo.training.problems import load_problems
from attnpo.training.run import load_parts, quiet_screen, use_fitting_rate, use_of
from attnpo.training.sizes import (
    Need,
    decoder_peak,
    head_bytes,
    kv_cache_bytes,
    mask_bytes,
    optimiser_bytes,
    shared_out,
)
from attnpo.training.trackers import check_known
from attnpo.training.vllm_rollouts import check_server, in_process

GB = 10**9
ANSWER = 512  # tokens of a final answer, for the rows
OWN = 1.5 * GB
"""Additional bytes of CUDA, its libraries and the allocator's rounding."""

ROWS, VLLM_SHARE = "attention rows of the answer", "vLLM's share"


@dataclass(frozen=True)
class Machine:
    """GPUs of a planned run; memory in bytes, None: unknown."""

    gpus: int = 1
    sharded: bool = False
    memory: int | None = None


@dataclass(frozen=True)
class Batches:
    """Batch sizes over all processes, in responses unless stated otherwise."""

    problems: int
    update: int  # responses of an optimiser step
    generation: int  # sampled together
    group: int
    updates: int
    longest: int
    iterations: int = 1  # times that a response is used

    @property
    def per_epoch(self) -> float:
        """Updates in which every problem is used once."""
        return self.problems * self.group * self.iterations / self.update

    @property
    def rows(self) -> dict[str, str]:
        uses = self.generation * self.iterations / self.update
        return {
            "problems of the training set": f"{self.problems:,}",
            "an update": f"{self.update:,} responses: {self.update / self.group:g} problems x {self.group}",
            "sampled together": f"{self.generation:,} responses, used for {uses:g} update(s)",
            "updates in an epoch": f"{self.per_epoch:,.1f}",
            "updates in all": f"{self.updates:,} ({self.updates / self.per_epoch:.2f} epochs)",
            "tokens sampled, at most": f"{self.updates * self.update * self.longest // self.iterations:,}",
        }


def batches(args: AttnPOConfig, problems: int, gpus: int) -> Batches:
    """Compute the batch sizes of one run; `args` were read for one process."""
    update = args.per_device_train_batch_size * args.gradient_accumulation_steps * gpus
    generation = args.generation_batch_size * gpus
    longest = args.max_completion_length or 0
    found = Batches(problems, update, generation, args.num_generations, args.max_steps, longest, args.num_iterations)
    if args.max_steps > 0:
        return found
    return replace(found, updates=math.ceil(found.per_epoch * args.num_train_epochs))


def spread(args: AttnPOConfig, gpus: int) -> None:
    """Set the derived number of micro-batches per update to that of a run on `gpus` processes."""
    derived = args.derived.get("gradient_accumulation_steps", 1)
    if gpus == 1 or derived == 1:
        return
    steps = accumulation(args.per_device_train_batch_size * gpus, args.num_generations)
    if args.steps_per_generation == derived:
        args.steps_per_generation = steps
        args.generation_batch_size = args.per_device_train_batch_size * steps
    args.gradient_accumulation_steps = args.derived["gradient_accumulation_steps"] = steps


def need_of(
    model: nn.Module, args: AttnPOConfig, machine: Machine, *, prompt: int, heads: list[Head] | None, attention: str
) -> Need:
    """Memory for `model`, with shapes on the meta device (and its adapter), and prompts of `prompt` tokens."""
    config: Any = model.config
    text = config.get_text_config(decoder=True)
    every = list(model.parameters())
    trained = [parameter for parameter in every if parameter.requires_grad]
    dtype = every[0].dtype
    compute = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else dtype
    rows, tokens = args.per_device_train_batch_size, prompt + (args.max_completion_length or 0)

    def share(tensors: list[Any]) -> int:
        return shared_out(sum(t.numel() * t.itemsize for t in tensors), machine.gpus, machine.sharded)

    peak = decoder_peak(
        config, rows, tokens, dtype=dtype, autocast=compute != dtype, checkpointing=bool(args.gradient_checkpointing)
    )
    states = shared_out(optimiser_bytes(args, trained), machine.gpus, machine.sharded)
    outside = text.vocab_size * text.hidden_size * (1 if text.tie_word_embeddings else 2)
    total = sum(p.numel() for p in every)
    per_layer = (total - outside) // text.num_hidden_layers
    gathered = (outside + 2 * per_layer) * compute.itemsize if machine.sharded else 0
    if args.use_vllm:
        memory = machine.memory or 0
        cache = int(args.vllm_gpu_memory_utilization * memory) if args.vllm_mode == "colocate" else 0
    else:
        sampled = args.generation_batch_size
        cache = kv_cache_bytes(config, sampled, tokens, dtype)  # keys have the type of the weights, under autocast too
    layers: dict[int, int] = {}
    for layer, _ in heads or ():
        layers[layer] = layers.get(layer, 0) + 1
    reads = rows_bytes(rows * max(layers.values(), default=0) * min(ANSWER, tokens) * tokens)
    scored = rows * (args.max_completion_length or 0)
    head: Any = model.get_output_embeddings()  # pyright: ignore[reportCallIssue]
    # TRL loads a second model, in the same dtype; the base of an adapter is its own reference.
    with_reference = args.beta != 0 and not is_peft_model(model)
    return Need(
        weights=share(every),
        reference=share(every) if with_reference else 0,
        gradients=share(trained),
        optimiser=states,
        gathered=gathered,
        activations=peak.peak,
        kept=peak.kept,
        head=head_bytes(scored, text.vocab_size, text.hidden_size, dtype, compute, trained=head.weight.requires_grad),
        mask=mask_bytes(rows, tokens, attention, compute),
        rows=reads,
        cache=cache,
    )


def memory_rows(need: Need, *, vllm: bool) -> dict[str, int]:
    """Return the lines of the memory table, in bytes."""
    lines = {
        "weights": need.weights,
        "reference model (beta)": need.reference,
        "gradients": need.gradients,
        "optimiser": need.optimiser,
        "gathered weights (sharded)": need.gathered,
        "activations, layers": need.activations,
        "log-probabilities, in chunks": need.head,
        "attention mask": need.mask,
        ROWS: need.rows,
        VLLM_SHARE if vllm else "key-value cache of the rollouts": need.cache,
    }
    return {name: value for name, value in lines.items() if value}


def given_settings(parts: tuple[Any, ...], plain: tuple[Any, ...]) -> dict[str, tuple[Any, Any]]:
    """Return option -> (value, default) of changed options; `plain` are the options of an empty command line."""
    usual = {
        name: value  # in the form of resolved_options
        for part in plain
        for name, value in (part.to_dict() if isinstance(part, AttnPOConfig) else vars(part)).items()
    }
    now = resolved_options(*parts)
    return {
        name: (value, usual.get(name))
        for name, value in now.items()
        if name != "output_dir" and value != usual.get(name)
    }


def make_shapes(path: str, model_config: ModelConfig, *, trust_remote_code: bool) -> nn.Module:
    """Build the model of a folder or name on the meta device, with its adapter if there is one.

    Raises InputError where there is no configuration, or the adapter does not fit it.
    """
    try:
        config = AutoConfig.from_pretrained(
            path, revision=model_config.model_revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise InputError(f"option model_name_or_path: no configuration for {path!r}: {error}") from error
    dtype = model_config.dtype or "float32"
    with torch.device("meta"):
        kind = config.dtype if dtype == "auto" else getattr(torch, dtype)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=kind or torch.float32)
        adapter = get_peft_config(model_config)
        if adapter is not None:
            from peft import get_peft_model

            try:
                model = get_peft_model(model, adapter)
            except ValueError as error:
                raise InputError(f"option use_peft: the adapter does not fit the model: {error}") from error
    return model


def heads_of_run(args: AttnPOConfig, path: str) -> tuple[list[Head], bool]:
    """Return the heads whose attention a run reads, and whether they are known.

    Heads yet to be found (`heads: auto`) are assumed to be in the same layer, where they need most memory.
    """
    if "attention" not in args.make_credit().signals:
        return [], True
    file = file_of_option(args.heads, path)
    return ([(0, head) for head in range(args.heads_count)], False) if file is None else (load_heads(file), True)


def dry_run(argv: list[str], machine: Machine, *, console: Console | None = None) -> Need:
    """Print batches, memory and settings of a run with these arguments; returns the memory needed on each GPU.

    Neither a GPU nor vLLM, trackers or bitsandbytes are needed here: the run is on another machine.

    Raises:
        InputError: errors of `attnpo train` in options, data, tokenizer, heads and the model's configuration.
    """
    console = console or Console()
    with quiet_screen():
        data, args, model_config = parse(argv, planned=True)
        plain = parse([], planned=True)
    spread(args, machine.gpus)
    changed = given_settings((data, args, model_config), plain)  # before the model's name and the rate are filled in
    check_server(args, on_cpu=args.use_cpu)
    check_known(args.report_to)
    use_fitting_rate(args, model_config)
    with quiet_screen(), VerifierPool(args.verifier_workers, timeout=args.verifier_timeout) as pool:
        path, tokenizer, accuracy, _ = load_parts(data, args, model_config, pool)
        use = use_of(data, args)
        problems, counts = load_problems(data, tokenizer, accuracy, console.print, use, held_out=False)
    check_enough_problems(problems, args.generation_batch_size * machine.gpus, args.num_generations)
    with quiet_screen():
        model = make_shapes(path, model_config, trust_remote_code=args.trust_remote_code)
    heads, known = heads_of_run(args, path)
    if heads and known:
        check_heads(model.config, heads)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    prompt = data.max_prompt_length or ANSWER
    attention = model_config.attn_implementation or "sdpa"
    need = need_of(model, args, machine, prompt=prompt, heads=heads, attention=attention)
    console.print(f"{path}: {total:,} parameters, {trained:,} of them trained", highlight=False, soft_wrap=True)
    _print(console, "Batches", batches(args, counts["problems"], machine.gpus).rows)
    lines = {name: f"{value / GB:.2f} GB" for name, value in memory_rows(need, vllm=args.use_vllm).items()}
    included = f"with {OWN / GB:g} GB of CUDA itself"
    if not known:
        lines[ROWS] += f"  (heads are yet to be found: {args.heads_count} in one layer assumed)"
    if in_process(args) and machine.memory is None:
        lines[VLLM_SHARE] = f"not counted: {args.vllm_gpu_memory_utilization:g} of the GPU; give --gpu_memory"
        included += f", without {VLLM_SHARE}"
    vllm = need.cache if args.use_vllm and not args.vllm_enable_sleep_mode else 0
    most = {"while updating": need.update + vllm + OWN, "while sampling": need.rollout + OWN}
    lines |= {f"at most {when} ({included})": f"{x / GB:.2f} GB" for when, x in most.items()}
    title = f"Memory of each of {machine.gpus} GPU(s), {'sharded' if machine.sharded else 'a complete model on each'}"
    longest = args.max_completion_length
    _print(console, f"{title}: {args.per_device_train_batch_size} x ({prompt} + {longest}) tokens", lines)
    settings = {name: f"{value}  (default: {default})" for name, (value, default) in changed.items()}
    _print(console, "Settings that differ from the default", settings)
    unquantised = [
        f"option {name}: weights are counted as if they were not quantised" for name in quantised(model_config)
    ]
    for warning in [*without_effect(args), *unquantised]:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if machine.memory is not None:
        verdict = "fits" if max(most.values()) <= machine.memory else "does not fit"
        console.print(f"{verdict} into {machine.memory / GB:.0f} GB", highlight=False, style="bold")
    return need


def _print(console: Console, title: str, rows: Mapping[str, str]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column("")
    table.add_column("", overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table, markup=False, highlight=False)
