"""Runs killed with SIGKILL and resumed equal uninterrupted ones (a short call of the benchmark)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_four_killed_runs_equal_the_uninterrupted_run(repository):
    command = [sys.executable, "benchmarks/kill_runs.py", "--kills", "4", "--each", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "DIFFERENT" not in done.stdout
    assert "remaining processes: 0" in done.stdout
