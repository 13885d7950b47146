"""What the tools of `attnpo evidence` have in common on the command line. No command of its own."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from attnpo.cli.progress import progress_bar
from attnpo.errors import InputError

if TYPE_CHECKING:
    from attnpo.heads.scores import HeadScores, ReadFile

LEAVES = "Leaves table.csv, table.md, figure.png and command.txt in the folder DIR."


def add_common(parser: argparse.ArgumentParser, *, model: bool = True, batch_size: int = 8) -> None:
    """The output folder, the model, and how it is run; batch_size: the default."""
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the folder to write (made if need be)")
    if model:
        parser.add_argument(
            "--model", metavar="M", help="folder or Hub name of a causal language model (default: the overthinker)"
        )
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=batch_size, help=f"rows per forward (default: {batch_size})"
    )
    parser.add_argument(
        "--max-length", metavar="N", type=int, help="leave out rows with more tokens (default: what the model allows)"
    )


def check_common(args: argparse.Namespace) -> None:
    """InputError for numbers that cannot be."""
    if args.batch_size < 1:
        raise InputError(f"--batch-size is {args.batch_size}, expected at least 1")
    if args.max_length is not None and args.max_length < 1:
        raise InputError(f"--max-length is {args.max_length}, expected at least 1")
    if getattr(args, "top", 1) < 1:
        raise InputError(f"--top is {args.top}, expected at least 1")


def score_all_heads(args: argparse.Namespace, loaded: tuple[Any, Any], file: ReadFile, what: str) -> HeadScores:
    """All heads of a (model, tokenizer) on a file, as the common options say, with a bar called `what`."""
    from attnpo.heads.scores import score_file

    with progress_bar(what) as progress:
        return score_file(loaded, file, batch_size=args.batch_size, max_length=args.max_length, progress=progress)
