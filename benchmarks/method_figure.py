"""The figure of `compare_methods.py`: accuracy over length of every method, and the ablations next to it."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from method_arms import SAMPLING_MORE
from method_runs import MINE, PLAIN, START, Arm, interval, paired

# Colours tell apart (by a palette for the colour-blind): accuracy alone, process supervision, AttnPO; the rest: length.
COLOURS = {START: "black", MINE: "#d55e00"}
COLOURS |= dict.fromkeys((PLAIN, "GRPO", "Dr.GRPO"), "#777777")
COLOURS |= dict.fromkeys(("First-correct", *SAMPLING_MORE), "#009e73")


def frontier(arms: list[Arm], file: Path, steps: int) -> None:
    """Draw accuracy over tokens, one numbered point per method (left), and AttnPO's ablations minus AttnPO (right)."""
    ablations = [arm for arm in arms if arm.name.startswith(f"{MINE}-")]
    methods = [arm for arm in arms if arm not in ablations]
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 6), layout="constrained", width_ratios=(3, 2))
    # A method far below the others is drawn at the edge, with its accuracy in the legend.
    floor = float(np.median([arm.accuracy[0] for arm in methods])) - 0.3
    for number, arm in enumerate(methods):
        (a, a_low, a_high), (t, t_low, t_high) = arm.accuracy, arm.length
        colour = COLOURS.get(arm.name, "#0072b2")
        label = f"{number}  {arm.name}" + ("" if a > floor else f" ({a:.2f})")
        at = max(a, floor)
        left.plot([t_low, t_high], [at, at], color=colour, linewidth=0.8, zorder=1)
        left.plot([t, t], [max(a_low, floor), max(a_high, floor)], color=colour, linewidth=0.8, zorder=1)
        left.scatter([t], [at], s=170, color=colour, edgecolor="white", label=label, zorder=2)
        left.annotate(str(number), (t, at), ha="center", va="center", fontsize=7, color="white", zorder=3)
    left.set(xlabel="tokens of a response", ylabel="accuracy")
    title = f"after {steps} updates; bars: 95 % over seeds and problems\ngrey: accuracy alone, blue: length rewards, "
    left.set_title(title + "green: process supervision, orange: AttnPO", fontsize=9)
    left.legend(fontsize=8, markerscale=0.6, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    whole = next((arm for arm in arms if arm.name == MINE), None)
    for place, arm in enumerate(ablations if whole else []):
        middle, low, high = interval(paired(arm, whole, "right"))
        tokens = paired(arm, whole, "tokens").mean()
        right.plot([low, high], [-place, -place], color="#555555", linewidth=1)
        right.plot([middle], [-place], "o", color="#555555")
        right.annotate(
            f"{arm.name.removeprefix(f'{MINE}-')}, {tokens:+.0f} tokens", (0, -place), (0, 9),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip
    right.axvline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    right.set(yticks=[], xlabel="accuracy minus AttnPO's", ylim=(-len(ablations) + 0.4, 0.7))
    right.set_title(f"ablations of {MINE}, paired by seed and problem", fontsize=10)
    figure.savefig(file, dpi=110)
    plt.close(figure)
