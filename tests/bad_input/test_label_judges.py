"""`attnpo label --by judges` with wrong input: the error is named, and nothing is sent."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from attnpo.cli.main import main

STEPS = [{"start": 0, "end": 4}, {"start": 4, "end": 8}]
GOOD = {"problem": "1+1?", "response": "One. Two.</think>2", "steps": STEPS}
JUDGE = ("--judge", "http://127.0.0.1:9/v1#m")


@pytest.fixture
def label(tmp_path, capsys):
    """label(row, …options): what is said before code 2; nothing is written."""

    def run(row, *options, judge=JUDGE, target="out.jsonl"):
        source = tmp_path / "in.jsonl"
        source.write_text(json.dumps(GOOD) + "\n" + json.dumps(row) + "\n")
        target = tmp_path / target
        command = ["label", str(source), "--by", "judges", "-o", str(target), *judge, *options]
        assert main(command) == 2
        assert not target.is_file()
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("thinking format: ")]
        assert len(said) == 1
        return said[0]

    return run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": None}, "in.jsonl, row 2: field 'problem' is null, expected text"),
        ({"response": 3}, "in.jsonl, row 2: field 'response' is a number, expected text"),
        ({"reference": 42}, "in.jsonl, row 2: field 'reference' is a number, expected text"),
        ({"steps": {}}, "in.jsonl, row 2: field 'steps' is an object, expected a list"),
        ({"steps": [3]}, "in.jsonl, row 2: steps[0] has start and end (None, None), expected 0 <= start"),
        ({"steps": [{"start": 0, "end": True}]}, "in.jsonl, row 2: steps[0] has start and end (0, True)"),
        ({"steps": [*STEPS, {"start": 7, "end": 9}]}, "in.jsonl, row 2: steps[2] has start and end (7, 9), expected 8"),
        ({"steps": [{"start": 0, "end": 10}]}, "in.jsonl, row 2: steps[0] has start and end (0, 10), expected 0 <="),
    ],
)
def test_bad_rows(label, change, message) -> None:
    assert message in label({**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "--min-accuracy: no row of"),
        ({"group_accuracy": "0.5"}, "in.jsonl, row 2: field 'group_accuracy' is '0.5', expected a share from 0 to 1"),
        ({"group_accuracy": True}, "in.jsonl, row 2: field 'group_accuracy' is True"),
        ({"group_accuracy": 75}, "in.jsonl, row 2: field 'group_accuracy' is 75"),
        ({"correct": 1}, "in.jsonl, row 2: field 'correct' is a number, expected true/false"),
    ],
)
def test_bad_accuracies(label, change, message) -> None:
    assert message in label({**GOOD, **change}, "--min-accuracy", "0.5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--quorum", "0"), "--quorum is 0, expected 1 to 1 (the number of judges)"),
        (("--quorum", "2"), "--quorum is 2, expected 1 to 1"),
        (("--retries", "-1"), "--retries is -1, expected 0 or more"),
        (("--concurrency", "0"), "--concurrency is 0, expected at least 1"),
        (("--timeout", "0"), "--timeout is 0, expected a number of seconds above 0"),
        (("--timeout", "nan"), "--timeout is nan"),
        (("--timeout", "inf"), "--timeout is inf"),
        (("--max-traces", "0"), "--max-traces is 0, expected at least 1"),
        (("--min-accuracy", "1.5"), "--min-accuracy is 1.5, expected a share from 0 to 1"),
        (("--min-accuracy", "nan"), "--min-accuracy is nan"),
        (("--model", "m"), "--model does not go with --by judges"),
        (("--batch-size", "8"), "--batch-size does not go with --by judges"),
        (("--threshold", "0"), "--threshold does not go with --by judges"),
        (("--api-key-env", "NO_SUCH_KEY"), "the environment variable NO_SUCH_KEY with its API key is not set"),
        (("--cache", "/"), "--cache /: cannot be opened"),
        (("--judge", "http://other/v1#m"), "--judge: 2 judges are called 'm'"),
    ],
)
def test_bad_options(label, monkeypatch, options, message) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert message in label(GOOD, *options)


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("http://host/v1", "found no model, expected URL#MODEL"),
        ("http://host/v1#", "found no model, expected URL#MODEL"),
        ("host/v1#m", "found 'host/v1', expected an address such as https://host/v1"),
        ("ftp://host/v1#m", "found 'ftp://host/v1'"),
        ("http://#m", "found 'http:', expected an address"),
        ("http://host:port/v1#m", "found 'http://host:port/v1'"),
        ("http://[::1/v1#m", "found 'http://[::1/v1'"),
        ("http://host/v1/chat/completions#m", "ends in /chat/completions, expected it without that"),
        ("http://me:secret@host/v1#m", "--judge http://…@host/v1#m: found a user name or password in the address"),
    ],
)
def test_bad_judges(label, judge, message) -> None:
    said = label(GOOD, judge=("--judge", judge))
    assert message in said
    assert "secret" not in said


def test_no_judge(label) -> None:
    assert "--judge: none is given, expected at least one URL#MODEL" in label(GOOD, judge=())
    assert "--api-key-env goes with --judge" in label(GOOD, "--api-key-env", "X", judge=("--judges", "x.yaml"))


def test_options_of_judges_do_not_go_with_causal(tmp_path: Path, capsys) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(GOOD) + "\n")
    command = ["label", str(source), "--by", "causal", "-o", str(tmp_path / "out.jsonl")]
    for options in (("--judge", "http://host#m"), ("--yes",), ("--max-traces", "3")):
        assert main([*command, *options]) == 2
        assert f"{options[0]} does not go with --by causal" in capsys.readouterr().err


JUDGES_FILE = "judges: [{base_url: 'http://host/v1', model: m, EXTRA}]"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("judges: [", "judges.yaml: not valid YAML"),
        ("[1, 2]", "expected one key 'judges' with a list"),
        ("judges: []", "expected one key 'judges' with a list"),
        ("judges: [m]\nother: 1", "expected one key 'judges' with a list"),
        ("judges: [m]", "judges.yaml, judge 1: expected a mapping with base_url and model, found 'm'"),
        ("judges: [{model: m}]", "judges.yaml, judge 1: base_url is missing"),
        ("judges: [{base_url: 'http://host/v1'}]", "judge 1: model is missing"),
        ("judges: [{base_url: host, model: m}]", "judge 1, base_url: found 'host', expected an address"),
        (
            JUDGES_FILE.replace("EXTRA", "api_key: sk-1"),
            "judge 1: unknown key 'api_key', expected some of name, base_url",
        ),
        (JUDGES_FILE.replace("EXTRA", "name: ''"), "judge 1: name is '', expected a text"),
        (JUDGES_FILE.replace("EXTRA", "name: null"), "judge 1: name is None, expected a text"),
        (JUDGES_FILE.replace("EXTRA", "price_in: free"), "judge 1: price_in is 'free', expected a number"),
        (JUDGES_FILE.replace("EXTRA", "price_in: -1"), "judge 1: price_in is -1"),
        (JUDGES_FILE.replace("EXTRA", "price_out: .nan"), "judge 1: price_out is nan"),
        (JUDGES_FILE.replace("EXTRA", "temperature: true"), "judge 1: temperature is True, expected a number"),
        (JUDGES_FILE.replace("EXTRA", "max_tokens: 1.5"), "judge 1: max_tokens is 1.5, expected a whole number"),
        (JUDGES_FILE.replace("EXTRA", "max_tokens: 0"), "judge 1: max_tokens is 0"),
        (JUDGES_FILE.replace("EXTRA", "extra_body: 3"), "judge 1: extra_body is 3, expected a mapping"),
        ("judges: [{base_url: 'http://a', model: m}, {base_url: 'http://b', model: m}]", "2 judges are called 'm'"),
    ],
)
def test_bad_judge_files(label, tmp_path, content, message) -> None:
    (tmp_path / "judges.yaml").write_text(content)
    assert message in label(GOOD, judge=("--judges", str(tmp_path / "judges.yaml")))


def test_bad_files(label, tmp_path, capsys) -> None:
    assert "absent.yaml: cannot be read" in label(GOOD, judge=("--judges", str(tmp_path / "absent.yaml")))
    assert "does not exist" in label(GOOD, target="absent/out.jsonl")
    (tmp_path / "cache").write_text("no data base, and longer than the hundred bytes of a header would be. " * 3)
    assert "cache: cannot be used for judges' answers" in label(GOOD, "--cache", str(tmp_path / "cache"))
    assert main(["label", str(tmp_path / "no.jsonl"), "--by", "judges", "-o", str(tmp_path / "o"), *JUDGE]) == 2
    assert "no.jsonl: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["", " ", "two words", "line\nbreak", "schlüssel"])
def test_invalid_api_key_is_not_printed(label, monkeypatch, value) -> None:
    monkeypatch.setenv("SOME_KEY", value)
    said = label(GOOD, "--api-key-env", "SOME_KEY")
    assert "judge m: the environment variable SOME_KEY" in said
    assert not value.strip() or value not in said


def test_without_the_package(label, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    assert "--by judges needs the package openai: pip install 'attnpo[judges]'" in label(GOOD, "--yes")
