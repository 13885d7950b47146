"""Load the questions of a benchmark: from a data folder, from the Hub, or made by the benchmark."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attnpo.data.jsonl import read_numbered_jsonl, row_name
from attnpo.data.problems import load_rows
from attnpo.errors import InputError
from attnpo.evaluation.benchmarks import BENCHMARKS, Benchmark, get_benchmark
from attnpo.evaluation.samples import Question

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv")
NumberedRows = Iterator[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class Loaded:
    """The questions of one source.

    Attributes:
        questions: in the source's order.
        left_out: a message for every row that could not be used (names row and field).
        source: the file, or the data set and revision.
    """

    questions: list[Question]
    left_out: list[str]
    source: str


def load_questions(name: str, *, data_dir: Path | None, limit: int | None = None) -> Loaded:
    """The questions of benchmark `name`, from a file of `data_dir` if given, else from the Hub.

    `limit` selects a fixed subset: the same questions every time, in order; a smaller limit selects a subset of it.

    Raises:
        InputError: an unknown benchmark, no file for it in the folder, no access to the Hub, no usable row, limit < 1.
    """
    benchmark = get_benchmark(name)
    if limit is not None and limit < 1:
        raise InputError(f"limit: found {limit}, expected at least 1")
    if data_dir is not None:
        check_data_dir(data_dir)
    if benchmark.make is not None and (data_dir is None or not _files_in(data_dir, benchmark.files)):
        loaded = _built_in(benchmark)
    elif data_dir is not None:
        loaded = load_file(benchmark, find_file(benchmark, data_dir))
    else:
        loaded = _from_hub(benchmark)
    if limit is None or limit >= len(loaded.questions):
        return loaded
    order = list(range(len(loaded.questions)))
    random.Random(f"limit/{name}").shuffle(order)
    return replace(loaded, questions=[loaded.questions[index] for index in sorted(order[:limit])])


def load_all(names: Sequence[str] | None, *, data_dir: Path | None) -> dict[str, Loaded]:
    """The questions of several benchmarks; `names` None: of all, or of all that have a file in `data_dir`.

    Raises:
        InputError: as :func:`load_questions`; or the folder has no file of any benchmark.
    """
    if names is None and data_dir is not None:
        check_data_dir(data_dir)
        names = [name for name, benchmark in BENCHMARKS.items() if _files_in(data_dir, benchmark.files)]
        if not names:
            raise InputError(f"data folder {data_dir}: no file of any benchmark (docs/benchmarks.md names them)")
    return {name: load_questions(name, data_dir=data_dir) for name in names or BENCHMARKS}


def find_file(benchmark: Benchmark, data_dir: Path) -> Path:
    """The benchmark's file in a data folder. Raises InputError, with the possible file names, if there is none."""
    check_data_dir(data_dir)
    found = _files_in(data_dir, benchmark.files)
    if not found:
        names = " or ".join(f"{stem}.jsonl" for stem in benchmark.files)
        raise InputError(f"data folder {data_dir}: no file for benchmark {benchmark.name!r}; expected {names}")
    return found[0]


def check_data_dir(data_dir: Path) -> None:
    """Raises InputError if the data folder does not exist."""
    if not data_dir.is_dir():
        raise InputError(f"data folder {data_dir}: no such folder")


def files_of(benchmark: Benchmark, data_dir: Path) -> list[Path]:
    """Every file of a data folder that has the format of this benchmark, other splits included."""
    check_data_dir(data_dir)
    return _files_in(data_dir, tuple(dict.fromkeys((*benchmark.files, *benchmark.also))))


def load_file(benchmark: Benchmark, path: Path) -> Loaded:
    """The questions of one file.

    Raises:
        InputError: the file cannot be read, is a web page, or no row of it can be used.
    """
    _refuse_web_page(path)
    left_out: list[str] = []
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        rows = read_numbered_jsonl(path, on_bad_row=lambda error: left_out.append(str(error)))
    else:
        rows = iter(enumerate(load_rows(str(path)), start=1))
    return _collect(benchmark, rows, lambda number: row_name(path, number), left_out, str(path))


def _refuse_web_page(path: Path) -> None:
    """Raise InputError for HTML: a login page is often saved in place of the file it protects."""
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        raise InputError(f"{path}: begins with '<' and looks like a web page, expected rows of a data set")


def _files_in(folder: Path, stems: Iterable[str]) -> list[Path]:
    paths = [folder / f"{stem}{ending}" for stem in stems for ending in ENDINGS]
    return [path for path in paths if path.is_file()]


def _collect(
    benchmark: Benchmark, rows: NumberedRows, where: Callable[[int], str], left_out: list[str], source: str
) -> Loaded:
    questions: dict[str, Question] = {}
    for number, row in rows:
        try:
            question = benchmark.question(row, number, where(number))
            if question.id in questions:
                raise InputError(f"{where(number)}: id {question.id!r} was seen before, expected every id once")
        except InputError as error:
            left_out.append(str(error))
        else:
            questions[question.id] = question
    if not questions:
        raise InputError(f"{source}: none of {len(left_out)} rows can be used; the first: {left_out[0]}")
    return Loaded(list(questions.values()), left_out, source)


def _built_in(benchmark: Benchmark) -> Loaded:
    assert benchmark.make is not None
    rows: NumberedRows = ((number, dict(row)) for number, row in enumerate(benchmark.make(), start=1))
    return _collect(benchmark, rows, lambda number: f"built-in {benchmark.name}, row {number}", [], "built in")


def _from_hub(benchmark: Benchmark) -> Loaded:
    assert benchmark.hub_id is not None
    if benchmark.gated and not (os.environ.get("HF_TOKEN") or _token_on_disk()):
        raise InputError(_how_to_get(benchmark, "is gated and no token was found"))
    source = f"{benchmark.hub_id}@{benchmark.hub_revision}"
    if benchmark.hub_file is not None:
        return replace(load_file(benchmark, _download(benchmark)), source=source)
    try:
        found = load_rows(
            benchmark.hub_id,
            config=benchmark.hub_config,
            split=benchmark.hub_split or "test",
            revision=benchmark.hub_revision,
        )
    except InputError as error:
        raise InputError(_how_to_get(benchmark, f"cannot be loaded ({error})")) from error
    return _collect(benchmark, iter(enumerate(found, start=1)), lambda number: row_name(source, number), [], source)


def _download(benchmark: Benchmark) -> Path:
    from huggingface_hub import hf_hub_download

    assert benchmark.hub_id is not None
    assert benchmark.hub_file is not None
    try:
        path = hf_hub_download(
            benchmark.hub_id, benchmark.hub_file, repo_type="dataset", revision=benchmark.hub_revision
        )
    except (OSError, ValueError) as error:  # the errors of huggingface_hub are subclasses of these two
        reason = str(error).splitlines()[0]
        raise InputError(_how_to_get(benchmark, f"cannot be downloaded ({reason})")) from error
    return Path(path)


def _token_on_disk() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _how_to_get(benchmark: Benchmark, problem: str) -> str:
    folder = f"or give --data-dir a folder with {benchmark.files[0]}.jsonl (docs/benchmarks.md)"
    if benchmark.gated:
        return (
            f"benchmark {benchmark.name!r} {problem}: accept its terms at {benchmark.url}, then set HF_TOKEN or run "
            f"`hf auth login`; {folder}"
        )
    return f"benchmark {benchmark.name!r} {problem}: {benchmark.url} must be reachable, {folder}"
