"""The same batch through TRL's trainer and through the ledger of the verl engine: every advantage and every record."""

from __future__ import annotations

import pytest
import torch

from attnpo.engines.verl.ledger import Ledger, Rows, grouped, judged
from attnpo.engines.verl.options import VerlOptions
from attnpo.engines.verl.wire import (
    heads_as_text,
    heads_of_text,
    nothing_to_score,
    pack_scores,
    pack_spans,
    unpack_scores,
    unpack_spans,
)
from attnpo.errors import InputError, RunError
from attnpo.steps.formats import THINK
from attnpo.steps.spans import locate_steps
from verl_batch import ORDER, rows_of

METHODS = {
    "attnpo": {"credit_delay": 0},
    "attnpo, grpo": {"credit_delay": 0, "advantage": "grpo", "credit_sharp": True, "credit_threshold": "0.5"},
    "outcome": {"credit": "outcome", "length_reward": "kimi"},
    "dr_grpo": {"credit": "outcome", "length_reward": "none", "advantage": "dr_grpo"},
    "first_correct": {"credit": "first_correct", "credit_kwargs": {"keep": 0.25}},
}


@pytest.mark.parametrize("method", METHODS)
def test_same_credit_and_records_as_trl(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, read_rollouts, method):
    kit, tokenizer, options = trainer_kit, tiny_tokenizer, METHODS[method]
    data = kit.problems(2)
    trainer = kit.make_trainer(
        kit.sharpen(tiny_qwen2), tokenizer, tmp_path / "trl", responses=kit.MIXED, data=data, **options
    )
    seen = kit.spy(trainer)
    trainer.train()
    expected = seen.rows()
    theirs = {(r["group"], r["index"]): r for r in read_rollouts(tmp_path / "trl", "train-000001")}

    given = VerlOptions.of({**options, "output_dir": str(tmp_path / "verl"), "max_completion_length": 1000})
    heads = kit.HEADS if given.credit == "attnpo" else None
    ends = [tokenizer.eos_token_id]
    ledger = Ledger(given, tokenizer, THINK, end_ids=ends, group_size=4, steps=1, heads=heads)
    rows = rows_of(kit, tokenizer, data)
    spans = ledger.locate(rows)
    scores = None
    if heads is not None:  # in verl's order, as the engine would give them back
        records = [theirs[i // 4, i % 4] for i in ORDER]
        tables = [torch.tensor([[step["score"] or 0.0 for step in record["steps"]]]) for record in records]
        counts = [len(unpack_spans(row)[0]) for row in spans]
        scores = [pack_scores(table, [count])[0] for table, count in zip(tables, counts, strict=True)]
    tokens = ledger.advantages(rows, step=1, scores=scores)
    for prompt, ids, found in zip(rows.prompts, rows.responses, tokens, strict=True):
        torch.testing.assert_close(found, expected[tuple(prompt + ids)], rtol=0, atol=1e-7)
    metrics = ledger.metrics()
    assert metrics["accuracy"] == 5 / 8
    assert metrics["seconds/credit"] > 0

    ours = {(r["group"], r["index"]): r for r in read_rollouts(tmp_path / "verl", "train-000001")}
    # Groups are numbered as they come; the first row that came is of the second problem.
    swapped = {(1 - group, index): record for (group, index), record in ours.items()}
    for place, record in theirs.items():
        mine = {**swapped[place], "group": place[0]}
        numbers = ("advantage", "mean_token_advantage", "group_accuracy", "reward", "baseline")
        for name in numbers:
            assert mine.pop(name) == (None if record[name] is None else pytest.approx(record[name], abs=1e-6)), name
        assert mine == {name: value for name, value in record.items() if name not in numbers}


def test_bytes_of_a_batch():
    """Two responses of 3 and 1 tokens to a prompt of 2: (2 + 2 + 3 + 1) ids and 4 rewards."""
    rows = Rows(["a", "a"], [0, 1], [[1, 2], [1, 2]], [[3, 4, 5], [6]], [{}, {}], [1.0, 0.0], [None, None])
    assert rows.bytes() == 8 * 8 + 4 * 4


def test_spans_and_scores_round_trip():
    assert heads_of_text(heads_as_text([(1, 3), (20, 0)])) == [(1, 3), (20, 0)]
    assert unpack_spans(nothing_to_score()) == ([], None)
    table = unpack_scores([torch.tensor([0.1, 0.2]), torch.zeros(1), torch.zeros(1)], [2, 0, 3], 3)
    assert torch.equal(table, torch.tensor([[0.1, 0.2, 0.0], [0.0] * 3, [0.0] * 3]))


def test_spans_are_those_of_the_whole_sequence(trainer_kit, tiny_tokenizer):
    response = trainer_kit.USUAL
    located = locate_steps(tiny_tokenizer, response.ids(tiny_tokenizer))
    steps, answer = unpack_spans(pack_spans(located, 7))
    assert steps == [(start + 7, end + 7) for start, end in response.spans(tiny_tokenizer)]
    expected = response.answer_span(tiny_tokenizer)
    assert answer == (expected[0] + 7, expected[1] + 7)
    for silent in (trainer_kit.SILENT, trainer_kit.ENDLESS):
        row = pack_spans(locate_steps(tiny_tokenizer, silent.ids(tiny_tokenizer)), 7)
        assert unpack_spans(row) == ([], None)


def test_a_group_without_all_its_responses():
    assert grouped(["b", "a", "b", "a"], [1, 0, 0, 1], 2) == [2, 0, 1, 3]
    with pytest.raises(RunError, match="problem a: 1 of 2 responses came back"):
        grouped(["b", "a", "b"], [0, 0, 1], 2)


def test_unverified_answer_is_not_wrong():
    assert judged(0.0, "wrong") == 0.0
    assert judged(0.0, None) == 0.0
    assert judged(0.0, "right") == 1.0
    assert judged(0.0, "timed_out") != judged(0.0, "timed_out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"credit": "shape"}, "option credit: 'shape' needs mean_segment, potential, segments"),
        ({"credit": "mrt"}, "option credit: 'mrt' needs"),
        ({"credit": "iop"}, "option credit: 'iop' needs"),
        ({"credit": "attnp"}, "option credit: found 'attnp', expected one of"),
        ({"length_reward": "l1_max"}, "option length_reward: 'l1_max' writes a length into every prompt"),
        ({"advantage": "gae"}, "option advantage: found 'gae'"),
        ({"credit_beta": -1.0}, "option credit_beta: found -1.0"),
        ({"credit_bta": 1.0}, "unknown option credit_bta; did you mean credit_beta"),
        ({"lexicon": "latin"}, "latin"),
        ({"verifier_timeout": 0.0}, "option verifier_timeout: found 0.0"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        VerlOptions.of(options)


def test_defaults_are_those_of_attnpo_train():
    from dataclasses import fields

    from attnpo import AttnPOConfig
    from attnpo.training.options import DataConfig

    trl = {f.name: f.default for part in (AttnPOConfig, DataConfig) for f in fields(part)}
    own = {"dataset_name", "resume", "output_dir", "max_completion_length"}
    ours = {f.name: f.default for f in fields(VerlOptions) if f.name not in own}
    assert {name: trl[name] for name in ours} == ours


def test_the_help_names_every_option(capsys):
    from dataclasses import fields

    from attnpo.cli.main import main

    with pytest.raises(SystemExit):
        main(["verl", "--help"])
    said = capsys.readouterr().out
    names = [f.name for f in fields(VerlOptions) if f.name != "correct_reward"]
    assert [name for name in names if f"--{name}" not in said] == []


def test_a_checkpoint_keeps_heads_and_delay(tmp_path, tiny_tokenizer):
    import json

    def ledger(**options):
        given = VerlOptions.of({"output_dir": str(tmp_path), "max_completion_length": 9000, **options})
        return Ledger(given, tiny_tokenizer, THINK, end_ids=[0], group_size=4, steps=40, heads=[(1, 2)])

    first = ledger(length_reward="laser_d", length_kwargs={"low": 4096})
    first.rewards.length.load_state({"targets": [5000, 6000, 7000], "counts": [], "next_update": 21})
    file = tmp_path / "state.json"
    file.write_text(json.dumps(first.state()), encoding="utf-8")
    second = ledger(length_reward="laser_d", length_kwargs={"low": 4096}, credit_delay=7)
    second.heads = [(0, 0)]
    second.load_state(file)
    assert second.heads == [(1, 2)]
    assert second.credit.delay == 20  # half of 40 steps, not the 7 that were asked for later
    assert second.rewards.length.state()["targets"] == [5000, 6000, 7000]
    with pytest.raises(InputError, match="begun with length_reward 'laser_d', found 'tlmre' now"):
        ledger().load_state(file)
