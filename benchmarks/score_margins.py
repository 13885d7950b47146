"""Scores of essential and redundant steps, and on which side of the baseline they are as p changes.

    attnpo task --n 200 --seed 6 --split test --difficulty 1-3 -o traces.jsonl
    attnpo score traces.jsonl -o scored.jsonl            # --model M --heads H; default: the packaged model
    python benchmarks/score_margins.py scored.jsonl

Needs labelled traces ("essential") with scores. Scores are shown in units of uniform attention |F|/|o|, where the
baseline is τ·p^β (the paper: τ = 1, β = 2; `--threshold`, `--beta`). A redundant step above it is protected in an
overlong right response and never attenuated. With true labels γ of a redundant step would be 1 − p² at A > 0.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np

from attnpo.data.jsonl import read_jsonl

LAMBDA = 2  # λ, the paper's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scored", help="traces with labels and scores")
    parser.add_argument("--p", type=float, nargs="+", default=[1.0, 0.875, 0.75, 0.5], help="shares of right responses")
    parser.add_argument("--threshold", type=float, default=1.0, help="τ")
    parser.add_argument("--beta", type=float, default=2.0, help="β")
    args = parser.parse_args()

    shares: dict[tuple[bool, str], list[float]] = defaultdict(list)
    for row in read_jsonl(args.scored, required=("steps", "answer_tokens", "total_tokens")):
        uniform = row["answer_tokens"] / row["total_tokens"]
        for step in row["steps"]:
            if step.get("score") is not None and step.get("essential") is not None:
                shares[step["essential"], str(step.get("role", "step"))].append(step["score"] / uniform)
    print("| step | count | score: 10 % | median | 90 % | below τ |\n|---|---|---|---|---|---|")
    for (essential, role), values in sorted(shares.items()):
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
        kind = "essential" if essential else "redundant"
        below = f"{np.mean(np.array(values) < args.threshold):.0%}"
        print(f"| {kind}: {role} | {len(values)} | {low:.2f} | {middle:.2f} | {high:.2f} | {below} |")
    redundant = np.concatenate([values for (essential, _), values in shares.items() if not essential])
    essential = np.concatenate([values for (essential, _), values in shares.items() if essential])
    print(f"\nτ = {args.threshold:g}, β = {args.beta:g}\n")
    print(
        "| p | redundant steps above the baseline | essential below | mean γ of redundant ones at A > 0 | true labels |"
    )
    print("|---|---|---|---|---|")
    for p in args.p:
        baseline = args.threshold * p**args.beta
        scale = np.where(redundant < baseline, p**LAMBDA * redundant / baseline + 1 - p**LAMBDA, 1.0)
        sides = f"{np.mean(redundant > baseline):.0%} | {np.mean(essential < baseline):.0%}"
        print(f"| {p} | {sides} | {scale.mean():.2f} | {1 - p**LAMBDA:.2f} |")


if __name__ == "__main__":
    main()
