"""One verifying process: reads a JSON request per line, replies with a JSON line. :mod:`attnpo.rewards.pool` starts it.

It runs as a plain script and imports only the standard library, math-verify and a few files of this folder and of
`attnpo.data` that do the same, so that it starts in about a second, whatever the trainer has loaded. It has no time
limit of its own in Python: sympy can spend hours inside one C call, where no signal handler runs. The pool kills a
late worker; if the pool no longer exists, the kernel does (SIGALRM with its default action). math-verify's own
timeouts are such handlers, and are switched off.

Requests: {"id", "reference"} → {"id", "readable"}; {"id", "reference", "answer", "rules"} → {"id", "verdict",
"extracted", "fired"}; rules are optional.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
from typing import Any

from attnpo.data.references import alternatives, final_box, is_solution
from attnpo.rewards.equality import Comparison, tolerance_of
from attnpo.rewards.extraction import candidates
from attnpo.rewards.normal_form import squeezed
from attnpo.rewards.reading import REFERENCE, Reading, read
from attnpo.rewards.verdict import Rules

LONGEST_ANSWER = 20_000
"""Characters. Only the end of a longer answer is read: math-verify's patterns are quadratic in unclosed delimiters."""

LONGEST_TEXT = 2_000
"""Characters of an extracted answer; longer candidates are skipped."""

LONGEST_EXTRACT = 500
"""Characters of the extracted answer that are returned."""


def judge(answer: str, reference: str, rules: Rules | None = None) -> tuple[str, str | None, list[str]]:
    """Return the verdict on one answer (right, wrong, no_answer or unverifiable), the extracted answer, and the rules
    used.

    If the reference has several alternatives, the first verdict of right, unverifiable, wrong, no_answer counts.
    """
    verdicts = [_judge_one(answer, one, rules or {}) for one in alternatives(reference) or [reference]]
    return min(verdicts, key=lambda verdict: _NEAREST.index(verdict[0]))


_NEAREST = ("right", "unverifiable", "wrong", "no_answer")


def _judge_one(answer: str, reference: str, rules: Rules) -> tuple[str, str | None, list[str]]:
    off = frozenset(rules.get("off", ()))
    if len(answer) > LONGEST_ANSWER:
        # From the start of a line, if there is one: an inline formula ends in the line it began in.
        answer = answer[-LONGEST_ANSWER:]
        answer = answer[answer.find("\n") + 1 :]
    gold, gold_fired = read_reference(reference, rules.get("unit") or "", off)
    # If the reference has letters, a letter of the answer is one of them and not a unit.
    letters = (
        {REFERENCE} if gold is not None and re.search(r"(?<![A-Za-z\\])[A-Za-z]", gold.text + gold.name) else set()
    )
    text, kind = None, "no_answer"
    for text in candidates(answer):
        if squeezed(text) == squeezed(reference.strip()):
            return "right", text[:LONGEST_EXTRACT], ["equal strings"]
        if gold is None:
            return "unverifiable", text[:LONGEST_EXTRACT], []
        if len(text) > LONGEST_TEXT:
            continue
        reading, fired = read(text, rules.get("unit") or "", off | letters)
        if not text.is_final and reading.kind == "words" != gold.kind:
            continue  # a sentence about the answer, which follows later
        comparison = Comparison(tolerance_of(reference, rules), off)
        if comparison.same(gold, reading):
            kind = "right"
        elif not gold.is_readable() or comparison.failed:
            kind = "unverifiable"
        elif text.is_final or reading.is_readable():
            kind = "wrong"
        else:
            continue
        fired = dict.fromkeys([*gold_fired, *fired, *comparison.fired])
        return kind, text[:LONGEST_EXTRACT], list(fired)
    return kind if gold is not None and gold.is_readable() else "unverifiable", None, []


def read_reference(
    reference: str, unit: str = "", off: frozenset[str] = frozenset()
) -> tuple[Reading | None, tuple[str, ...]]:
    r"""Read a reference; the result need not be a formula. None for an empty reference and for a worked solution.

    References are bare (``\frac{1}{2}``, ``(3, \pi)``), delimited (``$12$``, ``$x = 1$ and $y = 2$``, ``\boxed{…}``),
    with a unit (``12 units``), words (``even``) or a sentence. No formula in a sentence is taken for the answer.
    """
    text = reference.strip()
    if not text or len(text) > LONGEST_ANSWER or is_solution(text):
        return None, ()
    box = final_box(text)
    off |= {REFERENCE}
    return read(box[1] if box else text, unit, off)


def answer_request(request: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one request; never raises for any string from a model or a data set."""
    # Lone surrogates come from broken decoding; no later parser accepts them, and they have no meaning.
    texts = {key: request[key].encode("utf-8", "replace").decode() for key in ("reference", "answer") if key in request}
    reply: dict[str, Any] = {"id": request["id"]}
    if "answer" in texts:
        judged = judge(texts["answer"], texts["reference"], request.get("rules"))
        reply["verdict"], reply["extracted"], reply["fired"] = judged
    else:
        golds = [read_reference(one)[0] for one in alternatives(texts["reference"]) or [texts["reference"]]]
        reply["readable"] = all(gold is not None and gold.is_readable() for gold in golds)
    return reply


def limit_memory(megabytes: int) -> None:
    """Make allocations beyond the limit fail, so that one answer cannot exhaust the machine's memory."""
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
    # Replies use a separate descriptor: parsers print, and a printed line would be taken for a reply.
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)

    def send(reply: dict[str, Any]) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    send({"ready": True})
    os.dup2(silence, 2)
    for line in sys.stdin.buffer:  # ends when the pool closes the pipe or dies
        signal.setitimer(signal.ITIMER_REAL, 2 * args.timeout + 2)
        send(answer_request(json.loads(line)))
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
