"""The removal test: which steps go, what text is left, intervals, and the command on tiny and on the packaged model."""

from __future__ import annotations

import csv
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from attnpo import tables
from attnpo.cli.main import main
from attnpo.errors import InputError, RunError
from attnpo.heads.removal import (
    HIGHEST,
    LAST,
    LOWEST,
    NOTHING,
    RANDOM,
    RANDOM_HIGHEST,
    RANDOM_LOWEST,
    Options,
    Removal,
    choose_traces,
    draw_random_heads,
    plan_removals,
    ranking,
    remaining_text,
    removed_count,
    removed_essential,
    removed_share,
    score_sets,
)
from attnpo.heads.removal_table import (
    COLUMNS,
    NAMES,
    Answer,
    Reanswer,
    accuracy_table,
    answer_context,
    difference_table,
    draw_removal,
    generate_answers,
)
from attnpo.rewards.verdict import Verdict
from attnpo.tables import Table, check_folder, write_table
from attnpo.traces.prepared import prepare_trace
from attnpo.traces.scores import score_prepared

PARTS = ["First add 12 and 30.\n\n", "Wait, is it 42? ", "Hmm, it is 42 again.\n\n", "So 42 it is.\n"]


def trace(parts: list[str] = PARTS, opening: str = "", **fields: Any) -> dict[str, Any]:
    steps, start = [], 0
    for part in parts:
        steps.append({"start": start, "end": start + len(part), "essential": len(steps) % 2 == 0})
        start += len(part)
    response = f"{opening}{''.join(parts)}</think>It is 42."
    return {"problem": "12 + 30?", "response": response, "reference": "42", "steps": steps, **fields}


# Which steps


def test_equal_scores_keep_the_order_of_the_steps():
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


def test_random_heads_remove_by_their_own_scores():
    plan = plan_removals(0, [4, 3, 2, 1], [0.25], 1, "row", [[1, 2, 3, 4], [0, 9, 0, -9]])
    removed = {(one.arm, one.seed): one.removed for one in plan if one.arm in (RANDOM_HIGHEST, RANDOM_LOWEST)}
    assert removed == {
        (RANDOM_HIGHEST, 0): (3,),
        (RANDOM_LOWEST, 0): (0,),
        (RANDOM_HIGHEST, 1): (1,),
        (RANDOM_LOWEST, 1): (3,),
    }


def test_random_heads_are_others_than_the_chosen(tiny_qwen2):
    config = tiny_qwen2.config
    heads = {(layer, head) for layer in range(config.num_hidden_layers) for head in range(config.num_attention_heads)}
    chosen = sorted(heads)[1:3]
    sets = draw_random_heads(tiny_qwen2, chosen, 4)
    assert sets == draw_random_heads(tiny_qwen2, chosen, 4)
    assert len({tuple(one) for one in sets}) == 4
    assert all(len(set(one)) == 2 and set(one) <= heads - set(chosen) for one in sets)
    with pytest.raises(InputError, match="--random-heads is 2, expected at most 0, the number of sets of"):
        draw_random_heads(tiny_qwen2, sorted(heads)[1:], 2)


def test_scores_of_several_sets_of_heads(tiny_qwen2, tiny_tokenizer):
    traces = [prepare_trace(row, tiny_tokenizer) for row in (trace(PARTS[:2]), trace(), trace(PARTS[:3]))]
    sets = [[(0, 0), (1, 1)], [(1, 1)], [(1, 0), (0, 0)]]
    seen: list[tuple[int, int]] = []
    scores = score_sets(tiny_qwen2, traces, sets, 2, lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    for place, heads in enumerate(sets):
        expected = score_prepared(tiny_qwen2, traces, heads, 2)
        assert [one[place] for one in scores] == [pytest.approx(steps) for steps in expected]


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
def test_remaining_text_by_hand(removed, expected):
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


def test_random_heads_are_averaged_over_their_sets():
    right, wrong = Verdict.RIGHT, Verdict.WRONG
    answers = [reanswer(place, NOTHING, right) for place in range(2)]
    answers += [reanswer(place, HIGHEST, wrong) for place in range(2)]
    answers += [reanswer(0, RANDOM_HIGHEST, right, 0), reanswer(0, RANDOM_HIGHEST, wrong, 1)]
    answers += [reanswer(1, RANDOM_HIGHEST, right, 0), reanswer(1, RANDOM_HIGHEST, right, 1)]
    table = accuracy_table(answers, ["a", "b"])
    assert {row[0]: row[COLUMNS.index("accuracy")] for row in table.rows}[RANDOM_HIGHEST] == 0.75
    assert [row[:3] for row in difference_table(answers, ["a", "b"]).rows] == [
        (f"{HIGHEST} − {RANDOM_HIGHEST}", 0.5, -0.75)
    ]


def test_the_figure_shows_the_table():
    def row(arm: str, share: float, tokens: float, accuracy: float | None) -> tuple[Any, ...]:
        ends = (None, None) if accuracy is None else (accuracy - 0.05, accuracy + 0.1)
        return (arm, share, 1, tokens, None, 0.0, accuracy, *ends, 4)

    table = Table(
        COLUMNS,
        [
            row(NOTHING, 0.0, 0.0, 0.9),
            row(HIGHEST, 0.25, 0.3, 0.5),
            row(HIGHEST, 0.5, 0.6, 0.2),
            row(LOWEST, 0.25, 0.2, 0.8),
            row(LOWEST, 0.5, 0.4, None),  # the verifier failed on all
            row(RANDOM_HIGHEST, 0.25, 0.35, 0.6),
            row("everything", 1.0, 1.0, 0.1),
        ],
    )
    figure = draw_removal(table, title="the title")
    assert figure.get_suptitle() == "the title"
    accuracies = {HIGHEST: [0.9, 0.5, 0.2, 0.1], LOWEST: [0.9, 0.8, 0.1], RANDOM_HIGHEST: [0.9, 0.6, 0.1]}
    shares = {HIGHEST: [0, 0.25, 0.5, 1], LOWEST: [0, 0.25, 1], RANDOM_HIGHEST: [0, 0.25, 1]}
    tokens = {HIGHEST: [0, 0.3, 0.6, 1], LOWEST: [0, 0.2, 1], RANDOM_HIGHEST: [0, 0.35, 1]}
    labels = ("share of steps removed", "share of thinking tokens removed")
    for panel, at, label in zip(figure.axes, (shares, tokens), labels, strict=True):
        assert panel.get_xlabel() == label
        drawn: dict[str, Any] = {line.get_label(): line for line in panel.containers}
        assert list(drawn) == [NAMES[arm] for arm in accuracies]
        for arm, accuracy in accuracies.items():
            line, _, (bars,) = drawn[NAMES[arm]].lines
            assert line.get_xdata().tolist() == at[arm]
            assert line.get_ydata().tolist() == accuracy
            ends = torch.tensor([segment[:, 1].tolist() for segment in bars.get_segments()])
            expected = torch.tensor([[value - 0.05, value + 0.1] for value in accuracy])
            torch.testing.assert_close(ends, expected)
    assert figure.axes[0].get_ylabel() == "share of right answers"
    (legend,) = figure.legends
    assert [one.get_text() for one in legend.get_texts()] == [NAMES[arm] for arm in accuracies]


# Files


def test_unwritable_folder_is_detected_before_the_work(tmp_path, monkeypatch):
    def refuse(dir: Path) -> None:
        raise PermissionError(13, f"Permission denied: {dir}")

    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: cannot be created"):
        check_folder(tmp_path / "file")
    assert list(check_folder(tmp_path / "a" / "b").iterdir()) == []
    monkeypatch.setattr(tables.tempfile, "TemporaryFile", refuse)  # permissions do not stop root
    with pytest.raises(InputError, match=r"--output .*a: cannot be written to: Permission denied"):
        check_folder(tmp_path / "a")


@pytest.mark.parametrize("name", ["differences.csv", "answers.jsonl.gz", "table.csv", "table.md", "figure.png"])
def test_a_file_that_cannot_be_written_is_named(name, model, tmp_path, capsys):
    (tmp_path / "out" / name).mkdir(parents=True)
    source = write(tmp_path / "in.jsonl", [trace()])
    options = ["--model", str(model), "-o", str(tmp_path / "out"), "--max-answer", "2", "--shares", "0.5"]
    assert main(["evidence", "removal", source, *options]) == 2
    assert name in capsys.readouterr().err


def test_a_full_disk_is_no_fault_of_the_input():
    with pytest.raises(RunError, match="/dev/full: cannot be written: No space left"):
        write_table(Path("/dev/full"), Table(("a",), [(1,)]))


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
        rooms=[6, 6, 3, 4],
        batch_size=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, 3), (2, 3), (3, 3)]
    for context, room, answer in zip(contexts, [6, 6, 3, 4], together, strict=True):
        ids = list(context)
        for _ in range(room):
            with torch.inference_mode():
                ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        assert answer.text == tokenizer.decode(ids[len(context) :], skip_special_tokens=True)
        assert answer.tokens == len(ids) - len(context)
        assert answer.finished == (ids[-1] == tokenizer.eos_token_id)


# The traces


def test_each_trace_has_the_room_of_its_own_answer(tiny_tokenizer):
    short, long = trace(), trace(response="".join(PARTS) + "</think>" + "It is 42. " * 40)
    rows = list(enumerate([short, long], 1))
    answers = [prepare_trace(row, tiny_tokenizer).answer_tokens for _, row in rows]
    assert 2 * answers[0] < 64 < answers[1]

    def rooms(**options: Any) -> list[int]:
        return choose_traces("x", rows, tiny_tokenizer, unreadable=(), longest=None, options=Options(**options)).rooms

    assert rooms() == [64, 2 * answers[1]]
    assert rooms(max_answer=7) == [7, 7]


def test_the_first_usable_traces_are_as_many_as_there_are(tiny_tokenizer):
    long = trace(["Add them up again. " * 30, *PARTS])
    rows = list(enumerate([trace(), long, trace(), trace()], 1))
    longest = len(prepare_trace(trace(), tiny_tokenizer).ids) + 64
    assert longest < len(prepare_trace(long, tiny_tokenizer).ids) + 64
    longest = max(longest, len(prepare_trace(long, tiny_tokenizer).ids))  # the trace fits, a new answer does not
    data = choose_traces(
        "x", rows, tiny_tokenizer, unreadable=(), longest=longest, options=Options(max_traces=2, max_answer=64)
    )
    assert [number for number, _ in data.rows] == [1, 3]
    assert data.counts == {"used": 2, f"no room for a new answer within {longest} tokens": 1}


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
    options = ["-o", str(tmp_path / "out"), "--shares", "0.5", "--random-seeds", "2", "--random-heads", "2"]
    assert main(["evidence", "removal", write(source, rows), *options]) == 0
    printed = capsys.readouterr().out
    assert "3 of 3 traces are right with nothing removed" in printed
    assert "answers of at most 64 tokens" in printed
    assert re.search(r"^random heads: \d\.\d \d\.\d \d\.\d; \d\.\d \d\.\d \d\.\d$", printed, re.MULTILINE)
    assert "the arms tell little" not in printed
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
    assert len(answers) == 3 * (2 + 3 + 2 + 2 * 2)
    assert {(row["arm"], row["seed"]) for row in answers} >= {(RANDOM_HIGHEST, 0), (RANDOM_LOWEST, 1)}
    assert {RANDOM_HIGHEST, RANDOM_LOWEST} <= set(table)
    assert {(row["verdict"], row["finished"]) for row in answers if row["arm"] == NOTHING} == {("right", True)}
    assert all(row["verdict"] == "no_answer" for row in answers if not row["finished"])
    assert answers[0]["id"] == rows[0]["id"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("answers.jsonl.gz", "command.txt", "differences.csv", "figure.png", "table.csv", "table.md")
    }


def test_the_first_traces_without_labels_and_with_little_room(model, tmp_path, capsys):
    row = {key: value for key, value in trace().items() if key != "steps"}
    row["response"] = "First add 12 and 30, " * 6 + "Wait, is that so? " * 6 + "</think>It is 42."
    source = write(tmp_path / "in.jsonl", [row, {**row, "problem": "12 + 30? " * 30}, row])
    options = ["--model", str(model), "-o", str(tmp_path / "out"), "--max-traces", "2", "--max-answer", "3"]
    assert main(["evidence", "removal", source, *options, "--max-length", "400", "--shares", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "of 2 traces" in printed
    assert "right with everything removed: the arms tell little" in printed  # a tiny model is never right
    assert "1 rows left out: longer than 400 tokens" in printed
    assert "answers of at most 3 tokens" in printed
    assert "None" not in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([trace()], ["--shares", "0.5,x"], "--shares: found '0.5,x', expected numbers"),
        ([trace()], ["--shares", "0.5,1"], "--shares: found '0.5,1.0', expected different shares above 0 and below 1"),
        ([trace()], ["--random-seeds", "0"], "--random-seeds is 0, expected at least 1"),
        ([trace()], ["--random-heads", "-1"], "--random-heads is -1, expected at least 0"),
        ([trace()], ["--random-heads", "99999"], "--random-heads is 99999, expected at most"),
        ([trace()], ["--batch-size", "0"], "--batch-size is 0, expected at least 1"),
        ([trace()], ["--max-answer", "0"], "--max-answer is 0, expected at least 1"),
        ([trace(reference=3)], [], "row 1: field 'reference' is a number, expected text"),
        ([trace(reference=None)], [], "no row has a reference answer"),
        ([trace(), trace(PARTS[:2], steps=[{"start": 0, "end": 4}])], [], "row 2: the steps do not cover the thinking"),
        ([trace(response=5)], [], "row 1: field 'response' is a number"),
        ([trace()], ["--heads", "nowhere.json"], "nowhere.json: cannot be read"),
        ([trace()], ["--model", "nowhere", "--heads", "HEADS"], "--model nowhere: cannot be loaded"),
        ([trace()], ["--max-length", "20"], "no row can be used (found 1 with longer than 20 tokens)"),
        ([trace()], ["--max-answer", "9000"], "no room for a new answer within"),
    ],
)
def test_bad_input(rows, options, message, model, tmp_path, capsys):
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out"
    options = [str(model / "heads.json") if option == "HEADS" else option for option in options]
    given = ["--model", str(model), *options]
    assert main(["evidence", "removal", source, "-o", str(out), *given]) == 2
    assert message in capsys.readouterr().err
    assert not list(out.glob("*"))
    needs_model = ("--max-length", "--model", "--random-heads")
    assert not out.exists() or (options[0] in needs_model or options[-1] == "9000")


def test_help_does_not_import_torch():
    script = (
        "import sys, attnpo.cli.main as m\ntry: m.main(['evidence', 'removal', '--help'])\nexcept SystemExit: pass\n"
    )
    script += "assert not {'torch', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--random-seeds" in result.stdout
