"""The removal test: which steps go, what text is left, intervals, and the command on tiny and on the packaged model."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from attnpo.cli.main import main
from attnpo.evidence.answering import Answer, answer_context, generate_answers
from attnpo.evidence.removal import (
    HIGHEST,
    LAST,
    LOWEST,
    NOTHING,
    RANDOM,
    Removal,
    plan_removals,
    ranking,
    remaining_text,
    removed_count,
    removed_essential,
    removed_share,
)
from attnpo.evidence.removal_table import Reanswer, accuracy_table, bootstrap_interval, difference_table
from attnpo.probe.prepare import prepare_trace
from attnpo.rewards.verdict import Verdict

PARTS = ["First add 12 and 30.\n\n", "Wait, is it 42? ", "Hmm, it is 42 again.\n\n", "So 42 it is.\n"]


def trace(parts: list[str] = PARTS, opening: str = "", **fields: Any) -> dict[str, Any]:
    steps, start = [], 0
    for part in parts:
        steps.append({"start": start, "end": start + len(part), "essential": len(steps) % 2 == 0})
        start += len(part)
    response = f"{opening}{''.join(parts)}</think>It is 42."
    return {"problem": "12 + 30?", "response": response, "reference": "42", "steps": steps, **fields}


# Which steps


def test_equal_scores_stand_in_the_order_of_the_steps():
    assert ranking([0.1, 0.5, 0.1, 0.9]) == [3, 1, 0, 2]


@pytest.mark.parametrize(
    ("steps", "share", "count"),
    [
        (4, 0.25, 1),
        (8, 0.25, 2),
        (9, 0.5, 4),  # 4.5: a half goes down
        (3, 0.5, 1),
        (10, 0.25, 2),  # 2.5
        (7, 0.25, 2),  # 1.75
        (20, 0.35, 7),
        (2, 0.25, 1),  # never none
        (2, 0.9, 1),  # never all
        (50, 0.29, 14),  # 14.5, which is 14.499… as a float
    ],
)
def test_a_share_in_whole_steps(steps, share, count):
    assert removed_count(steps, share) == count


def test_a_plan_by_hand():
    plan = plan_removals(7, [0.2, 0.1, 0.2, 0.4], [0.25, 0.5], 2, "row")
    removed = {(one.arm, one.share): one.removed for one in plan if one.arm != RANDOM}
    assert removed == {
        (NOTHING, 0.0): (),
        (HIGHEST, 0.25): (3,),
        (LOWEST, 0.25): (1,),
        (LAST, 0.25): (3,),
        (LAST, 0.5): (2, 3),
        (HIGHEST, 0.5): (0, 3),
        (LOWEST, 0.5): (1, 2),
        ("everything", 1.0): (0, 1, 2, 3),
    }
    drawn = [one for one in plan if one.arm == RANDOM]
    assert [(one.share, one.seed, len(one.removed)) for one in drawn] == [
        (0.25, 0, 1),
        (0.25, 1, 1),
        (0.5, 0, 2),
        (0.5, 1, 2),
    ]
    assert set(drawn[0].removed) < set(drawn[2].removed)
    assert {one.trace for one in plan} == {7}


def test_random_steps_depend_on_seed_and_row_only():
    def drawn(place: int, name: int) -> list[tuple[int, ...]]:
        return [one.removed for one in plan_removals(place, [0.0] * 12, [0.5], 3, name) if one.arm == RANDOM]

    assert drawn(0, 5) == drawn(3, 5)
    assert len({*drawn(0, 5), *drawn(0, 6)}) == 6


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.7]), min_size=2, max_size=9), st.floats(0.01, 0.99))
def test_plans_of_any_scores(scores, share):
    plan = {one.arm: set(one.removed) for one in plan_removals(0, scores, [share], 1, 0)}
    sizes = {len(plan[arm]) for arm in (HIGHEST, LOWEST, LAST, RANDOM)}
    assert len(sizes) == 1
    assert 1 <= sizes.pop() < len(scores)
    assert min(scores[i] for i in plan[HIGHEST]) >= max(scores[i] for i in set(range(len(scores))) - plan[HIGHEST])
    assert max(scores[i] for i in plan[LOWEST]) <= min(scores[i] for i in set(range(len(scores))) - plan[LOWEST])
    if share <= 0.5:
        assert not plan[HIGHEST] & plan[LOWEST]


# What text is left


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        ((), "\nFirst add 12 and 30.\n\nWait, is it 42? Hmm, it is 42 again.\n\nSo 42 it is.\n"),
        ((1,), "\nFirst add 12 and 30.\n\nHmm, it is 42 again.\n\nSo 42 it is.\n"),
        ((0,), "\nWait, is it 42? Hmm, it is 42 again.\n\nSo 42 it is.\n"),
        ((2, 3), "\nFirst add 12 and 30.\n\nWait, is it 42?\n"),
        ((0, 1, 2, 3), "\n\n"),
    ],
)
def test_the_text_left_by_hand(removed, expected):
    row = trace(["\n" + PARTS[0], *PARTS[1:]])
    assert remaining_text(row["response"].split("</think>")[0], row["steps"], removed) == expected


PIECES = st.text("ab \n", max_size=6)


@settings(max_examples=100, deadline=None)
@given(st.lists(PIECES, min_size=2, max_size=6), st.data())
def test_kept_and_removed_make_the_whole(parts, data):
    thinking, steps = "".join(parts), trace(parts)["steps"]
    removed = data.draw(st.sets(st.integers(0, len(parts) - 1)))
    kept = remaining_text(thinking, steps, removed)
    rest = remaining_text(thinking, steps, set(range(len(parts))) - removed)
    letters = iter(thinking)
    assert all(letter in letters for letter in kept)  # a subsequence
    for letter in "ab":
        assert kept.count(letter) + rest.count(letter) == thinking.count(letter)
    assert remaining_text(thinking, steps, ()) == thinking
    assert not remaining_text(thinking, steps, range(len(parts))).strip()


def test_shares_of_tokens_and_of_essential_steps():
    assert removed_share([(10, 14), (14, 20), (20, 20)], [1, 2]) == pytest.approx(0.6)
    assert removed_essential([True, None, True, False, True], [0, 1, 3]) == pytest.approx(1 / 3)
    assert removed_essential([None, False], [0]) is None


# Figures


def reanswer(place: int, arm: str, verdict: Verdict, seed: int | None = None) -> Reanswer:
    share = 0.0 if arm == NOTHING else 0.5
    removed = () if arm == NOTHING else (0,)
    return Reanswer(Removal(place, arm, share, seed, removed), 0.25 * len(removed), None, Answer("", 1, True), verdict)


def test_tables_by_hand():
    right, wrong, failed = Verdict.RIGHT, Verdict.WRONG, Verdict.UNVERIFIABLE
    answers = [reanswer(place, NOTHING, right) for place in range(3)]
    answers += [reanswer(place, HIGHEST, verdict) for place, verdict in enumerate((wrong, wrong, failed))]
    answers += [reanswer(place, LOWEST, verdict) for place, verdict in enumerate((right, wrong, right))]
    answers += [reanswer(0, RANDOM, right, 0), reanswer(0, RANDOM, wrong, 1), reanswer(0, RANDOM, failed, 2)]
    table = accuracy_table(answers, ["a", "b", "c"])
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert list(rows) == [NOTHING, HIGHEST, LOWEST, RANDOM]
    assert {arm: row["accuracy"] for arm, row in rows.items()} == {
        NOTHING: 1,
        HIGHEST: 0,
        LOWEST: pytest.approx(2 / 3),
        RANDOM: 0.5,  # a failed verifier is not a wrong answer
    }
    assert {arm: row["traces"] for arm, row in rows.items()} == {NOTHING: 3, HIGHEST: 2, LOWEST: 3, RANDOM: 1}
    assert rows[LOWEST]["tokens removed"] == 0.25
    assert rows[LOWEST]["essential removed"] is None
    differences = {row[0]: row[1:3] + row[5:] for row in difference_table(answers, ["a", "b", "c"]).rows}
    assert differences == {
        "highest − lowest": (0.5, -0.5, 2),
        "lowest − random": (0.5, 0.5, 1),
        "highest − random": (0.5, -0.5, 1),
    }


def test_intervals_draw_problems_with_all_their_traces():
    values = torch.tensor([1.0, 0.0, 1.0, torch.nan, 1.0, 0.0, 0.5], dtype=torch.float64)
    groups = torch.tensor([0, 0, 1, 2, 3, 3, 3])
    picks = torch.randint(4, (500, 4), generator=torch.Generator().manual_seed(3)).tolist()
    means = []
    for drawn in picks:
        found = [v for g in drawn for v, h in zip(values.tolist(), groups.tolist(), strict=True) if h == g and v == v]
        if found:
            means.append(sum(found) / len(found))
    expected = torch.quantile(torch.tensor(means, dtype=torch.float64), torch.tensor([0.025, 0.975]).double())
    assert bootstrap_interval(values, groups, draws=500, seed=3) == pytest.approx(tuple(expected.tolist()))


# Answers


@pytest.fixture
def model(tiny_qwen2, tiny_tokenizer, trainer_kit, tmp_path) -> Path:
    return trainer_kit.save_model(tmp_path / "model", trainer_kit.sharpen(tiny_qwen2), tiny_tokenizer)


@pytest.mark.parametrize("opening", ["", "<think>\n"])
def test_the_context_is_the_trace_up_to_its_closing_tag(opening, tiny_tokenizer):
    row = trace(opening=opening)
    row["steps"] = None
    prepared = prepare_trace(row, tiny_tokenizer)
    thinking = row["response"].removeprefix("<think>").split("</think>")[0]
    assert prepared.answer is not None
    context = answer_context(row["problem"], row["response"], thinking, tiny_tokenizer)
    assert context == prepared.ids[: prepared.answer[0]]


def test_batched_answers_are_those_of_one_at_a_time(model):
    network: Any = AutoModelForCausalLM.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    network.generation_config.repetition_penalty = 5.0  # a model's own settings do not count
    row = trace()
    contexts = [answer_context("1?" * count, row["response"], "Wait.", tokenizer) for count in (1, 4, 2, 1)]
    seen: list[tuple[int, int]] = []
    together = generate_answers(
        network,
        tokenizer,
        contexts,
        max_new_tokens=6,
        batch_size=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, 3), (2, 3), (3, 3)]
    for context, answer in zip(contexts, together, strict=True):
        ids = list(context)
        for _ in range(6):
            with torch.inference_mode():
                ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        assert answer.text == tokenizer.decode(ids[len(context) :], skip_special_tokens=True)
        assert answer.tokens == len(ids) - len(context)
        assert answer.finished == (ids[-1] == tokenizer.eos_token_id)


# The command


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_packaged_model(tmp_path, capsys):
    """Three traces of the built-in task: without their computations they cannot be answered."""
    source = tmp_path / "in.jsonl"
    assert main(["task", "--n", "3", "--seed", "5", "--split", "test", "-o", str(source)]) == 0
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    rows += [
        {**rows[0], "response": "no tag", "steps": None},
        {**rows[0], "reference": None},
        {**rows[0], "reference": "?!"},
        {**rows[0], "response": "one</think>1", "steps": None},
    ]
    options = ["-o", str(tmp_path / "out"), "--shares", "0.5", "--random-seeds", "2"]
    assert main(["evidence", "removal", write(source, rows), *options]) == 0
    printed = capsys.readouterr().out
    assert "3 of 3 traces are right with nothing removed" in printed
    for why in ("no closing tag", "no reference answer", "a reference answer that", "fewer than two steps"):
        assert f"1 rows left out: {why}" in printed
    with open(tmp_path / "out" / "table.csv", newline="") as file:
        table = {row["arm"]: row for row in csv.DictReader(file)}
    assert {arm: float(row["accuracy"]) for arm, row in table.items()}.items() >= {
        (NOTHING, 1.0),
        (LOWEST, 1.0),
        (HIGHEST, 0.0),
    }
    assert float(table[HIGHEST]["essential removed"]) > 0.8 > 0.2 > float(table[LOWEST]["essential removed"])
    with gzip.open(tmp_path / "out" / "answers.jsonl.gz", "rt") as file:
        answers = [json.loads(line) for line in file]
    assert len(answers) == 3 * (2 + 3 + 2)
    assert {(row["verdict"], row["finished"]) for row in answers if row["arm"] == NOTHING} == {("right", True)}
    assert all(row["verdict"] == "no_answer" for row in answers if not row["finished"])
    assert answers[0]["id"] == rows[0]["id"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("answers.jsonl.gz", "differences.csv", "figure.png", "table.csv", "table.md")
    }


def test_the_first_traces_without_labels_and_with_little_room(model, tmp_path, capsys):
    row = {key: value for key, value in trace().items() if key != "steps"}
    row["response"] = "First add 12 and 30, " * 6 + "Wait, is that so? " * 6 + "</think>It is 42."
    source = write(tmp_path / "in.jsonl", [row, {**row, "problem": "12 + 30? " * 30}, row])
    options = ["--model", str(model), "-o", str(tmp_path / "out"), "--max-traces", "2", "--max-answer", "3"]
    assert main(["evidence", "removal", source, *options, "--max-length", "400", "--shares", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "of 2 traces" in printed
    assert "1 rows left out: longer than 400 tokens" in printed
    assert "answers of at most 3 tokens" in printed
    assert "None" not in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([trace()], ["--shares", "0.5,x"], "--shares: found '0.5,x', expected numbers"),
        ([trace()], ["--shares", "0.5,1"], "--shares: found '0.5,1.0', expected different shares above 0 and below 1"),
        ([trace()], ["--random-seeds", "0"], "--random-seeds is 0, expected at least 1"),
        ([trace()], ["--max-answer", "0"], "--max-answer is 0, expected at least 1"),
        ([trace(reference=3)], [], "row 1: field 'reference' is a number, expected text"),
        ([trace(reference=None)], [], "no row has a reference answer"),
        ([trace(), trace(PARTS[:2], steps=[{"start": 0, "end": 4}])], [], "row 2: the steps do not cover the thinking"),
        ([trace(response=5)], [], "row 1: field 'response' is a number"),
        ([trace()], ["--heads", "nowhere.json"], "nowhere.json: cannot be read"),
        ([trace()], ["--model", "nowhere", "--heads", "HEADS"], "--model nowhere: cannot be loaded"),
        ([trace()], ["--max-length", "20"], "no row can be used (found 1 with longer than 20 tokens)"),
        ([trace()], ["--max-answer", "9000"], "no room for an answer of 9000 tokens"),
    ],
)
def test_bad_input(rows, options, message, model, tmp_path, capsys):
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out"
    options = [str(model / "heads.json") if option == "HEADS" else option for option in options]
    given = ["--model", str(model), *options]
    assert main(["evidence", "removal", source, "-o", str(out), *given]) == 2
    assert message in capsys.readouterr().err
    assert not list(out.glob("*"))


def test_help_does_not_import_torch():
    script = (
        "import sys, attnpo.cli.main as m\ntry: m.main(['evidence', 'removal', '--help'])\nexcept SystemExit: pass\n"
    )
    script += "assert not {'torch', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--random-seeds" in result.stdout
