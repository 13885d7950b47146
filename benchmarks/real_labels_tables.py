"""The tables that `real_labels.py` prints."""

from __future__ import annotations

from typing import Any

from real_labels_data import IMPORTANCE

CONTROLS = ("position: later", "position: earlier", "longer", "shorter")


def print_part(title: str, part: dict[str, Any], label: str) -> None:
    """Print one table: heads and controls as rows, measures as columns."""
    left_out = ", ".join(f"{count} {why}" for why, count in part["left_out"].items()) or "none"
    print(f"\n### {title}\n\n{part['traces']} traces of {part['problems']} problems, {part['steps']} steps; ", end="")
    print(f"left out: {left_out}\n")
    measures = part[label]
    lines = []
    for chooser in measures:
        key = f"chosen by {chooser}"
        lines.append((f"best three heads, {key}", [_with_interval(found[key]) for found in measures.values()]))
        difference = [found[key].get("minus the best control") for found in measures.values()]
        lines.append(("– minus the best control", [_with_interval(x, "+") for x in difference]))
    lines += [(name, [_with_interval(found["controls"].get(name)) for found in measures.values()]) for name in CONTROLS]
    random = [found["random sets"] for found in measures.values()]
    lines.append(("three random heads: mean and 95 % range", [_with_interval(x, "", "range") for x in random]))
    single = [found["single heads"] for found in measures.values()]
    lines.append(("single heads: median, highest", [f"{x['median']:.3f}, {x['highest']:.3f}" for x in single]))
    print("| | " + " | ".join(measures) + " |\n|---" + "|---" * len(measures) + "|")
    for name, cells in lines:
        print(f"| {name} | " + " | ".join(cells) + " |")
    for name, found in measures.items():
        print(f"\nHeads by {name}, of either half: {found[f'chosen by {name}']['heads']}")


def print_subsets(measures: dict[str, Any]) -> None:
    """Print heads chosen on all traces of one half of the problems, measured on some traces of the other half."""
    names = list(measures)
    print("\n| traces | " + " | ".join(f"{name}: n, chosen heads, best control, random heads" for name in names) + " |")
    print("|---" + "|---" * len(names) + "|")
    for subset in measures[names[0]]["subsets"]:
        cells = []
        for name in names:
            found = measures[name]["subsets"][subset]
            if found["traces"] == 0:  # none of them has steps of both kinds
                cells.append("–")
                continue
            control = found.get("best control")
            parts = [str(found["traces"]), _with_interval(found["chosen"])]
            parts += [f"{control['name']} {_with_interval(control)}"] if control else []
            cells.append("; ".join([*parts, _with_interval(found["random sets"], "", "range")]))
        print(f"| {subset} | " + " | ".join(cells) + " |")


def print_labels(part: dict[str, Any]) -> None:
    """Print all importances of the traces."""
    print("\n| importance | traces | Spearman, held out | position: earlier | partial, held out |")
    print("|---|---|---|---|---|")
    for name in IMPORTANCE:
        plain, partial = part[name]["Spearman"], part[name]["partial"]
        cells = [plain["chosen by Spearman"], plain["controls"]["position: earlier"], partial["chosen by partial"]]
        print(f"| {name} | {plain['traces']} | " + " | ".join(map(_with_interval, cells)) + " |")


def _with_interval(found: dict[str, Any] | None, sign: str = "", bounds: str = "interval") -> str:
    if found is None:
        return "–"
    low, high = found[bounds]
    return f"{found['mean']:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})".replace("-", "−")
