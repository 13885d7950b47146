"""The mixed batch of the trainer tests in verl's format, for tests with and without verl."""

from __future__ import annotations

from typing import Any

from attnpo.engines.verl.ledger import Rows

ORDER = [5, 0, 7, 3, 2, 6, 1, 4]
"""verl balances its workers: rows come in any order, here groups mixed."""


def rows_of(kit: Any, tokenizer: Any, data: Any) -> Rows:
    """Two groups of four, without verdicts of ours."""
    prompts = [tokenizer(data[i // 4]["prompt"])["input_ids"] for i in range(8)]
    right = [response.answer == kit.RIGHT for response in kit.MIXED]
    return Rows(
        uids=[f"u{i // 4}" for i in ORDER],
        numbers=[i % 4 for i in ORDER],
        prompts=[prompts[i] for i in ORDER],
        responses=[kit.MIXED[i].ids(tokenizer) for i in ORDER],
        rows=[dict(data[i // 4]) for i in ORDER],
        rewards=[float(right[i]) for i in ORDER],
        verdicts=[None] * 8,
    )
