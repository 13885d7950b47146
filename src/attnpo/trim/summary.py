"""What trimming came to, over all traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from attnpo.tables import Table


@dataclass(frozen=True)
class Summary:
    """Counts and means over the right traces. `written`: rows of the file; None: not known.

    Attributes:
        traces, shortened: right traces that fit, and those that lost a step.
        long, short: mean tokens of thinking, before and after.
        steps, removed: of all traces together.
        with_kept, kept: traces in which steps stayed for their value though their turn had come, and those steps.
        essential, essential_removed: steps labelled essential, where the input has labels.
        checks: verified answers per trace.
    """

    traces: int
    shortened: int
    written: int
    long: float
    short: float
    steps: int
    removed: int
    with_kept: int
    kept: int
    essential: int
    essential_removed: int
    checks: float

    @property
    def table(self) -> Table:
        saved = 1 - self.short / self.long if self.long else 0.0
        rows: list[tuple[str, str]] = [
            ("right traces", f"{self.traces}, {self.shortened} of them shortened"),
            ("thinking tokens, mean", f"{self.long:.0f} → {self.short:.0f} ({-saved:+.0%})"),
            ("steps removed", f"{self.removed} of {self.steps} ({_share(self.removed, self.steps)})"),
            ("steps kept because a later one uses their value", f"{self.kept}, in {self.with_kept} traces"),
        ]
        if self.essential:
            rows.append(
                (
                    "essential steps removed",
                    f"{self.essential_removed} of {self.essential} ({_share(self.essential_removed, self.essential)})",
                )
            )
        rows += [("answers verified per trace", f"{self.checks:.1f}"), ("rows written", str(self.written))]
        return Table(("", "result"), [*rows])


def summarise(examples: Sequence[dict[str, Any]], written: int) -> Summary:
    """Of rows as `attnpo trim` writes them, at least one."""
    trims = [example["trim"] for example in examples]
    steps = [step for trim in trims for step in trim["steps"]]
    essential = [step for step in steps if step["essential"] is True]
    kept = [sum(step["kept_for_value"] for step in trim["steps"]) for trim in trims]
    return Summary(
        traces=len(trims),
        shortened=sum(any(step["removed"] for step in trim["steps"]) for trim in trims),
        written=written,
        long=fmean(trim["tokens"]["long"] for trim in trims),
        short=fmean(trim["tokens"]["short"] for trim in trims),
        steps=len(steps),
        removed=sum(step["removed"] for step in steps),
        with_kept=sum(map(bool, kept)),
        kept=sum(kept),
        essential=len(essential),
        essential_removed=sum(step["removed"] for step in essential),
        checks=fmean(trim["checks"] for trim in trims),
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "0%"
