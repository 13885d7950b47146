"""`attnpo budget`: thinking budgets for vLLM, from trimmed traces."""

from __future__ import annotations

import argparse

from attnpo.cli.trace_options import add_format

DESCRIPTION = """\
Compute thinking budgets for vLLM: for every difficulty a quantile of the thinking tokens of traces trimmed by
`attnpo trim`. vLLM ends the thinking after that many tokens and lets the model answer.

The difficulty of a row is its field "difficulty" or "level" (--by names another); without one there is one budget for
all. -o writes JSON: "reasoning_config" for `vllm serve --reasoning-config`, and "all" and "budgets" with the settings
of a request or SamplingParams: {"thinking_token_budget": N}.

A budget simply cuts the thinking off. It is meant for a model that was fine-tuned on these traces, to stop the rare
response that does not end; a model that thinks as long as before is cut off in the middle (docs/without-rl.md)."""

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN.jsonl", help="a file of `attnpo trim` (.gz too)")
    parser.add_argument(
        "--quantile",
        metavar="S",
        type=float,
        default=0.9,
        help="share of the trimmed traces that fit into the budget (default: 0.9)",
    )
    parser.add_argument(
        "--by", metavar="FIELD", help="the field that names the difficulty (default: difficulty, else level, else none)"
    )
    add_format(parser)
    parser.add_argument("-o", "--output", metavar="OUT.json", help="where to write the settings (default: print only)")


def run(args: argparse.Namespace) -> None:
    import json
    import shlex

    from attnpo.data.jsonl import check_target
    from attnpo.heads.figures import print_table
    from attnpo.trim.budgets import learn_budgets, write_budgets

    if args.output is not None:
        check_target(args.output, read=args.input)
    budgets = learn_budgets(args.input, share=args.quantile, by=args.by, thinking_format=args.thinking_format)
    reasoning = json.dumps(budgets.settings["reasoning_config"], ensure_ascii=False)
    notes = [f"vllm serve MODEL --reasoning-config {shlex.quote(reasoning)}"]
    if args.output is not None:
        write_budgets(args.output, budgets)
        notes.append(f"written: {args.output}")
    print_table(budgets.table, "thinking tokens after trimming", notes)
