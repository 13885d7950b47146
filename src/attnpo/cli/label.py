"""`attnpo label`: label the essential steps of traces, by language models or by hiding steps from attention."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from attnpo.cli.trace_options import add_format, add_input, add_lexicon, add_model, to_stderr

DESCRIPTION = """\
Add "essential": true, false or null (undecided) to every step of traces. Existing steps keep their offsets, other
responses are segmented. Rows that cannot be labelled lose their old labels, get the reason in "skipped", and are
counted.

--by judges: language models at OpenAI-compatible chat endpoints decide for every step whether the final answer depends
on it; the label is their consensus, and their votes are kept in "votes". The number of requests and their cost are
shown before anything is sent. Valid answers are cached as they arrive: after an interrupt, run the same command again
to continue. Needs pip install 'attnpo[judges]'.

--by causal: a step is essential if hiding it from attention makes the model's final answer less likely."""

EPILOG = """\
example of a file for --judges (only base_url and model are required; prices per million tokens):
  judges:
    - name: first
      base_url: https://host/v1
      model: some-model
      api_key_env: SOME_API_KEY
      price_in: 0.15
      price_out: 0.60
      temperature: 0
      max_tokens: 4000
      extra_body: {reasoning_effort: low}"""

PARSER_OPTIONS = {
    "description": DESCRIPTION,
    "epilog": EPILOG,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
}

# Options of one kind raise an error with the other, instead of being ignored: name -> default.
CAUSAL_OPTIONS: dict[str, Any] = {"model": None, "batch_size": 8, "threshold": None, "max_length": None}
JUDGE_OPTIONS: dict[str, Any] = {
    "judge": [],
    "judges": None,
    "api_key_env": None,
    "consensus": "unanimous",
    "quorum": None,
    "max_traces": None,
    "min_accuracy": None,
    "retries": 3,
    "concurrency": 8,
    "timeout": 120.0,
    "cache": None,
    "yes": False,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_input(parser)
    parser.add_argument("-o", "--output", metavar="OUT.jsonl", required=True, help="where to write (.gz to compress)")
    parser.add_argument("--by", choices=("judges", "causal"), required=True, help="the method of labelling")
    add_lexicon(parser)
    add_format(parser)
    _add_judge_arguments(parser.add_argument_group("judges"))
    causal = parser.add_argument_group("causal")
    add_model(causal)
    causal.add_argument("--batch-size", metavar="N", type=int, help="sequences per forward (default: 8)")
    causal.add_argument(
        "--threshold",
        metavar="T",
        type=float,
        help="a step is essential if its drop is above this share of the largest drop of its trace (default: 0.01)",
    )
    causal.add_argument(
        "--max-length", metavar="N", type=int, help="skip rows with more tokens (default: what the model allows)"
    )


def _add_judge_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--judge",
        metavar="URL#MODEL",
        action="append",
        help="a chat endpoint and its model, such as http://localhost:8000/v1#my-model (can be repeated)",
    )
    group.add_argument("--judges", metavar="FILE.yaml", help="judges with names, keys, prices, settings (see below)")
    group.add_argument(
        "--api-key-env",
        metavar="VARIABLE",
        help="environment variable with the key for the endpoints of --judge (default: no key is sent; for "
        "api.openai.com OPENAI_API_KEY)",
    )
    group.add_argument(
        "--consensus",
        choices=("unanimous", "majority"),
        help="label a step if all votes agree, or more than half of them (default: unanimous)",
    )
    group.add_argument("--quorum", metavar="N", type=int, help="minimum votes per label (default: of all judges)")
    group.add_argument("--max-traces", metavar="N", type=int, help="judge the first N traces (default: all)")
    group.add_argument(
        "--min-accuracy",
        metavar="P",
        type=float,
        help='judge problems with at least this accuracy: "group_accuracy" of a row, or the share of rows with the '
        'same problem that are "correct"',
    )
    group.add_argument(
        "--retries", metavar="N", type=int, help="retries of a failed request or invalid answer (default: 3)"
    )
    group.add_argument("--concurrency", metavar="N", type=int, help="requests at a time, per judge (default: 8)")
    group.add_argument("--timeout", metavar="SECONDS", type=float, help="of one attempt (default: 120)")
    group.add_argument(
        "--cache", metavar="FILE", help="cached answers (default: .attnpo-judges.sqlite in the folder of OUT.jsonl)"
    )
    group.add_argument("--yes", action="store_true", default=None, help="do not ask before requests are sent")


def run(args: argparse.Namespace) -> None:
    from attnpo.errors import InputError

    own, other = (JUDGE_OPTIONS, CAUSAL_OPTIONS) if args.by == "judges" else (CAUSAL_OPTIONS, JUDGE_OPTIONS)
    for name in other:
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} does not go with --by {args.by}")
    options = {name: default if getattr(args, name) is None else getattr(args, name) for name, default in own.items()}
    if args.by == "causal":
        from attnpo.labels.causal import label_file

        reading = {"lexicon": args.lexicon, "origin": args.origin, "thinking_format": args.thinking_format}
        counts, lines = label_file(args.input, args.output, **reading, say=to_stderr, **options), []
    else:
        counts, lines = _judge(args, options)
    skipped = "".join(f", {count} skipped ({reason})" for reason, count in counts.items() if reason != "labelled")
    print(f"{counts['labelled']} traces labelled{skipped}: {args.output}", file=sys.stderr)
    for line in lines:
        print(line, file=sys.stderr)


def _judge(args: argparse.Namespace, options: dict[str, Any]) -> tuple[Any, list[str]]:
    from attnpo.judges.config import collect_judges
    from attnpo.labels.by_judges import label_file

    judges = collect_judges(options.pop("judge"), options.pop("judges"), options.pop("api_key_env"))
    confirmed = options.pop("yes")
    try:
        report = label_file(
            args.input,
            args.output,
            judges=judges,
            approve=lambda estimate: _approve(estimate, confirmed),
            rule=options.pop("consensus"),
            lexicon=args.lexicon,
            origin=args.origin,
            thinking_format=args.thinking_format,
            say=to_stderr,
            **options,
        )
    except KeyboardInterrupt:
        print("answers so far are kept in the cache: run the same command again to continue", file=sys.stderr)
        raise
    return report.traces, report.lines()


def _approve(estimate: str, confirmed: bool) -> bool:
    from attnpo.errors import InputError

    print(estimate, file=sys.stderr)
    if confirmed:
        return True
    if not sys.stdin.isatty():
        raise InputError("nothing was sent: expected --yes, because there is no terminal for the confirmation")
    print("Send these requests? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
