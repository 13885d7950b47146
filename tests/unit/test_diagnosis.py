"""Messages about batches without a learning signal, and the end of a run after too many of them."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from attnpo.rewards.length.base import NoLengthReward
from attnpo.steps.formats import THINK, load_format
from attnpo.training.callbacks import LexiconWatch, NoSignalError, SignalWatch, WrongFormatError
from attnpo.training.diagnosis import diagnose, show_response, state_of, wrong_format
from attnpo.training.records import RunFolder
from attnpo.training.rewards import RewardSetup


def record(state: str, advantage: float = 0.0, **changes: Any) -> dict[str, Any]:
    """A response that is cut off, not closed, not judged, wrong or right."""
    answered = state not in ("cut off", "not closed")
    return {
        "prompt": "What is 12 + 30?",
        "text": "12 and 30 make 42" + ("</think>\\boxed{41}" if answered else ""),
        "reference": "42",
        "correct": state == "right",
        "truncated": state == "cut off",
        "answered": answered,
        "tokens": {"completion": 9, "answer": 3 * answered},
        "verdict": {"right": "right", "not judged": "timed_out"}.get(state, "wrong"),
        "reward": None if state == "not judged" else float(state == "right"),
        "advantage": advantage,
        **changes,
    }


def test_a_judges_verdict_is_a_verdict():
    assert state_of(record("wrong", verdict="judged_wrong")) == "wrong"
    assert state_of(record("wrong", verdict="unverifiable")) == "not judged"


CAUSES = {
    "cut off": "100% of 8 responses were cut off at max_completion_length (512 tokens)",
    "not closed": "100% of 8 responses ended without closing their thinking",
    "not judged": "100% of 8 responses could not be judged (timed_out)",
    "wrong": "100% of 8 responses are complete and judged wrong, and none is right",
    "right": "100% of 8 responses are right with the same reward",
}


@pytest.mark.parametrize("state", CAUSES)
def test_the_cause_is_named_with_its_share(state):
    assert state_of(record(state)) == state
    found = diagnose([record(state)] * 8, limit=512)
    assert found is not None
    assert (found.cause, found.share, found.without_signal) == (state, 1.0, True)
    assert found.message.startswith(CAUSES[state])
    assert found.message.endswith("No response has an advantage: the update changes nothing.")
    assert "What is 12 + 30?" in found.example
    assert "'42'" in found.example


def test_findings_with_signal():
    assert diagnose([record("right", 0.5), record("wrong", -0.5)] * 4, limit=512) is None
    assert diagnose([record("right", 0.1)] * 8, limit=512) is None  # all right, distinguished by length
    mostly = diagnose([record("cut off", -0.1)] * 9 + [record("right", 0.9)], limit=8)
    assert mostly is not None
    assert (mostly.cause, mostly.share, mostly.without_signal) == ("cut off", 0.9, False)
    assert mostly.message.startswith("90% of 10 responses were cut off")
    assert "changes nothing" not in mostly.message
    graded = diagnose([record("wrong", 0.1), record("wrong", -0.1)], limit=8)
    assert graded is not None  # signal, and yet nothing is ever right
    assert "the verifier accepts none" in graded.message


def test_always_right_and_never_quite_right_name_the_function():
    always = diagnose([record("right", 0.1, rewards={"format": 1.0})] * 32, limit=8, judge="format")
    assert always is not None
    assert always.message == "100% of 32 responses are right by format: only their lengths distinguish them."
    graded = [record("wrong", 0.1, rewards={"grade": value, "format": 1.0}) for value in (0.6, 0.1)]
    found = diagnose(graded, limit=8, judge="grade")
    assert found is not None
    assert "grade gives 0.1 to 0.6, and only 1 is right: --correct_threshold sets another value." in found.message
    assert found.message.endswith("grade decides what is right; --correct_reward names another function.")


def test_only_right_or_only_wrong_problems():
    found = diagnose([record("right")] * 4 + [record("wrong")] * 4, limit=8)
    assert found is not None
    assert found.cause == "equal"
    assert found.message.startswith("Every problem has only right or only wrong responses")


def test_no_signal_means_no_gradient():
    assert diagnose([], limit=8) is None
    tokens = [record("right", mean_token_advantage=0.01), record("wrong")]  # of a method with credit of its own
    assert diagnose(tokens, limit=8) is None
    moved = diagnose([record("wrong")] * 2, limit=8, moved=True)
    assert moved is not None
    assert not moved.without_signal


def test_a_long_response_is_shown_by_its_ends():
    text = "a" * 300 + "b" * 300
    assert f"{'a' * 200} … [100 characters] … {'b' * 300}" in show_response(record("wrong", text=text))


def test_marks_of_another_format_are_reported():
    """Also where responses without marks are answers, of which thinking and answer together may be right."""
    other = [record("not closed", text="12 and 30 make 42[/THINK]\\boxed{42}")] * 4
    assert "They look like mistral" in (wrong_format(other, THINK) or "")
    mistral = load_format("mistral")
    right = [record("right", 0.5), record("wrong", -0.5)]  # with </think>
    assert "They look like deepseek_r1" in (wrong_format(right, mistral) or "")
    cut = [record("cut off")] * 9
    assert wrong_format([*right, *cut], mistral) is not None  # truncated ones give no information
    assert wrong_format([*cut, record("not closed")], THINK) is None
    assert wrong_format(right, THINK) is None
    assert wrong_format(right, load_format("none")) is None  # so asked


def watched(
    folder, batches: list[list[dict[str, Any]]], patience: int, thinking_format: str = "deepseek_r1"
) -> tuple[str, int]:
    """The screen after these batches, and how many were taken before the end."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    args: Any = TrainingArguments(use_cpu=True)
    args.beta = 0.0
    args.patience, args.max_completion_length, args.thinking = patience, 512, "yes"
    run = RunFolder(folder, rollouts=False)
    rewards = RewardSetup([print], NoLengthReward(), 512, "accuracy")
    rewards.form = load_format(thinking_format)
    watch = SignalWatch(run, rewards, args)
    watch.console = Console(file=io.StringIO(), width=200)
    state, taken = TrainerState(), 0
    try:
        for batch in batches:
            state.global_step += 1
            run.write_rollouts(f"train-{state.global_step:06d}", batch)
            watch.on_log(args, state, TrainerControl(), logs={"loss": 0.0, "grad_norm": 0.0})
            taken += 1
    finally:
        text = watch.console.file.getvalue()  # type: ignore[attr-defined]
    return text, taken


def test_first_batch_is_reported_once(tmp_path):
    text, taken = watched(tmp_path, [[record("wrong")] * 4] * 5, patience=0)
    assert taken == 5
    assert text.count("step 1: 100% of 4 responses are complete and judged wrong") == 1
    assert "response (9 tokens, wrong)" in text
    (line,) = (tmp_path / "warnings.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 1
    good = [record("right", 0.5), record("wrong", -0.5)]
    assert watched(tmp_path / "good", [good] * 3, patience=2) == ("", 3)
    assert not (tmp_path / "good").exists()


def test_another_format_ends_a_run_after_its_first_batch(tmp_path):
    batch = [record("right", 0.5), record("wrong", -0.5)]
    with pytest.raises(WrongFormatError, match=r"They look like deepseek_r1.* --patience 0 continues"):
        watched(tmp_path / "a", [batch] * 3, patience=10, thinking_format="mistral")
    (line,) = (tmp_path / "a" / "warnings.jsonl").read_text().splitlines()
    assert json.loads(line)["message"].startswith("Stopped: none of 2 responses ends its thinking")
    text, taken = watched(tmp_path / "b", [batch] * 3, patience=0, thinking_format="mistral")
    assert (taken, text.count("They look like deepseek_r1")) == (3, 1)


def test_patience_counts_batches_in_a_row(tmp_path):
    bad, good = [record("cut off")] * 4, [record("right", 0.5), record("wrong", -0.5)]
    assert watched(tmp_path / "a", [bad, bad, good, bad, bad], patience=3)[1] == 5
    message = r"no signal in 3 batches in a row, the last of step 4\. 100% of 4 .* --patience 0 continues"
    with pytest.raises(NoSignalError, match=message):
        watched(tmp_path / "b", [good, bad, bad, bad, bad], patience=3)
    (line,) = (tmp_path / "b" / "warnings.jsonl").read_text().splitlines()
    assert json.loads(line)["message"].startswith("Stopped: no signal in 3 batches")


def test_a_run_that_learns_nothing_ends_with_code_1(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, one_pool, capfd):
    """A random model, never right: reported after the first batch, stopped after two, and shown on the page."""
    from attnpo.cli.main import main
    from attnpo.report.page import report_html

    trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    data = trainer_kit.write_problems(tmp_path / "problems.jsonl", 8)
    argv = trainer_kit.command(tmp_path / "model", data, tmp_path / "run", "--max_steps", "9", "--patience", "2")
    assert main(argv) == 1
    out, err = capfd.readouterr()
    assert "step 1: 100% of 4 responses were cut off at max_completion_length (8 tokens)" in out.replace("\n", " ")
    assert "attnpo train: no signal in 2 batches in a row, the last of step 2." in err
    assert "Traceback" not in err
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2]
    page = report_html([tmp_path / "run"])
    assert page.count('<div class="banner" role="alert">') == 1
    assert "Step 1: 100% of 4 responses were cut off" in page
    assert "Stopped: no signal in 2 batches in a row" in page
    RunFolder(tmp_path / "run").forget_after(1)
    assert "Stopped" not in (tmp_path / "run" / "warnings.jsonl").read_text()


def cut(*lengths: int, answered: bool = True) -> dict[str, Any]:
    """A record whose thinking has steps of these lengths."""
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return {
        "text": "a" * sum(lengths),
        "thinking_start": 0,
        "thinking_end": sum(lengths),
        "steps": [{"start": end - length, "end": end} for end, length in zip(ends, lengths, strict=True)],
        "tokens": {"thinking": sum(lengths)},
        "answered": answered,
    }


def test_too_few_steps_are_reported_once(tmp_path):
    """Of complete responses: one that was cut off has a large last step."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    def warnings_of(folder, *batches):
        run = RunFolder(folder, rollouts=False)
        watch = LexiconWatch(run, "paper")
        watch.console = Console(file=io.StringIO(), width=400)
        state = TrainerState()
        for batch in batches:
            state.global_step += 1
            run.write_rollouts(f"train-{state.global_step:06d}", batch)
            watch.on_log(TrainingArguments(use_cpu=True), state, TrainerControl(), logs={"loss": 0.0})
        return watch.console.file.getvalue()  # type: ignore[attr-defined]

    few, enough = [cut(90), cut(50, 50)] * 4, [cut(30, 30, 30), cut(20, 20, 20, 20), cut(99, answered=False)] * 4
    text = warnings_of(tmp_path / "few", few[:7], few, few)
    assert text.count("the lexicon paper cuts") == 1
    assert text.count("step 2: the lexicon paper cuts too few steps for credit per step to mean anything") == 1
    assert "median 1.5 per response" in text
    (line,) = (tmp_path / "few" / "warnings.jsonl").read_text().splitlines()
    assert json.loads(line)["message"].startswith("the lexicon paper")
    assert warnings_of(tmp_path / "enough", enough, few) == ""
    assert warnings_of(tmp_path / "none", [cut(99, answered=False)] * 9) == ""


def test_unclosed_thinking_is_reported_with_its_marks():
    others = [record("not closed", text="[THINK]so[/THINK] it is 42") for _ in range(8)]
    found = diagnose(others, limit=512, form=THINK)
    assert found is not None
    assert found.message.count("none of 8 responses ends its thinking: marks looked for: </think>") == 1
    assert "[/THINK] (8). They look like mistral: give thinking_format mistral" in found.message
