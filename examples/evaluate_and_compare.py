"""Two models on the same problems, and whether the difference is one: `attnpo eval` and `attnpo compare` from Python.

python examples/evaluate_and_compare.py overthinker runs/mine
"""

from __future__ import annotations

import argparse
from pathlib import Path

from attnpo.cli.main import main as attnpo


def main(models: list[str], output: Path, more: list[str]) -> None:
    folders = []
    for number, model in enumerate(models):
        folders.append(str(output / f"{number}-{Path(model).name}"))
        words = ["eval", "--model", model, "--benchmarks", "task", "-o", folders[-1], "--overwrite", *more]
        if code := attnpo(words):
            raise SystemExit(code)
    raise SystemExit(attnpo(["compare", *folders, "-o", str(output / "compared")]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs=2, metavar="MODEL")
    parser.add_argument("--output", type=Path, default=Path("evals/example"))
    options, rest = parser.parse_known_args()  # every option of `attnpo eval` may follow
    main(options.models, options.output, rest)
