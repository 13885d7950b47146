"""Wrong computations in held-out responses of the built-in task, and the share of those responses that are right.

    python benchmarks/computation_errors.py runs/compare/attnpo-* --step 24

Counts every "12 * 3 = 36" of the thinking part; reads rollouts/eval-*.jsonl.gz of finished runs, means over the runs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from pathlib import Path

EQUATION = re.compile(r"(\d+) ([+\-*/]) (\d+) = (\d+)")


def is_wrong(left: str, sign: str, right: str, result: str) -> bool:
    a, b, c = int(left), int(right), int(result)
    # A division is checked by multiplication: a wrong one need not divide evenly.
    return {"+": a + b != c, "-": a - b != c, "*": a * b != c, "/": b * c != a}[sign]


def count(folder: Path, step: int) -> tuple[float, float, float, float]:
    """Return computations per response, share of wrong ones, share of responses with one, share of those that are
    right."""
    with gzip.open(folder / "rollouts" / f"eval-{step:06d}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    found = [[is_wrong(*e) for e in EQUATION.findall(r["text"][r["thinking_start"] : r["thinking_end"]])] for r in rows]
    total, wrong = sum(map(len, found)), sum(map(sum, found))
    hit = [row["correct"] for row, errors in zip(rows, found, strict=True) if any(errors)]
    return total / len(rows), wrong / max(total, 1), len(hit) / len(rows), sum(hit) / max(len(hit), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--step", type=int, required=True)
    args = parser.parse_args()
    means = [sum(values) / len(args.runs) for values in zip(*(count(run, args.step) for run in args.runs), strict=True)]
    print(
        f"{means[0]:.2f} computations a response, {means[1]:.0%} wrong; {means[2]:.0%} of responses have one, "
        f"of those {means[3]:.0%} end right"
    )


if __name__ == "__main__":
    main()
