"""An evaluation, from options to results. `attnpo eval` calls `evaluate`."""

from __future__ import annotations

import queue
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from attnpo.errors import InputError, RunError
from attnpo.evaluation.benchmarks import user_message
from attnpo.evaluation.exchange import WRITERS
from attnpo.evaluation.folder import ENVIRONMENT, Environment, EvaluationFolder, check_planned, read_evaluation
from attnpo.evaluation.grading import Grader
from attnpo.evaluation.load import Loaded, load_questions
from attnpo.evaluation.metrics import BUDGETS
from attnpo.evaluation.options import EvalOptions
from attnpo.evaluation.results import Results, write_results
from attnpo.evaluation.samples import (
    Completion,
    Engine,
    Key,
    Plan,
    Prompter,
    Question,
    Request,
    Sample,
    Sampling,
    make_plan,
    read_response,
)
from attnpo.rewards.verdict import REWARD_OF
from attnpo.steps.detect import choose_format
from attnpo.steps.formats import THINK, ThinkingFormat
from attnpo.steps.response import finished_texts, never_closed, other_format

if TYPE_CHECKING:
    from attnpo.judges.client import AnswerJudge
    from attnpo.models.loading import Source


PLAIN_EVERY = 60.0
"""Seconds between two lines if the output is no terminal."""
SETTLED, FEW = 2.0, 4
"""Seconds of sampling before a rate is shown, and samples of this call before the remaining time is shown."""


class EvalProgress:
    """Counts samples and tokens, and shows the counts; a context manager.

    Args:
        total: samples of the whole run.
        kept: samples that earlier calls have written.
    """

    def __init__(self, console: Console, total: int, kept: Iterable[Sample] = ()) -> None:
        self._console, self._total = console, total
        self._done = self._tokens = self._right = self._graded = self._generated = 0
        for sample in kept:
            self._count(sample)
        self._kept = self._done
        self._printed = time.monotonic()
        self._started: float | None = None
        columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"))
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._task: Any = None

    def tokens(self, count: int) -> None:
        """Count generated tokens; the clock of the rate starts at the first of them."""
        if self._started is None:
            self._started = time.monotonic()
        self._generated += count
        self._show()

    def sample(self, sample: Sample) -> None:
        """Count a sample that has been graded and written."""
        self._count(sample)
        self._show()

    @property
    def done(self) -> int:
        return self._done

    @property
    def summary(self) -> str:
        return f"{self._done} of {self._total} samples{self._facts()}"

    def __enter__(self) -> EvalProgress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, completed=self._done, facts="")
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _count(self, sample: Sample) -> None:
        reward = None if sample.verdict is None else REWARD_OF[sample.verdict]
        self._done += 1
        self._tokens += sample.tokens
        self._graded += reward is not None
        self._right += reward == 1

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, facts=self._facts())
        elif time.monotonic() - self._printed >= PLAIN_EVERY:
            self._printed = time.monotonic()
            self._console.print(self.summary, highlight=False)

    def _facts(self) -> str:
        seconds = 0.0 if self._started is None else time.monotonic() - self._started
        speed = self._generated / seconds if seconds >= SETTLED else None
        text = "" if speed is None else f", {speed:,.0f} tokens/s"
        if self._graded:
            text += f", accuracy {self._right / self._graded:.1%}"
        if self._done:
            mean = self._tokens / self._done
            text += f", mean {mean:,.0f} tokens"
            if speed and self._done < self._total and self._done - self._kept >= FEW:
                text += f", about {_duration((self._total - self._done) * mean / speed)} left"
        return text


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{max(minutes, 1)} min"


MOST_KINDS = 3


def print_problems(console: Console, problems: Mapping[str, int], left_out: Mapping[str, Sequence[str]]) -> None:
    """Print a line per benchmark, and one for each of the commonest reasons why questions were left out."""
    for name, count in problems.items():
        reasons = left_out[name]
        tail = f" (left out: {len(reasons)}, see {ENVIRONMENT})" if reasons else ""
        console.print(f"{name}: {count} problem{'' if count == 1 else 's'}{tail}")
        for found, first in kinds(reasons)[:MOST_KINDS]:
            console.print(f"  {found} left out; {first}" if found == 1 else f"  {found} left out; the first: {first}")


def kinds(reasons: Sequence[str]) -> list[tuple[int, str]]:
    """Group reasons that differ only in the place and the found value; (count, first reason), the commonest first."""
    found: dict[str, list[str]] = {}
    for reason in reasons:
        what = reason.partition(": ")[2]  # after file and row, or benchmark and problem
        found.setdefault(re.sub(r"\d+|id '[^']*'", "", re.split(r",? \(?found ", what)[0]), []).append(reason)
    return sorted(((len(alike), alike[0]) for alike in found.values()), key=lambda kind: -kind[0])


def warn_of_versions(console: Console, environment: Environment) -> None:
    """Print a warning if a run is continued with other package versions than it was started with."""
    if environment.changed_versions:
        changed = ", ".join(environment.changed_versions)
        console.print(f"not the versions that this run was started with, so its samples may differ: {changed}")


def warn_of_unclosed(console: Console, samples: Sequence[Sample], thinks: bool, form: ThinkingFormat) -> None:
    """Print a warning if no response ends its thinking, for a model that thinks or whose marks are another format's."""
    texts = finished_texts((sample.text, sample.truncated) for sample in samples)
    if (thinks or other_format(texts, form) is not None) and (warning := never_closed(texts, form)) is not None:
        console.print(warning, style="bold red", markup=False, highlight=False, soft_wrap=True)


class BackgroundGrading:
    """Grades submitted samples in one thread, all waiting ones in one call; a context manager.

    `done` is called with every graded sample, in that thread. An error in the thread is raised by the next `submit`, or
    at the end.
    """

    def __init__(self, grader: Grader, done: Callable[[Sample], None]) -> None:
        self._grader, self._done = grader, done
        self._waiting: queue.SimpleQueue[tuple[Question, str | None, Sample]] = queue.SimpleQueue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grade")
        self._futures: list[Future[None]] = []

    def submit(self, question: Question, answer: str | None, sample: Sample) -> None:
        """Queue a sample; its verdict and extracted answer are filled in."""
        self._waiting.put((question, answer, sample))
        while self._futures and self._futures[0].done():  # they end in order
            self._futures.pop(0).result()
        self._futures.append(self._thread.submit(self._grade_waiting))

    def _grade_waiting(self) -> None:
        items: list[tuple[Question, str | None, Sample]] = []
        while not self._waiting.empty():  # this thread is the only reader
            items.append(self._waiting.get())
        graded = self._grader.grade([(question, answer) for question, answer, _ in items]) if items else []
        for (_, _, sample), found in zip(items, graded, strict=True):
            self._done(replace(sample, extracted=found.extracted, verdict=found.verdict))

    def __enter__(self) -> BackgroundGrading:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Wait for the submitted samples; an error raised inside the block takes precedence over one of the grading."""
        self._thread.shutdown(wait=True)
        if error is None:
            for future in self._futures:
                future.result()


def evaluate(options: EvalOptions, *, command: str = "", console: Console | None = None) -> Results:
    """Sample and grade the missing samples of an evaluation, and write its results; returns those of results.json.

    A batch with a missing sample is sampled again completely, as the rows of a batch change each other's last digits;
    existing samples are kept.

    Raises:
        InputError: anything wrong with options, data, model or folder, before sampling starts.
        RunError: interrupted, or out of memory; finished samples are kept.
    """
    console = console or Console(stderr=True, highlight=False, markup=False)  # messages quote data: no markup
    loaded = {name: load_questions(name, data_dir=options.data_dir, limit=options.limit) for name in options.benchmarks}
    questions = {name: found.questions for name, found in loaded.items()}
    folder = EvaluationFolder(options.output, options.resolved(questions), overwrite=options.overwrite)
    folder.check()
    if (finished := folder.finished_results(options.base)) is not None:
        console.print("all samples exist and the results are up to date")
        write_for_others(options, finished, loaded, console)
        return finished
    if options.base is not None and not read_evaluation(options.base).samples.keys() & set(options.benchmarks):
        raise InputError(f"--base {options.base}: has none of the benchmarks {', '.join(options.benchmarks)}")
    from attnpo.models.loading import find_model  # takes seconds, which a finished run does not need

    source = find_model(options.model, revision=options.revision, trust_remote_code=options.trust_remote_code)
    tokenizer = source.tokenizer()
    chosen = choose_format(
        options.thinking_format,
        tokenizer,
        prompt=options.prompt_template or "",
        template_options=options.chat_template_kwargs,
    )
    form = chosen.form
    prompter = Prompter(tokenizer, options.prompt_template, dict(options.chat_template_kwargs), form)
    console.print(f"thinking format: {form}, {chosen.why}")
    thinks = prompter.opens_thinking() if options.thinking == "auto" else options.thinking == "yes"
    plan = plan_of(options, loaded, prompter, source.context())
    left_out = {name: [*found.left_out, *plan.left_out.get(name, [])] for name, found in loaded.items()}
    print_problems(console, plan.problems, left_out)
    with folder:
        kept = folder.read(options.benchmarks)
        present = check_planned(kept, {request.key: request.seed for request in plan.requests})
        sources = {name: found.source for name, found in loaded.items()}
        environment = folder.begin(command, questions, left_out=left_out, sources=sources)
        judge = answer_judge(options)
        missing = [batch for batch in plan.batches if any(request.key not in present for request in batch)]
        if missing:
            if kept:
                console.print(f"continuing: {len(kept)} of {plan.size} samples exist")
                warn_of_versions(console, environment)
            console.print(f"loading the model {source.name} …")
            engine = load_engine(options, source, tokenizer, plan, console)
            environment.write(engine=engine.facts, notes=engine.notes)
            with EvalProgress(console, plan.size, kept) as progress:
                try:
                    sample_batches(engine, missing, present, thinks, folder, progress, judge, form)
                except KeyboardInterrupt:
                    message = f"interrupted: {progress.summary}; the same command continues from there"
                    raise RunError(message) from None
                finally:
                    environment.write(call={"samples": progress.done - len(kept)})
            console.print(progress.summary)
        if thinks is None:
            thinks, settled = folder.settle_thinking(options.benchmarks, form)
            if settled:
                console.print(f"the model thinks: {settled} responses without a thinking mark count as unanswered")
        environment.write(thinking=thinks, thinking_format=form.as_json())
        if options.thinking != "no":
            warn_of_unclosed(console, folder.read(options.benchmarks), bool(thinks), form)
        results = write_results(folder.path, base=options.base, budgets=options.budgets or BUDGETS)
        folder.finish(environment, options.base)
    write_for_others(options, results, loaded, console)
    return results


def write_for_others(options: EvalOptions, results: Results, loaded: Mapping[str, Loaded], console: Console) -> None:
    """Write the evaluation in the formats of --write."""
    for form in options.write:
        file = WRITERS[form](options.output, results, {name: one.questions for name, one in loaded.items()})
        console.print(f"{form}: {file}")


def plan_of(options: EvalOptions, loaded: Mapping[str, Loaded], prompter: Prompter, context: int | None) -> Plan:
    """The requests of a run. Raises InputError if no prompt of a benchmark fits into the context."""
    plan = make_plan(
        {name: found.questions for name, found in loaded.items()},
        lambda question: prompter.encode(user_message(question)),
        samples={name: options.samples_of(name) for name in loaded},
        seed=options.seed,
        max_tokens=options.max_tokens,
        context=context,
        batch_size=options.resolved_batch_size,
    )
    for name in loaded:
        if not plan.problems.get(name):
            raise InputError(f"benchmark {name}: every prompt is longer than the model's context of {context} tokens")
    return plan


def load_engine(options: EvalOptions, source: Source, tokenizer: Any, plan: Plan, console: Console) -> Engine:
    """Load the model and print its notes. Raises InputError if it cannot be loaded."""
    sampling = Sampling(options.temperature, options.top_p)
    engine: Engine
    if options.engine == "vllm":
        from attnpo.evaluation.engines.vllm_engine import VllmEngine

        length = max(len(request.prompt) + request.room for request in plan.requests)
        engine = VllmEngine(source, tokenizer, sampling, dtype=options.resolved_dtype, seed=options.seed, length=length)
    else:
        from attnpo.evaluation.engines.transformers_engine import TransformersEngine

        network = source.network(
            device=options.resolved_device,
            dtype=options.resolved_dtype,
            attn_implementation=options.attn_implementation,
        )
        engine = TransformersEngine(network, tokenizer, sampling, warn=console.print)
    for note in engine.notes:
        console.print(note)
    return engine


def answer_judge(options: EvalOptions) -> AnswerJudge | None:
    """The judge of --answer-judge, None without the option; its answers are cached in the evaluation's folder."""
    if options.answer_judge is None:
        return None
    from attnpo.judges.client import AnswerJudge

    return AnswerJudge(
        options.answer_judge, api_key_env=options.answer_judge_key_env, cache=options.output / "answer_judge.sqlite"
    )


def sample_batches(
    engine: Engine,
    batches: Sequence[Sequence[Request]],
    present: set[Key],
    thinks: bool | None,
    folder: EvaluationFolder,
    progress: EvalProgress,
    judge: AnswerJudge | None = None,
    form: ThinkingFormat = THINK,
) -> None:
    """Sample batches; grade and write the samples that are not in `present`, each as soon as it is complete."""

    def write(sample: Sample) -> None:
        folder.append(sample)
        progress.sample(sample)

    with Grader(judge=judge) as grader, BackgroundGrading(grader, write) as grading:

        def deliver(request: Request, completion: Completion) -> None:
            if request.key not in present:
                answer, sample = ungraded_sample(engine.tokenizer, request, completion, thinks, form)
                grading.submit(request.question, answer, sample)

        for batch in batches:
            engine.generate(batch, deliver=deliver, tick=progress.tokens)


def ungraded_sample(
    tokenizer: Any, request: Request, completion: Completion, thinks: bool | None, form: ThinkingFormat = THINK
) -> tuple[str | None, Sample]:
    """The text to be graded, None without an answer, and the sample without its verdict."""
    read = read_response(tokenizer, completion.ids, thinks, form)
    sample = Sample(
        benchmark=request.question.benchmark,
        id=request.question.id,
        sample=request.sample,
        seed=request.seed,
        text=read.text,
        prompt_tokens=len(request.prompt),
        tokens=len(completion.ids),
        thinking_tokens=read.thinking_tokens,
        answer_tokens=read.answer_tokens,
        truncated=not completion.finished,
        extracted=None,
        verdict=None,
        reference=request.question.reference,
        level=request.question.level,
    )
    return read.answer, sample
