"""The model card of a trained model, generated from the records in its run folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData, try_to_load_from_cache

from attnpo.attention.heads import HEADS, load_heads
from attnpo.data.jsonl import read_unfinished_jsonl, write_whole
from attnpo.evaluation.frontier import draw_frontier
from attnpo.models import SHIPPED, model_name
from attnpo.training.description import comparable_evaluations
from attnpo.training.records import WARNINGS
from attnpo.training.resume import read_description

PICTURE = "frontier.png"
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
    licence = licence_of(base)
    data = ModelCardData(
        base_model=base if is_hub_name(base) else None,
        library_name="peft" if (folder / "adapter_config.json").is_file() else "transformers",
        datasets=datasets,
        license=licence,
        tags=sorted({"attnpo", "trl", "reasoning", *(tags or [])}),
        model_name=name,
    )
    version = about.get("versions", {}).get("attnpo", "version not recorded")
    parts = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# {name}\n",
        f"{f'`{model_name(base)}`' if base else 'A model'} trained to think shorter with "
        f"[attnpo](https://arxiv.org/abs/2602.09953) ({version}), on TRL's GRPOTrainer.\n",
        _results(evaluations, folder),
        _training(options, about, folder),
        _loading(name),
        "## Licence\n",
        f"That of the base model{f': {licence}' if licence else '; see there'}.\n",
    ]
    if len(evaluations) > 1:
        _draw(evaluations, folder)
    write_whole(folder / "README.md", "\n".join(part for part in parts if part).encode())


def evaluations_of_last_set(folder: Path) -> list[dict[str, Any]]:
    """Return the evaluations of a run with the same problems and limits as its last one."""
    rows = [row for row in comparable_evaluations(folder) if row.get("accuracy") is not None]
    # Other problems that a program has evaluated have no name; they rarely have the same number.
    return [row for row in rows if (row.get("set"), row["n"]) == (rows[-1].get("set"), rows[-1]["n"])]


def licence_of(base: str) -> str | None:
    """Return the licence in the front matter of the base model's card; this package's licence for shipped models."""
    if model_name(base) in SHIPPED:
        return "apache-2.0"
    cached = try_to_load_from_cache(base, "README.md") if is_hub_name(base) else None
    card = Path(cached) if isinstance(cached, str) else Path(base) / "README.md"
    if not base or not card.is_file():
        return None
    found = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        head = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return None
    licence = head.get("license") if isinstance(head, dict) else None
    return licence if isinstance(licence, str) else None


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
        lines.append(f"\n![accuracy against length along the training]({PICTURE})")
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
    if (folder / HEADS).is_file():
        heads = ", ".join(f"layer {layer} head {head}" for layer, head in load_heads(folder / HEADS))
        rows.append(("key-focus heads", f"{heads} ({HEADS})"))
    rows += [(name, version) for name, version in about.get("versions", {}).items() if name in ("torch", "trl")]
    method = f"Credit per step follows {PAPER}.\n\n" if options.get("credit") == "attnpo" else ""
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    return f"## Training\n\n{method}{table}\n\nAll settings: `config.yaml` and `environment.json` in this folder.\n"


def is_hub_name(base: str) -> bool:
    """Whether `base` must be a name on the Hub: it is not a local folder and has the form of a Hub name."""
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base) is not None and not Path(base).exists()


def _loading(name: str) -> str:
    return f"""## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")  # the folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained("{name}")
```

`vllm serve {name}` serves it; `attnpo eval --model {name} --benchmarks math500` measures it; for llama.cpp its
`convert_hf_to_gguf.py {name}` makes a GGUF file.
"""


def _draw(evaluations: list[dict[str, Any]], folder: Path) -> None:
    def value(row: Mapping[str, Any], key: str) -> dict[str, Any]:
        return {"value": row[key], "low": row.get(f"{key}_low"), "high": row.get(f"{key}_high")}

    runs = {
        f"step {row['step']}": {"tokens": value(row, "length/completion"), "accuracy": value(row, "accuracy")}
        for row in evaluations
    }
    panel = {"problems": evaluations[-1]["n"], "runs": runs}
    figure = draw_frontier({"all": None, "benchmarks": {"held-out problems": panel}, "runs": runs})
    figure.savefig(folder / PICTURE, dpi=120)
