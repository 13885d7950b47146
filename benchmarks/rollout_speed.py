"""Rollouts of the shipped model by transformers: its own loop beside the one that training uses (models/fast_rollouts).

    OMP_NUM_THREADS=1 python benchmarks/rollout_speed.py                 # responses of 200 and 1,000 tokens

Every response is made to have that length, so that no row leaves early: what is compared is the loop and the cache
alone. (Where responses differ in length, rows that have ended leave the batch besides.) Arms take turns; medians of
tokens per second of processor time, and how many responses of the last round differ.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from attnpo.models import resolve_model
from attnpo.models.fast_rollouts import fast_rollouts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="overthinker")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    path = resolve_model(args.model)
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    ids = torch.tensor([tokenizer("12 + 30")["input_ids"]] * args.rows)
    print("| tokens | transformers' loop: tokens/s | ours: tokens/s | ratio | responses that differ |")
    print("|---|---|---|---|---|")
    for tokens in args.tokens:
        config = GenerationConfig(
            max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True, temperature=1.0, top_k=0,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        speeds: tuple[list[float], list[float]] = ([], [])
        for number in range(args.rounds):
            found = []
            for ours in (False, True) if number % 2 else (True, False):
                torch.manual_seed(number)
                started = time.process_time()
                given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "generation_config": config}
                if ours:
                    with fast_rollouts(model), torch.no_grad():
                        found.append(model.generate(**given))
                else:
                    with torch.no_grad():
                        found.append(model.generate(**given))
                speeds[ours].append(args.rows * tokens / (time.process_time() - started))
            different = int((found[0] != found[1]).any(dim=1).sum())
        plain, fast = median(speeds[0]), median(speeds[1])
        print(f"| {tokens} | {plain:.0f} | {fast:.0f} | {fast / plain:.2f} | {different} of {args.rows} |", flush=True)


if __name__ == "__main__":
    main()
