r"""Verdicts per second on real answers: the pool with its workers, and plain math-verify in this process.

    python benchmarks/verifier_speed.py ../shared/data/traces/*.jsonl [--workers 2] [--limit N]

Each verifier grades every (answer, reference) pair once; they take turns in batches, so that load slows both equally.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from attnpo.data.jsonl import read_jsonl
from attnpo.rewards.pool import VerifierPool
from attnpo.steps.response import answer_of

TARGETS = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
BATCH = 50


def plain(answer: str, reference: str, *, delimited: bool = False) -> bool:
    """Grade as in math-verify's documentation: the reference as a formula, in dollar signs unless `delimited`."""
    return verify(parse(reference if delimited else f"${reference}$", TARGETS), parse(answer, TARGETS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=int, help="pairs at most")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    rows = [row for path in args.traces for row in read_jsonl(path) if row.get("reference") is not None]
    pairs = [(answer, row["reference"]) for row in rows if (answer := answer_of(row["response"]))]
    pairs = list(dict.fromkeys(pairs))[: args.limit]
    seconds, right = {"pool": 0.0, "plain": 0.0}, {"pool": 0, "plain": 0}
    with VerifierPool(args.workers, timeout=30) as pool:
        pool.verify([(rf"\boxed{{{number}x}}", f"x+{number}") for number in range(4 * args.workers)])  # warm
        plain(r"\boxed{x}", "x+1")
        for start in range(0, len(pairs), BATCH):
            batch = pairs[start : start + BATCH]
            begun = time.perf_counter()
            right["pool"] += sum(verdict == "right" for verdict in pool.verify(batch))
            between = time.perf_counter()
            right["plain"] += sum(plain(*pair) for pair in batch)
            seconds["pool"] += between - begun
            seconds["plain"] += time.perf_counter() - between
    for name, took in seconds.items():
        print(f"{name:6} {len(pairs)} pairs, {right[name]} right, {took:.1f} s: {len(pairs) / took:.1f} a second")
    print(f"pool of {args.workers} : plain in-process = {seconds['plain'] / seconds['pool']:.2f}")


if __name__ == "__main__":
    main()
