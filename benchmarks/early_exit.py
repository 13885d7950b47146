"""Early exit: accuracy and tokens for rules and thresholds, compared with plain budgets.

    python benchmarks/early_exit.py --problems 128                  # the built-in task, overthinker-medium
    python benchmarks/early_exit.py --task gsm8k --problems 48      # GSM8K's easiest, SmolLM2-135M-Instruct
    python benchmarks/early_exit.py --task gsm8k --table            # only the table, from the records

Records: early_exit_records.json.gz and early_exit_gsm8k_records.json.gz. Built-in: one response to each held-out
problem at temperature 1. GSM8K's easiest: of the test problems whose reference has exactly one calculation ("<<…>>")
those with the shortest texts, at temperature 0.3, at most 160 tokens. SmolLM2 has no thinking marks, so its complete
text counts as thinking and each line as a step; when it has ended or reached the limit it is prompted for the answer
as in a branch ("whole"). The prompt was chosen on training problems (docs/log.md).

At the end of every step (once after several empty lines), and at the token budgets, the thinking is closed and an
answer is generated in a branch (`attnpo.trim.early_exit`). An early end does not change the thinking before it, so the
same branches serve every rule and threshold. The records have a branch at each of several empty lines; the table leaves
out the repeated ones. Tokens are those of the response: thinking up to the exit, closing, answer. "asked": answer
tokens of branches that are not in the response, the cost of trying every step; every branch also reads its
prefix again. Intervals are 95 %, problems resampled.

Rules: confidence (DEER), agreement of the last branches, both; budgets are plain cuts, answered in the same way.
"budget per difficulty": the budgets that `attnpo budget` learned (`LEARNED`), each rounded up to the next measured cut.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from method_tables import interval
from transformers import AutoModelForCausalLM, AutoTokenizer
from without_rl import sample

from attnpo.data.jsonl import json_line, read_jsonl, write_whole
from attnpo.models import resolve_model
from attnpo.models.loading import CHAT_TEMPLATE, load_smollm2
from attnpo.rewards.pool import VerifierPool
from attnpo.steps.formats import THINK, ThinkingFormat
from attnpo.steps.response import answer_of, split_response, thinking_of
from attnpo.tables import Table
from attnpo.task.dataset import build_dataset
from attnpo.traces.prepared import prompt_ids
from attnpo.trim.early_exit import BOUNDARY, TAIL, Branch, Closing, Rule, agreeing, confident

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("ATTNPO_DATA", HERE.parents[1] / "shared")) / "data" / "bench" / "gsm8k_test.jsonl"
CONFIDENCES = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998)
AGREEMENTS = (2, 3, 4, 5, 6, 8)
BOTH = ((0.95, 2), (0.99, 2), (0.998, 2), (0.999, 2), (0.99, 3), (0.999, 3))
BATCH = 32

ANSWER_LINE = ThinkingFormat("answer_line", closing=("Answer:",), unmarked="thinking")
ASKED = "\n\nSolve this step by step, one short step per line."
CALCULATION = "<<"
"""The text with which a calculation in a reference solution of GSM8K begins."""

Trace = dict[str, Any]
"""tokens and right of the whole response; steps and budgets: branches as
[place, tokens of the response that would end there, of them of the answer, confidence, text, right]."""
LEARNED = {
    0.5: {1: 180, 2: 166, 3: 183},
    0.9: {1: 275, 2: 269, 3: 287},
    1.0: {1: 320, 2: 453, 3: 349},
}
"""Quantile -> budget of every difficulty of the built-in task, from trimmed traces of training problems:
`attnpo budget runs/without_rl/overthinker-medium/0/pairs-half/train.jsonl --quantile Q`."""
WHOLE = "whole"
"""A response that has not closed its thinking, which is then closed at its end."""


@dataclass(frozen=True)
class Setting:
    """What is measured.

    budgets: numbers of thinking tokens at which it is cut. boundary: text that ends a step. room: option of `Closing`.
    closed: whether a response that does not end its thinking is closed at its end.
    """

    records: str
    budgets: tuple[int, ...]
    most: int
    temperature: float
    form: ThinkingFormat
    boundary: str
    room: int
    closed: bool


SETTINGS = {
    "built-in": Setting(
        "early_exit_records.json.gz",
        (0, 40, 80, 120, 160, 200, 250, 300, 400, 600),
        1024,
        1.0,
        THINK,
        BOUNDARY,
        64,
        False,
    ),
    "gsm8k": Setting("early_exit_gsm8k_records.json.gz", (0, 20, 40, 80, 120), 160, 0.3, ANSWER_LINE, "\n", 16, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=SETTINGS, default="built-in")
    parser.add_argument("--model", help="of the built-in task (default: overthinker-medium)")
    parser.add_argument("--problems", type=int, default=128)
    parser.add_argument("--data", type=Path, default=DATA, help="gsm8k: the test problems (below $ATTNPO_DATA)")
    parser.add_argument("--table", action="store_true", help="only print the table")
    args = parser.parse_args()
    if args.task == "gsm8k" and args.model:
        parser.error("--model: with --task gsm8k it is SmolLM2-135M-Instruct, whose prompt was chosen for it")
    setting = SETTINGS[args.task]
    records = HERE / setting.records
    if not args.table:
        torch.set_num_threads(1)
        found = measure(args, setting)
        write_whole(records, gzip.compress(json_line({"command": " ".join(sys.argv[1:]), "traces": found}), mtime=0))
    traces = json.loads(gzip.decompress(records.read_bytes()))["traces"]
    levels = [row["difficulty"] for row in held_out(len(traces))] if args.task == "built-in" else []
    print(table(traces, setting.budgets, levels).markdown())


def easiest(file: Path, count: int) -> list[dict[str, Any]]:
    """Return the shortest problems of a GSM8K file whose reference has exactly one calculation, with our prompt."""
    rows = [row for row in read_jsonl(file) if row["solution"].count(CALCULATION) == 1]
    rows = sorted(rows, key=lambda row: len(row["problem"]))[:count]
    return [{"id": row["id"], "problem": row["problem"] + ASKED, "reference": row["answer"]} for row in rows]


def load(args: argparse.Namespace) -> tuple[Any, Any, list[dict[str, Any]]]:
    """Return model, tokenizer and problems."""
    if args.task == "gsm8k":
        network, tokenizer = load_smollm2()
        tokenizer.chat_template = CHAT_TEMPLATE
        return network, tokenizer, easiest(args.data, args.problems)
    path = resolve_model(args.model or "overthinker-medium")
    network = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return network, AutoTokenizer.from_pretrained(path), held_out(args.problems)


def held_out(count: int) -> list[dict[str, Any]]:
    """Return problems of the built-in task."""
    return build_dataset(count, seed=0, split="test", difficulty=(1, 3))


def measure(args: argparse.Namespace, setting: Setting) -> list[Trace]:
    """Sample the responses with all their branches."""
    network, tokenizer, rows = load(args)
    found = sample(network.eval(), tokenizer, rows, 1, 20_000, setting.most, setting.temperature)
    if setting.closed:  # ends the line of the answer in a branch, after which this model would continue without end
        lines = [tokenizer(mark, add_special_tokens=False)["input_ids"][0] for mark in ("\n", "\n\n")]
        network.generation_config.eos_token_id = [tokenizer.eos_token_id, *lines]
    closing = Closing(network, tokenizer, room=setting.room, form=setting.form)
    asked: list[tuple[int, str, list[int], int]] = []
    for i, row in enumerate(found):
        prompt = prompt_ids(row["problem"], tokenizer, opens_itself=False)
        thinking = tokenizer(thinking_of(row["response"], setting.form), add_special_tokens=False)["input_ids"]
        ends = step_ends(tokenizer, thinking, setting.boundary)
        for kind, places in (("steps", ends), ("budgets", setting.budgets)):
            asked += [(i, kind, [*prompt, *thinking[:at]], at) for at in places if at < len(thinking)]
        if setting.closed and not split_response(row["response"], setting.form).has_close:
            asked.append((i, WHOLE, [*prompt, *thinking], len(thinking)))
    branches: dict[int, Branch] = {}
    order = sorted(range(len(asked)), key=lambda k: len(asked[k][2]))
    for first in range(0, len(order), BATCH):
        batch = order[first : first + BATCH]
        branches.update(zip(batch, closing.answers([asked[k][2:] for k in batch]), strict=True))
        print(f"{len(branches)} of {len(order)} branches", file=sys.stderr, flush=True)
    with VerifierPool(1) as pool:
        texts = [branches[k].text if branches[k].confidence else None for k in range(len(asked))]
        verdicts = pool.verify(zip(texts, (rows[i]["reference"] for i, *_ in asked), strict=True))
        whole = pool.verify(
            (answer_of(row["response"], setting.form) if row["finished"] else None, row["reference"]) for row in found
        )
    traces: list[Trace] = [
        {"tokens": row["tokens"], "right": int(verdict == "right"), "steps": [], "budgets": [], WHOLE: []}
        for row, verdict in zip(found, whole, strict=True)
    ]
    for k, (i, kind, _, at) in enumerate(asked):
        branch = branches[k]
        tokens = branch.thinking + len(branch.closing) + len(branch.ids)
        one = [at, tokens, len(branch.ids), branch.confidence, branch.text, int(verdicts[k] == "right")]
        traces[i][kind].append(one)
    for trace in traces:
        for _, tokens, _, _, _, right in trace.pop(WHOLE):
            trace |= {"tokens": tokens, "right": right}
    return traces


def step_ends(tokenizer: Any, thinking: Sequence[int], boundary: str) -> list[int]:
    """Return the numbers of tokens after which a step has ended, as `EarlyExit` finds them but with a custom boundary;
    several empty lines end a step once."""
    ends, last = [], ""
    for at in range(1, len(thinking)):
        if str(tokenizer.decode(list(thinking[max(0, at - TAIL) : at]))).rstrip(" ").endswith(boundary):
            text = str(tokenizer.decode(list(thinking[:at]))).rstrip()
            if text != last:
                ends.append(at)
                last = text
    return ends


def without_repeats(steps: Sequence[list[Any]]) -> list[list[Any]]:
    """Return the branches of a trace without those that repeat the one before after nothing but white space, which
    older records have: thinking and answer have as many tokens, and the answer is the same."""

    def same(first: list[Any], second: list[Any]) -> bool:
        (_, tokens, answer, _, text, _), (_, others, other, _, written, _) = first, second
        return (tokens, answer, text) == (others, other, written)

    return [step for place, step in enumerate(steps) if not place or not same(steps[place - 1], step)]


def by_rule(trace: Trace, rule: Rule) -> tuple[float, float, float]:
    """Return right, tokens of the response, tokens of answers that are not in it."""
    branches: list[Branch] = []
    asked = 0
    for at, tokens, answer, confidence, text, right in trace["steps"]:
        branches.append(Branch([], text, confidence, at))
        if rule(branches):
            return right, tokens, asked
        asked += answer
    return trace["right"], trace["tokens"], asked


def by_budget(trace: Trace, budget: int) -> tuple[float, float, float]:
    """Return the same as `by_rule`, with the thinking cut off after `budget` tokens."""
    for at, tokens, _, _, _, right in trace["budgets"]:
        if at == budget:
            return right, tokens, 0
    return trace["right"], trace["tokens"], 0


def both(threshold: float, count: int) -> Rule:
    first, second = confident(threshold), agreeing(count)
    return lambda branches: first(branches) and second(branches)


def table(traces: list[Trace], budgets: Sequence[int], difficulties: Sequence[int]) -> Table:
    """Return one row per rule and threshold. difficulties: of the traces, if the task has any."""
    traces = [
        {**trace, "steps": without_repeats(trace["steps"]), "difficulty": level}
        for trace, level in zip_longest(traces, difficulties)
    ]
    ways: dict[tuple[str, str], Callable[[Trace], tuple[float, float, float]]] = {
        ("whole", ""): lambda trace: (trace["right"], trace["tokens"], 0)
    }
    for budget in budgets:
        ways["budget", str(budget)] = lambda trace, budget=budget: by_budget(trace, budget)
    for share, learned in LEARNED.items() if difficulties else ():
        cuts = {level: min((cut for cut in budgets if cut >= most), default=most) for level, most in learned.items()}
        ways["budget per difficulty", f"{share:g}"] = lambda trace, cuts=cuts: by_budget(
            trace, cuts[trace["difficulty"]]
        )
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
