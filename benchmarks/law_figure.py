"""The figure of docs/law.md: remaining redundancy along the runs, accuracy over length, speed-up over redundancy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    from law_tables import Run

SIMULATED = Path(__file__).resolve().parent / "law_simulation.json"
COLOURS = {
    "TLMRE": "#7f7f7f",
    "AttnPO": "#9ecae1",
    "AttnPO-sharp": "#1f77b4",
    "Gold": "#d6a100",
    "Shuffled": "#e377c2",
    "Random-heads": "#8c6d31",
}
BATCHES = {2: "#1f77b4", 4: "#2ca02c", 16: "#d62728"}
Cells = dict[str, dict[str, dict[int, "Run"]]]


def draw(cells: Cells, target: Path) -> None:
    """Draw one row per cell (left and middle), and the speed-ups of all cells to the right of the first."""
    shown = [cell for cell, arms in cells.items() if "TLMRE" in arms]
    figure, axes = plt.subplots(len(shown), 3, figsize=(15, 4.2 * len(shown)), squeeze=False, constrained_layout=True)
    for row, cell in zip(axes, shown, strict=True):
        redundancy_left(row[0], cell, cells[cell])
        accuracy_over_length(row[1], cell, cells[cell])
        row[2].axis("off")
    axes[0][2].axis("on")
    speed_ups(axes[0][2], {cell: cells[cell] for cell in shown})
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    plt.close(figure)


def redundancy_left(axis: Any, cell: str, arms: dict[str, dict[int, Run]]) -> None:
    for arm, runs in arms.items():
        updates = min(len(run.record["updates"]) for run in runs.values())
        left = np.array([run.smooth("redundant")[:updates] / run.start for run in runs.values()])
        sampled = next(iter(runs.values())).responses[1 : updates + 1]
        colour = COLOURS.get(arm)
        axis.plot(sampled, left.mean(axis=0), label=f"{arm} ({len(runs)})", color=colour, lw=2)
        for one in left:
            axis.plot(sampled, one, color=colour, lw=0.5, alpha=0.5)
    axis.axhline(0.5, color="black", lw=0.5, ls=":")
    axis.set(xlabel="responses sampled", ylabel="redundant steps left (share)", title=cell, ylim=(0, 1.2))
    axis.legend(fontsize=7, frameon=False)


def accuracy_over_length(axis: Any, cell: str, arms: dict[str, dict[int, Run]]) -> None:
    for arm, runs in arms.items():
        updates = min(len(run.record["updates"]) for run in runs.values())
        tokens, right = (
            np.mean([run.smooth(what)[:updates] for run in runs.values()], axis=0) for what in ("tokens", "right")
        )
        axis.plot(tokens, right, color=COLOURS.get(arm), lw=1.5, label=arm)
        axis.plot(tokens[-1], right[-1], "o", color=COLOURS.get(arm), ms=5)
    axis.invert_xaxis()
    axis.set(xlabel="tokens per response", ylabel="accuracy", title=f"{cell}: training rollouts, mean of seeds")


def speed_ups(axis: Any, cells: Cells) -> None:
    """Draw the speed-ups over TLMRE: measured (points with intervals, bounds with arrows), simulated with true labels
    (lines)."""
    from law_tables import samples_ratio

    for arm, marker in (("AttnPO-sharp", "o"), ("Gold", "D")):
        for cell, arms in cells.items():
            if arm not in arms or not set(arms[arm]) & set(arms["TLMRE"]):
                continue
            redundancy, sentences, problems = cell.split("-")
            ratio = samples_ratio(arms[arm], arms["TLMRE"])
            colour = BATCHES[int(problems)]
            middle, low, high = 1 / ratio.middle, 1 / ratio.high, 1 / ratio.low
            place = int(redundancy) * (1.04 if arm == "Gold" else 1)
            filled = {"mfc": colour if sentences == "many" else "white"}
            name = f"{arm}, {sentences}, {problems} problems"
            label = None if name in axis.get_legend_handles_labels()[1] else name
            axis.plot(place, middle, marker, color=colour, ms=7, **filled, label=label)
            if not (ratio.reached and ratio.other_reached):  # only a bound: some run did not remove half
                end = (place, middle + (0.6 if ratio.reached else -0.6))
                axis.annotate("", end, (place, middle), arrowprops={"arrowstyle": "->", "color": colour})
            elif np.isfinite([low, high]).all():
                axis.plot([place, place], [low, high], color=colour, lw=1)
    if SIMULATED.exists():
        for curve in json.loads(SIMULATED.read_text(encoding="utf-8")):
            if curve["arm"] == "stepwise":
                style = "-" if curve["kinds"] == "many" else "--"
                axis.plot(
                    curve["redundant"], curve["speed_up"], style, color=BATCHES[curve["problems"]], lw=1, alpha=0.6
                )
    axis.axhline(1, color="black", lw=0.5, ls=":")
    axis.set(
        xscale="log", xlabel="redundant steps per response", ylabel="TLMRE's samples / the arm's, until half is left"
    )
    axis.set_xticks([4, 12, 30], ["4", "12", "30"])
    axis.minorticks_off()
    axis.set_title("speed-up over TLMRE; lines: simulation")
    axis.legend(fontsize=7, frameon=False)
