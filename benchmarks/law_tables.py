"""Tables and figure of the runs of `law.py`, from their records.

    python benchmarks/law_tables.py                      # prints the tables, writes docs/img/law.png
    python benchmarks/law_tables.py --cells 30-many-2 --arms TLMRE AttnPO Gold
    python benchmarks/law_tables.py --cells 30-few-2 --against Shuffled       # ratios to that arm instead of TLMRE

Samples until half: responses (and tokens) sampled until the redundant steps per response, as a mean of the last
`WINDOW` responses, have fallen to half of the start's (interpolated between updates). Ratios are paired by seed, with
95 % t intervals of their logarithm over the seeds. A run that does not reach the half counts with all its samples, so a
ratio to it is a bound (marked by ≥ or ≤).

Held out, at equal samples: differences paired by seed and problem, 95 % bootstrap intervals over both.

Equal length: accuracy and length of an arm along its run, as means of `WINDOW` responses; accuracy is compared at the
lengths that both arms of a seed pass through, and averaged over them. Training rollouts are on new problems.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from law_records import RECORDS, read_records
from method_runs import interval

WINDOW = 64  # responses
PLAIN = "TLMRE"
FOR_CHOOSING = 0  # the seed that settings were chosen on
FIGURE = Path(__file__).resolve().parent.parent / "docs" / "img" / "law.png"
# Two-sided 95 % quantiles of Student's t, by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True)
class Run:
    """One record as arrays; `start` is the mean number of redundant steps of the cell's starting model."""

    record: dict[str, Any]
    start: float

    def per_update(self, name: str) -> np.ndarray:
        """Return the mean over the responses of each update, [U]."""
        return np.array([np.mean(update[name]) for update in self.record["updates"]])

    @cached_property
    def responses(self) -> np.ndarray:
        """Responses sampled before each update and, last, in total, [U + 1]."""
        return np.cumsum([0, *(len(update["tokens"]) for update in self.record["updates"])])

    @cached_property
    def tokens(self) -> np.ndarray:
        return np.cumsum([0, *(sum(update["tokens"]) for update in self.record["updates"])])

    def smooth(self, name: str) -> np.ndarray:
        """Return the mean of the last `WINDOW` responses up to each update, [U]."""
        per_update = len(self.record["updates"][0]["tokens"])
        width, values = max(1, WINDOW // per_update), self.per_update(name)
        return np.array([values[max(0, i + 1 - width) : i + 1].mean() for i in range(len(values))])

    def until(self, share: float, counted: str = "responses") -> tuple[float, bool]:
        """Return the samples (`responses` or `tokens`) until `share` of the redundancy remained, and whether it did."""
        sampled, left = getattr(self, counted), self.smooth("redundant") / self.start
        below = np.flatnonzero(left <= share)
        if not len(below):
            return float(sampled[-1]), False
        i = int(below[0])
        if i == 0:
            return float(sampled[1]), True
        part = (left[i - 1] - share) / (left[i - 1] - left[i])
        return float(sampled[i] + part * (sampled[i + 1] - sampled[i])), True


def load(records: Path, cell: str, arms: Sequence[str]) -> dict[str, dict[int, Run]]:
    """Load runs by arm and seed. The start is measured on all first updates, which sample from the starting model."""
    found = {arm: read_records(records, cell, arm) for arm in arms}
    for runs in found.values():
        runs.pop(FOR_CHOOSING, None)
    found = {arm: runs for arm, runs in found.items() if runs}
    first = [np.mean(run["updates"][0]["redundant"]) for runs in found.values() for run in runs.values()]
    first += [
        np.mean(run["held_out"]["0"]["redundant"]) for run in found.get(PLAIN, {}).values() if "0" in run["held_out"]
    ]
    start = float(np.mean(first)) if first else math.nan
    return {arm: {seed: Run(run, start) for seed, run in runs.items()} for arm, runs in found.items()}


def mean_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and its 95 % t interval; NaN bounds for a single value."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return mean, math.nan, math.nan
    half = T95[n - 1] * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def with_interval(form: str, between: str, values: Sequence[float]) -> str:
    """Format `0.70 (0.31 – 1.60)`; only the mean if a single seed has no interval."""
    middle, low, high = (form.format(value) for value in values)
    return middle if math.isnan(values[1]) else f"{middle} ({low}{between}{high})"


@dataclass(frozen=True)
class Ratio:
    """Samples of an arm divided by those of another, over the seeds that both have."""

    middle: float
    low: float
    high: float
    seeds: int
    reached: bool
    other_reached: bool

    def __str__(self) -> str:
        if self.reached and self.other_reached:
            return with_interval("{:.2f}", " – ", (self.middle, self.low, self.high))
        bound = "≤" if self.reached else "≥" if self.other_reached else "about"
        return f"{bound} {self.middle:.2f}"  # no interval: the numbers that a run has not reached are unknown


def samples_ratio(arm: dict[int, Run], other: dict[int, Run], share: float = 0.5, counted: str = "responses") -> Ratio:
    seeds = sorted(set(arm) & set(other))
    pairs = [(arm[seed].until(share, counted), other[seed].until(share, counted)) for seed in seeds]
    logs = mean_with_interval([math.log(mine / theirs) for (mine, _), (theirs, _) in pairs])
    reached, other_reached = (all(pair[i][1] for pair in pairs) for i in (0, 1))
    return Ratio(*np.exp(logs).tolist(), len(seeds), reached, other_reached)


def accuracy_at_equal_length(arm: Run, other: Run) -> float | None:
    """Return accuracy of `arm` minus that of `other` at the lengths that both pass through; None if there are none."""
    curves = []
    for run in (arm, other):
        order = np.argsort(run.smooth("tokens"))
        curves.append((run.smooth("tokens")[order], run.smooth("right")[order]))
    low, high = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if low >= high:
        return None
    grid = np.linspace(low, high, 50)
    mine, theirs = (np.interp(grid, *curve) for curve in curves)
    return float(np.mean(mine - theirs))


def held_out(arm: dict[int, Run], what: str, step: str | None = None) -> np.ndarray:
    """Return [seeds, problems] at the run's last evaluation, or at `step`."""
    rows = [run.record["held_out"] for run in arm.values()]
    return np.array([found[step or max(found, key=int)][what] for found in rows], dtype=float)


def table(cell: str, runs: dict[str, dict[int, Run]], against: str = PLAIN) -> str:
    """Return one row per arm; ratios and differences are relative to the arm `against`."""
    lines = [
        f"### {cell}",
        "",
        f"| | seeds | samples until half | / {against}'s | in tokens | held out, at the end | accuracy − {against}'s "
        f"| tokens / {against}'s | accuracy − {against}'s at equal length |",
        "|" + "---|" * 9,
    ]
    plain, base = runs[PLAIN], runs[against]
    for arm, of_arm in runs.items():
        seeds = sorted(set(of_arm) & set(base))
        until = [of_arm[seed].until(0.5) for seed in of_arm]
        shown = ", ".join(f"{value:.0f}" if reached else f"> {value:.0f}" for value, reached in until)
        right, tokens = held_out(of_arm, "right"), held_out(of_arm, "tokens")
        cells = [arm, str(len(of_arm)), shown]
        if arm == against or not seeds:
            cells += ["", "", f"{right.mean():.3f} @ {tokens.mean():.0f}", "", "", ""]
        else:
            mine, theirs = ({seed: one[seed] for seed in seeds} for one in (of_arm, base))
            cells += [str(samples_ratio(mine, theirs)), str(samples_ratio(mine, theirs, counted="tokens"))]
            cells.append(f"{right.mean():.3f} @ {tokens.mean():.0f}")
            gained = interval(held_out(mine, "right") - held_out(theirs, "right"))
            cells.append(with_interval("{:+.3f}", " to ", gained))
            logs = [
                math.log(np.mean(a) / np.mean(b))
                for a, b in zip(held_out(mine, "tokens"), held_out(theirs, "tokens"), strict=True)
            ]
            cells.append(with_interval("{:.2f}", " – ", np.exp(mean_with_interval(logs))))
            found = [accuracy_at_equal_length(mine[seed], theirs[seed]) for seed in seeds]
            equal = [value for value in found if value is not None]
            cells.append(with_interval("{:+.3f}", " to ", mean_with_interval(equal)) if equal else "no common length")
        lines.append(f"| {' | '.join(cells)} |")
    starts = [held_out({0: run}, "right", "0") for run in plain.values() if "0" in run.record["held_out"]]
    lengths = [held_out({0: run}, "tokens", "0") for run in plain.values() if "0" in run.record["held_out"]]
    start = next(iter(plain.values())).start
    words = f"{np.mean(starts):.3f} @ {np.mean(lengths):.0f}, " if starts else ""
    lines.append(f"\nStart: {words}{start:.1f} redundant steps per response.")
    return "\n".join(lines)


def sides(cell: str, runs: dict[str, dict[int, Run]]) -> str:
    """Return the effects of credit on the steps of right responses with an advantage other than 0, over all updates."""
    lines = [
        "| | redundant: attenuated | redundant: protected | essential: attenuated | essential: protected "
        "| mean γ of a redundant step at A > 0 |",
        "|" + "---|" * 6,
    ]
    for arm, of_arm in runs.items():
        updates = [update for run in of_arm.values() for update in run.record["updates"]]
        cells = [f"{cell}, {arm}"]
        for kind in ("redundant", "essential"):
            everything = sum(update["effects"][kind]["all"] for update in updates)
            touched = (
                sum(update["effects"][kind][effect] for update in updates) for effect in ("attenuated", "protected")
            )
            cells += [f"{count / everything:.0%}" for count in touched]
        scales = [update["scale"] for update in updates if update["scale"] is not None]
        cells.append(f"{np.mean(scales):.2f}" if scales else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--cells", nargs="*", help="default: all that have records")
    parser.add_argument("--arms", nargs="*", help="default: all that have records")
    parser.add_argument("--against", default=PLAIN, metavar="ARM", help="reference of ratios and differences")
    parser.add_argument("--figure", type=Path, help="where to draw (default: docs/img/law.png)", default=FIGURE)
    args = parser.parse_args()
    from law_figure import draw

    cells = args.cells or sorted(folder.name for folder in args.records.iterdir() if folder.is_dir())
    everything = {}
    for cell in cells:
        arms = args.arms or sorted({file.stem.rsplit("-", 1)[0] for file in (args.records / cell).glob("*.json")})
        arms = [PLAIN, *(arm for arm in arms if arm != PLAIN)]
        runs = load(args.records, cell, arms)
        if absent := sorted({PLAIN, args.against} - set(runs)):
            print(f"{cell}: no run of {' or '.join(absent)} yet\n")
            continue
        everything[cell] = runs
        print(table(cell, everything[cell], args.against), end="\n\n")
        print(sides(cell, everything[cell]), end="\n\n")
    draw(everything, args.figure)


if __name__ == "__main__":
    main()
