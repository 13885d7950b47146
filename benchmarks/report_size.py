"""Time and size of the report page for a synthetic long run: 500 steps of 64 responses of about 600 tokens.

    python benchmarks/report_size.py [--steps 500] [--responses 64] [--tokens 600] [--folder DIR] [--browser]

The texts are drawn from 3,000 artificial words with Zipf's frequencies, so that they compress about as well as English
reasoning. `--browser` also opens the page in Chromium (selenium, chromium and chromedriver are needed).
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

KINDS = ("forward", "backward", "confused", "answer")
CHARACTERS = 4.2  # of a token, spaces included
EVERY, PROBLEMS, SCORED = 25, 256, 8  # evaluations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in (("--steps", 500), ("--responses", 64), ("--tokens", 600), ("--seed", 0)):
        parser.add_argument(name, type=int, default=number)
    parser.add_argument("--folder", type=Path, help="keep the run and the page here (default: a temporary folder)")
    parser.add_argument("--browser", action="store_true", help="also measure how soon the overview is there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        run, page = folder / "run", folder / "page.html"
        if not run.exists():
            write_run(run, args.steps, args.responses, args.tokens, args.seed)
        recorded = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
        from attnpo.report.page import write_report

        start, cpu = time.perf_counter(), time.process_time()
        size = write_report([run], page)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(f"run folder {recorded / 1e6:.1f} MB, page {size / 1e6:.2f} MB in {seconds:.2f} s ({cpu:.2f} s of CPU)")
        if args.browser:
            for name, milliseconds in opened(page).items():
                print(f"{name}: {milliseconds:.0f} ms")


def write_run(run: Path, steps: int, responses: int, tokens: int, seed: int) -> None:
    """Write a run folder like those of `attnpo train`, with an evaluation every EVERY steps."""
    rng = random.Random(seed)
    letters = "aaabcddeeeefghiiiklmnnooprrssttuvw"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 8))) for _ in range(3000)]
    frequencies = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))

    def text(characters: float) -> str:
        return " ".join(rng.choices(words, cum_weights=frequencies, k=max(1, round(characters / 5.6))))

    def response(split: str, step: int, number: int, scored: bool) -> dict[str, Any]:
        length = tokens * rng.lognormvariate(0, 0.3) * (1 - 0.4 * step / steps)
        thinking, found = "", []
        while len(thinking) < CHARACTERS * length:
            piece = text(rng.uniform(100, 350)) + "\n\n"
            score = round(rng.lognormvariate(-4, 1), 17) if scored else None
            scale = rng.choice((1.0, rng.random())) if split == "train" else None
            place = {"start": len(thinking), "end": len(thinking) + len(piece), "kind": rng.choice(KINDS)}
            found.append(place | {"tokens": len(piece) // 4, "score": score, "scale": scale})
            thinking += piece
        counts = {"prompt": 60, "thinking": len(thinking) // 4, "answer": 40, "completion": len(thinking) // 4 + 40}
        right = rng.random() < 0.7
        credit = {"rewards": {"accuracy": float(right), "length": -rng.random() / 5}, "reward": right - 0.1}
        return {
            **{"step": step, "split": split, "group": number // 8, "index": number % 8, "id": f"{split}-{number // 8}"},
            **{"prompt": problems[number // 8 % len(problems)], "text": f"{thinking}</think>\n{text(160)}"},
            **{"reference": "42", "truncated": False, "answered": True, "tokens": counts},
            **{"thinking_start": 0, "thinking_end": len(thinking), "baseline": 0.05 if scored else None},
            **credit,
            **{"correct": right, "verdict": "right" if right else "wrong", "advantage": rng.gauss(0, 0.3)},
            **{"group_accuracy": 0.7, "steps": found},
        }

    problems = [text(300) for _ in range(PROBLEMS)]
    (run / "rollouts").mkdir(parents=True)
    (run / "config.yaml").write_text(
        "model_name_or_path: made-up\nadvantage: rloo\nlength_reward: tlmre\ncredit: attnpo\n"
    )
    (run / "environment.json").write_text(json.dumps({"command": "benchmarks/report_size.py"}))
    accuracy = {f"{layer},{head}": rng.random() for layer in range(28) for head in range(12)}
    (run / "heads.json").write_text(json.dumps({"heads": [[16, 2], [20, 9], [23, 2]], "sra": accuracy, "traces": 64}))
    for step in range(steps + 1):
        if step:
            rows = [response("train", step, number, True) for number in range(responses)]
            write_rows(run / "rollouts" / f"train-{step:06d}.jsonl.gz", rows)
            append(run / "metrics.jsonl", measured(step, rows, rng))
        if step % EVERY == 0:
            rows = [response("eval", step, 8 * number, number < SCORED) for number in range(PROBLEMS)]
            write_rows(run / "rollouts" / f"eval-{step:06d}.jsonl.gz", rows)
            append(run / "evaluations.jsonl", measured(step, rows, rng) | {"n": PROBLEMS, "confidence": 0.95})


def measured(step: int, rows: list[dict[str, Any]], rng: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {"step": step, "seconds": 30.0}
    for part in ("completion", "thinking", "answer"):
        values[f"length/{part}"] = sum(row["tokens"][part] for row in rows) / len(rows)
    values["accuracy"] = sum(row["correct"] for row in rows) / len(rows)
    names = ("reward", "truncated", "steps/attenuated", "steps/protected", "steps/mean_scale", "groups/without_signal")
    values |= {name: rng.random() for name in names}
    values |= {f"phrases/{kind}_per_1k": 15 * rng.random() for kind in ("transition", "branch", "forward", "backward")}
    return values | {"steps/per_response": sum(len(row["steps"]) for row in rows) / len(rows)}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), compresslevel=4))


def append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def opened(page: Path) -> dict[str, float]:
    """Return milliseconds from the start of the navigation until document, first curve and a response are shown."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(flag)
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    script = """const [selector, key, done] = arguments;
        const there = () => document.querySelector(selector)?.dataset[key];
        const look = () => (there() ? done(performance.now()) : setTimeout(look, 5));
        look();"""
    try:
        window.get(page.resolve().as_uri())
        curve = window.execute_async_script(script, "#plot-length", "drawn")
        entry = "return performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
        times = {"document ready": window.execute_script(entry), "first curve drawn": curve}
        start = window.execute_script("location.hash = 'responses'; return performance.now()")
        times["a response opened"] = window.execute_async_script(script, "#reader", "at") - start
        start = window.execute_script("""
            const [box, set, reader] = ["find", "step", "reader"].map((id) => document.getElementById(id));
            set.value = "all";
            set.dispatchEvent(new Event("change"));
            delete reader.dataset.at;
            box.value = "the";
            box.dispatchEvent(new Event("input"));
            return performance.now();""")
        times["every response searched"] = window.execute_async_script(script, "#reader", "at") - start
        return times
    finally:
        window.quit()


if __name__ == "__main__":
    main()
