"""benchmarks/law_simulation.py: an update by hand, gradients against autograd, the arms' scales, the speed-up."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType

import numpy as np
import pytest
import torch


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch, repository) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("law_simulation")


def random_update(simulation: ModuleType, model: str, skipped: str = "outcome"):
    setting = simulation.Setting(3, 5, 2, model, skipped)
    policy, rng = simulation.policy_of(setting), np.random.default_rng(1)
    logits = np.tile(policy.start(), (2, 1)) + rng.normal(size=(2, len(policy.start())))
    counts, _ = policy.sample(logits, rng)
    return policy, logits, counts, rng.binomial(counts, 0.5), rng.normal(size=counts.shape[:-1])


@pytest.mark.parametrize(
    ("arm", "essential"),
    [("penalty", 0.0), ("stepwise", 0.18484 * 0.05 / 3), ("wrong:0", 0.18484 * 0.05 / 3)],
)
def test_one_update_by_hand(simulation, monkeypatch, arm: str, essential: float):
    # Two right responses, of 2 steps and of 1: z = 1 and -1, rewards 1 - 0.4 · 0.731059 and 1 - 0.4 · 0.268941, so
    # A = -0.18484 and 0.18484. Three steps are written. Redundant logit (p = 0.7): -A · 0.3 - A · 0.7. Essential one
    # (p = 0.95): A · 0.05 - A · 0.05, of which credit per step leaves the positive half.
    setting = simulation.Setting(1, 1, 1, essential=1, group=2)
    policy = simulation.policy_of(setting)
    policy.sample = lambda logits, rng: (np.array([[[[1, 1], [1, 0]]]]), np.array([[[True, True]]]))
    monkeypatch.setattr(simulation, "policy_of", lambda setting: policy)
    gradient = simulation.update_gradient(setting, arm, policy.start()[None], np.random.default_rng(0))
    assert gradient[0] == pytest.approx([essential, -0.18484 / 3], abs=1e-5)


@pytest.mark.parametrize("skipped", ["outcome", "nothing"])
def test_gradient_of_written_steps_is_that_of_their_log_likelihood(simulation, skipped: str):
    policy, logits, counts, kept, advantages = random_update(simulation, "written", skipped)
    leaf = torch.tensor(logits, requires_grad=True)
    total = torch.zeros((), dtype=torch.double)
    for seed, responses in enumerate(counts):
        for (problem, response), advantage in np.ndenumerate(advantages[seed]):
            for step, written in enumerate(responses[problem, response]):
                logit = leaf[seed, step if step < 4 else 4 + (step - 4) % 2]
                if written and kept[seed, problem, response, step]:
                    total = total + advantage * logit.sigmoid().log() / responses.sum()
                if not written and skipped == "outcome":
                    total = total + advantage * (1 - logit.sigmoid()).log() / responses.sum()
    total.backward()
    assert policy.gradient(logits, counts, kept, advantages) == pytest.approx(leaf.grad.numpy())


@pytest.mark.parametrize("model", ["choice", "choice_end"])
def test_gradient_of_choices_is_that_of_their_log_likelihood(simulation, model: str):
    policy, logits, counts, kept, advantages = random_update(simulation, model)
    leaf = torch.tensor(logits, requires_grad=True)
    every = leaf if model == "choice_end" else torch.cat([torch.zeros(2, 1), leaf], dim=1)
    decisions = torch.tensor(np.add(kept, [1, 0, 0]))  # the answer
    likelihood = (decisions * every.log_softmax(dim=-1)[:, None, None]).sum(dim=-1)
    steps = torch.tensor(counts.sum(axis=(1, 2, 3)))[:, None, None]
    (torch.tensor(advantages) * likelihood / steps).sum().backward()
    assert policy.gradient(logits, counts, kept, advantages) == pytest.approx(leaf.grad.numpy())


@pytest.mark.parametrize("model", ["written", "choice", "choice_end"])
def test_responses_at_the_start_have_the_stated_redundancy(simulation, model: str):
    policy = simulation.policy_of(simulation.Setting(200, 20, 4, model))
    logits = np.tile(policy.start(), (20, 1))
    counts, right = policy.sample(logits, np.random.default_rng(0))
    redundant = counts[..., ~policy.essential].sum(axis=-1)
    assert redundant.mean() == pytest.approx(0.7 * 20, rel=0.01)
    assert policy.left(logits) == pytest.approx(1.0)
    assert right.mean() == pytest.approx(0.95**4, abs=0.01)
    logits[:, policy.logits_of_redundant] -= 1.0
    fewer = policy.sample(logits, np.random.default_rng(0))[0][..., ~policy.essential].sum(axis=-1).mean()
    assert fewer / (0.7 * 20) == pytest.approx(policy.left(logits)[0], rel=0.02)


def cut_steps(simulation: ModuleType, arm: str, advantage: float, right: bool = True) -> np.ndarray:
    counts = np.tile([4, 3, 2], (1, 50, 8, 1))
    table = np.full((1, 50, 8), advantage)
    kept = simulation.kept_steps(
        arm, counts, np.array([True, False, False]), table, np.full(table.shape, right), np.random.default_rng(0)
    )
    return counts - kept


@pytest.mark.parametrize(("advantage", "cut"), [(0.3, [0, 3, 2]), (-0.3, [4, 0, 0]), (0.0, [0, 0, 0])])
def test_stepwise_and_its_labels_turned_round(simulation, advantage: float, cut: list[int]):
    assert (cut_steps(simulation, "stepwise", advantage) == cut).all()
    assert (cut_steps(simulation, "wrong:0", advantage) == cut).all()
    other = [4 - cut[0], 3 - cut[1], 2 - cut[2]] if advantage else [0, 0, 0]
    assert (cut_steps(simulation, "wrong:1", advantage) == other).all()
    assert (cut_steps(simulation, "penalty", advantage) == 0).all()


@pytest.mark.parametrize("arm", ["stepwise", "shuffled", "wrong:1"])
def test_wrong_responses_keep_their_advantage(simulation, arm: str):
    assert (cut_steps(simulation, arm, -0.3, right=False) == 0).all()


@pytest.mark.parametrize(("advantage", "number"), [(0.3, 5), (-0.3, 4)])
def test_shuffled_keeps_the_scales_of_a_response_and_deals_them_evenly(simulation, advantage: float, number: int):
    cut = cut_steps(simulation, "shuffled", advantage)
    assert (cut.sum(axis=-1) == number).all()
    assert ((cut >= 0) & (cut <= [4, 3, 2])).all()
    # 400 responses: a step's chance is number / 9, its standard error at most 0.025 (less for several steps).
    assert cut.mean(axis=(0, 1, 2)) / [4, 3, 2] == pytest.approx(number / 9, abs=0.06)


def test_wrong_labels_are_as_many_as_asked_for(simulation):
    cut = cut_steps(simulation, "wrong:0.25", 0.3).mean(axis=(0, 1, 2))
    assert cut / [4, 3, 2] == pytest.approx([0.25, 0.75, 0.75], abs=0.06)


def test_adam_by_hand(simulation):
    # After 1 and -1: mean (0.9 · 0.1 - 0.1) / (1 - 0.81) = -1 / 19, root mean square 1.
    optimizer = simulation.Adam(0.05)
    assert optimizer.step(np.array([[1.0, -2.0]])) == pytest.approx(np.array([[0.05, -0.05]]))
    assert optimizer.step(np.array([[-1.0, 2.0]])) == pytest.approx(np.array([[-0.05 / 19, 0.05 / 19]]))


def test_runs_repeat_and_shorten_and_stop(simulation):
    setting = simulation.Setting(2, 4, 4)
    first = simulation.simulate(setting, "stepwise", 3, 100, until=0.5)
    assert first == simulation.simulate(setting, "stepwise", 3, 100, until=0.5)
    assert [row["seed"] for row in first] == [0, 1, 2]
    assert len({tuple(row["left"]) for row in first}) == 3
    assert all(min(row["left"]) <= 0.5 for row in first)
    assert 20 < len(first[0]["left"]) == len(first[0]["accuracy"]) < 100


@pytest.mark.parametrize("model", ["written", "choice"])
@pytest.mark.parametrize("regime", [(4, 32, 32), (2, 32, 4), (2, 32, 1)])
def test_signal_to_noise_is_that_of_the_formula(simulation, model: str, regime: tuple[int, int, int]):
    # docs/law.md: (b/σ)·√(N/R) and (b/σ)·√(N·n / (1 - π)) / σ_T with the length penalty; stepwise credit a bound, or
    # (a + a')·(E + 1)·σ_T / (b·T) times that.
    setting = simulation.Setting(*regime, model)
    policy = simulation.policy_of(setting)
    counts, right = policy.sample(np.tile(policy.start(), (200, 1)), np.random.default_rng(1))
    lengths, right = counts.sum(axis=-1).reshape(-1, 8), right.reshape(-1, 8)
    rewards = simulation.tlmre_rewards(torch.from_numpy(lengths), torch.from_numpy(right), alpha=setting.alpha)
    advantages = simulation.outcome_advantages(rewards.double()).numpy()
    redundant = counts[..., ~policy.essential].sum(axis=-1).reshape(-1, 8)
    push = -(advantages * (redundant - redundant.mean()) / redundant.std()).mean()
    responses, noise = 8 * regime[0], advantages.std()
    above, below = np.maximum(advantages, 0).mean(), -(np.minimum(advantages, 0) * right).mean()
    if model == "written":
        penalty = push / noise * np.sqrt(responses / regime[2])
        spread = 0.21 * regime[1] / regime[2]
        stepwise = above / noise * np.sqrt(responses * spread / (1 + spread))
        assert simulation.signal_to_noise(setting, "stepwise") > stepwise
    else:
        per_kind, decisions = 0.7 * regime[1] / regime[2], 0.7 * regime[1] + 5
        deviation = np.sqrt(decisions * 0.7 * regime[1] / 5)
        penalty = push / noise * np.sqrt(responses * per_kind / (1 - per_kind / decisions)) / deviation
        stepwise = penalty * (above + below) / push * 5 / decisions * deviation
        assert simulation.signal_to_noise(setting, "stepwise") == pytest.approx(stepwise, rel=0.3)
    assert simulation.signal_to_noise(setting, "penalty") == pytest.approx(penalty, rel=0.25)


def row(arm: str, seed: int, left: list[float]) -> dict:
    return {"problems": 2, "redundant": 4, "parameters": 1, "arm": arm, "seed": seed, "left": left}


def test_updates_are_counted_on_the_line_between_two_updates(simulation):
    assert simulation.updates_to([0.75, 0.25]) == pytest.approx(1.5)
    assert simulation.updates_to([0.4], share=0.7) == pytest.approx(0.5)
    assert simulation.updates_to([0.9, 0.6]) is None


def test_speed_up_is_the_ratio_of_mean_updates(simulation):
    rows = [
        row("penalty", 0, [1.0, 1.0, 0.5]),  # 3
        row("penalty", 1, [1.0, 1.0, 1.0, 1.0, 0.5]),  # 5
        row("stepwise", 0, [0.5]),  # 1
        row("stepwise", 1, [1.0, 1.0, 0.5]),  # 3
    ]
    # 4 / 2; residuals (3 - 2 · 1) / 2 and (5 - 2 · 3) / 2, that is ±0.5: deviation 0.7071, over the root of 2.
    assert simulation.speed_up(rows, (2, 4, 1)) == pytest.approx((2.0, 0.5))
    assert simulation.speed_up(rows, (2, 4, 4)) is None
    assert simulation.speed_up([*rows, row("penalty", 2, [1.0]), row("stepwise", 2, [0.5])], (2, 4, 1)) is None


def test_summary_has_the_curves_that_can_be_drawn(simulation):
    rows = [row(arm, seed, left) for seed in (0, 1) for arm, left in (("penalty", [1.0, 0.5]), ("stepwise", [0.5]))]
    rows = [{**one, "parameters": 4} for one in rows]
    curves = simulation.summary(rows, ["penalty", "stepwise", "shuffled"], simulation.Setting(1, 1, 1, "choice"))
    assert [(curve["kinds"], curve["problems"]) for curve in curves] == [("few", 2), ("many", 2)]
    assert curves[0] == {
        "model": "choice",
        "arm": "stepwise",
        "problems": 2,
        "kinds": "few",
        "redundant": [2.8],
        "speed_up": [2.0],
        "standard_error": [0.0],
    }


@pytest.mark.parametrize("text", ["attention", "wrong:", "wrong:1.5", "wrong:-1", "0.3"])
def test_an_unknown_arm_is_named(simulation, text: str):
    with pytest.raises(argparse.ArgumentTypeError, match=r"found .*, expected penalty, stepwise, shuffled or wrong:E"):
        simulation.arm_name(text)
