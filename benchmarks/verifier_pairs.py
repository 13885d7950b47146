r"""The verifier compared with plain math-verify on (reference, response, expected) pairs from other projects.

    pip download --no-deps --no-binary :all: math-verify==0.9.0 && tar xzf math_verify-0.9.0.tar.gz
    python benchmarks/verifier_pairs.py math_verify-0.9.0/tests [pairs.jsonl …] [--show] [--rules]

A folder or .py file: the rows of every `pytest.mark.parametrize` whose names begin with gold and pred, with complete
responses on both sides, as in math-verify's own tests and lighteval's (`test_extractive_match.py`: it is in its
repository, not in its sdists; its rows for letters of choices are omitted). A .jsonl file: rows with `reference`,
`answer` and `right` (0 or 1). Rows that math-verify's tests grade with another precision or other settings are omitted,
since neither verifier uses these here. `--rules`: for each rule, how many verdicts become wrong without it, and how
many become as expected.
"""

from __future__ import annotations

import argparse
import ast
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verifier_speed import plain

from attnpo.data.jsonl import read_jsonl
from attnpo.rewards.pool import VerifierPool
from attnpo.rewards.verdict import Judgement, Rules, Verdict

ANSWERS = ("gold", "pred")
EXPECTED = ("expected", "result")


@dataclass(frozen=True)
class Pair:
    """One pair with its expected verdict; `delimited`: the reference is a response too, with dollar signs or a box."""

    source: str
    reference: str
    answer: str
    right: bool
    delimited: bool


def pairs_of(path: Path) -> Iterator[Pair]:
    if path.is_dir():
        for file in sorted(path.rglob("test_*.py")):
            yield from python_pairs(file)
    elif path.suffix == ".py":
        yield from python_pairs(path)
    else:
        for row in read_jsonl(path):
            yield Pair(path.name, row["reference"], row["answer"], bool(row["right"]), delimited=False)


def python_pairs(path: Path) -> Iterator[Pair]:
    """Return the rows of a test file whose answers are literals and that only test equality."""
    tests = [
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
    ]
    for call in (mark for test in tests if "NativeLetters" not in ast.unparse(test) for mark in test.decorator_list):
        if not (isinstance(call, ast.Call) and ast.unparse(call.func).endswith("parametrize") and len(call.args) > 1):
            continue
        names, rows = literal(call.args[0]), call.args[1]
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else []
        if tuple(names[:2]) != ANSWERS or not isinstance(rows, ast.List):
            continue
        for row in rows.elts:
            values = dict(zip(names, map(literal, getattr(row, "elts", ())), strict=False))
            others = set(values) - {*ANSWERS, *EXPECTED, "language", "match_type"}
            if None in map(values.get, ANSWERS) or others - {"precision"} or values.get("precision", 6) != 6:
                continue
            right = next(bool(values[name]) for name in EXPECTED if name in values)
            yield Pair(path.name, values["gold"], values["pred"], right, delimited=True)


def literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:  # computed in the test: an f-string, a call
        return None


def table(pairs: list[Pair], ours: list[bool], theirs: list[bool]) -> Iterator[str]:
    """Yield a table of verdicts as expected, false rights and false wrongs of both verifiers, by source."""
    counts = f"{'false right':>11} {'false wrong':>11}"
    yield f"{'source':32} {'pairs':>5}   {'ours':>5} {counts}   {'plain':>5} {counts}"
    for source in [*dict.fromkeys(pair.source for pair in pairs), None]:
        own = [n for n, pair in enumerate(pairs) if source in (pair.source, None)]
        cells = []
        for found in (ours, theirs):
            kinds = Counter((pairs[n].right, found[n]) for n in own)
            cells.append(f"{kinds[True, True] + kinds[False, False]:5} {kinds[False, True]:11} {kinds[True, False]:11}")
        yield f"{source or 'all':32} {len(own):5}   {'   '.join(cells)}"


def rule_table(pool: VerifierPool, pairs: list[Pair], judged: list[Judgement]) -> Iterator[str]:
    """Yield a table with the effect of removing each rule that took part in a verdict."""
    yield f"{'rule':24} {'took part':>9} {'wrong without it':>17} {'fixed without it':>17}"
    for rule in sorted({rule for judgement in judged for rule in judgement.fired}):
        own = [n for n, judgement in enumerate(judged) if rule in judgement.fired]
        without = pool.judge((pairs[n].answer, pairs[n].reference, Rules(off=[rule])) for n in own)
        before = [(judged[n].verdict == Verdict.RIGHT) == pairs[n].right for n in own]
        after = [(now.verdict == Verdict.RIGHT) == pairs[n].right for n, now in zip(own, without, strict=True)]
        changes = Counter(zip(before, after, strict=True))
        yield f"{rule:24} {len(own):9} {changes[True, False]:17} {changes[False, True]:17}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print every verdict of ours that is not as expected")
    parser.add_argument("--rules", action="store_true", help="try again without each rule")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    pairs = [pair for source in args.sources for pair in pairs_of(source)]
    with VerifierPool(args.workers, timeout=30) as pool:
        judged = pool.judge((pair.answer, pair.reference, {}) for pair in pairs)
        ours = [judgement.verdict == Verdict.RIGHT for judgement in judged]
        theirs = [plain(pair.answer, pair.reference, delimited=pair.delimited) for pair in pairs]
        print(*table(pairs, ours, theirs), sep="\n")
        if args.show:
            for pair, judgement, right in zip(pairs, judged, ours, strict=True):
                if right != pair.right:
                    found = f"{judgement.verdict} for {pair.reference!r}, read as {judgement.extracted!r}"
                    print(f"{pair.source}: {pair.answer!r} is {found}")
        if args.rules:
            print(*rule_table(pool, pairs, judged), sep="\n")


if __name__ == "__main__":
    main()
