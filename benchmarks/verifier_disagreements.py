r"""Disagreements of the verifier and a simple string comparison on published traces, by cause.

    python benchmarks/verifier_disagreements.py ../shared/data/traces/*.jsonl [--show]

The string comparison takes the last \boxed{…} of the final answer (or its last number) and the reference, both without
spaces. A cause is the first rewriting below after which the two strings are equal; `value` is the remainder: answers
whose equality requires parsing the formula. The opposite, equal strings that the verifier does not accept,
would be an error of the verifier and has its own line.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from attnpo.data.jsonl import read_jsonl
from attnpo.data.references import boxed_texts
from attnpo.rewards.pool import VerifierPool
from attnpo.rewards.verdict import Verdict
from attnpo.steps.response import answer_of

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def plain_fractions(text: str) -> str:
    text = re.sub(r"\\[dt]?frac\s*(\d)", r"\\frac{\1}", re.sub(r"\\[dt]frac", r"\\frac", text))
    return re.sub(r"(\\frac\{[^{}]*\})\s*(\d)", r"\1{\2}", text)


REWRITINGS: list[tuple[str, Callable[[str], str]]] = [
    ("spelling of a fraction", plain_fractions),
    ("separated thousands", lambda s: re.sub(r"(?<=\d)(?:\\!)?,(?:\\!)?(?=\d{3})", "", s)),
    ("currency", lambda s: s.replace(r"\$", "")),
    ("unit", lambda s: re.sub(r"(?:\\[, ]|\s)*\\(?:text|mbox|mathrm)\{[^{}]*\}$", "", s)),
    ("per cent sign", lambda s: re.sub(r"\\?%$", "", s)),
    ("zeros after the decimal point", lambda s: re.sub(r"\.0+$", "", s)),
]


def crude_answer(answer: str) -> str:
    boxes = boxed_texts(answer)
    return boxes[-1] if boxes else (NUMBER.findall(answer) or [""])[-1]


def squeeze(text: str) -> str:
    return re.sub(r"\s", "", text)


def cause(ours: str, reference: str) -> str:
    """Return the first rewriting that, in addition to those before it, makes the two equal."""
    for name, rewrite in REWRITINGS:
        ours, reference = rewrite(ours), rewrite(reference)
        if squeeze(ours) == squeeze(reference):
            return name
    return "value"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--show", action="store_true", help="print every disagreement")
    args = parser.parse_args()
    verdicts: Counter[str] = Counter()
    found: dict[str, list[str]] = defaultdict(list)
    with VerifierPool(timeout=30) as pool:
        for path in args.traces:
            rows = [row for row in read_jsonl(path) if row.get("reference") is not None]
            answers = [answer_of(row["response"]) for row in rows]
            judged = pool.verify(zip(answers, [row["reference"] for row in rows], strict=True))
            for row, answer, verdict in zip(rows, answers, judged, strict=True):
                verdicts[verdict] += 1
                crude = crude_answer(answer or "")
                same = bool(answer) and squeeze(crude) == squeeze(row["reference"])
                if same == (verdict == Verdict.RIGHT):
                    continue
                kind = f"equal strings, {verdict}" if same else cause(crude, row["reference"])
                found[kind].append(f"{path.name} {row['id']}: reference {row['reference']!r}, answer {crude!r}")
    total = sum(map(len, found.values()))
    print(f"{verdicts.total()} traces with a reference: {verdicts[Verdict.RIGHT]} right; {total} disagreements")
    for kind, lines in sorted(found.items(), key=lambda item: -len(item[1])):
        print(f"{len(lines):5}  {kind}")
        if args.show:
            print(*(f"         {line}" for line in lines), sep="\n")


if __name__ == "__main__":
    main()
