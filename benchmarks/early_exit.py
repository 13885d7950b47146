"""Early exit on the built-in task: accuracy against tokens for rules and thresholds, beside plain budgets.

    python benchmarks/early_exit.py --problems 128      # the medium task; records benchmarks/early_exit_records.json.gz
    python benchmarks/early_exit.py --table             # from the records alone

One response of the model to each held-out problem at temperature 1. At the end of every step, and at the token budgets,
the thinking is closed and answered in a branch (`attnpo.trim.early_exit`). Ending early changes nothing of what was
thought before, so every rule and threshold can be read off the same branches. Tokens are those of the response:
thinking up to the exit, closing, answer. "asked": answer tokens written in branches that are not in the response, the
price of asking at every step; every branch also reads its prefix again. Intervals are 95 %, problems resampled.

Rules: confidence (DEER), agreement of the last branches, both; budgets are plain cuts, answered in the same way.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from method_tables import interval
from transformers import AutoModelForCausalLM, AutoTokenizer
from without_rl import sample

from attnpo.data.jsonl import json_line, write_whole
from attnpo.models import resolve_model
from attnpo.rewards.pool import VerifierPool
from attnpo.steps.response import CLOSE_TAG, answer_of
from attnpo.tables import Table
from attnpo.task.dataset import build_dataset
from attnpo.traces.prepared import prompt_ids
from attnpo.trim.early_exit import Branch, Closing, Rule, agreeing, at_boundary, confident

RECORDS = Path(__file__).resolve().parent / "early_exit_records.json.gz"
BUDGETS = (0, 40, 80, 120, 160, 200, 250, 300, 400, 600)
CONFIDENCES = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998)
AGREEMENTS = (2, 3, 4, 5, 6, 8)
BOTH = ((0.95, 2), (0.99, 2), (0.998, 2), (0.999, 2), (0.99, 3), (0.999, 3))
BATCH = 32

Trace = dict[str, Any]
"""tokens and right of the whole response; steps and budgets: branches as
[place, tokens of the response that would end there, of them of the answer, confidence, text, right]."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="overthinker-medium")
    parser.add_argument("--problems", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--table", action="store_true", help="only print the table")
    args = parser.parse_args()
    if not args.table:
        torch.set_num_threads(1)
        found = measure(args.model, args.problems, args.max_tokens)
        write_whole(RECORDS, gzip.compress(json_line({"command": " ".join(sys.argv[1:]), "traces": found}), mtime=0))
    print(table(json.loads(gzip.decompress(RECORDS.read_bytes()))["traces"]).markdown())


def measure(model: str, problems: int, most: int) -> list[Trace]:
    """The responses with all their branches."""
    path = resolve_model(model)
    tokenizer = AutoTokenizer.from_pretrained(path)
    network = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    rows = build_dataset(problems, seed=0, split="test", difficulty=(1, 3))
    found = sample(network, tokenizer, rows, 1, 20_000, most)
    closing = Closing(network, tokenizer)
    asked: list[tuple[int, str, list[int], int]] = []
    for i, row in enumerate(found):
        prompt = prompt_ids(row["problem"], tokenizer, opens_itself=False)
        thinking = tokenizer(row["response"].partition(CLOSE_TAG)[0], add_special_tokens=False)["input_ids"]
        ends = [at for at in range(1, len(thinking)) if at_boundary(tokenizer, thinking[:at])]
        asked += [(i, "steps", [*prompt, *thinking[:at]], at) for at in ends]
        asked += [(i, "budgets", [*prompt, *thinking[:at]], at) for at in BUDGETS if at < len(thinking)]
    branches: dict[int, Branch] = {}
    order = sorted(range(len(asked)), key=lambda k: len(asked[k][2]))
    for first in range(0, len(order), BATCH):
        batch = order[first : first + BATCH]
        branches.update(zip(batch, closing.answers([asked[k][2:] for k in batch]), strict=True))
    with VerifierPool(1) as pool:
        texts = [branches[k].text if branches[k].confidence else None for k in range(len(asked))]
        verdicts = pool.verify(zip(texts, (rows[i]["reference"] for i, *_ in asked), strict=True))
        whole = pool.verify(
            (answer_of(row["response"]) if row["finished"] else None, row["reference"]) for row in found
        )
    traces = [
        {"tokens": row["tokens"], "right": int(verdict == "right"), "steps": [], "budgets": []}
        for row, verdict in zip(found, whole, strict=True)
    ]
    for k, (i, kind, _, at) in enumerate(asked):
        branch = branches[k]
        tokens = branch.thinking + len(branch.closing) + len(branch.ids)
        one = [at, tokens, len(branch.ids), branch.confidence, branch.text, int(verdicts[k] == "right")]
        traces[i][kind].append(one)
    return traces


def by_rule(trace: Trace, rule: Rule) -> tuple[float, float, float]:
    """Right, tokens of the response, tokens of answers that are not in it."""
    branches: list[Branch] = []
    asked = 0
    for at, tokens, answer, confidence, text, right in trace["steps"]:
        branches.append(Branch([], text, confidence, at))
        if rule(branches):
            return right, tokens, asked
        asked += answer
    return trace["right"], trace["tokens"], asked


def by_budget(trace: Trace, budget: int) -> tuple[float, float, float]:
    """As `by_rule`, with the thinking cut off after so many tokens."""
    for at, tokens, _, _, _, right in trace["budgets"]:
        if at == budget:
            return right, tokens, 0
    return trace["right"], trace["tokens"], 0


def both(threshold: float, count: int) -> Rule:
    first, second = confident(threshold), agreeing(count)
    return lambda branches: first(branches) and second(branches)


def table(traces: list[Trace]) -> Table:
    """One row per rule and threshold."""
    ways: dict[tuple[str, str], Callable[[Trace], tuple[float, float, float]]] = {
        ("whole", ""): lambda trace: (trace["right"], trace["tokens"], 0)
    }
    for budget in BUDGETS:
        ways["budget", str(budget)] = lambda trace, budget=budget: by_budget(trace, budget)
    rules = [("confidence", f"{value}", confident(value)) for value in CONFIDENCES]
    rules += [("agreement", f"{count}", agreeing(count)) for count in AGREEMENTS]
    rules += [("both", f"{value}, {count}", both(value, count)) for value, count in BOTH]
    for name, value, rule in rules:
        ways[name, value] = lambda trace, rule=rule: by_rule(trace, rule)
    rows = []
    for (name, value), way in ways.items():
        figures = np.array([way(trace) for trace in traces], dtype=float)  # [N, 3]
        cells = []
        for column, places in ((0, 3), (1, 0)):
            mean, low, high = interval(figures[None, :, column])
            cells.append(f"{mean:.{places}f} ({low:.{places}f} to {high:.{places}f})")
        rows.append((name, value, *cells, f"{figures[:, 2].mean():.0f}"))
    return Table(("rule", "value", "right", "tokens", "asked"), rows)


if __name__ == "__main__":
    main()
