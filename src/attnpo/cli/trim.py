"""`attnpo trim`: shorten traces by removing steps that the answer does not need."""

from __future__ import annotations

import argparse

from attnpo.cli.trace_options import OR_OF_MODEL, add_format, add_heads, add_lexicon, add_model

DESCRIPTION = """\
Remove from right traces the steps to which the final answer pays the least attention, as many as possible while the
answer stays right, and write the shortened traces for fine-tuning: rows with "prompt" and "completion", the format of
TRL's SFTTrainer. They are also traces ("problem", "response"); "trim" has the long response, every step with its score
and whether it was removed, what was verified, and why no more was removed.

The number of steps is found by bisection. --verify sample lets the model write the answer again after the remaining
steps (greedily) and verifies it against "reference"; likelihood compares the likelihood of the trace's answer before
and after; none removes all that --keep and --least allow. At least half of the steps stay by default (--keep).

A step whose result is a number (of two digits or more) is kept if a later remaining step uses the number and no other
remaining step has it as its result; the summary has the number of these steps.

Rows that are no traces, wrong traces and traces that do not fit are left out and listed in OUT.jsonl.left-out, and so
are rows that --shortest or --preference (if they lost no step) do not write.
After an interrupt the same command continues (OUT.jsonl.partial) and writes the same file."""

EPILOG = """\
other rankings, as controls for attention:
  random        steps in random order (--seed)
  position      the last steps first
  likelihood    the steps first whose removal, one at a time, leaves the answer the most likely (a forward for each)
  first_answer  only steps after the first one that states the final answer, last first; all of them with --keep 0"""

PARSER_OPTIONS = {
    "description": DESCRIPTION,
    "epilog": EPILOG,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
}

NAMED = 5
"""Number of left-out rows that are printed."""


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
        help="which steps are removed first (default: attention; see below)",
    )
    parser.add_argument(
        "--verify",
        choices=("sample", "likelihood", "none"),
        default="sample",
        help="how to check that the answer stays right (default: sample)",
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
        help="minimum share of the steps to keep (default: 0.5; 0: remove all that the answer allows, from which a "
        "model learns to leave out checks too)",
    )
    parser.add_argument("--least", metavar="N", type=int, default=1, help="minimum number of steps (default: 1)")
    parser.add_argument(
        "--values",
        choices=("keep", "ignore"),
        default="keep",
        help="whether to keep a step whose result a later one uses (default: keep)",
    )
    parser.add_argument(
        "--shortest", metavar="N", type=int, help="write only the N shortest traces of each problem (default: all)"
    )
    parser.add_argument(
        "--preference",
        action="store_true",
        help='write pairs: "prompt", "chosen" (short) and "rejected" (long), for TRL\'s DPOTrainer',
    )
    parser.add_argument(
        "--format",
        choices=("text", "conversation"),
        default="text",
        help="of prompt and completion (default: text, because many chat templates drop the thinking of messages)",
    )
    parser.add_argument(
        "--max-traces",
        metavar="N",
        type=int,
        help="trim the first N rows that are traces, right or not (default: all)",
    )
    parser.add_argument("--batch-size", metavar="N", type=int, default=32, help="rows per forward (default: 32)")
    parser.add_argument(
        "--max-length", metavar="N", type=int, help="leave out rows with more tokens (default: what the model allows)"
    )
    parser.add_argument(
        "--max-answer",
        metavar="N",
        type=int,
        help="tokens of a sampled answer (default: twice those of the trace's answer, at least 64)",
    )
    add_lexicon(parser)
    add_format(parser, OR_OF_MODEL)
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of --ranking random (default: 0)")


def run(args: argparse.Namespace) -> None:
    from attnpo.cli.trace_options import progress_bar, to_stderr
    from attnpo.heads.figures import print_table
    from attnpo.trim.run import trim_file
    from attnpo.trim.trimmer import Options

    names = ("ranking", "verify", "tolerance", "keep", "least", "shortest", "preference", "format", "max_traces")
    names += ("batch_size", "max_length", "max_answer", "lexicon", "thinking_format", "seed")
    options = Options(values=args.values == "keep", **{name: getattr(args, name) for name in names})
    outcome = trim_file(
        args.input,
        args.output,
        model=args.model,
        heads=args.heads,
        options=options,
        progress=progress_bar,
        say=to_stderr,
    )
    notes = [f"{outcome.continued} rows were done by an earlier call"] if outcome.continued else []
    notes += [f"left out: {one.where}: {one.reason}" for one in outcome.left_out[:NAMED]]
    if outcome.left_out:
        notes.append(f"{len(outcome.left_out)} rows left out: {outcome.left_out_file}")
    print_table(outcome.summary.table, "traces without the steps they do not need", [*notes, f"written: {args.output}"])
