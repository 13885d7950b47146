"""`attnpo trim`: shorter traces, with the steps that the answer does not need taken out."""

from __future__ import annotations

import argparse
import sys

from attnpo.cli.trace_options import OR_OF_MODEL, add_format, add_heads, add_lexicon, add_model

DESCRIPTION = """\
Take the steps that the final answer looks at least out of right traces, as many as can go while the answer stays right,
and write what is left as examples for fine-tuning: rows with "prompt" and "completion", which TRL's SFTTrainer takes
as they are. They are traces as well ("problem", "response"); "trim" has the long response, every step with its score
and whether it was removed, what was verified, and why no more was removed.

The number of steps is found by bisection. --verify sample lets the model write the answer again from what is left
(greedily) and verifies it against "reference"; likelihood asks how likely the trace's own answer still is; none removes
all that --keep and --least allow.

A step that gives a number as its result (of two digits or more) stays as long as a later step that is left uses the
number and no other one left gives it; the summary says how often.

Rows that are no traces, wrong traces and those that do not fit are left out, named in OUT.jsonl.left-out.
Interrupted, the same command goes on where it stopped (OUT.jsonl.partial) and gives the same file."""

EPILOG = """\
rankings, as controls beside attention:
  random        steps in any order (--seed)
  position      the last steps first
  likelihood    the steps first without which, each by itself, the answer stays the likeliest (a forward for each)
  first_answer  only steps behind the first one that states the final answer, last first"""

PARSER_OPTIONS = {
    "description": DESCRIPTION,
    "epilog": EPILOG,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
}

NAMED = 5
"""Left-out rows that are named on the screen."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        metavar="IN",
        help="traces: JSON Lines (.gz too), a file of another tool as for segment, or a folder of `attnpo eval`",
    )
    parser.add_argument("-o", "--output", metavar="OUT.jsonl", required=True, help="where to write (.gz to compress)")
    add_model(parser)
    add_heads(parser)
    parser.add_argument(
        "--ranking",
        choices=("attention", "random", "position", "likelihood", "first_answer"),
        default="attention",
        help="which steps go first (default: attention; see below)",
    )
    parser.add_argument(
        "--verify",
        choices=("sample", "likelihood", "none"),
        default="sample",
        help="how to see that the answer stays right (default: sample)",
    )
    parser.add_argument(
        "--tolerance",
        metavar="NATS",
        type=float,
        default=0.1,
        help="log-likelihood per token that the answer may lose, for --verify likelihood (default: 0.1)",
    )
    parser.add_argument(
        "--keep",
        metavar="S",
        type=float,
        default=0.5,
        help="share of the steps that stays at least (default: 0.5; 0: as far as the answer allows, from which a model "
        "learns to leave out checks too)",
    )
    parser.add_argument("--least", metavar="N", type=int, default=1, help="steps that stay at least (default: 1)")
    parser.add_argument(
        "--values",
        choices=("keep", "ignore"),
        default="keep",
        help="whether a step stays whose result a later one uses (default: keep)",
    )
    parser.add_argument(
        "--shortest", metavar="N", type=int, help="of the traces of a problem write the N shortest (default: all)"
    )
    parser.add_argument(
        "--preference",
        action="store_true",
        help='pairs instead: "prompt", "chosen" (short) and "rejected" (long), for TRL\'s DPOTrainer',
    )
    parser.add_argument(
        "--format",
        choices=("text", "conversation"),
        default="text",
        help="of prompt and completion (default: text, because many chat templates drop the thinking of messages)",
    )
    parser.add_argument("--max-traces", metavar="N", type=int, help="use the first N rows (default: all)")
    parser.add_argument("--batch-size", metavar="N", type=int, default=32, help="rows per forward (default: 32)")
    parser.add_argument(
        "--max-length", metavar="N", type=int, help="leave out rows with more tokens (default: what the model allows)"
    )
    parser.add_argument(
        "--max-answer",
        metavar="N",
        type=int,
        help="tokens of a sampled answer (default: twice those of the trace's own, at least 64)",
    )
    add_lexicon(parser)
    add_format(parser, OR_OF_MODEL)
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of --ranking random (default: 0)")


def run(args: argparse.Namespace) -> None:
    from attnpo.cli.trace_options import progress_bar
    from attnpo.heads.figures import print_table
    from attnpo.trim.options import Options
    from attnpo.trim.run import trim_file

    names = ("ranking", "verify", "tolerance", "keep", "least", "shortest", "preference", "format", "max_traces")
    names += ("batch_size", "max_length", "max_answer", "lexicon", "thinking_format", "seed")
    options = Options(values=args.values == "keep", **{name: getattr(args, name) for name in names})
    say = lambda line: print(line, file=sys.stderr)  # noqa: E731
    outcome = trim_file(
        args.input,
        args.output,
        model=args.model,
        heads=args.heads,
        options=options,
        progress=progress_bar,
        say=say,
    )
    notes = [f"{outcome.continued} rows were done by an earlier call"] if outcome.continued else []
    notes += [f"left out: {one.where}: {one.reason}" for one in outcome.left_out[:NAMED]]
    if outcome.left_out:
        notes.append(f"{len(outcome.left_out)} rows left out: {outcome.left_out_file}")
    print_table(outcome.summary.table, "traces without the steps they do not need", [*notes, f"written: {args.output}"])
