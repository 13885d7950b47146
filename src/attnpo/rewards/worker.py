"""One verifying process: reads a JSON request per line, answers with a JSON line. :mod:`attnpo.rewards.pool` starts it.

It is run as a plain script and imports only the standard library and math-verify, so that it starts in about a second
beside a trainer of any size. It has no time limit of its own in Python: sympy can spend hours inside one C call, where
no signal handler runs. The pool kills a worker that is late; should the pool itself be gone, the kernel does (SIGALRM
with its default action). math-verify's own timeouts, which are such handlers, are switched off.

Requests: {"id", "reference"} → {"id", "readable"}; {"id", "reference", "answer"} → {"id", "verdict"}.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
from functools import lru_cache
from itertools import product
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

# A box is what these models are taught to answer in: it comes before "the final answer is".
EXTRACTION = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
HAS_DELIMITERS = re.compile(r"\\boxed|\\\(|\\\[|(?<!\\)\$")
NUMBER_AND_UNIT = re.compile(r"""^[+-]?[$€£]?\s*(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+)?\s+[A-Za-z][A-Za-z .]*$""")
WORDS = re.compile(r"^[A-Za-z][A-Za-z' -]+[A-Za-z]\.?$")
# Two things math-verify stumbles over: separated thousands inside a command (\frac{1}{29,\!322}) and an escaped dollar
# sign before an amount in running text (**\$180**).
THOUSANDS = re.compile(r"(?<=\d)(?:,\\!|\{,\})\s?(?=\d{3})")
AMOUNT = re.compile(r"\\\$\s?(?=[\d.])")

LONGEST_ANSWER = 20_000
"""Characters. Of a longer answer the end is read: math-verify's patterns are quadratic in unclosed delimiters."""

PARSER_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What parsing and comparing odd expressions raises. Anything else ends the worker, which the pool can tell as well."""


def extract(text: str) -> list[Any]:
    """Everything math-verify reads in `text`: sympy expressions, then the string it read them from; [] for nothing."""
    text = AMOUNT.sub("", THOUSANDS.sub("", text))
    return parse(text, extraction_config=EXTRACTION, parsing_timeout=None, raise_on_error=True)  # type: ignore[arg-type]


@lru_cache(maxsize=8192)
def read_reference(reference: str) -> list[Any]:
    r"""The values a reference stands for; [] if it cannot be read.

    References come bare (``\frac{1}{2}``, ``50\%``, ``(3, \pi)``), delimited (``$12$``, ``\boxed{…}``), with a unit
    (``12 units``) or as words (``even``). Bare ones are boxed: outside delimiters math-verify sees only digits, and
    would read ``2k+2`` as 2.
    """
    text = reference.strip()
    if not text:
        return []
    boxed = rf"\boxed{{{text}}}"
    values: list[Any] = []
    if HAS_DELIMITERS.search(text):
        forms = [text]
    elif NUMBER_AND_UNIT.match(text):
        forms = [text, boxed]
    elif WORDS.match(text):
        # Without \text, math-verify reads a word as a product of letters and forgets their order: compare as text.
        word = text.rstrip(".")
        forms = [rf"\boxed{{\text{{{word}}}}}"]
        values.extend(dict.fromkeys([word, word.lower(), word.capitalize()]))
    else:
        forms = [boxed]
    for form in forms:
        try:
            values.extend(extract(form))
        except PARSER_ERRORS:
            return []
    # A string alone means that parsing failed: only a letter-for-letter copy would be right, anything else "wrong".
    return values if any(not isinstance(value, str) for value in values) else []


def judge(answer: str, reference: str) -> str:
    """The verdict on one answer: right, wrong, no_answer or unverifiable."""
    golds = read_reference(reference)
    if not golds:
        return "unverifiable"
    if len(answer) > LONGEST_ANSWER:
        # From the start of a line, where there is one: an inline formula ends in the line it began in.
        answer = answer[-LONGEST_ANSWER:]
        answer = answer[answer.find("\n") + 1 :]
    try:
        found = extract(answer)
    except PARSER_ERRORS:
        return "unverifiable"
    if not found:
        return "no_answer"
    failed = False
    for gold, value in product(golds, found):
        try:
            if verify(gold, value, timeout_seconds=None, raise_on_error=True):
                return "right"
        except PARSER_ERRORS:
            failed = True
    return "unverifiable" if failed else "wrong"


def answer_request(request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request; never raises for what a model or a data set can put into a string."""
    # Lone surrogates come out of broken decoding; no parser downstream accepts them and none means anything.
    texts = {key: request[key].encode("utf-8", "replace").decode() for key in ("reference", "answer") if key in request}
    reply: dict[str, Any] = {"id": request["id"]}
    if "answer" in texts:
        reply["verdict"] = judge(texts["answer"], texts["reference"])
    else:
        reply["readable"] = bool(read_reference(texts["reference"]))
    return reply


def limit_memory(megabytes: int) -> None:
    """Make allocations beyond the limit fail, so that one answer cannot take the machine down."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = megabytes * 2**20
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    if sys.platform == "linux":  # elsewhere the kernel refuses or ignores this limit
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--memory-mb", type=int, required=True)
    args = parser.parse_args()
    limit_memory(args.memory_mb)
    logging.disable(logging.CRITICAL)
    # Replies go through a private descriptor: parsers print, and a stray line would be taken for a reply.
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)

    def send(reply: dict[str, Any]) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    send({"ready": True})
    os.dup2(silence, 2)
    for line in sys.stdin.buffer:  # ends when the pool closes the pipe, or dies
        signal.setitimer(signal.ITIMER_REAL, 2 * args.timeout + 2)
        send(answer_request(json.loads(line)))
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
