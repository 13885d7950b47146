"""The model card of a trained model, generated from the records in its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnpo.attention.heads import HEADS
from attnpo.data.jsonl import read_unfinished_jsonl, write_whole
from attnpo.evaluation.card import CARD, front_matter, heads_of, licence, usage
from attnpo.evaluation.compare import FRONTIER
from attnpo.evaluation.frontier import draw_frontier
from attnpo.models import model_name
from attnpo.training.description import comparable_evaluations
from attnpo.training.records import WARNINGS
from attnpo.training.resume import read_description

ROWS = (("accuracy", "accuracy", ".1%"), ("tokens per response", "length/completion", ".0f"))
PAPER = "[ATTNPO: Attention-Guided Process Supervision for Efficient Reasoning](https://arxiv.org/abs/2602.09953)"


def write_card(
    folder: Path,
    base: str,
    *,
    name: str | None = None,
    datasets: list[str] | None = None,
    tags: list[str] | None = None,
) -> None:
    """Write README.md into a run folder, and frontier.png where held-out problems were evaluated twice.

    base: name or folder of the base model; "" where it has none. name: of the trained model (default: the folder's).
    datasets: names of data sets on the Hub.
    """
    name = name or folder.resolve().name
    options, about = read_description(folder)  # empty for a trainer that was saved before training began
    evaluations = evaluations_of_last_set(folder)
    version = about.get("versions", {}).get("attnpo", "version not recorded")
    parts = [
        front_matter(folder, base, name, tags={"attnpo", "trl", "reasoning", *(tags or [])}, datasets=datasets),
        f"# {name}\n",
        f"{f'`{model_name(base)}`' if base else 'A model'} trained to think shorter with "
        f"[attnpo](https://arxiv.org/abs/2602.09953) ({version}), on TRL's GRPOTrainer.\n",
        _results(evaluations, folder),
        _training(options, about, folder),
        usage(name),
        licence(base),
    ]
    if len(evaluations) > 1:
        _draw(evaluations, folder)
    write_whole(folder / CARD, "\n".join(part for part in parts if part).encode())


def evaluations_of_last_set(folder: Path) -> list[dict[str, Any]]:
    """Return the evaluations of a run with the same problems and limits as its last one."""
    rows = [row for row in comparable_evaluations(folder) if row.get("accuracy") is not None]
    # Other problems that a program has evaluated have no name; they rarely have the same number.
    return [row for row in rows if (row.get("set"), row["n"]) == (rows[-1].get("set"), rows[-1]["n"])]


def _results(evaluations: list[dict[str, Any]], folder: Path) -> str:
    if not evaluations:
        return "Nothing was measured on held-out problems.\n"
    ends = evaluations if len(evaluations) == 1 else [evaluations[0], evaluations[-1]]
    lines = [
        f"{ends[-1]['n']} responses to held-out problems, 95 % intervals in brackets.\n",
        "| | " + " | ".join(f"step {row['step']}" for row in ends) + " |",
        "|---" * (1 + len(ends)) + "|",
        *("| " + " | ".join([name, *(_cell(row, key, form) for row in ends)]) + " |" for name, key, form in ROWS),
    ]
    if len(ends) > 1:
        lines.append(f"\n![accuracy against length along the training]({FRONTIER})")
    file = folder / WARNINGS
    warned = [row["message"] for _, row in read_unfinished_jsonl(file)[0]] if file.is_file() else []
    lines += [f"\nThe run warned: {message}" for message in dict.fromkeys(warned)]
    return "\n".join(["## Before and after\n", *lines, ""])


def _cell(row: Mapping[str, Any], key: str, form: str) -> str:
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    interval = "" if low is None or high is None else f" ({low:{form}} to {high:{form}})"
    return f"{row[key]:{form}}{interval}"


def _training(options: Mapping[str, Any], about: Mapping[str, Any], folder: Path) -> str:
    derived = about.get("derived") or {}
    known = {**derived, **options}
    names = ("advantage", "length_reward", "credit", "reward_funcs", "learning_rate", "max_steps", "num_generations")
    rows = [(name, known[name]) for name in (*names, "temperature", "dataset_name") if known.get(name) is not None]
    if about.get("right_or_wrong"):
        rows.append(("right or wrong", about["right_or_wrong"]))
    if heads := heads_of(folder):
        rows.append(("key-focus heads", f"{heads} ({HEADS})"))
    rows += [(name, version) for name, version in about.get("versions", {}).items() if name in ("torch", "trl")]
    method = f"Credit per step follows {PAPER}.\n\n" if options.get("credit") == "attnpo" else ""
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    return f"## Training\n\n{method}{table}\n\nAll settings: `config.yaml` and `environment.json` in this folder.\n"


def _draw(evaluations: list[dict[str, Any]], folder: Path) -> None:
    def value(row: Mapping[str, Any], key: str) -> dict[str, Any]:
        return {"value": row[key], "low": row.get(f"{key}_low"), "high": row.get(f"{key}_high")}

    runs = {
        f"step {row['step']}": {"tokens": value(row, "length/completion"), "accuracy": value(row, "accuracy")}
        for row in evaluations
    }
    panel = {"problems": evaluations[-1]["n"], "runs": runs}
    figure = draw_frontier({"all": None, "benchmarks": {"held-out problems": panel}, "runs": runs})
    figure.savefig(folder / FRONTIER, dpi=120)
