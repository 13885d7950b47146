"""Print how the source is divided: modules, lines, circular imports, files that an evaluation enters, trainer classes.

    python scripts/house_figures.py [--markdown] [--no-evaluation]

Lines and imports are counted in src/attnpo of the checkout that contains this script. All imports count: at
the top of a file, inside a function, or for type checkers only. The evaluation is a real `attnpo eval` of the shipped
model on four problems of the built-in task (about ten seconds).
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src"
PACKAGE = SOURCE / "attnpo"
ONE_BENCHMARK = "gpqa_diamond"
"""A benchmark whose name is searched for in the source: adding a benchmark changes the files that contain it."""


def modules() -> dict[str, Path]:
    """Return dotted name -> file of every module of the package; a package's name means its __init__.py."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def line_counts(files: Iterable[Path]) -> list[int]:
    return [len(path.read_text(encoding="utf-8").splitlines()) for path in files]


def imports(names: Mapping[str, Path]) -> dict[str, set[str]]:
    """Return the modules of the package that each module imports."""
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    deeper = f"{node.module}.{alias.name}"
                    found.add(deeper if deeper in names else node.module)
        graph[name] = {module for module in found if module in names and module != name}
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return groups of modules that import each other, directly or indirectly (strongly connected components)."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for module in graph[waiting.pop()]:
                if module not in seen:
                    seen.add(module)
                    waiting.append(module)
        return seen

    reach = {name: reachable(name) for name in graph}
    groups = {tuple(sorted(m for m in reach[name] if name in reach[m])) for name in graph if name in reach[name]}
    return [list(group) for group in sorted(groups)]


def entered_by_an_evaluation() -> dict[str, int]:
    """Return file -> calls from functions of other files, in one evaluation (all threads; imports do not count)."""
    from attnpo.cli.main import main

    calls: dict[str, int] = {}
    package = str(PACKAGE)

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(package) or code.co_name in ("<module>", "<genexpr>"):
            return
        caller = frame.f_back.f_code.co_filename if frame.f_back else ""
        if caller != code.co_filename:
            name = str(Path(code.co_filename).relative_to(PACKAGE))
            calls[name] = calls.get(name, 0) + 1

    with tempfile.TemporaryDirectory() as folder:
        words = ["eval", "--model", "overthinker", "--benchmarks", "task", "--limit", "4", "--samples", "1"]
        words += ["--max-tokens", "64", "-o", f"{folder}/eval"]
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            main(words)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
    return calls


def trainer_classes() -> tuple[list[str], list[str]]:
    """Return the names of the classes between AttnPOTrainer and TRL's, and the private attributes that they set."""
    import inspect

    from attnpo import AttnPOTrainer

    stacked = [kind for kind in AttnPOTrainer.__mro__ if kind.__module__.startswith("attnpo.")]
    fields = set()
    for kind in stacked:
        for node in ast.walk(ast.parse(inspect.getsource(kind).lstrip())):
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            for target in [item for t in targets for item in (t.elts if isinstance(t, ast.Tuple) else [t])]:
                if isinstance(target, ast.Attribute) and ast.unparse(target).startswith("self._"):
                    fields.add(target.attr)
    return [kind.__name__ for kind in stacked], sorted(fields)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="rows of a table, without the lists")
    parser.add_argument("--no-evaluation", action="store_true", help="skip the figure that takes longer than a second")
    arguments = parser.parse_args()
    names = modules()
    counts = line_counts(names.values())
    found = circles(imports(names))
    figures: dict[str, object] = {
        "modules": len(counts),
        "median lines": f"{statistics.median(counts):g}",
        "lines": sum(counts),
        "modules under 60 lines": sum(count < 60 for count in counts),
        "import circles": len(found),
        f"files that name {ONE_BENCHMARK}": sum(
            ONE_BENCHMARK in path.read_text(encoding="utf-8") for path in names.values()
        ),
    }
    details = [f"circle: {' '.join(group)}" for group in found]
    if not arguments.no_evaluation:
        classes, fields = trainer_classes()
        entered = entered_by_an_evaluation()
        figures["files entered by one evaluation"] = len(entered)
        figures["trainer classes on TRL's"] = len(classes)
        figures["private fields of the trainer"] = len(fields)
        details += [f"entered: {name} ({count})" for name, count in sorted(entered.items())]
        details += [f"classes: {' '.join(classes)}", f"fields: {' '.join(fields)}"]
    for name, value in figures.items():
        print(f"| {name} | {value} |" if arguments.markdown else f"{name:36} {value}")
    if not arguments.markdown:
        print("\n".join(details))


if __name__ == "__main__":
    main()
