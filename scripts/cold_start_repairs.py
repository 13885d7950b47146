"""Teach a model the repair mode that `--credit iop` needs: fine-tune it on pairs of a wrong response and its repair.

    attnpo task --repairs --n 4000 -o repairs.jsonl
    python scripts/cold_start_repairs.py repairs.jsonl --model overthinker --out runs/repairer

A row is trained on as repair prompt -> repaired response; a share of the rows also as problem -> anchor, so that the
model keeps its accuracy. Before and after, the model repairs the same held-out pairs of the built-in task, with
four candidates each. Measured: the share of candidates that are right, and usable (they pass the audit's rules too), of
wrong responses with at least one usable candidate, the distance of these from the wrong response (edits per token), and
the model's accuracy on the problems. The model and cold_start.json are written to --out. TRL's SFTTrainer,
loss on the responses only.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from measure_on_task import sample_responses
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from attnpo.credit.iop.audit import Case, audit_by_rules
from attnpo.credit.iop.repairs import PROMPTS, edit_distance, repair_prompt
from attnpo.data.jsonl import read_jsonl
from attnpo.models import resolve_model
from attnpo.task.dataset import iterate_repairs

EVALUATION_SEED = 91_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="rows of `attnpo task --repairs`, or with the same fields")
    parser.add_argument("--model", default="overthinker")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--prompt", default="brief", help=f"{', '.join(PROMPTS)}, or a text; as in credit_kwargs")
    parser.add_argument("--solve-share", type=float, default=0.5, help="of the rows whose anchor is trained on too")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--max-seconds", type=float, default=float("inf"), help="stop training then")
    parser.add_argument("--problems", type=int, default=96, help="held-out pairs to measure on")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(resolve_model(args.model))
    model: Any = AutoModelForCausalLM.from_pretrained(resolve_model(args.model), dtype=torch.float32)
    before = measure(model, tokenizer, args)
    print(json.dumps({"before": before}), flush=True)
    started = time.perf_counter()
    trained = train(model, tokenizer, list(read_jsonl(args.data)), args)
    seconds = time.perf_counter() - started
    after = measure(model.eval(), tokenizer, args)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    record = {
        "arguments": {name: str(value) for name, value in vars(args).items()},
        "seconds": round(seconds),
        "steps": trained,
        "before": before,
        "after": after,
    }
    (args.out / "cold_start.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({"after": after, "steps": trained, "seconds": round(seconds)}), flush=True)


def examples(rows: list[dict[str, Any]], tokenizer: Any, args: argparse.Namespace) -> Dataset:
    """Return prompt and completion texts from the chat template, shuffled."""
    rng, found = random.Random(args.seed), []
    for row in rows:
        problem = [{"role": "user", "content": row["problem"]}]
        repair = repair_prompt(problem, wrong=row["wrong"], anchor=row["anchor"], template=args.prompt)
        pairs = [(repair, row["response"]), (problem, row["anchor"])]
        for messages, response in pairs[: 1 + (rng.random() < args.solve_share)]:
            text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            found.append({"prompt": text, "completion": response + tokenizer.eos_token})
    rng.shuffle(found)
    return Dataset.from_list(found)


def train(model: Any, tokenizer: Any, rows: list[dict[str, Any]], args: argparse.Namespace) -> int:
    """Train; return the number of optimiser steps."""
    from transformers import TrainerCallback

    started = time.perf_counter()

    class Clock(TrainerCallback):
        def on_step_end(self, _args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop |= time.perf_counter() - started > args.max_seconds

    trainer = SFTTrainer(
        model,
        SFTConfig(
            output_dir=str(args.out),
            num_train_epochs=args.epochs,
            per_device_train_batch_size=args.batch,
            learning_rate=args.lr,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=20,
            max_length=None,
            completion_only_loss=True,
            gradient_checkpointing=False,
            train_sampling_strategy="group_by_length",
            bf16=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            save_strategy="no",
            logging_steps=25,
            report_to="none",
            disable_tqdm=True,
            seed=args.seed,
        ),
        train_dataset=examples(rows, tokenizer, args),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    trainer.train()
    return trainer.state.global_step


def measure(model: Any, tokenizer: Any, args: argparse.Namespace, group: int = 4) -> dict[str, float]:
    """Measure solving and repairing of held-out problems, with one response and `group` candidates each."""
    torch.manual_seed(args.seed)
    rows = list(iterate_repairs(args.problems, EVALUATION_SEED, "test"))
    asked = []
    for row in rows:
        prompt = [{"role": "user", "content": row["problem"]}]
        asking = repair_prompt(prompt, wrong=row["wrong"], anchor=row["anchor"], template=args.prompt)
        asked += [{**row, "problem": asking[0]["content"]}] * group
    solved = sample_responses(model, tokenizer, rows, max_new_tokens=400, batch=64)
    repairs = sample_responses(model, tokenizer, asked, max_new_tokens=400, batch=64)
    usable, distances = [], []
    for i, repair in enumerate(repairs):
        row = rows[i // group]
        reason = audit_by_rules([Case(row["problem"], row["wrong"], repair.text, row["anchor"])])[0]
        usable.append(repair.right and reason is None)
        if usable[-1]:
            texts = tokenizer([row["wrong"], repair.text], add_special_tokens=False)["input_ids"]
            distances.append(edit_distance(*texts))
    return {
        "solved": round(statistics.fmean(s.right for s in solved), 3),
        "candidates_right": round(statistics.fmean(r.right for r in repairs), 3),
        "candidates_usable": round(statistics.fmean(usable), 3),
        "repaired": round(statistics.fmean(any(usable[i : i + group]) for i in range(0, len(usable), group)), 3),
        "edit_distance": round(statistics.fmean(distances), 3) if distances else float("nan"),
    }


if __name__ == "__main__":
    main()
