"""Tables of the runs of `compare_methods.py`, at equal updates and at equal training time.

Intervals are 95 % bootstrap intervals over seeds and problems (both resampled). AES is relative to the start of the
same seeds; L1, whose prompts contain a length, has its own start. The cost of a step is not read from these runs, which
share the machine, but from `cost.json` in the folder (`method_cost.py -o FOLDER/cost.json`: all methods in turn on the
same rollouts). Equal time: every method at its last evaluation within the time of the plain run, by those costs.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

from method_arms import OWN_START
from method_figure import frontier
from method_runs import MINE, PLAIN, START, Arm, Cost, cost_of, interval, load, load_costs, paired, steps_evaluated

COLUMNS = ("arm", "seeds", "updates", "accuracy", "low", "high", "tokens", "tokens_low", "tokens_high", "aes")
COSTS = ("seconds", "of_plain", "sampled", "read")


def write_tables(folder: Path, arms: list[str], seeds: int, steps: int) -> str:
    """Write table.md, table.csv, frontier.png; return the text of the first. Arms without finished runs are omitted."""
    start = load(folder, PLAIN, seeds, 0, label=START)
    found = [arm for name in arms if (arm := load(folder, name, seeds, steps)) is not None]
    if start is None or not found:
        return f"{folder}: no finished runs yet, or none of {PLAIN}, whose start the others are compared with"
    others = [name for name in OWN_START if name != PLAIN]
    own_starts = {name: own for name in others if (own := load(folder, name, seeds, 0, label=f"{name}'s start"))}
    starts = defaultdict(lambda: start, own_starts)
    costs = load_costs(folder / "cost.json")
    rows = [start, *own_starts.values(), *found]
    text = [f"After {steps} updates, {start.right.shape[1]} held-out problems, sampled at temperature 1."]
    text.append(table(rows, starts, costs))
    if within := [arm for arm in (at_equal_time(folder, arm, seeds, steps, costs) for arm in found) if arm]:
        text.append(f"In the time of {steps} updates of {PLAIN}; methods not listed get as many, as above.")
        text.append(table(within, starts, costs))
    text.append(differences([start, *found]))
    written = "\n\n".join(filter(None, text))
    (folder / "table.md").write_text(written + "\n", encoding="utf-8")
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *COSTS])
        for arm in rows:
            cost = cost_of(costs, arm.name)
            measured = [arm.name, len(arm.seeds), arm.step, *arm.accuracy, *arm.length, arm.aes(starts[arm.name])]
            writer.writerow([*measured, *(astuple(cost) if cost else [""] * len(COSTS))])
    frontier([start, *found], folder / "frontier.png", steps)
    return written


def at_equal_time(folder: Path, arm: Arm, seeds: int, steps: int, costs: dict[str, Cost]) -> Arm | None:
    """Return a method that costs more than plain RL at its last evaluation within the plain run's time, else None."""
    cost = cost_of(costs, arm.name)
    if cost is None or cost.ratio <= 1.1:  # measurement noise is about a tenth
        return None
    reached = [step for step in steps_evaluated(folder, arm.name, seeds) if 0 < step <= steps / cost.ratio]
    return load(folder, arm.name, seeds, max(reached)) if reached else None


def table(arms: list[Arm], starts: Mapping[str, Arm], costs: dict[str, Cost]) -> str:
    lines = [
        "| method | seeds | updates | accuracy | 95 % | tokens | 95 % | AES "
        "| s / step | / RLOO's | additional tokens sampled | … read | per seed (accuracy @ tokens) |",
        "|" + "---|" * 13,
    ]
    for arm in arms:
        (a, a_low, a_high), (t, t_low, t_high) = arm.accuracy, arm.length
        cells = [arm.name, f"{len(arm.seeds)}", f"{arm.step}", f"{a:.3f}", f"{a_low:.3f} – {a_high:.3f}"]
        cells += [f"{t:.0f}", f"{t_low:.0f} – {t_high:.0f}"]
        if arm.name.endswith(START):
            cells += [""] * 5
        else:
            cells.append(f"{arm.aes(starts[arm.name]):+.2f}")
            cells += costs_in_words(cost_of(costs, arm.name))
        by_seed = zip(arm.right.mean(axis=1), arm.tokens.mean(axis=1), strict=True)
        cells.append(", ".join(f"{right:.3f} @ {tokens:.0f}" for right, tokens in by_seed))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def costs_in_words(cost: Cost | None) -> list[str]:
    if cost is None:
        return [""] * len(COSTS)
    return [f"{cost.seconds:.1f}", f"{cost.ratio:.2f}", f"{cost.sampled:,.0f}", f"{cost.read:,.0f}"]


def differences(arms: list[Arm]) -> str:
    """Return AttnPO minus every other arm, paired by seed and problem; empty without AttnPO."""
    mine = next((arm for arm in arms if arm.name == MINE), None)
    if mine is None:
        return ""
    lines = [f"{MINE} minus others, paired by seed and problem:", "", "| | accuracy | tokens |", "|---|---|---|"]
    for other in arms:
        if other is not mine and set(other.seeds) & set(mine.seeds):
            a, t = interval(paired(mine, other, "right")), interval(paired(mine, other, "tokens"))
            accuracy = f"{a[0]:+.3f} ({a[1]:+.3f} to {a[2]:+.3f})"
            lines.append(f"| {other.name} | {accuracy} | {t[0]:+.0f} ({t[1]:+.0f} to {t[2]:+.0f}) |")
    return "\n".join(lines)
