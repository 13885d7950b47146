r"""Verdicts do not depend on which ANTLR runtime is installed: Hydra pins one under which `50\%` cannot be read."""

from __future__ import annotations

import os

import pytest

from attnpo.rewards import pool as pool_module
from attnpo.rewards.pool import ANTLR_RELEASE, ANTLR_WHEEL, VerifierPool, parser_path, worker_environment
from attnpo.rewards.verdict import Verdict


def test_installed_runtime_of_the_right_version_is_used(monkeypatch):
    monkeypatch.setattr(pool_module, "version", lambda package: ANTLR_RELEASE)
    assert parser_path() == []
    assert str(ANTLR_WHEEL) not in worker_environment()["PYTHONPATH"]


@pytest.mark.parametrize("path", ["", "/somewhere"])
def test_shipped_runtime_precedes_another_version(monkeypatch, path):
    monkeypatch.setattr(pool_module, "version", lambda package: "4.9.3")
    monkeypatch.setenv("PYTHONPATH", path)
    first, _, *others = worker_environment()["PYTHONPATH"].split(os.pathsep)
    assert first == str(ANTLR_WHEEL)
    assert others == ([path] if path else [])
    assert ANTLR_WHEEL.is_file()


@pytest.mark.parametrize("found", [ANTLR_RELEASE, "4.9.3"])
def test_percentage_is_verified_with_each_runtime(monkeypatch, found):
    monkeypatch.setattr(pool_module, "version", lambda package: found)
    with VerifierPool(1, timeout=60) as pool:
        verdicts = pool.verify([(r"\boxed{50\%}", r"50\%"), (r"\boxed{51\%}", r"50\%"), (r"\boxed{\frac12}", "0.5")])
    assert verdicts == [Verdict.RIGHT, Verdict.WRONG, Verdict.RIGHT]
