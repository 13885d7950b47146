"""The attention heads of a run: a map of their step ranking accuracy, the chosen ones in numbers."""

from __future__ import annotations

import re
import statistics
from typing import Any

from attnpo.errors import InputError
from attnpo.report.data.run import Run
from attnpo.report.words import esc

Head = tuple[int, int]


def read_accuracy(run: Run) -> dict[Head, float]:
    """The field "sra" of heads.json by (layer, head); empty where there is none.

    Raises InputError for anything but "layer,head" → a number from 0 to 1.
    """
    found = {}
    where = f'{run.path / "heads.json"}, field "sra"'
    given = run.heads.get("sra", {})
    if not isinstance(given, dict):
        raise InputError(f'{where}: found {type(given).__name__}, expected "layer,head" with a number each')
    for name, value in given.items():
        head = re.fullmatch(r"(\d{1,4}),(\d{1,4})", str(name))
        if head is None or isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f'{where}: found {name!r}: {value!r}, expected "layer,head" with a number from 0 to 1')
        found[int(head[1]), int(head[2])] = float(value)
    return found


def chosen_heads(run: Run) -> list[Head]:
    """The heads the run used. Raises InputError for a list of anything but pairs of numbers."""
    heads = run.heads.get("heads", [])
    try:
        return [(int(layer), int(head)) for layer, head in heads]
    except (TypeError, ValueError):
        raise InputError(
            f'{run.path / "heads.json"}, field "heads": found {heads!r}, expected [layer, head] pairs'
        ) from None


def has_heads(runs: list[Run]) -> bool:
    """Whether any run says which heads it used."""
    return any(run.heads for run in runs)


def head_figures(runs: list[Run]) -> list[dict[str, Any]]:
    """What page.js hands to plotly: one map per run whose heads were measured."""
    figures = []
    for index, run in enumerate(runs):
        accuracy = read_accuracy(run)
        if not accuracy:
            continue
        layers, heads = sorted({layer for layer, _ in accuracy}), range(1 + max(head for _, head in accuracy))
        figures.append(
            {
                "id": f"plot-heads-{index}",
                "map": [[_short(accuracy.get((layer, head))) for head in heads] for layer in layers],
                "layers": layers,
                "chosen": [head for head in chosen_heads(run) if head[0] in layers],
            }
        )
    return figures


def heads_html(runs: list[Run]) -> str:
    """Places for the maps, and the chosen heads as tables."""
    parts = [
        '<p class="lead">Step ranking accuracy: the share of pairs of an essential and a redundant step of which a '
        "head looks more at the essential one while the final answer is written. 0.5 is chance. Rings: the heads whose "
        "scores rescale the advantages.</p>"
    ]
    parts += [_run_html(run, index, titled=len(runs) > 1) for index, run in enumerate(runs) if run.heads]
    return "\n".join(parts)


def _run_html(run: Run, index: int, *, titled: bool) -> str:
    accuracy, chosen = read_accuracy(run), chosen_heads(run)
    title = f"<h3>{esc(run.name)}</h3>" if titled else ""
    measured = ""
    if accuracy:
        labels, traces = run.heads.get("labels", "not recorded"), run.heads.get("traces", "an unknown number of")
        median = statistics.median(accuracy.values())
        measured = (
            f'<p class="aside">{len(accuracy)} heads, median {median:.2f}, on {esc(traces)} responses; labels: '
            f"{esc(labels)}.</p>"
            f'<div class="charts"><figure><div class="plot" id="plot-heads-{index}" role="img" aria-label="Map of '
            'step ranking accuracy over layers and heads; the chosen heads are in the table below"></div></figure>'
            "</div>"
        )
    rows = "".join(
        f'<tr><th scope="row">layer {layer}, head {head}</th><td>{_number(accuracy.get((layer, head)))}</td>'
        f"<td>{_number(_of(run, 'essential_over_uniform', layer, head))}</td>"
        f"<td>{_number(_of(run, 'redundant_over_uniform', layer, head))}</td></tr>\n"
        for layer, head in chosen
    )
    names = ("Chosen", "Accuracy", "Score of essential steps", "of redundant steps")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    caption = "Scores in units of what uniform attention would give (the baseline at p = 1)."
    return (
        f'{title}{measured}<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
        f"<caption>{caption}</caption></table></div>"
    )


def _of(run: Run, field: str, layer: int, head: int) -> float | None:
    values = run.heads.get(field)
    value = values.get(f"{layer},{head}") if isinstance(values, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
