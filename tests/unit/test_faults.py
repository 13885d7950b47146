"""Faults around a run: one test per row of docs/runs.md, here or in the test that the row names."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback
from trl.extras import profiling
from trl.trainer import grpo_trainer

from attnpo.errors import InputError, StoppedError
from attnpo.rewards.verdict import Verdict
from attnpo.training.callbacks import GradientGuard, NotFiniteError
from attnpo.training.records import RunFolder
from attnpo.training.reward_guard import RewardError, RewardInputError, without_infinite
from attnpo.training.stopping import StepAbandoned, StopOnInterrupt
from trainer_kit import problems


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    return [{k: v for k, v in row.items() if "second" not in k and k != "step_time"} for row in rows(folder)]


@pytest.fixture
def run(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """A trainer of really sampled responses, rewarded for e's."""
    at = str(trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer))

    def rewarded(completions: list[Any], **kwargs: Any) -> list[float]:
        return [float("e" in text) for text in completions]

    def build(name: str = "run", reward: Any = rewarded, **changes: Any):
        options = {"max_steps": 3, "max_completion_length": 24, "save_strategy": "steps", "save_steps": 1}
        return trainer_kit.make_trainer(at, tiny_tokenizer, tmp_path / name, reward=reward, **{**options, **changes})

    return build


def under_deepspeed(trainer: Any) -> Any:
    """Give the arguments what `accelerate launch` gives them: a plugin, and no `deepspeed`."""
    assert trainer.args.deepspeed is None
    trainer.args.deepspeed_plugin = object()
    return trainer


def assert_resumes_as(whole: Any, again: Any, folder: Path) -> None:
    """Resumed in `parts`, `again` gives the metrics and weights of the run without the fault, in `whole`."""
    again.train(resume_from_checkpoint=True)
    assert lines(folder / "parts") == lines(folder / "whole")
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, again.model.state_dict()[name]), name


# ---------------------------------------------------------------- the verifier


def test_a_verifier_killed_from_outside_costs_no_verdict(session_pool):
    """Also one that is killed while it starts."""
    for _ in range(2):
        for worker in list(session_pool._group.live):
            os.kill(worker.process.pid, signal.SIGKILL)
        assert session_pool.verify([("\\boxed{42}", "42"), ("\\boxed{41}", "42")]) == [Verdict.RIGHT, Verdict.WRONG]


# ---------------------------------------------------------------- reward functions


def test_raising_reward_function_ends_the_run_with_a_checkpoint(run, tmp_path):
    """The state before the step is saved, so that the resumed run equals one without the fault."""
    whole = run("whole", num_iterations=2, max_steps=4)
    whole.train()

    calls: list[int] = []

    def fails(completions: list[Any], **kwargs: Any) -> list[float]:
        calls.append(1)
        if len(calls) == 2:
            torch.rand(1)
            raise ConnectionError("the judge is away")
        return [float("e" in text) for text in completions]

    fails.__name__ = "rewarded"
    trainer = run("parts", fails, num_iterations=2, max_steps=4, save_strategy="no")
    message = r"step 3: the reward function 'rewarded' failed: ConnectionError: the judge is away\. .*/checkpoint-2"
    with pytest.raises(RewardError, match=message):
        trainer.train()
    again = run("parts", num_iterations=2, max_steps=4, save_strategy="no")
    assert_resumes_as(whole, again, tmp_path)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([1.0] * 7, "gave 7 rewards, expected 8"),
        (None, "gave NoneType, expected a list of 8 numbers or None"),
        (["good"] * 8, "gave 'good' for response 0, expected a number or None"),
        ([[1.0]] * 8, r"gave \[1.0\] for response 0"),
    ],
)
@pytest.mark.parametrize("waits", [False, True])
def test_invalid_rewards_are_named(given, found, waits, run):
    def odd(completions: list[Any], **kwargs: Any) -> Any:
        return given

    async def odd_later(completions: list[Any], **kwargs: Any) -> Any:
        return given

    with pytest.raises(InputError, match=f"reward_funcs: 'odd(_later)?' {found}"):
        run(reward=odd_later if waits else odd).train()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), None])
def test_a_reward_that_is_no_number_is_missing_and_its_group_goes_on(value, run, tmp_path, read_rollouts, capsys):
    """Two groups of four; the first response has the odd reward. The others are compared with each other."""

    def odd(completions: list[Any], **kwargs: Any) -> list[Any]:
        return [value, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]

    run(reward=odd, credit="outcome", length_reward="none", max_steps=2).train()
    records = read_rollouts(tmp_path / "run", "train-000001")
    # RLOO over 1, 0, 0: 1 - 0 and 0 - 1/2.
    assert [record["advantage"] for record in records[:4]] == pytest.approx([0.0, 1.0, -0.5, -0.5])
    assert records[0]["reward"] is None
    (first, _) = rows(tmp_path / "run")
    infinite = value in (float("inf"), float("-inf"))
    assert first.get("rewards/odd/infinite") == (1.0 if infinite else None)
    assert capsys.readouterr().err.count("gave 1 infinite rewards; they count as missing") == int(infinite)


def test_infinite_rewards_by_hand():
    rewards = torch.tensor([[1.0, torch.inf], [torch.nan, -torch.inf], [-torch.inf, 2.0]])
    kept, counts = without_infinite(rewards)
    assert counts == [1, 2]
    assert kept.nan_to_num(nan=9.0).tolist() == [[1.0, 9.0], [9.0, 9.0], [9.0, 2.0]]


# ---------------------------------------------------------------- reward functions in a stage

CONTINUED: dict[str, Any] = {"credit_kwargs": {"rollouts": 2, "segments": 3, "rollout_tokens": 4}}
STAGES: dict[str, dict[str, Any]] = {
    "mrt": CONTINUED,
    "shape": CONTINUED,
    "iop": {
        # 3 candidates: never as many as there are responses
        "credit_kwargs": {"candidates": 3, "max_new_tokens": 24, "prompt": "brief", "audit": "none"},
        "length_reward": "none",
        "importance_sampling_level": "sequence",
        "loss_type": "grpo",
    },
}


@pytest.fixture
def staged(run):
    """A run with `fault` applied to the rewards of what a stage asks about, from step `first` on."""

    def build(name: str, fault: Any, credit: str = "shape", first: int = 1, **changes: Any):
        def rewarded(completions: list[Any], **kwargs: Any) -> Any:
            rewards = [float("e" in text) for text in completions]
            of_responses = len(completions) == 8
            return rewards if of_responses or trainer.state.global_step + 1 < first else fault(rewards)

        trainer = run(name, rewarded, credit=credit, **{**STAGES[credit], **changes})
        return trainer

    return build


@pytest.mark.parametrize("credit", STAGES)
def test_raising_in_a_stage_ends_the_run_with_a_checkpoint(credit, staged, tmp_path):
    """Of the state before the step: the resumed run equals one without the fault."""

    def fails(rewards: list[float]) -> list[float]:
        torch.rand(1)
        raise ConnectionError("the judge is away")

    whole = staged("whole", list, credit, save_strategy="no")
    whole.train()
    trainer = staged("parts", fails, credit, 2, save_strategy="no")
    message = r"step 2: the reward function 'rewarded' failed: ConnectionError: the judge is away\. .*/checkpoint-1$"
    with pytest.raises(RewardError, match=message):
        trainer.train()
    again = staged("parts", list, credit, save_strategy="no")
    assert_resumes_as(whole, again, tmp_path)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (lambda rewards: rewards[1:], r"gave \d+ rewards, expected \d+, one per response"),
        (lambda rewards: None, r"gave NoneType, expected a list of \d+ numbers or None"),
        (lambda rewards: ["good", *rewards[1:]], "gave 'good' for response 0, expected a number or None"),
        (lambda rewards: [2.0, *rewards[1:]], "which decides whether a response is right, gave 2; expected at most 1"),
    ],
)
def test_invalid_rewards_in_a_stage_are_named(given, found, staged, tmp_path):
    with pytest.raises(RewardInputError, match=rf"step 1: reward_funcs: 'rewarded'.* {found}.*/checkpoint-0$"):
        staged("run", given).train()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), None])
def test_a_reward_that_is_no_number_is_missing_in_a_stage(value, staged, tmp_path, capsys):
    """Two rewards of each step: the run is the one where they are None, but for their count."""
    staged("none", lambda rewards: [None, *rewards[1:-1], None], max_steps=2).train()
    staged("run", lambda rewards: [value, *rewards[1:-1], value], max_steps=2).train()
    found, expected = lines(tmp_path / "run"), lines(tmp_path / "none")
    infinite = value in (float("inf"), float("-inf"))
    assert [row.pop("rewards/rewarded/infinite", None) for row in found[:2]] == [2.0 if infinite else None] * 2
    assert found == expected
    assert capsys.readouterr().err.count("gave 2 infinite rewards; they count as missing") == int(infinite)


@pytest.mark.parametrize("credit", ["shape", "iop"])
def test_async_function_judges_as_its_sync_twin_in_a_stage(credit, run, tmp_path):
    def rewarded(completions: list[Any], **kwargs: Any) -> list[float]:
        return [float("e" in text) for text in completions]

    async def later(completions: list[Any], **kwargs: Any) -> list[float]:
        await asyncio.sleep(0)
        return rewarded(completions)

    later.__name__ = "rewarded"
    run("now", rewarded, credit=credit, max_steps=2, **STAGES[credit]).train()
    run("later", later, credit=credit, max_steps=2, **STAGES[credit]).train()
    assert lines(tmp_path / "now") == lines(tmp_path / "later")
    of_stage = "potential/mean" if credit == "shape" else "repair/verified"
    assert lines(tmp_path / "now")[0][of_stage] > 0


def test_a_stage_gives_a_function_what_the_trainer_gives_it(run, tmp_path):
    """Also a column called completion_ids. What is logged about continuations is not mixed into the responses'."""
    seen: list[tuple[int, set[str], int]] = []

    def rewarded(completions, log_metric, log_extra, trainer_state, **kwargs):
        log_metric("asked", len(completions))
        log_extra("text", completions)
        seen.append((len(completions), set(kwargs), trainer_state.global_step))
        return [float("e" in text) for text in completions]

    trainer = run(reward=rewarded, data=problems(8, completion_ids=[1]), credit="shape", max_steps=2, **CONTINUED)
    trainer.train()
    assert [count == 8 for count, _, _ in seen] == [True, False] * 2
    assert len({frozenset(given) for _, given, _ in seen}) == 1
    assert [step for _, _, step in seen] == [0, 0, 1, 1]
    assert [row["asked"] for row in rows(tmp_path / "run")[:2]] == [8.0, 8.0]
    assert len(trainer._logs["extra"]["text"]) == len(trainer._logs["prompt"])


# ---------------------------------------------------------------- SIGTERM


@pytest.mark.parametrize("at", [0, 1, 2])
def test_abandoned_step_has_no_effect(at, run, tmp_path):
    """SIGTERM within a long step: abandoned after a third of the notice, the state before it saved, and the resumed run
    is the undisturbed one. In the first step, between two updates on the same responses, and before new ones."""
    options: dict[str, Any] = {"num_iterations": 2, "max_steps": 6, "save_strategy": "no", "logging_steps": 2}
    whole = run("whole", **options)
    whole.train()
    trainer = run("parts", **options)
    stop = StopOnInterrupt(notice=0.3)
    inner = trainer._compute_loss

    def slow(model: Any, inputs: Any) -> Any:
        if trainer.state.global_step == at:
            torch.rand(3)
            signal.raise_signal(signal.SIGTERM)
            threading.Event().wait(30)
        return inner(model, inputs)

    trainer._compute_loss = slow
    trainer.add_callback(stop)
    with stop.watching(), pytest.raises(StepAbandoned):
        trainer.train()
    assert trainer.save_checkpoint() == tmp_path / "parts" / f"checkpoint-{at}"
    again = run("parts", **options)
    assert_resumes_as(whole, again, tmp_path)


def test_optimiser_step_is_completed_before_stopping(run, tmp_path):
    """The notice is over within the optimiser's step: it is finished, and the step with it."""
    trainer = run(save_strategy="no")
    stop = StopOnInterrupt(notice=0.1)

    class Slow(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            signal.raise_signal(signal.SIGTERM)
            threading.Event().wait(0.3)

    trainer.add_callback(stop)
    trainer.add_callback(Slow())
    trainer.train()
    assert stop.terminated
    assert trainer.state.global_step == 1
    assert (tmp_path / "run" / "checkpoint-1" / "trainer_state.json").is_file()


def test_a_step_is_completed_under_deepspeed(run, tmp_path):
    """It may have made its update by the time the notice is over."""
    trainer = under_deepspeed(run(save_strategy="no"))
    stop = StopOnInterrupt(notice=0.1)
    inner = trainer._compute_loss

    def slow(model: Any, inputs: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        threading.Event().wait(0.3)
        return inner(model, inputs)

    trainer._compute_loss = slow
    trainer.add_callback(stop)
    try:
        trainer.train()
    except StepAbandoned:  # would end pytest, as Ctrl-C does
        pytest.fail("abandoned")
    assert stop.terminated
    assert trainer.state.global_step == 1
    assert (tmp_path / "run" / "checkpoint-1" / "trainer_state.json").is_file()


@pytest.mark.parametrize("during", ["search for heads", "what precedes the first step"])
def test_sigterm_before_the_first_step(
    during, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, monkeypatch, one_pool, capfd
):
    """Exit code 75, said in a line; and the same command begins again. The search has sampled and verified a batch."""
    from attnpo.cli.main import main
    from attnpo.training import own_heads

    model = trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    data = trainer_kit.write_problems(tmp_path / "problems.jsonl")
    command = trainer_kit.command(model, data, tmp_path / "run", "--resume_from_checkpoint", "auto")
    searching = during == "search for heads"
    if searching:
        (model / "heads.json").unlink()
    respond, responses = own_heads._respond, []

    def stopped(*args: Any) -> Any:
        responses.extend(respond(*args))
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        if searching:
            patch.setattr(own_heads, "_respond", stopped)
        else:
            patch.setattr("attnpo.training.run.run_steps", lambda *args: signal.raise_signal(signal.SIGTERM))
        assert main(command) == 75
    assert bool(responses) == searching
    said = capfd.readouterr().err
    assert "attnpo train: stopped by SIGTERM outside of training" in said
    assert "--resume_from_checkpoint auto resumes" in said
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    # The random model answers nothing, so its search cannot succeed.
    monkeypatch.setattr("attnpo.training.trainer.find_own_heads", lambda *args: trainer_kit.HEADS)
    assert main(command) == 0
    assert len(rows(tmp_path / "run")) == 1


def test_second_sigterm_is_ignored(run, tmp_path):
    """Launchers forward a SIGTERM that the scheduler has already sent to all processes."""
    trainer = run(save_strategy="no")
    stop = StopOnInterrupt(notice=60)

    class Twice(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    trainer.add_callback(stop)
    trainer.add_callback(Twice())
    trainer.train()
    assert stop.terminated
    assert (tmp_path / "run" / "checkpoint-1" / "trainer_state.json").is_file()


def test_auto_does_not_touch_a_finished_run(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, one_pool, capfd):
    from attnpo.cli.main import main

    model = trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    data = trainer_kit.write_problems(tmp_path / "problems.jsonl")
    more = ("--resume_from_checkpoint", "auto", "--save_strategy", "no")
    command = trainer_kit.command(model, data, tmp_path / "run", *more)
    assert main(command) == 0
    before = rows(tmp_path / "run")
    assert main(command) == 2
    assert "has a trained model and no checkpoint" in capfd.readouterr().err
    assert rows(tmp_path / "run") == before


def test_signal_handlers_are_restored():
    stop, before = StopOnInterrupt(), signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError), stop.watching():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


# ---------------------------------------------------------------- trackers


class Away(TrainerCallback):
    """A tracker whose server does not answer, from some call on."""

    def __init__(self) -> None:
        self._initialized = True
        self.calls = 0

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.calls += 1
        if self.calls > 1:
            raise ConnectionError("no route to host")


def test_failing_tracker_is_reported_and_ignored(run, tmp_path, monkeypatch, capsys):
    from attnpo.training import trackers

    away = Away()
    monkeypatch.setattr(trackers, "INTEGRATION_TO_CALLBACK", {"away": Away})
    trainer = run(max_steps=6, save_strategy="no", trainer_options={"callbacks": [away]})
    with trackers.open_to_the_end(trainer):
        trainer.train()
    assert away.calls == 1 + trackers.FAILURES
    assert len(rows(tmp_path / "run")) == 6
    said = capsys.readouterr().err
    assert said.count("the tracker Away failed (ConnectionError: no route to host)") == 2
    assert "the run continues" in said
    assert "3 times in a row: nothing more is sent to it" in said
    assert len(rows(tmp_path / "run", "warnings.jsonl")) >= 2


class Open(TrainerCallback):
    """A tracker's callback; `opens`: whether its server answers."""

    def __init__(self, opens: bool = True) -> None:
        self._initialized, self.opens = False, opens
        self.logged = 0

    def setup(self, *args: Any) -> None:
        if not self.opens:
            raise ConnectionError("no route to host")
        self._initialized = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.setup()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.logged += 1


@pytest.fixture
def tracked(run, monkeypatch):
    """A trainer that sends to a tracker by TRL's own calls: `log(values)`, where it is given, and a table's maker."""
    from attnpo.training import trackers

    def build(callback: Any, *, log: Any, table: Any = dict, **changes: Any) -> Any:
        package = SimpleNamespace(log=lambda values, step=None: log(values), Table=table)
        monkeypatch.setattr(trackers, "INTEGRATION_TO_CALLBACK", {"trackio": type(callback)})
        for module in (grpo_trainer, profiling):
            monkeypatch.setattr(module, "trackio", package)
        options = {"save_strategy": "no", "log_completions": True, "num_completions_to_print": 1, **changes}
        trainer = run(**options, trainer_options={"callbacks": [callback]})
        trainer.args.report_to = ["trackio"]  # with the package's own callback it would be made from this name
        return trainer

    return build


def test_durations_and_tables_are_sent(tracked):
    sent: list[dict[str, Any]] = []
    tracked(Open(), log=sent.append, max_steps=2).train()
    tables = [values["completions"]["dataframe"] for values in sent if "completions" in values]
    assert [len(table) for table in tables] == [8, 8, 8]  # again with the summary at the end
    assert any("profiling/Time taken: AttnPOTrainer.transformers.generate" in values for values in sent)


@pytest.mark.parametrize("fails", ["log", "table"])
def test_failing_table_of_completions_is_reported_and_given_up(fails, tracked, tmp_path, capsys):
    """What TRL sends itself; after the third failure the tracker gets nothing more, also by its callback."""
    tries: list[str] = []
    sent: list[dict[str, Any]] = []

    def log(values: dict[str, Any]) -> None:
        sent.append(values)
        if "completions" in values:
            away()

    def away(**kwargs: Any) -> Any:
        tries.append("")
        raise ConnectionError("no route to host")

    callback = Open()
    trainer = tracked(callback, log=log, table=away if fails == "table" else dict, max_steps=5)
    packages = vars(grpo_trainer)["trackio"], vars(profiling)["trackio"]
    trainer.train()
    assert len(tries) == callback.logged == 3
    assert len(rows(tmp_path / "run")) == 5
    generated = [values for values in sent if any("transformers.generate" in name for name in values)]
    assert len(generated) == 3
    said = capsys.readouterr().err
    assert said.count("the tracker Open failed (ConnectionError: no route to host)") == 2
    assert "3 times in a row: nothing more is sent to it" in said
    assert packages == (vars(grpo_trainer)["trackio"], vars(profiling)["trackio"])


def test_nothing_is_sent_to_a_tracker_that_could_not_be_opened(tracked, tmp_path, capsys):
    """TRL sends to trackio without asking, and trackio raises where it is not open."""

    def not_open(values: dict[str, Any]) -> None:
        raise AssertionError("sent all the same")

    tracked(Open(opens=False), log=not_open).train()
    assert len(rows(tmp_path / "run")) == 3
    said = capsys.readouterr().err
    assert said.count("the tracker Open failed") == 1
    assert "no route to host" in said


def test_nothing_is_sent_during_the_search_for_heads(tracked, trainer_kit, tmp_path, monkeypatch, capsys):
    """It precedes the opening of the trackers, and it samples."""

    def not_open(values: dict[str, Any]) -> None:
        assert callback._initialized

    def find(*args: Any) -> list[tuple[int, int]]:
        with profiling.profiling_context(trainer, "transformers.generate"):
            return trainer_kit.HEADS

    callback = Open()
    trainer = tracked(callback, log=not_open, max_steps=1)
    trainer.heads = None
    monkeypatch.setattr("attnpo.training.trainer.find_own_heads", find)
    trainer.find_heads()
    assert trainer.heads == trainer_kit.HEADS
    trainer.heads = None
    trainer.train()
    assert callback.logged
    assert "the tracker" not in capsys.readouterr().err


# ---------------------------------------------------------------- numbers that are not finite


def breaking(trainer: Any, steps: set[int], what: str) -> Any:
    inner = trainer._compute_loss

    def broken(model: Any, inputs: Any) -> Any:
        loss = inner(model, inputs)
        if trainer.state.global_step + 1 not in steps:
            return loss
        if what == "loss":
            return loss * torch.nan
        loss.register_hook(lambda gradient: gradient * torch.inf)
        return loss + 0 * next(model.parameters()).sum()

    trainer._compute_loss = broken
    return trainer


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_non_finite_update_is_skipped(what, run, tmp_path, capsys):
    trainer = breaking(run(max_steps=4, save_steps=1), {2, 4}, what)
    trainer.train()
    assert [row.get("updates/skipped") for row in rows(tmp_path / "run")] == [None, 1.0, None, 1.0]
    weights = [torch.load(tmp_path / "run" / f"checkpoint-{n}" / "optimizer.pt")["state"] for n in (1, 2)]
    assert all(torch.equal(weights[0][i]["exp_avg"], weights[1][i]["exp_avg"]) for i in weights[0])
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())
    said = "the loss is nan" if what == "loss" else "a gradient is not finite"
    assert f"step 2: {said}: the update is skipped (1 of 5 in a row, which end the run)" in capsys.readouterr().err
    assert len([row for row in rows(tmp_path / "run", "warnings.jsonl") if "is skipped" in row["message"]]) == 2


def test_too_many_non_finite_updates_end_the_run(run, tmp_path):
    trainer = breaking(run(max_steps=6, max_skipped=3), {2, 3, 4}, "loss")
    before = {name: weights.clone() for name, weights in trainer.model.state_dict().items()}
    with pytest.raises(NotFiniteError, match=r"step 4: the loss is nan, as in 3 updates in a row\. .*/checkpoint-3"):
        trainer.train()
    assert any(not torch.equal(weights, before[name]) for name, weights in trainer.model.state_dict().items())
    assert all(torch.isfinite(weights).all() for weights in trainer.model.state_dict().values())


def test_under_deepspeed_the_first_loss_that_is_not_finite_ends_the_run(run, tmp_path, capsys):
    """Its update may have been made: nothing is said to be skipped, and no checkpoint of these weights is saved."""
    trainer = breaking(under_deepspeed(run()), {2}, "loss")
    last = str(tmp_path / "run" / "checkpoint-1")
    with pytest.raises(NotFiniteError, match=rf"^step 2: the loss is nan\. The last complete checkpoint is {last}$"):
        trainer.train()
    assert "is skipped" not in capsys.readouterr().err

    (tmp_path / "run" / "checkpoint-1" / "trainer_state.json").unlink()
    trainer = breaking(under_deepspeed(run(save_strategy="no")), {1}, "loss")
    with pytest.raises(NotFiniteError, match=rf"^step 1: the loss is nan\. {tmp_path}/run has no complete checkpoint$"):
        trainer.train()


def test_under_deepspeed_a_raising_reward_function_names_the_last_checkpoint(run, tmp_path):
    def fails(completions: list[Any], **kwargs: Any) -> list[float]:
        if trainer.state.global_step:
            raise ConnectionError("the judge is away")
        return [float("e" in text) for text in completions]

    trainer = under_deepspeed(run(reward=fails))
    with pytest.raises(RewardError, match=rf"the judge is away\. The last complete .* is {tmp_path}/run/checkpoint-1$"):
        trainer.train()


def test_non_finite_losses_end_the_run_under_fp16(run, tmp_path):
    """Set once the trainer is built: Accelerate takes fp16 for accelerators alone."""
    trainer = breaking(run(max_steps=6, max_skipped=3), {2, 3, 4}, "loss")
    trainer.args.fp16 = True
    with pytest.raises(NotFiniteError, match=r"step 4: the loss is nan, as in 3 updates in a row\. .*/checkpoint-3"):
        trainer.train()
    assert [row.get("updates/skipped") for row in rows(tmp_path / "run")] == [None, 1.0, 1.0]


@pytest.mark.parametrize(
    ("loss", "gradient", "counted"),
    [
        (None, 1.0, 0),
        (None, float("inf"), 0),  # the scaler is looking for its scale
        (float("nan"), float("nan"), 1),
        (float("nan"), 1.0, 1),  # as where the loss of another micro-batch alone has them
    ],
)
def test_guard_and_gradient_scaler(loss, gradient, counted, tmp_path):
    """As Accelerate calls the scaler under fp16. Weights change where loss and gradient are finite, and there only."""
    model = torch.nn.Linear(1, 1)
    before = model.weight.clone()
    optimizer, scaler = torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu")
    scaler.scale((model.weight * gradient).sum()).backward()
    scaler.unscale_(optimizer)
    guard = GradientGuard(RunFolder(tmp_path), limit=5)
    guard.bad_loss, guard.in_row = loss, 2
    args: Any = SimpleNamespace(fp16=True, deepspeed_plugin=None)
    guard.on_pre_optimizer_step(args, SimpleNamespace(global_step=0, is_world_process_zero=False), None, model=model)
    scaler.step(optimizer)
    scaler.update()
    assert (guard.in_row, guard.total) == (3 * counted, counted)
    assert torch.equal(model.weight, before) == (loss is not None or gradient != 1.0)


def test_the_loss_of_another_process_is_told_as_such(tmp_path):
    """All processes skip the update; the number is that of one of them."""
    guard = GradientGuard(RunFolder(tmp_path), limit=1)
    guard.bad_loss = 0.5
    args: Any = SimpleNamespace(fp16=False, deepspeed_plugin=None)
    state: Any = SimpleNamespace(global_step=0, is_world_process_zero=True)
    with pytest.raises(NotFiniteError, match=r"^step 1: the loss of another process is not finite$"):
        guard.on_pre_optimizer_step(args, state, None, model=torch.nn.Linear(1, 1))
