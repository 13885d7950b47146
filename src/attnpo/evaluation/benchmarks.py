"""The benchmarks by name: where each comes from, under which licence, and how it is run.

A revision is a commit of the data set on the Hub: the same problems, today and in a year. docs/benchmarks.md has the
same list as a table.
"""

from __future__ import annotations

from dataclasses import dataclass

from attnpo.errors import InputError
from attnpo.evaluation.records import AnswerKind

CONTEST_SAMPLES, SAMPLES = 16, 4
"""Responses per problem: contests have 30 or 40 problems, too few for a mean of four."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: for ``--benchmarks``, result files and :class:`~attnpo.evaluation.records.Question`.
        title: as papers write it.
        kind: how its answers are checked.
        rows: problems in the Hub's split.
        licence: of the texts, in short; docs/benchmarks.md says more.
        files: names, without ending, looked for in a data folder; the first one found is used.
        hub_id, hub_config, hub_split, hub_revision: the data set on the Hub; None for what needs no download.
        hub_file: a file of the data set to read instead of a split, for one that comes with a loading script.
        gated: the Hub hands it out only to accounts that have accepted its terms.
        samples: responses per problem.
        also: other files of a data folder that have this benchmark's form: never evaluated by default, but checked.
    """

    name: str
    title: str
    kind: AnswerKind
    rows: int
    licence: str
    files: tuple[str, ...]
    hub_id: str | None = None
    hub_config: str | None = None
    hub_split: str | None = None
    hub_revision: str | None = None
    hub_file: str | None = None
    gated: bool = False
    samples: int = SAMPLES
    also: tuple[str, ...] = ()

    @property
    def url(self) -> str | None:
        """Page of the data set, where a gated one's terms are accepted."""
        return None if self.hub_id is None else f"https://huggingface.co/datasets/{self.hub_id}"


_ALL = (
    Benchmark(
        name="gsm8k",
        title="GSM8K",
        kind="math",
        rows=1319,
        licence="MIT",
        files=("gsm8k", "gsm8k_test"),
        also=("gsm8k_train",),
        hub_id="openai/gsm8k",
        hub_config="main",
        hub_split="test",
        hub_revision="740312add88f781978c0658806c59bc2815b9866",
    ),
    Benchmark(
        name="math500",
        title="MATH-500",
        kind="math",
        rows=500,
        licence="MIT",
        files=("math500",),
        hub_id="HuggingFaceH4/MATH-500",
        hub_split="test",
        hub_revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
    ),
    Benchmark(
        name="amc23",
        title="AMC 2023",
        kind="math",
        rows=40,
        licence="© MAA",
        files=("amc23",),
        hub_id="math-ai/amc23",
        hub_split="test",
        hub_revision="80815d37005feb82cd7f8fbc6901d5d3eff43057",
        samples=CONTEST_SAMPLES,
    ),
    Benchmark(
        name="olympiadbench",
        title="OlympiadBench",
        kind="math",
        rows=674,  # open-ended, text only, mathematics, English, competitions; Qwen's copy of it has 675
        licence="Apache-2.0",
        files=("olympiadbench",),
        hub_id="Hothan/OlympiadBench",
        hub_config="OE_TO_maths_en_COMP",
        hub_split="train",
        hub_revision="91184b52131e7fc9455fef848035173aea8cc01a",
    ),
    Benchmark(
        name="aime24",
        title="AIME 2024",
        kind="math",
        rows=30,
        licence="© MAA",
        files=("aime24",),
        hub_id="HuggingFaceH4/aime_2024",
        hub_split="train",
        hub_revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        samples=CONTEST_SAMPLES,
    ),
    Benchmark(
        name="aime25",
        title="AIME 2025",
        kind="math",
        rows=30,
        licence="© MAA",
        files=("aime25",),
        hub_id="math-ai/aime25",
        hub_split="test",
        hub_revision="563bb8404243c5f09de6ec262f2db674fe5bce9b",
        samples=CONTEST_SAMPLES,
    ),
    Benchmark(
        # "v6" is the 175 problems that release_v6 added, contests of January to April 2025 (papers that write
        # 2502-2505 take the 131 of them from February on; "v5" is 2408-2502, 279 problems). The data set comes with a
        # loading script, which no current version of datasets runs: the release's own file is read instead.
        name="livecodebench",
        title="LiveCodeBench v6",
        kind="code",
        rows=175,
        licence="© contest sites",
        files=("livecodebench", "test6"),
        also=("livecodebench_279",),
        hub_id="livecodebench/code_generation_lite",
        hub_file="test6.jsonl",
        hub_revision="0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
    ),
    Benchmark(
        name="gpqa_diamond",
        title="GPQA-Diamond",
        kind="choice",
        rows=198,
        licence="CC-BY-4.0",
        files=("gpqa_diamond",),
        hub_id="Idavidrein/gpqa",
        hub_config="gpqa_diamond",
        hub_split="train",
        hub_revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        gated=True,
    ),
    Benchmark(
        name="mmlu",
        title="MMLU",
        kind="choice",
        rows=14042,
        licence="MIT",
        files=("mmlu", "mmlu_test", "mmlu_stem_test"),
        also=("mmlu_stem_test", "mmlu_dev"),
        hub_id="cais/mmlu",
        hub_config="all",
        hub_split="test",
        hub_revision="c30699e8356da336a370243923dbaf21066bb9fe",
    ),
    Benchmark(
        name="minerva",
        title="Minerva Math",
        kind="math",
        rows=272,
        licence="not stated",
        files=("minerva", "minerva_math"),
        hub_id="math-ai/minervamath",
        hub_split="test",
        hub_revision="ee46ddc498933b1977577953250ca5c66be64f96",
    ),
    Benchmark(
        name="task",
        title="Built-in task",
        kind="math",
        rows=200,
        licence="Apache-2.0",
        files=("task",),
    ),
)

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}


def get_benchmark(name: str) -> Benchmark:
    """The benchmark called `name`; InputError names those there are."""
    if name not in BENCHMARKS:
        raise InputError(f"benchmark {name!r}: unknown, expected one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
