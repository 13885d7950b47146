"""Results of seeded runs, for `tests/invariant/test_golden.py`: a refactoring does not change any digit.

    python tests/golden.py     # writes tests/data/golden.json anew; only where a change of numbers is meant

Losses, per-token advantages, metrics and rollout records of a few steps on the tiny model of the tests (on-policy,
off-policy, with LoRA, with each credit method that samples on the side, and in two processes), a probe, labels by
hiding, an evaluation of the shipped model and the data of a report page. Only public names and commands are used, so
that files may move.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import platform
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent / "data" / "golden.json"
CLOCK = re.compile(r"second|runtime|per_second|step_time|time$")


def versions() -> dict[str, str]:
    """Return the versions, other than this package's, on which the last digits depend."""
    import torch
    import transformers
    import trl

    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        cpu = next((line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")), cpu)
    found = {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__}
    return {**found, "cpu": cpu, "instructions": torch.backends.cpu.get_cpu_capability()}


LATER = ("steps/tokens_each", "steps/largest_share", "steps/uncut")
"""Metrics that came after the file was written."""


def timeless(row: Any) -> Any:
    """Remove values that depend on the clock, and metrics that are newer than the golden file."""
    if isinstance(row, dict):
        return {key: timeless(value) for key, value in row.items() if not CLOCK.search(key) and key not in LATER}
    return [timeless(value) for value in row] if isinstance(row, list) else row


def read_lines(file: Path) -> list[Any]:
    data = file.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(data) if file.suffix == ".gz" else data).splitlines()]


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def run_folder(folder: Path) -> dict[str, Any]:
    """Metrics in full; of every response what credit did to it."""
    found: dict[str, Any] = {"metrics": timeless(read_lines(folder / "metrics.jsonl"))}
    if (folder / "evaluations.jsonl").exists():
        found["evaluations"] = timeless(read_lines(folder / "evaluations.jsonl"))
    found["rollouts"] = {
        file.name.removesuffix(".jsonl.gz"): [
            [row.get(name) for name in ("reward", "advantage", "mean_token_advantage", "baseline")]
            + [[step["score"], step["scale"]] for step in row["steps"]]
            for row in read_lines(file)
        ]
        for file in sorted((folder / "rollouts").iterdir())
    }
    return found


def training(folder: Path, model: Any, tokenizer: Any, **options: Any) -> dict[str, Any]:
    """Three steps on canned responses: every loss, and what the loss multiplied each token by."""
    import trainer_kit as kit

    options = {"responses": kit.MIXED, "eval_data": kit.problems(2), "max_steps": 3, **options}
    trainer = kit.make_trainer(kit.sharpen(model), tokenizer, folder, **options)
    seen = kit.spy(trainer)
    trainer.train()
    trainer.evaluate()
    advantages = [batch["advantages"] * batch["completion_mask"] for batch in seen.batches]
    return {
        "losses": seen.losses,
        "advantages": [[row.sum().item(), *row[::40].tolist()] for batch in advantages for row in batch],
        **run_folder(folder),
    }


def side_sampling(folder: Path, model: Path, method: str) -> dict[str, Any]:
    """Do two steps of a method that samples in addition to the rollouts."""
    import one_of_two

    one_of_two.run(method, str(model), folder)
    return run_folder(folder)


def two_processes(folder: Path, model: Path) -> dict[str, Any]:
    import torch

    from processes import run_processes

    run_processes(2, "one_of_two.py", "attnpo", model, folder, port=29300)
    weights = torch.load(folder / "weights.pt")
    return {"weights": {name: value.double().sum().item() for name, value in weights.items()}, **run_folder(folder)}


def command(*words: object) -> str:
    """Return the output of an `attnpo` command."""
    from attnpo.cli.main import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors := io.StringIO()):
        code = main([str(word) for word in words])
    assert code == 0, (words, errors.getvalue())
    return said.getvalue()


def traces(folder: Path, model: Path) -> dict[str, Any]:
    """A probe, scores and labels by hiding of traces of the built-in task."""
    command("task", "--n", 4, "--seed", 3, "-o", folder / "traces.jsonl")
    command("probe", folder / "traces.jsonl", "--model", "overthinker", "-o", folder / "heads.json")
    words = ("--model", "overthinker", "--heads", folder / "heads.json", "-o", folder / "scored.jsonl")
    command("score", folder / "traces.jsonl", *words)
    command("segment", folder / "traces.jsonl", "-o", folder / "steps.jsonl")
    command("label", folder / "traces.jsonl", "--by", "causal", "--model", "overthinker", "-o", folder / "labels.jsonl")
    heads = json.loads((folder / "heads.json").read_text(encoding="utf-8"))
    heads.pop("labels", None)
    return {
        "heads": heads["heads"],
        "sra": heads["sra"],
        "file": sorted(heads),
        "scores": [[step["score"] for step in row["steps"]] for row in read_lines(folder / "scored.jsonl")],
        "steps": digest(read_lines(folder / "steps.jsonl")),
        "drops": [[step.get("drop") for step in row["steps"]] for row in read_lines(folder / "labels.jsonl")],
    }


def evaluation(folder: Path, model: Path) -> dict[str, Any]:
    words = ("--model", "overthinker", "--benchmarks", "task", "--limit", 4, "--samples", 2, "--max-tokens", 120)
    command("eval", *words, "-o", folder / "eval")
    command("eval", *words, "--seed", 1, "-o", folder / "other")
    said = command("compare", folder / "eval", folder / "other", "--names", "a,b", "-o", folder / "compared")
    compared = (folder / "compared" / "comparison.json").read_text(encoding="utf-8").replace(str(folder), "")
    rows = read_lines(folder / "eval" / "samples" / "task.jsonl")
    return {
        "samples": [[row["id"], row["sample"], row["tokens"], row["verdict"], digest(timeless(row))] for row in rows],
        "results": timeless(json.loads((folder / "eval" / "results.json").read_text(encoding="utf-8"))),
        "tables": [(folder / "eval" / f"results.{kind}").read_text(encoding="utf-8") for kind in ("csv", "md")],
        "compared": digest(timeless(json.loads(compared))),
        "said": digest(said.replace(str(folder), "")),
    }


def report(folder: Path, model: Path) -> dict[str, Any]:
    """A page of a training run and an evaluation: its text, and the data that its scripts read."""
    import base64

    import example_evaluation
    import example_run

    runs = [example_run.write_run(folder / "run", steps=12), example_evaluation.write_evaluation(folder / "eval")]
    command("report", *runs, "-o", folder / "page.html")
    page = (folder / "page.html").read_text(encoding="utf-8").replace(str(folder), "")
    scripts = dict(re.findall(r'<script[^>]*id="([^"]+)"[^>]*>(.*?)</script>', page, re.DOTALL))
    chunks = {name: scripts[name] for name in sorted(scripts) if name.startswith("chunk-")}
    text = re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
    return {
        "text": digest(text.split()),
        "data": digest(json.loads(scripts["data"])),
        "chunks": {name: digest(gzip.decompress(base64.b64decode(c)).decode()) for name, c in chunks.items()},
    }


def compute(folder: Path, new_model: Callable[[], Any], tokenizer: Any) -> dict[str, Any]:
    """Everything; `new_model` makes the same tiny model each time (the fixture `new_tiny_qwen2`)."""
    import torch
    from peft import LoraConfig
    from transformers import set_seed

    import trainer_kit as kit

    torch.set_num_threads(1)
    model = kit.save_model(folder / "model", kit.sharpen(new_model()), tokenizer)
    set_seed(0)
    layers = ["q_proj", "k_proj", "v_proj"]
    lora = LoraConfig(r=4, target_modules=layers, init_lora_weights=False, task_type="CAUSAL_LM")
    found: dict[str, Any] = {
        "on_policy": training(folder / "on", new_model(), tokenizer),
        "off_policy": training(folder / "off", new_model(), tokenizer, num_iterations=2, max_steps=4),
        "lora": training(folder / "lora", new_model(), tokenizer, beta=0.05, trainer_options={"peft_config": lora}),
        "outcome": training(folder / "outcome", new_model(), tokenizer, credit="outcome", length_reward="kimi"),
        "iop": side_sampling(folder / "iop", model, "iop"),
        "shape": side_sampling(folder / "shape", model, "shape"),
        "two_processes": two_processes(folder / "two", model),
    }
    for name, part in (("traces", traces), ("evaluation", evaluation), ("report", report)):
        (folder / name).mkdir()
        found[name] = part(folder / name, model)
    return json.loads(json.dumps(found))


if __name__ == "__main__":
    import conftest

    tiny_tokenizer = conftest.tiny_tokenizer.__wrapped__()
    with tempfile.TemporaryDirectory() as temporary:
        result = compute(Path(temporary), conftest.new_tiny_qwen2.__wrapped__(tiny_tokenizer), tiny_tokenizer)
    parts = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in result.items()]
    FILE.write_text("{" + ",\n".join([f'"versions": {json.dumps(versions())}', *parts]) + "}\n", encoding="utf-8")
    print(f"{FILE}: {FILE.stat().st_size} bytes")
