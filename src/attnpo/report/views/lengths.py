"""How long responses are, before and after: the shares of responses in equal ranges of length."""

from __future__ import annotations

import math
from statistics import median

from attnpo.report.elements import NBSP, Chart, Key, Table, colour, count, dash, percent, short
from attnpo.report.packing import Shelf

BINS = 20
NICE = (1, 2, 5)


def bin_width(longest: float, bins: int = BINS) -> int:
    """The least width of 1, 2 or 5 times a power of ten with which `bins` ranges reach beyond `longest`.

    >>> bin_width(512), bin_width(19), bin_width(20)
    (50, 1, 2)
    """
    power = 0
    while True:
        for nice in NICE:
            if nice * 10**power * bins > longest:
                return nice * 10**power
        power += 1


def lengths_chart(name: str, title: str, groups: dict[str, list[float]]) -> Chart | None:
    """One line of steps per group of lengths, over shared ranges; None where fewer than two lengths are known."""
    groups = {label: values for label, values in groups.items() if values}
    every = [value for values in groups.values() for value in values]
    if len(every) < 2:
        return None
    width = bin_width(max(every))
    last = math.floor(max(every) / width)
    shares = {
        label: [sum(math.floor(value / width) == place for value in values) / len(values) for place in range(last + 1)]
        for label, values in groups.items()
    }
    traces = [
        {
            "name": label,
            "x": [width * place for place in range(last + 2)],
            "y": [*(short(share) for share in found), 0],
            "mode": "lines",
            "fill": "tozeroy" if len(groups) <= 2 else "none",
            "opacity": 0.9,
            "line": {"color": colour(index), "width": 2, "dash": dash(index), "shape": "hv"},
            "hovertemplate": "from %{x:,} tokens: %{y:.1%}<extra>%{fullData.name}</extra>",
        }
        for index, (label, found) in enumerate(shares.items())
    ]
    ranges = [f"{width * place:,}{NBSP}–{NBSP}{width * (place + 1) - 1:,}" for place in range(last + 1)]
    rows = [(said, *(percent(found[place], 1) for found in shares.values())) for place, said in enumerate(ranges)]
    medians = "; ".join(f"{label} {count(median(values))}" for label, values in groups.items())
    layout = {
        "xaxis": {"title": {"text": "tokens of a response"}, "rangemode": "tozero", "showgrid": False},
        "yaxis": {"tickformat": ".0%", "rangemode": "tozero"},
        "hovermode": "x unified",
    }
    legend = [Key(label, colour(index), dash=dash(index)) for index, label in enumerate(groups)]
    said = f"Share of responses by length. Medians: {medians}."
    return Chart(name, title, said, traces, layout, legend, Table(("Tokens", *groups), rows))


def run_lengths(shelf: Shelf, index: int, *, several: bool) -> Chart | None:
    """The lengths at the first and the last evaluation of a run, all of its problems."""
    if len(shelf.lengths) < 2:
        return None
    of = f" of {shelf.run}" if several else ""
    return lengths_chart(f"lengths-{index}", f"Lengths before and after{of}", shelf.lengths)
