"""Potentials along traces of the built-in task, with the packaged model: the effect of `closing` and the cuts.

Prints, per closing and cuts, the mean potential at each boundary (the prompt first, the outcome last) and the CPU
seconds of the stage, with the shared cache of the prefixes and without. One thread.

    python benchmarks/potentials.py --traces 12
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from attnpo import AttnPOConfig, AttnPOTrainer
from attnpo.credit.base import get_credit
from attnpo.models import OVERTHINKER, resolve_model
from attnpo.steps.answers import final_answer
from attnpo.steps.spans import locate_steps
from attnpo.task.dataset import build_dataset
from attnpo.training.batch import GenerationBatch
from attnpo.training.stages.potentials import Potentials

CLOSINGS = (("\n</think>\n\n", 48), ("\n</think>\n\nThe final answer is \\boxed{", 16), ("", 300))  # and most tokens


def accuracy(completions: list[Any], reference: list[str], **columns: Any) -> list[float]:
    texts = [completion if isinstance(completion, str) else completion[0]["content"] for completion in completions]
    answers = [final_answer(text.partition("</think>")[2]) for text in texts]
    return [float(answer == right) for answer, right in zip(answers, reference, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=12)
    parser.add_argument("--segments", type=int, default=6)
    parser.add_argument("--rollouts", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = resolve_model(OVERTHINKER)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    rows = [
        {**row, "prompt": [{"role": "user", "content": row["problem"]}]}
        for row in build_dataset(args.traces, 1, "test", (1, 3))
    ]
    with tempfile.TemporaryDirectory() as output:
        config = AttnPOConfig(
            output,
            credit="outcome",
            length_reward="none",
            per_device_train_batch_size=args.traces,
            gradient_accumulation_steps=1,
            num_generations=args.traces,
            max_steps=1,
            use_cpu=True,
            report_to="none",
        )
        model = AutoModelForCausalLM.from_pretrained(folder)
        trainer = AttnPOTrainer(model, accuracy, config, Dataset.from_list(rows), None, tokenizer)
        ids = [
            [*tokenizer(row["response"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for row in rows
        ]
        rollouts = GenerationBatch(
            rows=rows,
            prompt_ids=trainer._tokenize_prompts([row["prompt"] for row in rows])[0],
            completion_ids=ids,
            located=[locate_steps(tokenizer, row) for row in ids],
            verdicts=[True] * len(rows),
            group_size=len(rows),
        )
        for closing, tokens in CLOSINGS:
            for cuts in ("steps", "entropy"):
                shared, seconds = {"closing": closing, "rollout_tokens": tokens, "cuts": cuts}, []
                for share in (True, False):
                    options = {"segments": args.segments, "rollouts": args.rollouts, "share_prefixes": share, **shared}
                    batch = {"completion_ids": torch.zeros(len(ids), max(map(len, ids)))}
                    torch.manual_seed(0)
                    started = time.process_time()
                    Potentials(get_credit("shape", **options), trainer.policy)(batch, rollouts)
                    seconds.append(time.process_time() - started)
                means = " ".join(f"{mean:.2f}" for mean in batch["signal/potential"].nanmean(dim=0).tolist())
                print(
                    f"{closing!r:45}{cuts:9}{means}   {seconds[0]:.1f} s, without sharing {seconds[1]:.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
