"""One verifying process: reads a JSON request per line, answers with a JSON line. :mod:`attnpo.rewards.pool` starts it.

It is run as a plain script and imports only the standard library, math-verify and four files of this folder that do
the same, so that it starts in about a second beside a trainer of any size. It has no time limit of its own in Python:
sympy can spend hours inside one C call, where no signal handler runs. The pool kills a worker that is late; should the
pool itself be gone, the kernel does (SIGALRM with its default action). math-verify's own timeouts, which are such
handlers, are switched off.

Requests: {"id", "reference"} → {"id", "readable"}; {"id", "reference", "answer", "rules"} → {"id", "verdict",
"extracted"}; rules are optional.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from itertools import product
from typing import Any

from math_verify import verify

from attnpo.rewards.boxed import boxed_texts
from attnpo.rewards.closeness import Rules, is_close, is_other_base, is_rounded_away, tolerance_of, without_unit
from attnpo.rewards.quantities import bare_number
from attnpo.rewards.reading import PARSER_ERRORS, extract, read_reference

LONGEST_ANSWER = 20_000
"""Characters. Of a longer answer the end is read: math-verify's patterns are quadratic in unclosed delimiters."""

LONGEST_EXTRACT = 500
"""Characters of the extracted answer that are handed back."""


def judge(answer: str, reference: str, rules: Rules | None = None) -> tuple[str, str | None]:
    """The verdict on one answer (right, wrong, no_answer or unverifiable), and what was read out of it."""
    rules = rules or {}
    golds = read_reference(reference)
    if not golds:
        return "unverifiable", None
    if len(answer) > LONGEST_ANSWER:
        # From the start of a line, where there is one: an inline formula ends in the line it began in.
        answer = answer[-LONGEST_ANSWER:]
        answer = answer[answer.find("\n") + 1 :]
    try:
        found = extract(without_unit(answer, rules))
    except PARSER_ERRORS:
        return "unverifiable", None
    if not found:
        return "no_answer", None
    boxes = boxed_texts(answer)
    # Of one box its own text, before the repairs; else what math-verify made of several, or of running text.
    read = boxes[0] if len(boxes) == 1 else next((item for item in reversed(found) if isinstance(item, str)), "")
    if is_other_base(reference, read):
        return "wrong", read[:LONGEST_EXTRACT]
    failed, tolerance = False, tolerance_of(reference, rules)
    for gold, value in product(golds, [*found, *read_quantity(read, golds)]):
        try:
            equal = verify(gold, value, timeout_seconds=None, raise_on_error=True) and not is_rounded_away(gold, value)
            if equal or is_close(gold, value, tolerance):
                return "right", read[:LONGEST_EXTRACT]
        except PARSER_ERRORS:
            failed = True
    return "unverifiable" if failed else "wrong", read[:LONGEST_EXTRACT]


def read_quantity(read: str, golds: list[Any]) -> list[Any]:
    """The number of an answer that is a number and its unit, where the reference is a number."""
    number = bare_number(read) if any(getattr(gold, "is_number", False) for gold in golds) else None
    return [] if number is None else extract(rf"\boxed{{{number}}}")


def answer_request(request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request; never raises for what a model or a data set can put into a string."""
    # Lone surrogates come out of broken decoding; no parser downstream accepts them and none means anything.
    texts = {key: request[key].encode("utf-8", "replace").decode() for key in ("reference", "answer") if key in request}
    reply: dict[str, Any] = {"id": request["id"]}
    if "answer" in texts:
        reply["verdict"], reply["extracted"] = judge(texts["answer"], texts["reference"], request.get("rules"))
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
