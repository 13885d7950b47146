"""Options that the commands on trace files share."""

from __future__ import annotations

import argparse


def add_lexicon(parser: argparse.ArgumentParser, used: str = "phrase lists for rows without steps") -> None:
    """--lexicon; what it is used for stands in the help. The name is checked where the lexicon is loaded."""
    parser.add_argument(
        "--lexicon",
        metavar="NAME",
        default="paper",
        help=f"{used}: paper (default), released (with the slip of the published script), zh, paragraphs, a JSON file "
        "of five lists, or several joined by + (paper+zh)",
    )
