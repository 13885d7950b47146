"""The arms of `compare_methods.py`: every method of the package, and ablations, on the shipped small model.

One optimiser, batch, loss (token mean, no KL term) and learning rate for all, those of configs/short.yaml, so that only
the reward, the credit and settings that a method requires (Dr. GRPO's and IOP's loss, SHAPE's and DAPO's clip) differ;
the recipes in configs/methods have each paper's own. Group advantages are RLOO's except where GRPO's are part of the
method.

Responses of that model have about 200 tokens compared with 5,000 to 10,000 in the papers, so quantities in tokens are
scaled down (`SCALED` has the original values). TLMRE's α is 0.4 in all arms that use it: a few steps instead of a
thousand need a larger weight than 0.2. The other rewards keep their weights, whose effect is stronger than that
(LASER's 0.5, ThinkPrune's 1, ShorterBetter's 0.02 a token) or similar (Kimi's ±0.2). SHAPE and MRT have four segments
and continuations instead of eight, IOP two candidates instead of four, to be affordable on a CPU.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

OUTCOME = ["--length_reward", "none", "--credit", "outcome"]
TLMRE = ["--length_reward", "tlmre", "--length_alpha", "0.4"]
ATTNPO = [*TLMRE, "--credit", "attnpo"]
# Closing the thinking in the words of the small model, as its traces do.
CLOSING = "\n</think>\n\nSolution:"
SEGMENTS = {"segments": 4, "rollouts": 4, "rollout_tokens": 64, "closing": CLOSING}

SCALED = {
    "l1_exact": ({"low": 80, "high": 240}, "100 … 4000 tokens, α 0.0003 per token"),
    "l1_max": ({"low": 80, "high": 240}, "100 … 4000 tokens, α 0.0003 per token"),
    "laser": ({"target": 140}, "8192 tokens"),
    "laser_d": ({"low": 60, "interval": 20, "update_every": 5}, "from 4096 in steps of 1024, every 20 steps"),
    "thinkprune": ({"limits": [220, 170, 120], "steps": 5}, "4000, 3000, 2000 tokens, 180 steps each"),
    "shorterbetter": ({"beta": 0.02}, "β 0.001 per token"),
    "overlong": ({"max_length": 240, "cache": 120}, "20480, 4096 tokens"),
}
# Given here because the configuration of the small model has one for TLMRE.
ALPHA = {"l1_exact": 0.006, "l1_max": 0.006, "laser": 0.5, "laser_d": 0.5, "shorterbetter": 2.0}


def length(name: str, advantage: str = "rloo") -> list[str]:
    options = ["--length_kwargs", json.dumps(SCALED[name][0])] if name in SCALED else []
    options += ["--length_alpha", str(ALPHA[name])] if name in ALPHA else []
    return ["--advantage", advantage, "--length_reward", name, *options, "--credit", "outcome"]


def credit(name: str, advantage: str = "rloo", **options: object) -> list[str]:
    return ["--advantage", advantage, "--credit", name, "--credit_kwargs", json.dumps(options)]


IOP = [
    *["--length_reward", "none", "--importance_sampling_level", "sequence", "--loss_type", "grpo"],
    *credit("iop", candidates=2),
]


def shape(**options: object) -> list[str]:
    return ["--length_reward", "none", *credit("shape", "grpo", **SEGMENTS, **options), "--epsilon_high", "0.28"]


METHODS: dict[str, list[str]] = {
    "RLOO": OUTCOME,
    "GRPO": ["--advantage", "grpo", *OUTCOME],
    "Dr.GRPO": ["--advantage", "dr_grpo", "--loss_type", "dr_grpo", *OUTCOME],
    "DAPO": [*length("overlong", "grpo"), "--epsilon_high", "0.28"],
    "TLMRE": [*TLMRE, "--credit", "outcome"],
    "Kimi": length("kimi"),
    "L1-exact": length("l1_exact"),
    "L1-max": length("l1_max"),
    "LASER": length("laser"),
    "LASER-D": length("laser_d"),
    "ThinkPrune": length("thinkprune"),
    "ShorterBetter": length("shorterbetter"),
    "First-correct": [*TLMRE, *credit("first_correct")],
    "MRT": ["--length_reward", "none", *credit("mrt", "grpo", **SEGMENTS)],
    "SHAPE": shape(),
    "IOP": IOP,
    "AttnPO": ATTNPO,
}

ABLATIONS: dict[str, list[str]] = {
    "AttnPO-positive-only": [*ATTNPO, "--credit_negative", "false"],
    "AttnPO-negative-only": [*ATTNPO, "--credit_positive", "false"],
    "AttnPO-no-difficulty": [*ATTNPO, "--credit_difficulty", "false"],
    "AttnPO-no-delay": [*ATTNPO, "--credit_delay", "0"],
    # With p near 0.8 the configuration's T = 5 holds the first update back; this one half of the run.
    "AttnPO-delay-40": [*ATTNPO, "--credit_delay", "40"],
    "AttnPO-random-heads": [*ATTNPO, "--heads", "RANDOM"],
    "AttnPO-gold-labels": [*TLMRE, "--credit", "gold_labels", "--credit_module", "gold_labels"],
    "AttnPO-auto-heads": [*ATTNPO, "--heads", "auto"],
    "SHAPE-at-steps": shape(cuts="steps"),
    "IOP-sixth-rate": [*IOP, "--learning_rate", "5e-5"],
}

ARMS = METHODS | ABLATIONS
# More expensive than plain RL: evaluated more often, for the comparison at equal time.
SAMPLING_MORE = ("MRT", "SHAPE", "SHAPE-at-steps", "IOP", "IOP-sixth-rate")
# Evaluated before the first update. RLOO's start serves all arms except those whose prompts contain a length.
OWN_START = ("RLOO", "L1-exact", "L1-max")


def options_of(arm: str, seed: int, folder: Path) -> list[str]:
    """Return the options of an arm; random heads are drawn here, different ones for every seed."""
    options = list(ARMS[arm])
    if "RANDOM" in options:
        heads = random.Random(seed).sample([(layer, head) for layer in range(4) for head in range(10)], 3)
        file = folder / "random_heads.json"
        file.write_text(json.dumps({"heads": heads}), encoding="utf-8")
        options[options.index("RANDOM")] = str(file)
    return options
