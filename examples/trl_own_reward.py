"""A TRL script with two rewards: the verifier, and one of your own. Runs on a CPU with the shipped model.

python examples/trl_own_reward.py --steps 20
"""

from __future__ import annotations

import argparse

from datasets import Dataset

from attnpo import AttnPOConfig, AttnPOTrainer
from attnpo.models import resolve_model
from attnpo.rewards.accuracy import AccuracyReward
from attnpo.task.dataset import build_dataset


def closes_thinking(completions: list, **columns: object) -> list[float]:
    """0.1 for a response that ends its thinking: a reward function as TRL defines it, with the row's columns."""
    texts = [completion[0]["content"] for completion in completions]
    return [0.1 * ("</think>" in text) for text in texts]


def main(steps: int, problems: int, output: str) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": row["problem"]}], "reference": row["reference"], "id": row["id"]}
        for row in build_dataset(problems, seed=0, difficulty=(1, 3))
    ]
    accuracy = AccuracyReward()
    trainer = AttnPOTrainer(
        model=resolve_model("overthinker"),
        reward_funcs=[closes_thinking, accuracy],  # accuracy says what is right, known by its name
        args=AttnPOConfig(output, max_steps=steps, max_completion_length=320, learning_rate=3e-4, report_to="none"),
        train_dataset=Dataset.from_list(rows),
    )
    trainer.train()
    trainer.save_model(output)
    accuracy.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--output", default="runs/trl-own-reward")
    options = parser.parse_args()
    main(options.steps, options.problems, options.output)
