"""Thinking budgets for vLLM, learned per difficulty from trimmed traces (`attnpo budget`).

A budget is a quantile of the tokens of trimmed thinking: the smallest length that at least this share of a group's
traces do not exceed. vLLM (from 0.22 on) counts the tokens after the opening mark and inserts the closing mark when the
budget is used up: `SamplingParams.thinking_token_budget`, the field of the same name in a request, and
`ReasoningConfig.reasoning_start_str` and `reasoning_end_str` (`--reasoning-config`) for the marks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpo.data.jsonl import check_field, read_numbered_jsonl, row_name, type_name, whole
from attnpo.errors import InputError
from attnpo.evaluation.results import level_order
from attnpo.steps.formats import AUTO, ThinkingFormat, format_of_rows, format_of_trim
from attnpo.tables import Cell, Table, writing

FIELDS = ("difficulty", "level")
"""Fields that hold a difficulty, if none is named: the first of these that a row has is used."""
QUANTILE = 0.9


@dataclass(frozen=True)
class Group:
    """Traces of one difficulty. long, short: tokens of thinking before and after trimming, sorted."""

    name: str
    long: list[int]
    short: list[int]

    def budget(self, share: float) -> int:
        """Return the budget as vLLM takes it: a whole number of tokens."""
        return quantile(self.short, share)


@dataclass(frozen=True)
class Budgets:
    """Learned budgets. field: the field that defines the groups, None if rows have no difficulty. whole: all rows.

    start, end: the marks as vLLM takes them.
    """

    field: str | None
    share: float
    start: str
    end: str
    groups: list[Group]
    whole: Group

    @property
    def settings(self) -> dict[str, Any]:
        """The content of the file: `reasoning_config` is for the server, the others are extra fields of a request."""
        return {
            "reasoning_config": {"reasoning_start_str": self.start, "reasoning_end_str": self.end},
            "field": self.field,
            "quantile": self.share,
            "all": self._request(self.whole),
            "budgets": {group.name: self._request(group) for group in self.groups},
        }

    def _request(self, group: Group) -> dict[str, int]:
        return {"thinking_token_budget": group.budget(self.share)}

    @property
    def table(self) -> Table:
        """One row per group, the last one for all; tokens of thinking."""
        rows: list[tuple[Cell, ...]] = [
            (
                group.name,
                len(group.short),
                quantile(group.short, 0.5),
                group.budget(self.share),
                group.short[-1],
                quantile(group.long, self.share),
            )
            for group in [*self.groups, self.whole]
        ]
        of = f"({self.share:.3g})"
        return Table((self.field or "", "traces", "median", f"budget {of}", "longest", f"untrimmed {of}"), rows)


def quantile(lengths: Sequence[int], share: float) -> int:
    """Return the smallest of these sorted lengths that at least this share of them do not exceed.

    >>> quantile([10, 20, 30, 40], 0.5), quantile([10, 20, 30, 40], 0.51), quantile([10, 20, 30, 40], 1)
    (20, 30, 40)
    """
    return lengths[max(0, math.ceil(round(share * len(lengths), 9)) - 1)]


def learn_budgets(
    source: str | Path, *, share: float = QUANTILE, by: str | None = None, thinking_format: str = AUTO
) -> Budgets:
    """Learn budgets from a file that `attnpo trim` wrote, also with pairs.

    share: above 0, up to 1. by: the field of a row with its difficulty; default: the first of `FIELDS` that any row
    has, otherwise one budget for all. thinking_format: default: the one that the row records, otherwise by its marks.
    Raises InputError for a share out of range, an unreadable file, rows that `attnpo trim` did not write, rows without
    a difficulty if others have one, thinking formats that vLLM cannot count, and rows of several formats.
    """
    if not 0 < share <= 1:
        raise InputError(f"--quantile: found {share:g}, expected a share of the traces above 0 and up to 1")
    form = format_of_rows(thinking_format)
    rows = list(read_numbered_jsonl(source, ("response",)))
    by = by or next((field for field in FIELDS if any(row.get(field) is not None for _, row in rows)), None)
    groups: dict[str, Group] = {}
    marks: tuple[str, str] | None = None
    everything = Group("all", [], [])
    for number, row in rows:
        where = row_name(source, number)
        tokens = row["trim"].get("tokens") if isinstance(row.get("trim"), dict) else None
        if not isinstance(tokens, dict):
            raise InputError(f"{where}: field 'trim' with its tokens is missing, expected a file of `attnpo trim`")
        own = format_of_trim(row["trim"], where) if thinking_format == AUTO else form
        found = reasoning_marks(own.of(row["response"]), where)
        if marks not in (None, found):
            raise InputError(
                f"{where}: its thinking is marked {' … '.join(found)}, that of earlier rows {' … '.join(marks)}; "
                "expected one format (--thinking-format)"
            )
        marks = found
        chosen = [everything]
        if by is not None:
            check_field(row, by, where)
            name = row[by]
            if isinstance(name, bool) or not isinstance(name, str | int | float):
                raise InputError(f"{where}: field '{by}' is {type_name(name)}, expected text or a number, as --by")
            chosen.append(groups.setdefault(str(name), Group(str(name), [], [])))
        for group in chosen:
            group.long.append(whole(tokens, "long", where))
            group.short.append(whole(tokens, "short", where))
    for group in (everything, *groups.values()):
        group.long.sort()
        group.short.sort()
    assert marks is not None  # a file without rows is refused by its reader
    return Budgets(by, share, *marks, [groups[name] for name in sorted(groups, key=level_order)], everything)


def reasoning_marks(form: ThinkingFormat, where: str) -> tuple[str, str]:
    """Return the marks that open the thinking and that a server writes to end it, without white space. vLLM detects by
    the same tokens that a response has ended its own thinking.

    Raises InputError, which begins with `where`, for a format without an opening mark: vLLM counts from that mark.
    """
    ends = [form.bridge] if form.channels else [*form.closing, *form.answer_opening]
    if not form.opening or not ends:
        raise InputError(
            f"{where}: thinking format {form} has no mark that opens the thinking and one that ends it, which vLLM's "
            "budget needs"
        )
    return form.opening[0], ends[0]


def write_budgets(file: str | Path, budgets: Budgets) -> None:
    """Write `Budgets.settings` as JSON. Raises as `attnpo.tables.writing` does."""
    with writing(Path(file)) as path:
        path.write_text(json.dumps(budgets.settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
