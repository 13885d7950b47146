"""The map of heads as a picture: step ranking accuracy over layers × heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from attnpo.attention.heads import Head
from attnpo.errors import InputError
from attnpo.probe.head_table import ACCURACY, CHANCE, HeadTable

HALO = [withStroke(linewidth=4, foreground="white")]  # a black ring is lost on the darkest cells


def draw_head_map(table: HeadTable, chosen: Sequence[Head], target: str | Path, *, title: str) -> None:
    """Write the map (chosen heads are ringed) and the histogram beside it; the format follows from the file's name.

    Raises InputError when the file cannot be written.
    """
    accuracy = table.figures[:, ACCURACY].mean(dim=0).numpy()
    layers, heads = accuracy.shape
    figure = Figure(figsize=(max(6.5, 3.2 + 0.28 * heads), max(3.2, 1.2 + 0.22 * layers)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 1])
    image = left.imshow(accuracy, vmin=0, vmax=1, cmap="RdBu", aspect="auto", origin="lower")
    for layer, head in chosen:
        left.plot(
            head,
            table.layers.index(layer),
            "o",
            markersize=11,
            fillstyle="none",
            color="black",
            mew=1.6,
            path_effects=HALO,
        )
    left.set(xlabel="head", ylabel="layer", title=title)
    ticks = range(0, layers, max(1, layers // 14))
    left.set_yticks(list(ticks), [str(table.layers[tick]) for tick in ticks])
    left.set_xticks(range(0, heads, max(1, heads // 16)))
    figure.colorbar(image, ax=left, label="step ranking accuracy", fraction=0.05)
    right.hist(accuracy.ravel(), bins=20, range=(0, 1), color="#5b7fa6")
    right.axvline(CHANCE, color="black", linewidth=1, linestyle=":")
    right.set(xlabel="accuracy", ylabel="number of heads", xlim=(0, 1))
    try:
        figure.savefig(target, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f"--figure {target}: cannot be written: {error}") from error
