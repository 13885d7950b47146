"""Functions of train_overthinker.py: model, training loop, evaluation, record."""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import statistics
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from measure_on_task import measure_heads, sample_responses
from overthinker_data import CLOSE_THINK, USER, Batch, StreamOptions, parallel_batches, train_tokenizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from attnpo.attention.heads import save_heads
from attnpo.heads.table import ESSENTIAL, REDUNDANT, parting_scale
from attnpo.models import resolve_model
from attnpo.task.dataset import build_dataset
from attnpo.task.problems import DEFAULT_DIFFICULTY, sample_problem
from attnpo.task.traces import TraceStyle, write_trace

EVALUATION_SEED = 90_000
LARGEST_FILE = 8 * 10**6  # bytes of weights that may be shipped
SINK_LENGTH = 4.0  # of the first token's embedding: longer than what a layer adds to it at the start


def train_and_measure(args: argparse.Namespace) -> None:
    started = time.perf_counter()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1 if device.type == "cuda" else args.threads)
    tokenizer, model = start_from(args) if args.start else start_from_scratch(args)
    tokenizer.save_pretrained(out)
    curve = train(model.to(device), args, out, device)
    save_model(model, out)
    trained = time.perf_counter() - started
    figures = evaluate(model, tokenizer, args, out)
    record = {
        "arguments": {name: value for name, value in vars(args).items() if name != "out"},
        "parameters": sum(p.numel() for p in model.parameters()),
        "architecture": model.config.model_type,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "hardware": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {args.threads} threads",
        "seconds": {"training": round(trained, 1), "all": round(time.perf_counter() - started, 1)},
        "figures": figures,
        "loss_curve": curve,
    }
    (out / "training_record.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({"out": str(out), "seconds": record["seconds"], **figures}), flush=True)


def writer_style(args: argparse.Namespace) -> TraceStyle:
    # catch_all=False: the model learns traces as they come, uncaught errors included, so that checks pay.
    return TraceStyle(
        error_rate=args.error_rate,
        check_rate=args.check_rate,
        catch_all=False,
        redundancy=args.redundancy,
        sentences=args.sentences,
    )


def start_from(args: argparse.Namespace) -> tuple[Any, LlamaForCausalLM]:
    """Load tokeniser and model of `args.start`, which keeps its size; only the declared context changes."""
    path = resolve_model(args.start)
    model = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.config.max_position_embeddings = args.context
    return AutoTokenizer.from_pretrained(path), model


def start_from_scratch(args: argparse.Namespace) -> tuple[Any, LlamaForCausalLM]:
    tokenizer = make_tokenizer(args)
    return tokenizer, make_model(args, tokenizer)


def make_tokenizer(args: argparse.Namespace) -> PreTrainedTokenizerFast:
    rng, texts = random.Random(args.seed), []
    for index in range(4000):
        problem = sample_problem(args.seed, index, "train", tuple(args.difficulty))
        thinking, answer = write_trace(problem, rng, writer_style(args)).response.split(CLOSE_THINK)
        texts += [problem.text, thinking, answer]
    return train_tokenizer(texts, args.vocabulary)


def make_model(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    # Llama with biases on queries and keys, that is Qwen2's layers. Not named Qwen2, because AutoTokenizer gives every
    # model of that type Qwen2's splitting rules in place of those in tokenizer.json, which changes " 18".
    config = LlamaConfig(
        attention_bias=True,
        vocab_size=len(tokenizer),
        hidden_size=args.width,
        intermediate_size=args.feed_forward,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.key_heads,
        max_position_embeddings=args.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    for layer in model.model.layers:
        assert layer.self_attn.o_proj.bias is not None
        torch.nn.init.zeros_(layer.self_attn.o_proj.bias).requires_grad_(False)
    if args.sink > 0:
        add_attention_sink(model, tokenizer.convert_tokens_to_ids(USER), args.sink)
    return model


@torch.no_grad()
def add_attention_sink(model: LlamaForCausalLM, first_token: int, logit: float) -> None:
    """Let every head start with `logit` towards the first token of a prompt and near 0 towards all others.

    Large models learn to put unused attention on the first token. A model this small, trained this briefly, does not:
    its heads then spread unused attention evenly over the text, and all steps have similar scores. The sink is one
    direction of the embedding that only the first token has, one key component that reads it, and one query bias, in
    the component that rotary embeddings turn slowest (one part in 3,000 of a radian per position).
    """
    width, head_width = model.config.hidden_size, model.config.hidden_size // model.config.num_attention_heads
    direction = torch.nn.functional.normalize(torch.randn(width), dim=0)
    size = math.sqrt(logit * math.sqrt(head_width))
    model.model.embed_tokens.weight[first_token] = direction * SINK_LENGTH
    for layer in model.model.layers:
        keys = layer.self_attn.k_proj.weight.view(-1, head_width, width)
        keys[:, -1] = direction * size / math.sqrt(width)  # a normalised hidden state has length sqrt(width)
        layer.self_attn.q_proj.bias.view(-1, head_width)[:, -1] = size


def train(model: LlamaForCausalLM, args: argparse.Namespace, out: Path, device: torch.device) -> list[list[float]]:
    """Train with AdamW, warm-up and cosine, on response tokens; return points [step, loss, seconds]."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": args.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), fused=device.type == "cuda")
    options = StreamOptions(
        str(out / "tokenizer.json"), args.batch, args.seed, tuple(args.difficulty), writer_style(args)
    )
    curve: list[list[float]] = []
    recent: list[torch.Tensor] = []
    tokens, started = 0, time.perf_counter()
    model.train()
    with closing(parallel_batches(options, args.workers)) as batches:
        for step in range(args.steps):
            seconds = time.perf_counter() - started
            progress = max(step / args.steps, seconds / args.max_seconds)
            if progress >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = args.lr * min(1, (step + 1) / args.warmup) * (0.51 + 0.49 * math.cos(math.pi * progress))
            batch = next(batches)
            tokens += int(batch.lengths.sum())
            loss = batch_loss(model, batch, device, args.essential_weight)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            recent.append(loss.detach())
            if step % args.log_steps == args.log_steps - 1:
                curve.append([step + 1, round(torch.stack(recent).mean().item(), 4), round(seconds, 1)])
                recent = []
                speed = f"{tokens / seconds:.0f} tokens/s {seconds:.0f} s"
                print(f"{out.name} step {step + 1} loss {curve[-1][1]} {speed}", flush=True)
    model.eval()
    return curve


def batch_loss(model: LlamaForCausalLM, batch: Batch, device: torch.device, essential_weight: float) -> torch.Tensor:
    """Return the mean next-token loss over response tokens, with a weight on those of essential steps and answers.

    In long traces nine tokens in ten are redundant, and arithmetic, the only source of errors, is learnt from the
    tenth. With right padding and a causal mask no attention mask is needed.
    """
    ids = torch.from_numpy(batch.ids.astype("int64")).to(device, non_blocking=True)
    positions = torch.arange(ids.shape[1], device=device)
    starts = torch.from_numpy(batch.response_starts).to(device)[:, None]
    ends = torch.from_numpy(batch.lengths).to(device)[:, None]
    targets = torch.where((positions >= starts) & (positions < ends), ids, -100)[:, 1:]
    autocast = torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()
    with autocast:
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="none")
    essential = torch.from_numpy(batch.essential).to(device)[:, 1:]
    weights = torch.where(essential, essential_weight, 1.0) * (targets != -100)
    return (losses * weights.flatten()).sum() / weights.sum()


def save_model(model: LlamaForCausalLM, out: Path) -> None:
    """Save in float32 if that is not larger than the size limit for shipping, else in bfloat16."""
    if 4 * sum(p.numel() for p in model.parameters()) > LARGEST_FILE:
        model.to(torch.bfloat16)
    model.save_pretrained(out)


def evaluate(model: Any, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Return held-out figures; write heads.json and OUT.examples.json."""
    model.float()
    rows = build_dataset(args.evaluation_problems, EVALUATION_SEED, "test", DEFAULT_DIFFICULTY)
    limits: Any = {"batch": 1024, "max_new_tokens": args.context // 2}
    sampled = sample_responses(model, tokenizer, rows, **limits)
    greedy = sample_responses(model, tokenizer, rows, temperature=0, **limits)
    # Eight responses to some problems, as in reinforcement learning.
    few = [row for row in rows[: args.evaluation_problems // 8] for _ in range(8)]
    grouped = sample_responses(model, tokenizer, few, **limits)
    groups = [grouped[i : i + 8] for i in range(0, len(grouped), 8)]
    style = replace(writer_style(args), catch_all=True)
    labelled = build_dataset(args.probe_traces, EVALUATION_SEED + 1, "test", style=style)
    measures = measure_heads(model, tokenizer, labelled)
    accuracy = {head: round(value, 4) for head, value in measures.mean().items()}
    essential, redundant = measures.mean(ESSENTIAL), measures.mean(REDUNDANT)
    ranked = sorted(accuracy, key=lambda head: -accuracy[head])
    save_heads(
        out / "heads.json",
        ranked[:3],
        sra={head: accuracy[head] for head in ranked},
        essential_over_uniform={f"{layer},{head}": round(essential[layer, head], 4) for layer, head in ranked},
        redundant_over_uniform={f"{layer},{head}": round(redundant[layer, head], 4) for layer, head in ranked},
        threshold=round(parting_scale(measures, ranked[:3]), 4),
        model=out.name,
        labels="task",
        traces=measures.traces,
    )
    examples = [{"problem": row["problem"], "text": s.text} for row, s in zip(rows[:12], sampled, strict=False)]
    out.with_suffix(".examples.json").write_text(json.dumps(examples, indent=1) + "\n")

    def mean(values: Any) -> float:
        return round(statistics.fmean(values), 4)

    return {
        "evaluation_problems": len(rows),
        "accuracy": mean(s.right for s in sampled),
        "finished": mean(s.finished for s in sampled),
        "tokens": mean(s.tokens for s in sampled),
        "greedy_accuracy": mean(s.right for s in greedy),
        "greedy_tokens": mean(s.tokens for s in greedy),
        "groups_of_8_mixed": mean(0 < sum(s.right for s in g) < 8 for g in groups),
        "groups_of_8_length_std": mean(statistics.pstdev(s.tokens for s in g) for g in groups),
        "sra_top3": [accuracy[head] for head in ranked[:3]],
        "sra_median": round(statistics.median(accuracy.values()), 4),
        "score_top3_essential": mean(essential[head] for head in ranked[:3]),
        "score_top3_redundant": mean(redundant[head] for head in ranked[:3]),
    }
