"""`attnpo task`, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys

from attnpo.cli.main import main
from attnpo.task.dataset import build_dataset


def test_writes_the_rows_of_build_dataset(tmp_path):
    out = tmp_path / "rows.jsonl"
    assert main(["task", "--n", "5", "--seed", "7", "--split", "test", "--difficulty", "2-3", "-o", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows == build_dataset(5, 7, "test", (2, 3))


def test_prints_without_an_output_file(capsys):
    assert main(["task", "--n", "2", "--difficulty", "5"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == build_dataset(2, 0, "train", (5, 5))


def test_a_reader_may_stop_early():
    command = f"{sys.executable} -m attnpo.cli.main task --n 2000 | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["id"] == "train-0-0"


def test_bad_input_exits_with_two(tmp_path, capsys):
    assert main(["task", "--n", "0"]) == 2
    assert "found 0, expected at least 1" in capsys.readouterr().err
    assert main(["task", "--n", "1", "--difficulty", "3-9"]) == 2
    assert "found 3-9, expected a range within 1-5" in capsys.readouterr().err
    assert main(["task", "--n", "1", "-o", str(tmp_path / "no" / "file.jsonl")]) == 2
