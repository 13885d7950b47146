"""Cost of reading attention rows, compared with a plain forward: selected heads, all heads, and output_attentions.

    python benchmarks/attention_rows.py --model smollm2 --tokens 1024 2048 --answer 64 256   # needs `make test-models`
    python benchmarks/attention_rows.py --model 1.5b --tokens 4096 16384 32768 --answer 512 --device cuda

One row of T tokens with |F| answer tokens and a step every 64 tokens, random ids, no gradient. Arms take turns in
random order; figures are medians of paired ratios to the plain forward of the same turn, with 95 % bootstrap intervals.
rows_over_plain (CPU): time inside the package's own function divided by that of the plain forward, which resolves costs
far below the few percent by which complete forwards vary.
The plain forward computes hidden states only (--logits: log-probabilities of every token, as in training).
Memory: peak of the device per arm; on a CPU of a process that ran only this arm. output_attentions needs eager
attention and T² numbers per head: it is skipped above --most-attentions tokens.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from step_overhead import load, median_with_interval, peak_rss_mib
from transformers.utils import logging

from attnpo.attention.capture import capture_scores
from attnpo.attention.layout import StepLayout
from attnpo.attention.rows import AnswerRows

ARMS = ("plain", "selected", "all", "output_attentions")
STEP = 64  # tokens


class Bench:
    """One model, and the forwards to compare."""

    def __init__(self, args: argparse.Namespace) -> None:
        model, _, self.selected = load(args.model, args.device)
        self.model = model.eval()
        config = model.config.get_text_config()
        self.every = [
            (layer, head) for layer in range(config.num_hidden_layers) for head in range(config.num_attention_heads)
        ]
        self.vocabulary = config.vocab_size
        self.device = args.device
        self.logits = args.logits
        self.rows_seconds = 0.0
        inner = AnswerRows.step_sums

        def timed(rows: AnswerRows, *args: Any, **kwargs: Any) -> torch.Tensor:
            """Call the package's own function and add up its time (on a GPU only that of queueing its kernels)."""
            started = time.perf_counter()
            result = inner(rows, *args, **kwargs)
            self.rows_seconds += time.perf_counter() - started
            return result

        AnswerRows.step_sums = timed

    def batch(self, tokens: int, answer: int) -> tuple[torch.Tensor, StepLayout]:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, self.vocabulary, (1, tokens), generator=generator).to(self.device)
        steps = [(start, min(start + STEP, tokens - answer)) for start in range(STEP, tokens - answer, STEP)]
        mask = torch.ones(1, tokens, dtype=torch.int64, device=self.device)
        return ids, StepLayout.from_spans([steps], [(tokens - answer, tokens)], mask)

    def forward(self, ids: torch.Tensor, **options: Any) -> None:
        with torch.no_grad():
            hidden = self.model.get_decoder()(input_ids=ids, use_cache=False, **options).last_hidden_state
            if self.logits:  # in pieces: a whole row of logits can be gigabytes
                head = self.model.get_output_embeddings()
                for piece in hidden.split(1024, dim=1):
                    head(piece).float().log_softmax(dim=-1)

    def run(self, arm: str, ids: torch.Tensor, layout: StepLayout) -> float:
        """Seconds of one forward."""
        cuda = self.device == "cuda"
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        heads = {"selected": self.selected, "all": self.every}.get(arm)
        if arm == "output_attentions":
            self.model.set_attn_implementation("eager")
        started = time.perf_counter()
        self.rows_seconds = 0.0
        with capture_scores(self.model, layout, heads) if heads else nullcontext() as captured:
            self.forward(ids, **({"output_attentions": True} if arm == "output_attentions" else {}))
        if captured is not None:
            assert torch.isfinite(captured.scores).all()
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        if arm == "output_attentions":
            self.model.set_attn_implementation("sdpa")
        return seconds


def peak_memory(args: argparse.Namespace, bench: Bench, arm: str, tokens: int, answer: int) -> float:
    """MiB, of the device or of a separate process."""
    if args.device == "cuda":
        bench.run(arm, *bench.batch(tokens, answer))
        return torch.cuda.max_memory_allocated() / 2**20
    command = [sys.executable, __file__, "--model", args.model, "--tokens", str(tokens), "--answer", str(answer)]
    output = subprocess.run([*command, "--memory-of", arm], capture_output=True, text=True, check=True).stdout
    return float(output.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("overthinker", "smollm2", "1.5b"), default="smollm2")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--answer", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS[1:], default=list(ARMS[1:]), help="compared with the plain forward"
    )
    parser.add_argument("--logits", action="store_true", help="compare with a forward to log-probabilities")
    parser.add_argument("--most-attentions", type=int, default=2048, help="most tokens for output_attentions")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--memory-of", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", help="write the figures as JSON")
    args = parser.parse_args()
    logging.disable_progress_bar()
    bench = Bench(args)
    if args.memory_of:
        bench.run(args.memory_of, *bench.batch(args.tokens[0], args.answer[0]))
        print(peak_rss_mib())
        return
    rng, results = random.Random(0), []
    for tokens in args.tokens:
        for answer in args.answer:
            results.append(measure(args, bench, rng, tokens, answer))
            print(json.dumps(results[-1]), flush=True)
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


def measure(args: argparse.Namespace, bench: Bench, rng: random.Random, tokens: int, answer: int) -> dict[str, Any]:
    """Return the figures of all arms for one length."""
    ids, layout = bench.batch(tokens, answer)
    arms = ["plain", *(arm for arm in args.arms if arm != "output_attentions" or tokens <= args.most_attentions)]
    for arm in arms:  # warm-up
        bench.run(arm, ids, layout)
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    rows: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(args.turns):
        for arm in rng.sample(arms, len(arms)):
            seconds[arm].append(bench.run(arm, ids, layout))
            rows[arm].append(bench.rows_seconds)
    figures: dict[str, Any] = {"tokens": tokens, "answer": answer, "plain_seconds": float(np.median(seconds["plain"]))}
    for arm in arms[1:]:
        figures[arm] = median_with_interval(np.array(seconds[arm]) / np.array(seconds["plain"]))
    if args.device == "cpu":
        own = {arm: np.array(rows[arm]) / np.array(seconds["plain"]) for arm in arms if any(rows[arm])}
        figures["rows_over_plain"] = {arm: median_with_interval(shares) for arm, shares in own.items()}
    if not args.no_memory:
        figures["peak_mib"] = {arm: peak_memory(args, bench, arm, tokens, answer) for arm in arms}
    return figures


if __name__ == "__main__":
    main()
