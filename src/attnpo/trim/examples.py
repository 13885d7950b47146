"""The rows that trimming writes: examples for fine-tuning, or pairs for preference training; and their summary.

Prompt and completion are text by default. Of a conversation, many chat templates drop the thinking of an assistant's
message (those of the DeepSeek-R1 distillations do).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from transformers import PreTrainedTokenizerBase

from attnpo.steps.formats import ThinkingFormat
from attnpo.steps.response import split_response
from attnpo.tables import Table
from attnpo.trim.trimmer import CONVERSATION, OWN_FAILS, Trimmed
from attnpo.trim.verify import Candidate

KEPT = ("id", "problem", "reference", "difficulty", "level")
"""Fields of a trace that are copied to its example."""


class Writer:
    """Writes examples for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ranking: str, verify: str, format: str):
        self.tokenizer, self.ranking, self.verify, self.format = tokenizer, ranking, verify, format

    def example(self, one: Candidate, found: Trimmed, *, preference: bool) -> dict[str, Any]:
        """Return a row of OUT.jsonl. It is also a trace: "problem" and the short "response"."""
        long = one.row["response"]
        short = shorter_response(one, found.removed)
        problem, form = one.row["problem"], one.trace.form
        kept = {name: one.row[name] for name in KEPT if name in one.row}
        if preference:
            texts = {
                name: self._completion(problem, text, form) for name, text in (("chosen", short), ("rejected", long))
            }
        else:
            texts = {"completion": self._completion(problem, short, form)}
        gone, stays = set(found.removed), set(found.kept_for_values)
        scores = found.scores or [None] * len(one.trace.steps)
        steps = [
            {
                "start": step["start"],
                "end": step["end"],
                "kind": step.get("kind", "step"),
                "essential": step.get("essential"),
                "score": score,
                "removed": k in gone,
                "kept_for_value": k in stays,
            }
            for k, (step, score) in enumerate(zip(one.trace.steps, scores, strict=True))
        ]
        trim = {
            "ranking": self.ranking,
            "verify": self.verify,
            "reason": found.reason,
            "answer": found.answer,
            "drop": found.drop,
            "checks": found.checks,
            "tokens": {name: self._thinking_tokens(text, form) for name, text in (("long", long), ("short", short))},
            "response": long,
            "thinking_format": replace(form, opening_ids=(), closing_ids=()).as_json(),
            "steps": steps,
        }
        return {**kept, "prompt": self._prompt(problem, long, form), **texts, "response": short, "trim": trim}

    def _prompt(self, problem: str, response: str, form: ThinkingFormat) -> Any:
        message = [{"role": "user", "content": problem}]
        if self.format == CONVERSATION:
            return message
        text = self._template(problem)
        if form.opened(response) is not None:
            text = form.without_opening(text)
        # Trainers tokenise this text and add the start token, so it would be there twice.
        start: Any = self.tokenizer.bos_token
        if start is None or self.tokenizer("")["input_ids"][:1] != [self.tokenizer.bos_token_id]:
            return text
        return text.removeprefix(start)

    def _completion(self, problem: str, response: str, form: ThinkingFormat) -> Any:
        if self.format != CONVERSATION:
            return response
        template = self._template(problem)
        opens_itself = form.opened(response) is not None
        opening = "" if opens_itself else template[len(form.without_opening(template)) :]
        return [{"role": "assistant", "content": opening + response}]

    def _template(self, problem: str) -> str:
        message = [{"role": "user", "content": problem}]
        text = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)
        return text

    def _thinking_tokens(self, response: str, form: ThinkingFormat) -> int:
        parts = split_response(response, form)
        encoded: Any = self.tokenizer(response[parts.thinking_start : parts.thinking_end], add_special_tokens=False)
        return len(encoded["input_ids"])


def shorter_response(one: Candidate, removed: list[int]) -> str:
    """Return the response with its opening mark, the remaining thinking, and its own final answer."""
    response = one.row["response"]
    parts = split_response(response, one.trace.form)
    assert parts.answer_start is not None
    return response[: parts.thinking_start] + one.without(removed) + response[parts.thinking_end :]


@dataclass(frozen=True)
class Summary:
    """Counts and means over the right traces.

    Attributes:
        traces, shortened: number of right traces that fit, and of those that lost a step.
        not_answered: number of traces that stay whole because the answer sampled from all of their steps is not right.
        written: number of rows of the file.
        long, short: mean tokens of thinking, before and after.
        steps, removed: over all traces.
        with_kept, kept: number of traces in which steps were kept for their value, and number of those steps.
        essential, essential_removed: number of steps labelled essential, if the input has labels.
        checks: verified answers per trace.
    """

    traces: int
    shortened: int
    not_answered: int
    written: int
    long: float
    short: float
    steps: int
    removed: int
    with_kept: int
    kept: int
    essential: int
    essential_removed: int
    checks: float

    @property
    def table(self) -> Table:
        saved = 1 - self.short / self.long if self.long else 0.0
        rows: list[tuple[str, str]] = [
            ("right traces", f"{self.traces}, {self.shortened} of them shortened"),
            ("thinking tokens, mean", f"{self.long:.0f} → {self.short:.0f} ({-saved:+z.0%})"),
            ("steps removed", f"{self.removed} of {self.steps} ({_share(self.removed, self.steps)})"),
            ("steps kept because a later one uses their value", f"{self.kept}, in {self.with_kept} traces"),
        ]
        if self.not_answered:
            rows.append(("unchanged: sampled answer not right", str(self.not_answered)))
        if self.essential:
            rows.append(
                (
                    "essential steps removed",
                    f"{self.essential_removed} of {self.essential} ({_share(self.essential_removed, self.essential)})",
                )
            )
        rows += [("answers verified per trace", f"{self.checks:.1f}"), ("rows written", str(self.written))]
        return Table(("", "result"), [*rows])


def summarise(examples: Sequence[dict[str, Any]], written: int) -> Summary:
    """Summarise rows as `attnpo trim` writes them, at least one."""
    trims = [example["trim"] for example in examples]
    steps = [step for trim in trims for step in trim["steps"]]
    essential = [step for step in steps if step["essential"] is True]
    kept = [sum(step["kept_for_value"] for step in trim["steps"]) for trim in trims]
    return Summary(
        traces=len(trims),
        shortened=sum(any(step["removed"] for step in trim["steps"]) for trim in trims),
        not_answered=sum(trim["reason"] == OWN_FAILS for trim in trims),
        written=written,
        long=fmean(trim["tokens"]["long"] for trim in trims),
        short=fmean(trim["tokens"]["short"] for trim in trims),
        steps=len(steps),
        removed=sum(step["removed"] for step in steps),
        with_kept=sum(map(bool, kept)),
        kept=sum(kept),
        essential=len(essential),
        essential_removed=sum(step["removed"] for step in essential),
        checks=fmean(trim["checks"] for trim in trims),
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "0%"
