"""Records of a run: rollouts, metrics, tables and event files, compared with the canned batch."""

from __future__ import annotations

import json

import pytest

KEYS = {
    "step", "split", "group", "index", "id", "prompt", "text", "reference", "verdict", "rewards", "reward", "correct",
    "advantage", "mean_token_advantage", "truncated", "answered", "tokens", "group_accuracy", "baseline",
    "thinking_start", "thinking_end", "answer_start", "answer_end", "steps",
}  # fmt: skip


@pytest.fixture
def run(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    def train(**changes):
        model = trainer_kit.sharpen(tiny_qwen2)
        changes = {"responses": trainer_kit.MIXED, **changes}
        trainer = trainer_kit.make_trainer(model, tiny_tokenizer, tmp_path, **changes)
        seen = trainer_kit.spy(trainer)
        trainer.train()
        return trainer, seen

    return train


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rollouts(run, trainer_kit, tiny_tokenizer, tmp_path, read_rollouts):
    _, seen = run()
    records = read_rollouts(tmp_path, "train-000001")
    assert [(r["group"], r["index"]) for r in records] == [(g, i) for g in range(2) for i in range(4)]
    rows = seen.rows()
    for record, response in zip(records, trainer_kit.MIXED, strict=True):
        assert set(record) == KEYS
        assert record["text"] == response.text
        assert (record["step"], record["split"], record["reference"]) == (1, "train", "42")
        assert record["id"] == f"p{record['group']}"
        assert record["truncated"] == response.truncated
        ids = response.ids(tiny_tokenizer)
        answer = response.answer_span(tiny_tokenizer)
        prompt = tiny_tokenizer(record["prompt"])["input_ids"]
        assert record["tokens"] == {
            "prompt": len(prompt),
            "completion": len(ids),
            "thinking": sum(end - start for start, end in response.spans(tiny_tokenizer)),
            "answer": 0 if answer is None else answer[1] - answer[0],
        }
        assert record["thinking_start"] == 0
        assert record["thinking_end"] == sum(map(len, response.steps))
        answer_start = None if response.answer is None else record["thinking_end"] + len("</think>")
        assert (record["answer_start"], record["answer_end"]) == (answer_start, None)
        assert [record["text"][s["start"] : s["end"]] for s in record["steps"]] == list(response.steps)
        assert [s["tokens"] for s in record["steps"]] == [b - a for a, b in response.spans(tiny_tokenizer)]
        # What is recorded is what the loss was given.
        tokens = rows[tuple(prompt + ids)]
        assert record["mean_token_advantage"] == pytest.approx(tokens.mean().item(), abs=1e-6)
        for step, (start, end) in zip(record["steps"], response.spans(tiny_tokenizer), strict=True):
            assert tokens[start:end].tolist() == pytest.approx(
                [step["scale"] * record["advantage"]] * (end - start), abs=1e-6
            )
            assert (step["score"] is None) == (response.answer in (None, ""))
        right = response.answer == trainer_kit.RIGHT
        assert record["correct"] == right
        assert (record["baseline"] is not None) == right
        assert record["reward"] == pytest.approx(sum(record["rewards"].values()))
        assert set(record["rewards"]) == {"accuracy", "length"}


def test_metrics_by_hand(run, trainer_kit, tmp_path, read_rollouts):
    run()
    (line,) = metrics(tmp_path)
    records = read_rollouts(tmp_path, "train-000001")
    steps = [(step["scale"], r["advantage"]) for r in records for step in r["steps"]]
    assert len(steps) == 4 + 2 + 3 + 2 + 3 + 2 + 3 + 2
    assert line["steps/per_response"] == len(steps) / 8
    assert line["steps/attenuated"] == pytest.approx(sum(a > 0 and s < 1 for s, a in steps) / len(steps))
    assert line["steps/protected"] == pytest.approx(sum(a < 0 and s < 1 for s, a in steps) / len(steps))
    assert line["steps/mean_scale"] == pytest.approx(sum(s for s, _ in steps) / len(steps))
    assert line["steps/attenuated"] > 0
    assert line["steps/protected"] > 0
    lengths = [r["tokens"]["completion"] for r in records]
    assert line["length/completion"] == pytest.approx(sum(lengths) / 8)
    assert line["truncated"] == 1 / 8
    assert line["accuracy"] == 5 / 8
    # Wait: once in LONG, USUAL (twice) and ENDLESS; Alternatively: LONG, FALSE, ENDLESS.
    thinking = sum(r["tokens"]["thinking"] for r in records)
    assert line["phrases/transition_per_1k"] == pytest.approx(1000 * 4 / thinking)
    assert line["phrases/branch_per_1k"] == pytest.approx(1000 * 3 / thinking)
    for phase in ("rollout", "verify", "credit", "update"):
        assert line[f"seconds/{phase}"] > 0
    for phase in ("rollout", "update"):
        assert line[f"tokens_per_second/{phase}"] == pytest.approx(sum(lengths) / line[f"seconds/{phase}"])
    assert {"step", "seconds", "loss", "reward", "learning_rate", "grad_norm", "entropy"} <= set(line)


def test_seconds_add_up(tmp_path, monkeypatch):
    """The seconds of a line are those since the line before, without evaluations."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from attnpo.training import callbacks
    from attnpo.training.records import RunFolder

    clock = iter([0.0, 10.0, 12.5, 20.0, 24.0])  # made, training begins, line, evaluation over, line
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: next(clock))
    written, args = callbacks.MetricsFile(RunFolder(tmp_path)), TrainingArguments(use_cpu=True)
    state, control = TrainerState(is_world_process_zero=True), TrainerControl()
    written.on_train_begin(args, state, control)
    for state.global_step in (1, 2):
        written.on_log(args, state, control, logs={"loss": 0.0})
        if state.global_step == 1:
            written.on_evaluate(args, state, control)
    assert [line["seconds"] for line in metrics(tmp_path)] == [2.5, 4.0]


def test_several_generation_batches_in_one_step(run, trainer_kit, tmp_path, read_rollouts):
    """Two batches of eight responses for one update: one file, one line, counts of both."""
    run(gradient_accumulation_steps=2, steps_per_generation=1, max_steps=2)
    for step in (1, 2):
        records = read_rollouts(tmp_path, f"train-{step:06d}")
        assert len(records) == 16
        assert sorted({r["group"] for r in records}) == [0, 1, 2, 3]
        assert all("mean_token_advantage" in r for r in records)
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2]


def test_several_updates_of_one_generation(run, tmp_path):
    """The rollouts of a generation belong to its first step; a line is written for every step."""
    run(num_iterations=2, max_steps=4)
    assert sorted(f.name[:12] for f in (tmp_path / "rollouts").iterdir()) == ["train-000001", "train-000003"]
    assert [("accuracy" in line, line["step"]) for line in metrics(tmp_path)] == [
        (True, 1),
        (False, 2),
        (True, 3),
        (False, 4),
    ]


def test_rarer_logging_keeps_every_rollout(run, tmp_path):
    run(max_steps=3, logging_steps=2)
    assert sorted(f.name[:12] for f in (tmp_path / "rollouts").iterdir()) == [
        "train-000001",
        "train-000002",
        "train-000003",
    ]


def test_rollouts_can_be_left_out(run, tmp_path):
    run(record_rollouts=False)
    assert not (tmp_path / "rollouts").exists()
    assert metrics(tmp_path)[0]["accuracy"] == 5 / 8


def test_trl_table_shows_the_rescaled_advantages(run, tmp_path, read_rollouts):
    import pandas

    run(log_completions=True, num_completions_to_print=1)
    (file,) = (tmp_path / "completions").glob("*.parquet")
    table = pandas.read_parquet(file)
    records = read_rollouts(tmp_path, "train-000001")
    assert table["advantage"].tolist() == pytest.approx([r["mean_token_advantage"] for r in records])
    assert table["length"].tolist() == pytest.approx([r["rewards"]["length"] for r in records])


def test_tensorboard(run, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    run(report_to="tensorboard")
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    for tag in ("train/accuracy", "train/length/completion", "train/steps/mean_scale"):
        assert [event.step for event in events.Scalars(tag)] == [1]


def test_a_line_cut_off_by_a_kill_is_forgotten(tmp_path):
    from attnpo.training.records import RunFolder

    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.append("metrics.jsonl", {"step": step})
        folder.write_rollouts(f"train-{step:06d}", [])
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    folder.forget_after(2)
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2]
    assert len(list((tmp_path / "rollouts").iterdir())) == 2


def test_evaluation_records(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, read_rollouts):
    kit = trainer_kit
    trainer = kit.make_trainer(
        kit.sharpen(tiny_qwen2), tiny_tokenizer, tmp_path, responses=[kit.USUAL, kit.FALSE, kit.SILENT],
        eval_data=kit.problems(3), eval_examples=2,
    )  # fmt: skip
    trainer.evaluate()
    (line,) = [json.loads(text) for text in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert line["step"] == 0
    assert line["n"] == 3
    assert line["confidence"] == 0.95
    assert line["accuracy"] == pytest.approx(1 / 3)
    assert line["accuracy_low"] < 1 / 3 < line["accuracy_high"]
    assert line["length/completion_low"] < line["length/completion"] < line["length/completion_high"]
    records = read_rollouts(tmp_path, "eval-000000")
    assert {r["split"] for r in records} == {"eval"}
    scored = [all(s["score"] is not None for s in r["steps"]) for r in records]
    assert scored == [True, True, False]
