"""The benchmarks by name: one file per kind, with their sources, row formats and prompts.

A revision is a commit of the data set on the Hub, so that the problems never change. docs/benchmarks.md has the same
list as a table.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from attnpo.errors import InputError
from attnpo.evaluation.benchmarks.base import Benchmark
from attnpo.evaluation.samples import Question


def _in_this_folder() -> list[Benchmark]:
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    return [benchmark for module in modules for benchmark in getattr(module, "BENCHMARKS", ())]


BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _in_this_folder()}


def get_benchmark(name: str) -> Benchmark:
    """The benchmark called `name`, or the one at MODULE:NAME, which is registered under its own name.

    Raises:
        InputError: no such benchmark; lists the known ones.
    """
    module, colon, attribute = name.partition(":")
    if colon:
        try:
            found = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise InputError(f"benchmark {name!r}: cannot be imported: {error}") from error
        if not isinstance(found, Benchmark):
            raise InputError(f"benchmark {name!r}: found {type(found).__name__}, expected a Benchmark")
        return BENCHMARKS.setdefault(found.name, found)
    if name not in BENCHMARKS:
        raise InputError(f"benchmark {name!r}: unknown, expected one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def user_message(question: Question) -> str:
    """The message with the question to the model, in plain text."""
    return get_benchmark(question.benchmark).message(question)
