"""`attnpo train` on common data: GSM8K's worked answers, verl's rows in Parquet."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from attnpo.cli.main import main

GSM8K = [
    {
        "question": f"Pens cost {i} euros. How much are 7 pens?",
        "answer": f"7*{i}=<<7*{i}={7 * i}>>{7 * i}\n#### {7 * i}",
    }
    for i in range(2, 6)
]
VERL = [
    {
        "data_source": "own",
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"How much are 7 pens at {i} euros?"},
        ],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(7 * i)},
        "extra_info": {"index": i},
    }
    for i in range(2, 6)
]


@pytest.fixture
def trained(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, capsys, one_pool):
    """One step on a file of rows; returns what was said, and the rollouts."""
    from attnpo.data.jsonl import read_jsonl

    trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)

    def run(name, rows, *more):
        file = tmp_path / name
        if file.suffix == ".parquet":
            Dataset.from_list(rows).to_parquet(file)
        else:
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert main(trainer_kit.command(tmp_path / "model", file, tmp_path / "run", *more)) == 0
        said = " ".join(capsys.readouterr().out.split())
        return said, list(read_jsonl(tmp_path / "run" / "rollouts" / "train-000001.jsonl.gz"))

    return run


def test_gsm8k(trained):
    said, rollouts = trained("gsm8k.jsonl", GSM8K)
    assert "train: problem from 'question', reference from 'answer' (after ####) train: 4 problems" in said
    assert {row["reference"] for row in rollouts} <= {"14", "21", "28", "35"}


@pytest.mark.parametrize("more", [(), ("--reference_column", "extra_info.index")])
def test_verl(trained, more):
    said, rollouts = trained("verl.parquet", VERL, *more)
    column = more[1] if more else "reward_model.ground_truth"
    assert (
        "train: problem from 'prompt' (messages, with those of system before), reference from "
        f"'{column}' (as written) train: 4 problems" in said
    )
    assert {row["reference"] for row in rollouts} <= ({"2", "3", "4", "5"} if more else {"14", "21", "28", "35"})
    assert all("Be brief." in str(row["prompt"]) for row in rollouts)


def test_worked_solutions_without_a_mark(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, capsys, one_pool):
    """As words they would be compared with every answer, and every reward would be 0."""
    trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    solution = (
        "We count the seven pens one after the other, and as each one costs two euros we get fourteen euros. " * 2
    )
    file = tmp_path / "worked.jsonl"
    file.write_text(json.dumps({"problem": "How much?", "solution": solution}) + "\n")
    assert main(trainer_kit.command(tmp_path / "model", file, tmp_path / "run")) == 2
    said = capsys.readouterr().err
    assert "no reference can be read by the verifier, e.g. 'We count the seven pens" in said
    assert "A worked solution must mark its answer (\\boxed{…}, or #### … on its last line)" in said
