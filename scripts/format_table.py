"""Run segment, score, train, eval and early exit with every thinking format, on a small model that writes it.

    python scripts/format_table.py             # the table of docs/thinking-formats.md; ten CPU seconds a format
    python scripts/format_table.py mistral     # these formats only

The model is the packaged one with the marks of a format instead of its two tags: the same token ids, other names.
So every figure must equal that of `<think>` in every digit; otherwise the script marks it and exits with 1.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpo.cli.main import main
from attnpo.data.jsonl import write_jsonl
from attnpo.models import resolve_model
from attnpo.steps.detect import choose_format
from attnpo.steps.formats import ThinkingFormat, built_in, load_format
from attnpo.steps.response import CLOSE_TAG, OPEN_TAG

TRACES = 8


@dataclass(frozen=True)
class Figures:
    """Results of the commands. They are compared between formats, so they do not depend on the text of the marks."""

    steps: list[Any]
    scores: list[Any]
    training: list[Any]
    evaluation: list[Any]
    exits: list[Any]


def write_model(form: ThinkingFormat, folder: Path) -> None:
    """Write the packaged model with the marks of `form`: that which opens the thinking, and that which ends it."""
    source = Path(resolve_model("overthinker"))
    folder.mkdir()
    for name in ("config.json", "generation_config.json", "heads.json", "model.safetensors"):
        shutil.copyfile(source / name, folder / name)
    names = renamed(form)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        text = (source / name).read_text(encoding="utf-8")
        for old, new in names.items():
            json_file = name.endswith(".json")
            text = text.replace(*map(json.dumps, (old, new))) if json_file else text.replace(old, new)
        (folder / name).write_text(text, encoding="utf-8")


def renamed(form: ThinkingFormat) -> dict[str, str]:
    """Map the packaged model's marks to those of a format. Its end token has the name of one of harmony's marks."""
    label = form.labels[0].strip() if form.labels else ""
    end = {"<|end|>": "<|return|>"} if form.channels else {}
    return {**end, OPEN_TAG: form.opening[0] + label, CLOSE_TAG: form.bridge}


def run(*words: str) -> None:
    """Run one attnpo command, without output if it succeeds."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = main(list(words))
    if code != 0:
        raise SystemExit(f"attnpo {' '.join(words)}: {said.getvalue()[-600:]}")


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def early_exits(form: ThinkingFormat, model: Path, tokenizer: Any, problems: list[str]) -> list[Any]:
    """Return, per response: whether its thinking was ended, number of probes, tokens, tokens of the thinking."""
    from attnpo.models.loading import load_model
    from attnpo.traces.prepared import prompt_ids
    from attnpo.trim.early_exit import Closing, confident, generate_with_exit

    # The same token ids for every format: `Closing` adds no line break for channels.
    closing = Closing(load_model(str(model))[0], tokenizer, f"\n{form.bridge}", form=form)
    prompts = [prompt_ids(problem, tokenizer, opens_itself=False) for problem in problems]
    found = generate_with_exit(closing, prompts, confident(0.95), max_new_tokens=320, do_sample=False)
    return [[one.exited, one.asked, one.tokens, one.thinking, one.spent] for one in found]


def measure(form: ThinkingFormat, folder: Path) -> tuple[str, Figures]:
    """Return the format that `auto` finds, and the figures of the four commands, run with auto if it is this format."""
    from transformers import AutoTokenizer

    model = folder / "model"
    write_model(form, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = choose_format("auto", tokenizer).form
    option = "auto" if (found.opening, found.closing) == (form.opening, form.closing) else form.name
    traces, split, scored = (folder / f"{name}.jsonl" for name in ("traces", "steps", "scores"))
    run("task", "--n", str(TRACES), "--seed", "0", "-o", str(traces))
    rows = [{**row, "response": row["response"].replace(CLOSE_TAG, form.bridge)} for row in lines(traces)]
    write_jsonl(traces, ({name: row[name] for name in ("id", "problem", "response")} for row in rows))
    run("segment", str(traces), "-o", str(split), "--thinking-format", option)
    run("score", str(split), "-o", str(scored), "--model", str(model), "--thinking-format", option)
    train = {
        **{
            "model_name_or_path": model,
            "output_dir": folder / "run",
            "thinking_format": option,
        },
        **{
            "dataset_name": "task",
            "task_difficulty": "1",
            "train_problems": 16,
            "eval_problems": 4,
            "max_steps": 2,
            "num_generations": 4,
        },
        **{"per_device_train_batch_size": 8, "max_completion_length": 192, "use_cpu": "true", "report_to": "none"},
        **{
            "gradient_checkpointing": "false",
            "save_strategy": "no",
            "eval_on_start": "false",
            "credit_delay": 1,
            "verifier_workers": 1,
        },
    }
    run("train", *(str(word) for name, value in train.items() for word in (f"--{name}", value)))
    asked = ["--benchmarks", "task", "--limit", "2", "--samples", "1", "--temperature", "0", "--max-tokens", "320"]
    run("eval", "--model", str(model), *asked, "-o", str(folder / "eval"), "--thinking-format", option)
    metrics = [
        [row[name] for name in ("accuracy", "length/thinking", "length/answer", "steps/per_response", "loss")]
        for row in lines(folder / "run" / "metrics.jsonl")
    ]
    samples = [
        [row[name] for name in ("verdict", "thinking_tokens", "answer_tokens", "extracted")]
        for row in lines(folder / "eval" / "samples" / "task.jsonl")
    ]
    steps = [[(step["start"], step["end"], step["kind"]) for step in row["steps"]] for row in lines(split)]
    scores = [
        [row["answer_tokens"], row["baseline"], [step["score"] for step in row["steps"]]] for row in lines(scored)
    ]
    exits = early_exits(found if option == "auto" else form, model, tokenizer, [row["problem"] for row in rows[:2]])
    return ("shown" if option == "auto" else f"{found.name}, so given"), Figures(steps, scores, metrics, samples, exits)


def table(names: list[str]) -> bool:
    """Print the table; return whether every figure equals that of `<think>`."""
    expected: Figures | None = None
    print(
        "| format | `auto` | segment: steps | score: traces | train, 2 steps: right, steps per response | eval: right "
        "| early exit: tokens |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    alike = True
    for name in ["deepseek_r1", *(name for name in names if name != "deepseek_r1")]:
        with tempfile.TemporaryDirectory() as folder:
            auto, found = measure(load_format(name), Path(folder))
        expected = expected or found
        cells = [name, auto, sum(map(len, found.steps)), sum(row[1] is not None for row in found.scores)]
        last = found.training[-1]
        cells += [f"{last[0]:.0%}, {last[3]:.2f}", f"{sum(row[0] == 'right' for row in found.evaluation)} of 2"]
        cells.append(", ".join(str(row[2]) for row in found.exits))
        parts = ("steps", "scores", "training", "evaluation", "exits")
        other = [part for part in parts if getattr(found, part) != getattr(expected, part)]
        if other:
            cells[0] = f"{name} (DIFFERS: {', '.join(other)})"
            alike = False
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return alike


if __name__ == "__main__":
    # Those with the marks of <think> come last.
    names = [name for name, form in built_in().items() if form.opening]
    chosen = sys.argv[1:] or sorted(names, key=lambda name: built_in()[name].bridge == CLOSE_TAG)
    sys.exit(0 if table(chosen) else 1)
