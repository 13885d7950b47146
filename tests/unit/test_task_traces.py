"""The writer of over-thinking traces: steps, labels, redundancy, caught errors."""

from __future__ import annotations

import hashlib
import json
import random
import re
import statistics
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overthinker_data import essential_tokens

from attnpo.errors import InputError
from attnpo.steps.lexicon import load_lexicon
from attnpo.steps.segment import segment_steps
from attnpo.task import phrases
from attnpo.task.dataset import build_dataset
from attnpo.task.problems import FAMILIES, Operation, Problem, sample_problem
from attnpo.task.traces import OPTIONAL_RATES, TraceStyle, write_trace

EQUATION = re.compile(r"(\w+): (\d+) ([-+*/]) (\d+) = (\d+)")
ESSENTIAL_ROLES = {"computation", "catch"}


def compute(left: str, sign: str, right: str) -> int:
    a, b = int(left), int(right)
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign]


@pytest.fixture(scope="module")
def written():
    """(problem, trace) of 2000 problems of all difficulties, the default style."""
    problems = [sample_problem(11, i, "train", (1, 5)) for i in range(2000)]
    return [(problem, write_trace(problem, random.Random(i))) for i, problem in enumerate(problems)]


def test_golden_trace():
    """A style without any choice but the wording: the roles, and the answer, by hand."""
    operations = (Operation("*", 12, "crates"), Operation("-", 8, "sale"))
    problem = Problem("x", "train", "market", 1, "Mia", "pears", 4, operations, "…")
    style = TraceStyle(
        error_rate=0,
        check_rate=1,
        alternative_rate=0,
        remark_rate=0,
        restatement_rate=1,
        plan_rate=0,
        false_start_rate=0,
        recap_rate=1,
        closing_rate=0,
        verbosity=(1, 1),
    )
    trace = write_trace(problem, random.Random(0), style)
    roles = ["restatement", "computation", "check", "computation", "check", "recap"]
    assert [step.role for step in trace.steps] == roles
    assert [step.essential for step in trace.steps] == [role == "computation" for role in roles]
    assert trace.response.endswith("\n</think>\n\nSolution: crates 48, sale 40, \\boxed{40}")
    assert "crates: 4 * 12 = 48" in trace.thinking
    assert "4 to 48 to 40" in trace.thinking


def test_segmentation_finds_the_constructed_steps(written):
    for _, trace in written:
        assert trace.response.startswith(trace.thinking + "</think>")
        assert [(s.start, s.end) for s in segment_steps(trace.thinking)] == [(s.start, s.end) for s in trace.steps]


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    error_rate=st.floats(0, 1),
    check_rate=st.floats(0, 2),
    catch_all=st.booleans(),
    redundancy=st.none() | st.floats(0, 40),
    sentences=st.sampled_from(sorted(phrases.SENTENCES)),
)
def test_segmentation_finds_the_steps_in_every_style(seed, error_rate, check_rate, catch_all, redundancy, sentences):
    style = TraceStyle(
        error_rate=error_rate,
        check_rate=check_rate,
        catch_all=catch_all,
        verbosity=(0, 2),
        redundancy=redundancy,
        sentences=sentences,
    )
    trace = write_trace(sample_problem(seed, 0, "test", (1, 5)), random.Random(seed), style)
    assert [(s.start, s.end) for s in segment_steps(trace.thinking)] == [(s.start, s.end) for s in trace.steps]


def test_steps_tile_and_both_kinds_are_present(written):
    for _, trace in written:
        ends = [step.end for step in trace.steps]
        assert [step.start for step in trace.steps] == [0, *ends[:-1]]
        assert ends[-1] == len(trace.thinking)
        kinds = Counter(step.essential for step in trace.steps)
        assert kinds[False] >= TraceStyle.least_redundant
        assert kinds[True] >= 2
        for step in trace.steps:
            assert step.essential == (step.role in ESSENTIAL_ROLES)


def test_essential_steps_alone_give_the_answer(written):
    """Dropping all redundant steps loses nothing: the last essential equation of every event is right, and the answer
    lists exactly those results."""
    for problem, trace in written:
        essential = [trace.thinking[step.start : step.end] for step in trace.steps if step.essential]
        found = [EQUATION.findall(text)[-1] for text in essential]
        assert [tag for tag, *_ in found] == [operation.tag for operation in problem.operations]
        assert all(compute(a, sign, b) == int(c) for _, a, sign, b, c in found)
        listed = ", ".join(f"{tag} {result}" for tag, *_, result in found)
        assert trace.response.endswith(f"Solution: {listed}, \\boxed{{{problem.answer}}}")
        assert trace.answer == problem.answer


def test_redundant_steps_do_not_name_results_as_the_answer_does(written):
    """Except for essential steps, only a slip (corrected in the next step) has an event's name next to an equation."""
    for _, trace in written:
        for step, after in zip(trace.steps, [*trace.steps[1:], None], strict=True):
            text = trace.thinking[step.start : step.end]
            if step.role == "slip":
                assert after is not None
                assert after.role == "catch"
                (_, a, sign, b, c) = EQUATION.findall(text)[0]
                assert compute(a, sign, b) != int(c)
            elif not step.essential:
                assert not EQUATION.search(text), text


def test_amount_of_over_thinking(written):
    """Redundant text is at least 55 % on average; lengths of one problem's traces differ a lot."""
    shares, errors, computations = [], 0, 0
    for _, trace in written:
        redundant = sum(step.end - step.start for step in trace.steps if not step.essential)
        shares.append(redundant / len(trace.thinking))
        roles = Counter(step.role for step in trace.steps)
        errors += roles["slip"]
        computations += roles["slip"] + roles["computation"]
    assert 0.55 < statistics.fmean(shares) < 0.75
    assert min(shares) > 0.2
    assert 0.10 < errors / computations < 0.20
    problem = sample_problem(0, 0, "train", (3, 3))
    lengths = [len(write_trace(problem, random.Random(i)).response) for i in range(200)]
    assert statistics.pstdev(lengths) > 0.2 * statistics.fmean(lengths)


def test_checking_less_costs_accuracy():
    """Errors do not depend on checks: without checks more answers are wrong, with all errors caught none is."""
    problems = [sample_problem(2, i) for i in range(600)]

    def accuracy(style: TraceStyle) -> float:
        traces = [write_trace(problem, random.Random(i), style) for i, problem in enumerate(problems)]
        return statistics.fmean(trace.answer == problem.answer for trace, problem in zip(traces, problems, strict=True))

    never, usual = TraceStyle(check_rate=0, catch_all=False), TraceStyle(catch_all=False)
    assert accuracy(TraceStyle()) == 1
    assert 0.78 < accuracy(usual) < 0.92
    assert accuracy(never) < accuracy(usual) - 0.1


def test_useless_and_catching_checks_open_alike(written):
    openings = {"check": Counter(), "catch": Counter()}
    for _, trace in written:
        for step in trace.steps:
            if step.role in openings:
                openings[step.role][trace.thinking[step.start : step.start + 12]] += 1
    assert set(openings["check"]) == set(openings["catch"])


def test_templates_are_long_enough_and_cut_only_at_their_start():
    """Shortest names, things, tags and numbers: every sentence is a step of its own by the paper's lexicon."""
    things = min((t for family in FAMILIES for t in (*family.things_x, *family.things_y)), key=len)
    tag = min((e.tag for family in FAMILIES for e in (*family.products, *family.events)), key=len)
    words = {"name": "Mia", "things": things, "tag": tag, "equation": "4 / 2 = 2", "numbers": "1, 2 and 3"}
    words |= dict.fromkeys(("count", "operand", "result", "wrong", "first", "second", "sum"), "2")
    words |= {"word": "plus", "inverse": "plus", "path": "from 4 to 2 to 1"}
    endings = (*phrases.CHECK_FINE, *phrases.CHECK_CATCHES)
    kinds = asdict(phrases.MANY)  # has all of FEW
    templates = [o + phrases.CHECK_BODY + e for o in kinds.pop("check_openings") for e in endings]
    for group in (*phrases.COMPUTATIONS.values(), *kinds.values()):
        templates += group
    lexicon = load_lexicon("paper")
    for template in templates:
        text = template.format(**words)
        assert len(text) >= 80, text
        assert [trigger.start for trigger in lexicon.triggers("\n" + text)] == [1], text


def test_rows_are_deterministic_and_independent_of_their_number():
    rows = build_dataset(30, seed=4, split="test", difficulty=(1, 5))
    assert rows == build_dataset(30, seed=4, split="test", difficulty=(1, 5))
    assert rows[:10] == build_dataset(10, seed=4, split="test", difficulty=(1, 5))
    assert len({row["id"] for row in rows}) == 30
    for row in rows:
        assert {"id", "problem", "response", "reference", "steps", "family", "difficulty", "split"} == set(row)
        assert row["response"].endswith(f"\\boxed{{{row['reference']}}}")
        assert all({"start", "end", "essential", "kind", "role"} == set(step) for step in row["steps"])


def test_default_traces_are_unchanged():
    rows = json.dumps(build_dataset(60, seed=3, difficulty=(1, 5))).encode()
    assert hashlib.sha256(rows).hexdigest() == "3a1f0060bcea9584d608a429d7b0ce8a9fb1ac677d8adc02299c3802a50d0dfa"


@pytest.mark.parametrize("sentences", sorted(phrases.SENTENCES))
@pytest.mark.parametrize("redundancy", [0, 1.5, 4, 12, 30])
@pytest.mark.parametrize("catch_all", [True, False])
def test_redundancy_is_the_mean_number_of_redundant_steps(redundancy, sentences, catch_all):
    style = TraceStyle(redundancy=redundancy, sentences=sentences, catch_all=catch_all)
    counts = []
    for i in range(1200):
        trace = write_trace(sample_problem(5, i, "train", (1, 4)), random.Random(i), style)
        counts.append(sum(not step.essential for step in trace.steps))
    # Slips that every check must catch stay also where nothing redundant is wanted.
    slips = 0.15 * 3 if catch_all and redundancy < 2 else 0.0
    assert abs(statistics.fmean(counts) - redundancy) < 0.05 * redundancy + 0.1 + slips
    if redundancy >= 12:
        problem = sample_problem(0, 0, "train", (3, 3))
        lengths = [len(write_trace(problem, random.Random(i), style).response) for i in range(200)]
        assert statistics.pstdev(lengths) > 0.2 * statistics.fmean(lengths)


def test_checks_are_worth_the_same_at_every_redundancy():
    """The share of slips that the check after the computation catches does not depend on the further steps."""
    problems = [sample_problem(3, i, "train", (1, 3)) for i in range(1500)]

    def accuracy(redundancy: float | None) -> float:
        style = TraceStyle(catch_all=False, redundancy=redundancy, sentences="many")
        traces = [write_trace(problem, random.Random(i), style) for i, problem in enumerate(problems)]
        return statistics.fmean(trace.answer == problem.answer for trace, problem in zip(traces, problems, strict=True))

    usual = accuracy(None)
    assert all(abs(accuracy(redundancy) - usual) < 0.03 for redundancy in (4, 12, 30))


def test_further_steps_state_correct_numbers():
    """Equations in words of checks and alternatives hold, also after a slip that nobody caught."""
    words = {"plus": "+", "minus": "-", "times": "*", "divided by": "/"}
    spoken = re.compile(r"(\d+) (plus|minus|times|divided by) (\d+) (?:is|makes|gives back|has to be|does give) (\d+)")
    found = 0
    for i in range(200):
        style = TraceStyle(catch_all=False, redundancy=20, sentences="many", error_rate=0.4)
        trace = write_trace(sample_problem(6, i, "train", (1, 4)), random.Random(i), style)
        for step in trace.steps:
            if step.role in ("check", "alternative", "catch"):
                for a, word, b, c in spoken.findall(trace.thinking[step.start : step.end]):
                    assert compute(a, words[word], b) == int(c)
                    found += 1
    assert found > 500


def test_a_sentence_does_not_come_back_within_three_steps():
    """Further steps of many sentences do not loop; checks, whose sentences are combined of parts, are left out."""
    style = TraceStyle(redundancy=30, sentences="many", **dict.fromkeys(OPTIONAL_RATES, 0))
    for i in range(100):
        trace = write_trace(sample_problem(7, i), random.Random(i), style)
        texts = [re.sub(r"\d+", "#", trace.thinking[step.start : step.end]) for step in trace.steps]
        for k, step in enumerate(trace.steps):
            if step.role not in ("check", "computation", "catch", "slip"):
                assert texts[k] not in texts[max(0, k - 3) : k]


@pytest.mark.parametrize(
    ("options", "said"), [({"redundancy": -1}, "redundancy"), ({"sentences": "some"}, "sentences")]
)
def test_bad_styles_are_refused(options, said):
    with pytest.raises(InputError, match=f"{said}: found .*expected"):
        TraceStyle(**options)


def test_essential_tokens_are_those_of_essential_steps_and_the_answer():
    trace = write_trace(sample_problem(1, 0), random.Random(0))
    # as if every character were a token
    marked = essential_tokens(trace, [(i, i + 1) for i in range(len(trace.response))])
    for step in trace.steps:
        assert set(marked[step.start : step.end]) == {step.essential}
    assert all(marked[trace.steps[-1].end :])
