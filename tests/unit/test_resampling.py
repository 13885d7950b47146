"""`dynamic_sampling`: groups with equal rewards are replaced by responses to other problems."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from attnpo.errors import InputError
from attnpo.training.resampling import Sampler, drawing, fill

ALIVE = 10.0
"""The reward of a prompt whose responses are worth differently by their place in the group."""


class World:
    """Several processes in one: every prompt has a fixed list of rewards, of which a drawn one shows the first only."""

    def __init__(self, worths: dict[str, list[float]], spare: list[str], group_size: int) -> None:
        self.worths, self.spare, self.group_size = worths, spare, group_size

    def run(self, prompts: list[str], processes: int, limit: int) -> tuple[list[Any], list[Any]]:
        """What each process ends with, and the rewards of all. The processes go round by round, hand in hand."""
        n = len(prompts) * self.group_size // processes
        rows = [{"prompt": prompt, "index": i} for prompt in prompts for i in range(self.group_size)]
        barrier = threading.Barrier(processes)
        board: list[Any] = [None] * processes

        def gather(process: int, values: torch.Tensor) -> torch.Tensor:
            board[process] = values
            barrier.wait()
            found = torch.cat(list(board))
            barrier.wait()
            return found

        results: list[Any] = [None] * processes

        def work(process: int) -> None:
            def generate(asked: list[str]) -> tuple[Any, ...]:
                return [[7]] * len(asked), [[1, 2] for _ in asked], None, list(asked), None, {}, None, []

            def judge(rows: list[Any], generated: Any) -> tuple[torch.Tensor, list[Any]]:
                values = torch.tensor([[float(self.worths[row["prompt"]][row["index"]])] for row in rows])
                return gather(process, values), [f"of {row['prompt']}" for row in rows]

            def draw(count: int, round_number: int) -> list[Any]:
                return [{"prompt": self.spare[(round_number + i) % len(self.spare)], "index": 0} for i in range(count)]

            def worth(rewards: torch.Tensor, lengths: torch.Tensor, rows: list[Any]) -> torch.Tensor:
                assert (lengths == 2).all()
                place = torch.arange(len(rewards)) % self.group_size
                return rewards[:, 0] + torch.where(rewards[:, 0] == ALIVE, place, 0)

            sampler = Sampler(
                generate=generate,
                judge=judge,
                worth=worth,
                gather=lambda values: gather(process, values),
                draw=draw,
                processes=processes,
                process=process,
            )
            results[process] = fill(rows[process * n : (process + 1) * n], self.group_size, limit, sampler)

        threads = [threading.Thread(target=work, args=(process,)) for process in range(processes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
        return results, results[0].rewards[:, 0].tolist()


def test_group_without_signal_is_replaced_and_others_stay():
    world = World({"a": [1, 0], "b": [1, 1], "c": [0, 0], "x": [ALIVE], "y": [0]}, ["x", "y"], 2)
    (one,), rewards = world.run(["a"], 1, limit=2)
    assert [row["prompt"] for row in one.rows] == ["a", "a"]
    assert (one.replaced, one.rounds, rewards) == (0, 0, [1, 0])
    (found,), rewards = world.run(["a", "b", "c"], 1, limit=1)  # b by y, which is no better, c by x
    assert [row["prompt"] for row in found.rows] == ["a", "a", "y", "y", "x", "x"]
    assert (found.replaced, rewards) == (2, [1, 0, 0, 0, ALIVE, ALIVE])
    assert found.generated[3] == ["a", "a", "y", "y", "x", "x"]
    assert [len(ids) for ids in found.generated[1]] == [2] * 6
    assert found.generated[2] is None
    assert found.generated[7] == []
    assert found.verdicts == ["of a", "of a", "of y", "of y", "of x", "of x"]
    (found,), rewards = world.run(["a", "b", "c"], 1, limit=2)  # and y by x
    assert [row["prompt"] for row in found.rows] == ["a", "a", "x", "x", "x", "x"]
    assert (found.replaced, found.rounds) == (3, 2)


PROMPTS = st.lists(st.sampled_from("abcdef"), min_size=2, max_size=6)


@given(prompts=PROMPTS, processes=st.sampled_from([1, 2, 3, 4]), limit=st.integers(0, 3), data=st.data())
def test_several_processes_give_the_same_batch_as_one(prompts, processes, limit, data):
    group_size = 12 // len(prompts) if 12 % len(prompts) == 0 else 2
    if len(prompts) * group_size % processes:
        processes = 1
    values = st.lists(st.sampled_from([0.0, 1.0, ALIVE]), min_size=group_size, max_size=group_size)
    worths = {name: data.draw(values) for name in "abcdefxyz"}
    (alone,), expected = World(worths, ["x", "y", "z"], group_size).run(prompts, 1, limit)
    several, rewards = World(worths, ["x", "y", "z"], group_size).run(prompts, processes, limit)
    assert rewards == expected
    assert [row["prompt"] for found in several for row in found.rows] == [row["prompt"] for row in alone.rows]
    assert [p for found in several for p in found.generated[3]] == alone.generated[3]
    assert {(found.replaced, found.rounds) for found in several} == {(alone.replaced, alone.rounds)}


def test_draws_are_those_of_the_batch_and_differ_by_round():
    rows = Dataset.from_list([{"prompt": str(i)} for i in range(50)])

    def drawn(count, round_number, seed=3, batch=7):
        return [row["prompt"] for row in drawing(rows, seed, batch, ["0", "1"])(count, round_number)]

    assert drawn(4, 1) == drawn(4, 1)
    assert all(other != drawn(4, 1) for other in (drawn(4, 2), drawn(4, 1, seed=4), drawn(4, 1, batch=8)))
    assert sorted(drawn(48, 1), key=int) == [str(i) for i in range(2, 50)]  # none of the batch's own
    assert len(drawn(60, 1)) == 60  # more than there are: some again


def test_no_problem_comes_back_in_a_later_round():
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": str(i)}]} for i in range(10)])
    draw = drawing(rows, 0, 1, rows["prompt"][:2])
    found = [row["prompt"][0]["content"] for round_number in (1, 2) for row in draw(4, round_number)]
    assert sorted(found) == [str(i) for i in range(2, 10)]
    assert len(draw(3, 3)) == 3  # all have been there


@pytest.fixture
def run(tmp_path, trainer_kit, new_tiny_qwen2, tiny_tokenizer):
    def make(responses: list[Any], **changes: Any):
        kit = trainer_kit
        options = {"length_reward": "none", "credit": "outcome", **changes}
        return kit.make_trainer(new_tiny_qwen2(), tiny_tokenizer, tmp_path / "run", responses=responses, **options)

    return make


def records(tmp_path, trainer_kit) -> tuple[list[Any], dict[str, Any]]:
    from attnpo.data.jsonl import read_jsonl

    rows = list(read_jsonl(tmp_path / "run" / "rollouts" / "train-000001.jsonl.gz", ("text",)))
    return rows, json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])


def test_run_trains_on_the_replacement(run, tmp_path, trainer_kit):
    kit = trainer_kit
    # First group all wrong, second has signal; what replaces the first has signal too.
    canned = [kit.FALSE] * 4 + [kit.SHORT, kit.FALSE, kit.USUAL, kit.FALSE] + [kit.LONG, kit.FALSE] * 2
    trainer = run(canned, dynamic_sampling=2)
    served: list[int] = []
    inner = trainer._generate_single_turn
    trainer._generate_single_turn = lambda ids, *more, **named: (served.append(len(ids)), inner(ids, *more, **named))[1]
    trainer.train()
    rows, metrics = records(tmp_path, kit)
    assert served == [8, 4]
    texts = [kit.LONG.text, kit.FALSE.text] * 2 + [kit.SHORT.text, kit.FALSE.text, kit.USUAL.text, kit.FALSE.text]
    assert [row["text"] for row in rows] == texts
    assert [row["reward"] for row in rows] == [1, 0, 1, 0, 1, 0, 1, 0]
    assert [row["advantage"] for row in rows] == pytest.approx([2 / 3, -2 / 3] * 4)  # RLOO: 1 − (1 + 0 + 0) / 3
    assert metrics["groups/replaced"] == 1
    assert metrics["groups/without_signal"] == 0
    assert len({row["id"] for row in rows}) == 2
    assert {row["id"] for row in rows[:4]}.isdisjoint({"p0", "p1"})  # another problem than the batch had
    assert metrics["num_tokens"] > sum(row["tokens"]["completion"] for row in rows)  # what was thrown away counts too


def test_every_generation_batch_of_an_update_draws_its_own(run, tmp_path, trainer_kit):
    kit = trainer_kit
    changes = {"gradient_accumulation_steps": 3, "steps_per_generation": 1, "data": kit.problems(40)}
    run([kit.FALSE], dynamic_sampling=1, patience=0, **changes).train()
    rows, _ = records(tmp_path, kit)
    assert len(rows) == 24
    assert len({row["id"] for row in rows}) > 4  # three batches of two groups, all replaced


def test_logged_reward_columns_match_their_rows(run, tmp_path, trainer_kit):
    kit = trainer_kit

    def accuracy(completions, prompts, log_extra, **kwargs):
        log_extra("asked", list(prompts))
        return kit.says_42(completions)

    canned = [kit.FALSE] * 4 + [kit.SHORT, kit.FALSE] * 4
    trainer = run(canned, dynamic_sampling=1, reward=accuracy, log_completions=True)
    trainer.train()
    asked, prompts = list(trainer._logs["extra"]["asked"]), list(trainer._logs["prompt"])
    assert not asked or asked == prompts


def test_it_ends_after_its_rounds(run, tmp_path, trainer_kit):
    kit = trainer_kit
    run([kit.FALSE], dynamic_sampling=3, patience=0).train()
    rows, metrics = records(tmp_path, kit)
    assert metrics["groups/replaced"] == 6
    assert metrics["groups/without_signal"] == 1
    assert not any(row["advantage"] for row in rows)


def test_a_batch_with_signal_everywhere_is_that_of_a_run_without(run, tmp_path, trainer_kit):
    canned = [trainer_kit.SHORT, trainer_kit.FALSE, trainer_kit.LONG, trainer_kit.FALSE]
    run(canned).train()
    plain, numbers = records(tmp_path, trainer_kit)
    run(canned, dynamic_sampling=2, overwrite_run=True).train()
    found, others = records(tmp_path, trainer_kit)
    assert found == plain
    assert others["loss"] == numbers["loss"]
    assert others["groups/replaced"] == 0


def test_a_length_reward_is_signal_too(run, tmp_path, trainer_kit):
    kit = trainer_kit
    run([kit.SHORT, kit.LONG], dynamic_sampling=2, length_reward="tlmre").train()
    assert records(tmp_path, kit)[1]["groups/replaced"] == 0  # all right, of different lengths
    run([kit.SHORT], dynamic_sampling=2, length_reward="tlmre", patience=0).train()
    assert records(tmp_path, kit)[1]["groups/replaced"] == 4


def test_refusals(run, trainer_kit):
    with pytest.raises(InputError, match="option dynamic_sampling: found -1, expected a whole number of at least 0"):
        run([trainer_kit.SHORT], dynamic_sampling=-1)
    with pytest.raises(InputError, match="option dynamic_sampling: expected 0 with prompts that have images"):
        run([trainer_kit.SHORT], dynamic_sampling=1, data=trainer_kit.problems(8, image="a.png"))
    rows = trainer_kit.problems(8).to_iterable_dataset()
    with pytest.raises(InputError, match="option dynamic_sampling: a streamed train_dataset"):
        run([trainer_kit.SHORT], dynamic_sampling=1, data=rows)
