"""Rollouts of the shipped model: transformers' own loop compared with that of training (models/fast_rollouts).

    OMP_NUM_THREADS=1 python benchmarks/rollout_speed.py                 # responses of 200 and 1,000 tokens
    python scripts/wider_heads.py overthinker runs/overthinker-wide      # and with vLLM on a CPU (`make vllm-env`):
    VLLM_CPU_KVCACHE_SPACE=1 OMP_NUM_THREADS=1 .venv-vllm/bin/python benchmarks/rollout_speed.py \\
        --engine vllm --model runs/overthinker-wide

Every response is forced to that length, so that no row ends early and only the loop and the cache are compared. (If
responses differ in length, ended rows also leave the batch.) Arms take turns; medians of
tokens per second of processor time, and how many responses of the last round differ (between the two loops: vLLM, set
up as in training and in bfloat16, draws other random numbers).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median
from types import SimpleNamespace

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from attnpo.models import resolve_model
from attnpo.models.fast_rollouts import fast_rollouts
from attnpo.training.vllm_rollouts import keep_weights_as_loaded


def vllm_sampler(path: str) -> Callable[[list[list[int]], int], None]:
    """Return a function that samples a number of tokens per prompt with an engine like that of TRL's colocate mode."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]

    keep_weights_as_loaded(SimpleNamespace(use_vllm=True, vllm_mode="colocate", device=torch.device("cpu")))
    llm = LLM(model=path, max_num_batched_tokens=4096, logprobs_mode="processed_logprobs")

    def sample(prompts: list[list[int]], tokens: int) -> None:
        params = SamplingParams(temperature=1.0, max_tokens=tokens, ignore_eos=True, logprobs=0)
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        assert all(len(output.outputs[0].token_ids) == tokens for output in outputs)

    return sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="overthinker")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", choices=["transformers", "vllm"], default="transformers", help="vllm: it as well")
    args = parser.parse_args()
    path = resolve_model(args.model)
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    ids = torch.tensor([tokenizer("12 + 30")["input_ids"]] * args.rows)
    engine = vllm_sampler(path) if args.engine == "vllm" else None
    more = "" if engine is None else " vLLM: tokens/s |"
    print(f"| tokens | transformers' loop: tokens/s | ours: tokens/s | ratio | responses that differ |{more}")
    print("|---|---|---|---|---|" + ("" if engine is None else "---|"))
    for tokens in args.tokens:
        config = GenerationConfig(
            max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True, temperature=1.0, top_k=0,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        speeds: tuple[list[float], list[float]] = ([], [])
        of_engine: list[float] = []
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
            if engine is not None:
                started = time.process_time()
                engine(ids.tolist(), tokens)
                of_engine.append(args.rows * tokens / (time.process_time() - started))
            different = int((found[0] != found[1]).any(dim=1).sum())
        plain, fast = median(speeds[0]), median(speeds[1])
        row = f"| {tokens} | {plain:.0f} | {fast:.0f} | {fast / plain:.2f} | {different} of {args.rows} |"
        print(row + (f" {median(of_engine):.0f} |" if of_engine else ""), flush=True)


if __name__ == "__main__":
    main()
