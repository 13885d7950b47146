"""`attnpo label --by judges` from end to end, against an endpoint on this machine."""

from __future__ import annotations

import io
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from attnpo.cli.main import main
from attnpo.cli.trace_options import to_stderr

KEY = "sk-do-not-show-1234567890"
SUM = "First add 12 and 30, which is NEEDED and gives 42, so that the sum is known now and can be used.\n\n"
CHECK = "Wait, let me check this again, because a carry is easily lost: 12 plus 30 is 42, and it is right.\n\n"


def trace(name: str, *steps: str, **fields) -> dict:
    return {"id": name, "problem": f"problem {name}", "response": "".join(steps) + "</think>42", **fields}


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def label(judge_stub, tmp_path, capsys):
    """label(rows, "m", "n", …options): exit code, rows written, what was said on standard error."""

    def run(rows, *options, models=("m",), yes=True):
        source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
        target.unlink(missing_ok=True)
        judges = [word for model in models for word in ("--judge", f"{judge_stub.stub.url}#{model}")]
        command = ["label", source, "--by", "judges", "-o", str(target), *judges, *options]
        code = main([*command, "--yes"] if yes else command)
        rows = [json.loads(line) for line in target.read_text().splitlines()] if target.exists() else []
        shown = capsys.readouterr()
        assert shown.out == ""
        return code, rows, shown.err

    return run


def labels(row: dict) -> list:
    return [step["essential"] for step in row["steps"]]


def test_labels_agreement_and_rows_that_are_passed_through(judge_stub, label, tmp_path) -> None:
    """Three judges, two of them of one mind; the third takes the second step of row a for essential."""
    given = [{"start": 0, "end": 4, "role": "sum"}, {"start": 4, "end": 9, "essential": True}, {"start": 10, "end": 12}]
    rows = [
        trace("a", "NEEDED one. ", extra=[1], reference="42", steps=given),
        trace("b", SUM, CHECK),
        {"problem": "p", "response": SUM + CHECK},
        trace("c", SUM),
        trace("d", "", steps=[]),
    ]

    def respond(seen):
        if "problem a" in seen.prompt:
            return judge_stub.votes("E", "E" if seen.model == "z" else "R", "R")
        return judge_stub.by_text(seen)

    judge_stub.stub.reply = respond
    code, (a, b, *others), said = label(rows, models=("x", "y", "z"))
    assert code == 0
    assert others == [
        {**row, "skipped": reason}
        for row, reason in zip(rows[2:], ("no closing tag", *["fewer than two steps"] * 2), strict=True)
    ]
    assert {key: value for key, value in a.items() if key != "steps"} == {
        key: value for key, value in rows[0].items() if key != "steps"
    }
    assert a["steps"] == [
        {"start": 0, "end": 4, "role": "sum", "essential": True, "votes": {"x": True, "y": True, "z": True}},
        {"start": 4, "end": 9, "essential": None, "votes": {"x": False, "y": False, "z": True}},
        {"start": 10, "end": 12, "essential": False, "votes": {"x": False, "y": False, "z": False}},
    ]
    assert [(step["start"], step["kind"], step["essential"]) for step in b["steps"]] == [
        (0, "forward", True),
        (len(SUM), "confused", False),
    ]
    assert "2 traces labelled, 1 skipped (no closing tag), 2 skipped (fewer than two steps)" in said
    assert "steps: 4 of 5 with a consensus (80.0%), 2 essential, 2 redundant" in said
    # x: TFF TF, z: TTF TF: 4 of 5 the same; expected 0.4*0.6 + 0.6*0.4 = 0.48
    assert "x and y: agree on 100.0% of 5 steps, Cohen's kappa 1.000" in said
    assert f"x and z: agree on 80.0% of 5 steps, Cohen's kappa {(0.8 - 0.48) / 0.52:.3f}" in said
    assert "judge z: 2 answers, 0 from the cache, 0 invalid answers, 200 tokens in and 20 out" in said
    prompt = next(seen.prompt for seen in judge_stub.stub.seen if "problem a" in seen.prompt)
    assert "right answer" in prompt

    asked = len(judge_stub.stub.seen)
    code, (again, *_), said = label(rows, "--consensus", "majority", models=("x", "y", "z"), yes=False)
    assert (code, len(judge_stub.stub.seen)) == (0, asked)  # all from the cache: nothing to confirm either
    assert labels(again) == [True, False, False]
    assert "judge z: 0 answers, 2 from the cache, 0 invalid answers, 0 tokens in" in said
    assert (tmp_path / ".attnpo-judges.sqlite").is_file()


def test_changed_trace_or_setting_is_not_cached(judge_stub, label, tmp_path) -> None:
    rows = [trace("a", SUM, CHECK), trace("b", SUM, CHECK)]
    label(rows)
    rows[1]["response"] += " "  # not judged, so not part of the question
    assert label(rows)[0] == 0
    assert len(judge_stub.stub.seen) == 2
    rows[1]["response"] += "7"
    label(rows)
    assert len(judge_stub.stub.seen) == 3
    label(rows, models=("n",))
    assert len(judge_stub.stub.seen) == 5
    label(rows, "--cache", str(tmp_path / "other.sqlite"))
    assert len(judge_stub.stub.seen) == 7


def test_easy_subset(judge_stub, label) -> None:
    def problem(name: str, **fields) -> dict:
        return trace(name, SUM, CHECK, **fields)

    rows = [
        problem("a", group_accuracy=0.7),
        problem("b", group_accuracy=0.8),
        problem("c", correct=True),
        problem("c", correct=True),
        problem("c", correct=False),
        problem("c", correct=True),  # three of four are right
        problem("d"),
        problem("e", group_accuracy=1, correct=False),
    ]
    for row in rows:
        row["response"] += row["id"]
    code, out, said = label(rows, "--min-accuracy", "0.75", "--max-traces", "4")
    assert code == 0
    assert ["steps" in row for row in out] == [False, True, True, True, True, False, False, False]
    assert "4 traces labelled" in said
    for reason in (
        "1 skipped (accuracy below 0.75)",
        "1 skipped (no accuracy known)",
        "2 skipped (beyond the first 4)",
    ):
        assert reason in said


# Cost


JUDGES = """
judges:
  - {name: cheap, base_url: URL, model: m, price_in: 0.5, price_out: 2, temperature: null}
  - {name: dear, base_url: URL, model: n, price_in: 10, price_out: 30, max_tokens: 99}
"""


def test_cost_is_shown_before_anything_is_sent(judge_stub, label, tmp_path, monkeypatch) -> None:
    file = tmp_path / "judges.yaml"
    file.write_text(JUDGES.replace("URL", judge_stub.stub.url))
    rows = [trace("a", SUM, CHECK), trace("b", SUM, CHECK)]
    options = ("--judges", str(file))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))  # not a terminal
    code, out, said = label(rows, *options, models=(), yes=False)
    assert (code, out) == (2, [])
    assert "nothing was sent: expected --yes" in said
    assert judge_stub.stub.seen == []

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    code, out, said = label(rows, *options, models=(), yes=False)
    assert (code, out) == (1, [])
    assert "Send these requests? [y/N]" in said
    assert "not confirmed: nothing was sent" in said
    assert judge_stub.stub.seen == []

    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    code, out, said = label(rows, *options, models=(), yes=False)
    assert (code, [labels(row) for row in out]) == (0, [[True, False]] * 2)
    tokens = sum(-(-len(seen.prompt) // 4) for seen in judge_stub.stub.seen if seen.model == "m")
    answers = 2 * 9  # {"1": "essential", "2": "essential"} has 36 characters
    cheap, dear = (0.5 * tokens + 2 * answers) / 1e6, (10 * tokens + 30 * answers) / 1e6
    for name, cost in (("cheap", cheap), ("dear", dear)):
        start = f"judge {name}: 2 requests (0 more answered in the cache), about "
        assert f"{start}{tokens:,} tokens in and {answers} out, cost about {cost:.4f}" in said
    assert f"all judges: 4 requests, cost about {cheap + dear:.4f}\n" in said
    assert "judge dear: 2 answers, 0 from the cache, 0 invalid answers, 200 tokens in and 20 out, cost 0.0026" in said
    assert "cost of all judges: 0.0027" in said  # (0.5*200 + 2*20 + 10*200 + 30*20) / 1e6

    code, _, said = label([*rows, trace("c", SUM, CHECK, SUM)], *options, models=())
    assert "judge cheap: 1 requests (2 more answered in the cache)" in said


# What must not get lost, and what must not get out


def test_an_interrupted_run_goes_on(judge_stub, label, tmp_path) -> None:
    stub = judge_stub.stub
    stub.reply = lambda seen: judge_stub.by_text(seen) if seen.number < 2 else stub.hangs()
    rows = [trace(name, SUM, CHECK) for name in "abcde"]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    arguments = ["label", source, "--by", "judges", "--judge", f"{stub.url}#m", "-o", str(target), "--yes"]
    # in a test run in the background the signal is ignored, unless somebody sets it
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"from attnpo.cli.main import main; sys.exit(main({[*arguments, '--concurrency', '1']!r}))"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while len(stub.seen) < 3 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said.splitlines()[-2:] == [
        "answers so far are kept in the cache: run the same command again to continue",
        "attnpo label: interrupted",
    ]
    assert not target.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".attnpo-judges.sqlite", "in.jsonl"]
    stub.reply = judge_stub.by_text
    code, out, said = label(rows)
    assert (code, len(stub.seen)) == (0, 3 + 3)
    assert "judge m: 3 answers, 2 from the cache" in said
    assert [labels(row) for row in out] == [[True, False]] * 5


def test_the_key_is_sent_and_never_written(judge_stub, label, tmp_path, monkeypatch) -> None:
    """Not even where the endpoint repeats it."""
    monkeypatch.setenv("SOME_KEY", KEY)
    rows = [trace("a", SUM, CHECK), trace("b", SUM, CHECK)]
    replies = [
        (judge_stub.says(json.dumps({"1": KEY, "2": "redundant"})), 0, 'not a valid answer: step 1 is "***"'),
        (judge_stub.fails(400, f"who is {KEY}?"), 0, "who is ***?"),
        (judge_stub.fails(401, f"Incorrect API key provided: {KEY}"), 1, "Incorrect API key provided: ***"),
    ]
    for bad, code, message in replies:
        judge_stub.stub.reply = lambda seen, bad=bad: bad if "problem b" in seen.prompt else judge_stub.by_text(seen)
        found, _, said = label(rows, "--api-key-env", "SOME_KEY", "--retries", "0")
        assert (found, message in said, KEY in said) == (code, True, False), said
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) == 3 - code
        assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert {seen.headers["authorization"] for seen in judge_stub.stub.seen} == {f"Bearer {KEY}"}


def test_the_cache_holds_no_text(label, tmp_path) -> None:
    label([trace("a", SUM, CHECK)])
    connection = sqlite3.connect(tmp_path / ".attnpo-judges.sqlite")
    ((key, votes),) = connection.execute("SELECT * FROM judge_answers").fetchall()
    connection.close()
    assert (len(key), votes) == (64, "ER")
    assert b"problem" not in (tmp_path / ".attnpo-judges.sqlite").read_bytes()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            (),
            {
                "model": None,
                "batch_size": 8,
                "threshold": None,
                "max_length": None,
                "lexicon": "paper",
                "origin": "auto",
            },
        ),
        (
            (
                "--model",
                "m",
                "--batch-size",
                "2",
                "--threshold",
                "0",
                "--max-length",
                "9",
                "--lexicon",
                "released",
                "--from",
                "lm-eval",
            ),
            {
                "model": "m",
                "batch_size": 2,
                "threshold": 0.0,
                "max_length": 9,
                "lexicon": "released",
                "origin": "lm-eval",
            },
        ),
    ],
)
def test_causal_labels_get_their_options(monkeypatch, capsys, options, expected) -> None:
    calls = []
    module = ModuleType("attnpo.labels.causal")

    def label_file(*args, **kwargs):
        calls.append((args, kwargs))
        return Counter({"too long": 1, "labelled": 2})

    vars(module)["label_file"] = label_file
    monkeypatch.setitem(sys.modules, "attnpo.labels.causal", module)
    assert main(["label", "in.jsonl", "--by", "causal", "-o", "out.jsonl", *options]) == 0
    assert calls == [(("in.jsonl", "out.jsonl"), {**expected, "thinking_format": "auto", "say": to_stderr})]
    assert capsys.readouterr().err == "2 traces labelled, 1 skipped (too long): out.jsonl\n"


def test_nothing_heavy_is_imported() -> None:
    script = "import sys, attnpo.cli.main as m\ntry: m.main(['label', '--help'])\nexcept SystemExit: pass\n"
    script += "heavy = {'torch', 'transformers', 'numpy', 'openai', 'yaml', 'rich', 'sqlite3'} & set(sys.modules)\n"
    script += "assert not heavy, heavy\n"
    script += "import attnpo.labels.by_judges; assert 'torch' not in sys.modules; assert 'openai' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--min-accuracy" in result.stdout
