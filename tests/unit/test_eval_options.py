"""Options of `attnpo eval`: defaults, and what is refused before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnpo.cli.main import main
from attnpo.errors import InputError
from attnpo.evaluation.folder import EvaluationFolder
from attnpo.evaluation.options import EvalOptions
from attnpo.models.loading import find_model


def options(**given: Any) -> EvalOptions:
    return EvalOptions(**{"model": "overthinker", "benchmarks": ["task"], "output": Path("out"), **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"benchmarks": []}, "--benchmarks: found none"),
        ({"benchmarks": ["task", "task"]}, "--benchmarks: task was given twice, expected every name once"),
        ({"benchmarks": ["mathh"]}, "benchmark 'mathh': unknown, expected one of"),
        ({"samples": 0}, "--samples: found 0, expected at least 1"),
        ({"max_tokens": 0}, "--max-tokens: found 0"),
        ({"temperature": -1.0}, r"--temperature: found -1\.0"),
        ({"temperature": float("nan")}, "--temperature: found nan"),
        ({"top_p": 0.0}, r"--top-p: found 0\.0, expected a number above 0 and at most 1"),
        ({"temperature": 0.0, "samples": 4}, "--samples: found 4 at temperature 0"),
        ({"engine": "sglang"}, "--engine: found 'sglang', expected one of transformers, vllm"),
        ({"thinking": "maybe"}, "--thinking: found 'maybe', expected one of auto, yes, no"),
        ({"dtype": "int8"}, "--dtype: found 'int8'"),
        ({"temperature": float("inf")}, "--temperature: found inf"),
        ({"device": "abacus"}, "--device abacus: cannot be used: "),
    ],
)
def test_bad_values(given: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        options(**given)


def test_the_command_line_has_the_options_and_defaults_of_the_dataclass(tmp_path: Path, monkeypatch):
    from attnpo.evaluation import results, run

    given: list[EvalOptions] = []
    monkeypatch.setattr(run, "evaluate", lambda options, **_: given.append(options))
    monkeypatch.setattr(results, "print_results", lambda results: None)
    words = ["eval", "--model", "m", "--benchmarks", "task, aime24", "-o", str(tmp_path)]
    assert main(words) == 0
    more = ["--limit", "3", "--top-p", "0.5", "--budgets", "64,32", "--write", "lighteval", "--overwrite"]
    assert main([*words, *more, "--chat-template-kwargs", '{"a": 1}', "--base", "b"]) == 0
    plain = options(model="m", benchmarks=["task", "aime24"], output=tmp_path)
    changed = {"limit": 3, "top_p": 0.5, "budgets": [32, 64], "write": ["lighteval"], "overwrite": True}
    assert given == [plain, replace(plain, **changed, chat_template_kwargs={"a": 1}, base=Path("b"))]


def test_samples_per_problem():
    assert options().samples_of("aime24") == 16
    assert options(samples=3).samples_of("aime24") == 3
    assert options(temperature=0).samples_of("aime24") == 1


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("overthinker", "overthinker"),
        ("Qwen/Qwen2.5-0.5B", "Qwen2.5-0.5B"),
        ("m/q8.gguf", "q8"),
        ("runs/a/checkpoint-30", "a-checkpoint-30"),
    ],
)
def test_short_names(model: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert options(model=model).resolved({})["name"] == name
    (tmp_path / "runs/a/checkpoint-30").mkdir(parents=True)
    assert options(model=model).resolved({})["name"] == name


def test_models_by_name(tmp_path: Path):
    (tmp_path / "checkpoint-9").mkdir()
    (tmp_path / "checkpoint-30").mkdir()
    (tmp_path / "checkpoint-a").mkdir()
    with pytest.raises(InputError, match=r"has no config\.json; did you mean .*checkpoint-30\?"):
        find_model(str(tmp_path))
    with pytest.raises(InputError, match="no such folder"):
        find_model("./nothing")
    (tmp_path / "model.bin").write_text("")
    with pytest.raises(InputError, match=r"found a file, expected a folder, a \.gguf file or a name on the Hub"):
        find_model(str(tmp_path / "model.bin"))
    (tmp_path / "model.gguf").write_text("")
    assert find_model(str(tmp_path / "model.gguf")).gguf == "model.gguf"
    (tmp_path / "adapter_config.json").write_text("{}")
    assert find_model(str(tmp_path)).adapter


def test_adapter_is_merged(tmp_path: Path, new_tiny_qwen2, tiny_tokenizer):
    import torch
    from peft import LoraConfig, get_peft_model

    base = new_tiny_qwen2()
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    adapted.save_pretrained(tmp_path / "adapter")
    tiny_tokenizer.save_pretrained(tmp_path / "adapter")
    source = find_model(str(tmp_path / "adapter"))
    assert source.context() == 1024
    assert len(source.tokenizer()) == len(tiny_tokenizer)
    ids = torch.tensor([[1, 2, 3]])
    network = source.network(device="cpu", dtype="float32")
    assert not any("lora" in name for name, _ in network.named_parameters())
    with torch.no_grad():
        torch.testing.assert_close(network(ids).logits, adapted.eval()(ids).logits)


def test_vllm_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name == "vllm" else real(name, *args))
    words = ["eval", "--model", "overthinker", "--benchmarks", "task", "--limit", "1", "-o", str(tmp_path / "out")]
    assert main([*words, "--engine", "vllm"]) == 2
    assert "--engine vllm: the package vllm is not installed; pip install 'attnpo[vllm]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--chat-template-kwargs", "{"], "--chat-template-kwargs: not valid JSON"),
        (["--chat-template-kwargs", "3"], "--chat-template-kwargs: found '3', expected an object"),
        (["--budgets", "1k"], "--budgets: found '1k'"),
        (["--base", "nowhere"], "nowhere: found nothing, expected an evaluation folder"),
        (["--data-dir", "nowhere", "--benchmarks", "gsm8k"], "data folder nowhere: no such folder"),
    ],
)
def test_bad_command_lines(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    usual = ["eval", "--model", "overthinker", "--benchmarks", "task", "-o", str(tmp_path / "out")]
    assert main([*usual, *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_text_for_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["eval", "--model", "m", "--benchmarks", "task", "-o", str(tmp_path / "out"), "--temperature", "abc"])
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("usage: attnpo eval --model M")
    assert said[1:] == ["attnpo eval: error: argument --temperature: invalid float value: 'abc'"]


def test_one_process_at_a_time(tmp_path: Path):
    with (
        EvaluationFolder(tmp_path, {}),
        pytest.raises(InputError, match="another evaluation is writing to it"),
        EvaluationFolder(tmp_path, {}),
    ):
        pass
    with EvaluationFolder(tmp_path, {}):  # it was let go
        pass


def row(name: str, text: str, truncated: bool = False) -> str:
    values = {"benchmark": "task", "id": name, "sample": 0, "seed": 1, "text": text, "prompt_tokens": 5, "tokens": 9}
    values |= {"thinking_tokens": 0, "answer_tokens": 9, "truncated": truncated, "extracted": "4", "verdict": "right"}
    return json.dumps({**values, "reference": "4", "level": None}) + "\n"


def test_untagged_responses_of_a_model_that_thinks(tmp_path: Path):
    (tmp_path / "samples").mkdir()
    file = tmp_path / "samples" / "task.jsonl"
    file.write_text(row("1", "so</think>4") + row("2", "is 4 it", truncated=True) + row("3", "a</think>4"))
    with EvaluationFolder(tmp_path, {}) as files:
        assert files.settle_thinking(["task"]) == (True, 1)
        first, cut, _ = files.read(["task"])
        assert (first.verdict, first.answer_tokens) == ("right", 9)
        assert (cut.verdict, cut.extracted, cut.thinking_tokens, cut.answer_tokens) == ("no_answer", None, 9, 0)
        again = file.read_bytes()
        files.settle_thinking(["task"])
        assert file.read_bytes() == again


def test_a_tag_now_and_then_is_not_thinking(tmp_path: Path):
    (tmp_path / "samples").mkdir()
    file = tmp_path / "samples" / "task.jsonl"
    file.write_text(row("1", "write </think> in HTML") + row("2", "4") + row("3", "4"))
    before = file.read_bytes()
    with EvaluationFolder(tmp_path, {}) as files:
        assert files.settle_thinking(["task"]) == (False, 0)
    assert file.read_bytes() == before
