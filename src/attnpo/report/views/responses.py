"""The Responses view: controls, list and reading pane of the response explorer, which the scripts fill."""

from __future__ import annotations

from markupsafe import Markup

from attnpo.report.elements import View, render
from attnpo.report.selection import Shelf

FILTERS = {
    "Verdict": {"right": "✓ right", "wrong": "✗ wrong", "no_answer": "∅ no answer"},
    "Change": {"gained": "✗→✓ gained", "lost": "✓→✗ lost"},
    "With": {"attenuated": "▽ attenuated", "protected": "◆ protected", "truncated": "✂ cut off"},
}
CREDIT = {"attenuated", "protected"}


def responses(shelves: list[Shelf]) -> View:
    """The view: an explorer of `shelves`, and a note about what they leave out."""
    kinds = {shelf.kind for shelf in shelves}
    sources = [shelf.run for shelf in shelves] if any(shelf.chunks for shelf in shelves) else []
    if "run" not in kinds and not sources:
        return View("responses", "Responses", Markup())
    several = len(shelves) > 1
    filters = {
        title: {name: label for name, label in boxes.items() if "run" in kinds or name not in CREDIT}
        for title, boxes in FILTERS.items()
        if title != "Change" or _has_pairs(shelves)
    }
    html = render(
        "responses.html",
        missing=[notice for shelf in shelves for notice in shelf.notices],
        sources=sources,
        kinds=kinds,
        only_runs=kinds == {"run"},
        steps_have_colours=kinds != {"evaluation"},
        filters=filters,
        left_out=[f"{f'{shelf.run}: ' if several else ''}{'; '.join(shelf.left_out)}." for shelf in shelves],
    )
    return View("responses", "Responses", html)


def _has_pairs(shelves: list[Shelf]) -> bool:
    """Whether problems occur twice: at both ends of a run, or in two evaluations."""
    benchmarks = [chunk.title for shelf in shelves for chunk in shelf.chunks if chunk.split == "bench"]
    held_out = (sum(chunk.split == "eval" for chunk in shelf.chunks) for shelf in shelves)
    return len(set(benchmarks)) < len(benchmarks) or any(count > 1 for count in held_out)
