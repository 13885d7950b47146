"""The statements of SECURITY.md, checked in the source and in the processes."""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnpo.errors import InputError
from attnpo.training.config import AttnPOConfig
from attnpo.training.description import environment_of
from attnpo.training.records import LOCK, locked

SOURCE = Path(__file__).resolve().parents[2] / "src" / "attnpo"
SECRETS = {"HF_TOKEN": "hf_secret", "WANDB_API_KEY": "w", "OPENAI_API_KEY": "o", "AWS_SECRET_ACCESS_KEY": "a"}
FORBIDDEN = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "torch.load", "yaml.load"}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """(file and line, dotted name, call) of every call in the source."""
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{file.relative_to(SOURCE)}:{node.lineno}", ast.unparse(node.func), node


def test_no_shell_and_nothing_that_runs_text():
    found = [where for where, name, _ in calls() if name in FORBIDDEN]
    # The sandbox runs programs, in a process that has given up everything (docs/sandbox.md).
    assert [where for where in found if not where.startswith("sandbox/")] == []
    assert [where for where, _, call in calls() if any(keyword.arg == "shell" for keyword in call.keywords)] == []
    texts = [
        where
        for where, name, call in calls()
        if name in ("subprocess.run", "subprocess.Popen") and call.args and isinstance(call.args[0], ast.JoinedStr)
    ]
    assert texts == []


def test_format_strings_are_of_the_source():
    """A template is written where it is used, or a constant; those of the built-in task come out of its own tables."""
    found = [
        f"{where} {name}"
        for where, name, call in calls()
        if name.endswith((".format", ".format_map"))
        and not where.startswith("task/")
        and isinstance(call.func, ast.Attribute)
        and not isinstance(call.func.value, ast.Constant)
        and not (isinstance(call.func.value, ast.Name) and call.func.value.id.isupper())
    ]
    assert found == []


def test_the_only_unpickler_refuses_classes():
    where = {where.partition(":")[0] for where, name, _ in calls() if "npickl" in name and name[0] != "p"}
    assert where == {"evaluation/benchmarks/code.py"}


def test_remote_code_is_off():
    from attnpo import AttnPOConfig
    from attnpo.evaluation.options import EvalOptions
    from attnpo.models.loading import Source

    assert AttnPOConfig("x", use_cpu=True).trust_remote_code is False
    assert EvalOptions.__dataclass_fields__["trust_remote_code"].default is False
    assert Source.__dataclass_fields__["trust_remote_code"].default is False


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="Linux shows the variables of a process")
def test_verifier_process_has_no_secrets_in_its_environment(monkeypatch):
    from attnpo.rewards.pool import KEPT, VerifierPool
    from attnpo.rewards.verdict import Verdict

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    with VerifierPool(1, spares=0, timeout=60) as pool:
        assert pool.verify([("\\boxed{42}", "42")]) == [Verdict.RIGHT]
        (worker,) = pool._group.live
        content = Path(f"/proc/{worker.process.pid}/environ").read_bytes()
    found = {entry.partition(b"=")[0].decode() for entry in content.split(b"\0") if entry}
    assert found <= {*KEPT, "PYTHONPATH", "OMP_NUM_THREADS"}
    assert not any(value.encode() in content for value in SECRETS.values() if len(value) > 3)
    assert os.environ["HF_TOKEN"] == "hf_secret"  # of the test itself


def test_a_packed_state_is_no_program(tmp_path):
    """A pickle in the place of a state is a damaged file, not a thing to load."""
    import pickle

    from attnpo.training.checkpoints import read_packed

    (tmp_path / "attnpo_state-00000.json").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="damaged"):
        read_packed(tmp_path / "attnpo_state-00000")


def test_credentials_of_a_command_are_not_written(tmp_path, monkeypatch):
    """The run folder is uploaded by push_to_hub, with environment.json and the lock."""
    monkeypatch.setattr(sys, "argv", ["attnpo", "train", "--hub_token", "hf_not_to_be_kept", "--seed", "3"])
    with locked(tmp_path):
        lock = (tmp_path / LOCK).read_text()
    args = AttnPOConfig(str(tmp_path), use_cpu=True)
    about = json.dumps(environment_of(args, sys.argv, {}, {}, "ours"))
    for text in (lock, about):
        assert "not_to_be_kept" not in text
        assert "--hub_token (hidden) --seed 3" in text
