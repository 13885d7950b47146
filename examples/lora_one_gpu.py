"""LoRA on one device, as one would for a larger model on one GPU; here the shipped model, on whatever is there.

python examples/lora_one_gpu.py --steps 20

For DeepSeek-R1-Distill-Qwen-1.5B on 24 GB there is configs/one-gpu-24gb.yaml.
"""

from __future__ import annotations

import argparse

from attnpo.training.run import train


def main(steps: int, more: list[str]) -> None:
    train(
        [
            *("--model_name_or_path", "overthinker", "--dataset_name", "task", "--task_difficulty", "1-3"),
            *("--train_problems", "64", "--eval_problems", "16"),
            *("--use_peft", "true", "--lora_r", "8", "--lora_alpha", "16", "--lora_target_modules", "all-linear"),
            *("--max_completion_length", "320", "--max_steps", str(steps), "--learning_rate", "1e-3"),
            *("--output_dir", "runs/lora", "--report_to", "none", *more),
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    options, rest = parser.parse_known_args()  # every option of `attnpo train` may follow
    main(options.steps, rest)
