"""How often the first step that states the final answer (credit method `first_correct`) is the one that finds it.

On labelled traces of the built-in task the last essential step finds the answer. Prints one row per `place` option of
the method: how often the found step is that one, an earlier or a later one, or missing, and how well "after the
found step" identifies redundant steps.

    python benchmarks/first_answer.py --traces 3000
"""

from __future__ import annotations

import argparse
from collections import Counter

from attnpo.steps.answers import PLACES, final_answer, states_answer
from attnpo.steps.response import split_response
from attnpo.task.dataset import iterate_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    rows = list(iterate_dataset(args.traces, args.seed))
    print(f"{'place':10}{'same':>8}{'earlier':>9}{'later':>8}{'none':>8}{'precision':>11}{'recall':>8}")
    for place in PLACES:
        where: Counter[str] = Counter()
        called = right = redundant = 0
        for row in rows:
            parts = split_response(row["response"])
            answer = final_answer(row["response"][parts.answer_start :])
            essential = [step["essential"] for step in row["steps"]]
            gold = max(k for k, is_essential in enumerate(essential) if is_essential)
            texts = [row["response"][step["start"] : step["end"]] for step in row["steps"]]
            found = next((k for k, text in enumerate(texts) if states_answer(text, answer, place)), None)
            where["none" if found is None else "same" if found == gold else "earlier" if found < gold else "later"] += 1
            later = [] if found is None else essential[found + 1 :]
            called, right, redundant = (
                called + len(later),
                right + later.count(False),
                redundant + essential.count(False),
            )
        shares = [where[name] / len(rows) for name in ("same", "earlier", "later", "none")]
        print(
            f"{place:10}" + "".join(f"{share:{w}.3f}" for share, w in zip(shares, (8, 9, 8, 8), strict=True)),
            f"{right / called:10.3f}{right / redundant:8.3f}",
        )


if __name__ == "__main__":
    main()
