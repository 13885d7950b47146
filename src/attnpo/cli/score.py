"""`attnpo score`: add to traces the attention that the final answer pays to each step."""

from __future__ import annotations

import argparse
import sys

from attnpo.cli.trace_options import OR_OF_MODEL, add_format, add_heads, add_input, add_lexicon, add_model, to_stderr

DESCRIPTION = """\
Score every reasoning step by the attention that the final answer pays to it, averaged over the chosen heads, and write
the rows with "score" per step and "answer_tokens", "total_tokens" and "baseline" per trace. The baseline is
p^2 * answer_tokens / total_tokens with p from --group-accuracy: steps below it count as redundant.

The prompt is the field "problem" in the tokenizer's chat template. Existing steps keep their offsets, other responses
are segmented. Token ids in "completion_ids" are used unchanged; without them the response is tokenised and the end
token added. Rows that cannot be scored (no closing tag, too long, tokens that do not decode to the text) are kept with
"score" and "baseline" null and the reason in "skipped"."""

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_input(parser)
    parser.add_argument("-o", "--output", metavar="OUT.jsonl", required=True, help="where to write (.gz to compress)")
    add_model(parser)
    add_heads(parser)
    parser.add_argument(
        "--group-accuracy", metavar="P", type=float, default=1.0, help="share of right responses (default: 1)"
    )
    parser.add_argument("--batch-size", metavar="N", type=int, default=8, help="rows per forward (default: 8)")
    add_lexicon(parser)
    add_format(parser, OR_OF_MODEL)
    parser.add_argument(
        "--max-length", metavar="N", type=int, help="skip rows with more tokens (default: what the model allows)"
    )


def run(args: argparse.Namespace) -> None:
    from attnpo.traces.scores import score_file

    counts = score_file(
        args.input,
        args.output,
        model=args.model,
        heads=args.heads,
        group_accuracy=args.group_accuracy,
        batch_size=args.batch_size,
        lexicon=args.lexicon,
        max_length=args.max_length,
        origin=args.origin,
        thinking_format=args.thinking_format,
        say=to_stderr,
    )
    skipped = "".join(f", {count} skipped ({reason})" for reason, count in counts.items() if reason != "scored")
    print(f"{counts['scored']} traces scored{skipped}: {args.output}", file=sys.stderr)
