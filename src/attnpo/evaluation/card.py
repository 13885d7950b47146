"""Model cards: the parts that all have, and the card of a model that a comparison has measured.

The card of a training run (`training.card`) has its settings too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData, try_to_load_from_cache

from attnpo.attention.heads import HEADS, load_heads
from attnpo.errors import InputError
from attnpo.evaluation.compare import FRONTIER, Comparison, markdown_table, reading_notes
from attnpo.evaluation.frontier import draw_frontier
from attnpo.models import SHIPPED, model_name
from attnpo.tables import writing

CARD = "README.md"


def write_comparison_card(folder: Path, comparison: Comparison) -> None:
    """Write README.md and frontier.png into the folder of a model that was not trained by `attnpo train`.

    The model is that of the last run of the comparison, its base model that of the comparison's base run.

    Raises:
        InputError: the folder is no model, or the last run is the base, of another folder, or a training run.
    """
    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        raise InputError(f"--card {folder}: found no config.json there, expected the folder of a model")
    run = list(comparison["runs"])[-1]
    if run == comparison["base"]:
        raise InputError(f"--card: the last run, {run!r}, is the base; expected the run of the model in {folder} last")
    for name in (comparison["base"], run):
        if comparison["runs"][name]["step"] is not None:
            found = f"{name!r} is a training run"
            raise InputError(f"--card: {found}, which has a card already; expected evaluations of both models")
    measured = Path(comparison["runs"][run]["model"])
    if measured.exists() and not measured.samefile(folder):
        raise InputError(f"--card {folder}: the last run, {run!r}, is of {measured}, expected that of this model")
    base, name = comparison["runs"][comparison["base"]]["model"], folder.resolve().name
    results = [
        f"## Before and after\n\n`{comparison['base']}` is the base model, `{run}` this one.\n",
        markdown_table(comparison),
        *(f"- {note}" for note in [*reading_notes(comparison), *comparison["notices"]]),
        f"\n![accuracy against length]({FRONTIER})\n",
    ]
    heads = heads_of(folder)
    parts = [
        front_matter(folder, base, name, tags=["attnpo", "reasoning"]),
        f"# {name}\n\n`{model_name(base)}` trained to think shorter, measured with `attnpo compare`.\n",
        "\n".join(results),
        f"Key-focus heads: {heads} ({HEADS}).\n" if heads else "",
        usage(name),
        licence(base),
    ]
    with writing(folder / FRONTIER) as path:
        draw_frontier(comparison).savefig(path, dpi=120)
    with writing(folder / CARD) as path:
        path.write_text("\n".join(part for part in parts if part), encoding="utf-8")


def front_matter(folder: Path, base: str, name: str, *, tags: Iterable[str], datasets: list[str] | None = None) -> str:
    """Return the YAML head of a card, which the Hub reads."""
    data = ModelCardData(
        base_model=base if is_hub_name(base) and base not in SHIPPED else None,
        library_name="peft" if (folder / "adapter_config.json").is_file() else "transformers",
        datasets=datasets,
        license=licence_of(base),
        tags=sorted(tags),
        model_name=name,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def heads_of(folder: Path) -> str | None:
    """Return the heads of a folder's heads.json in words; None without such a file."""
    if not (folder / HEADS).is_file():
        return None
    return ", ".join(f"layer {layer} head {head}" for layer, head in load_heads(folder / HEADS))


def usage(name: str) -> str:
    return f"""## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")  # the folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained("{name}")
```

`vllm serve {name}` serves it; `attnpo eval --model {name} --benchmarks math500` measures it; for llama.cpp its
`convert_hf_to_gguf.py {name}` makes a GGUF file.
"""


def licence(base: str) -> str:
    found = licence_of(base)
    return f"## Licence\n\nThat of the base model{f': {found}' if found else '; see there'}.\n"


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
        head: Any = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return None
    name = head.get("license") if isinstance(head, dict) else None
    return name if isinstance(name, str) else None


def is_hub_name(base: str) -> bool:
    """Whether `base` must be a name on the Hub: it is not a local folder and has the form of a Hub name."""
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base) is not None and not Path(base).exists()
