"""IOP-GSPO through the real trainer, against loops: rows and gates that reach the loss, the loss, its gradient."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from attnpo.credit.iop import Role
from attnpo.errors import InputError
from attnpo.training.policy import Policy
from attnpo.training.stages.repairs import refuse_what_cannot_work
from slow_levenshtein import fewest_edits
from trainer_kit import ADD, CHECK, CONCLUDE, OTHER, RIGHT, SHORT, USUAL, Canned, make_trainer, spy

BAD = ADD.replace("easy", "eazy")  # one token for another, as is the number in the answer
SLIP = Canned((BAD, OTHER), "\nThe answer is \\boxed{7}.")
FIX = Canned((ADD, OTHER), RIGHT)  # SLIP repaired
LONGER = Canned((ADD, CHECK, OTHER), RIGHT)  # with more changed than it needs
PASTED = Canned((BAD, OTHER), RIGHT)
GROUPS = [SHORT, SLIP, USUAL, SLIP, SHORT, SHORT, SHORT, SHORT]  # the second group has no wrong response
EPSILON, LAMBDA_EDIT, LAMBDA_REP = 0.2, 0.5, 0.5


@dataclass
class Run:
    """A trainer on canned responses and repairs, and what went through its loss."""

    trainer: Any
    asked: list[str] = field(default_factory=list)  # repair prompts
    logps: list[torch.Tensor] = field(default_factory=list)  # of every loss forward; their gradients are kept
    seen: Any = None

    @property
    def metrics(self) -> dict[str, float]:
        return self.trainer.state.log_history[0]

    def rows(self, role: Role | None = None) -> list[dict[str, Any]]:
        """Rows of all micro-batches, in one order however they were shuffled."""
        found = []
        for batch in self.seen.batches:
            for i, kind in enumerate(batch["signal/repair_role"].tolist()):
                mask = batch["completion_mask"][i].bool()
                gate = batch["tool_mask"][i][mask].bool()
                row = {"role": Role(kind), "gates": gate.tolist(), "advantages": batch["advantages"][i][mask].tolist()}
                row["ids"] = batch["completion_ids"][i][mask].tolist()
                row["prompt"] = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist()
                found.append(row)
        found = [row for row in found if role is None or row["role"] == role]
        return sorted(found, key=lambda row: (row["role"], row["prompt"], row["ids"]))


@pytest.fixture
def run(new_tiny_qwen2, tiny_tokenizer, tmp_path):
    """Train on `responses`; repair number i of a call gets the i-th of `repairs` (again and again)."""
    count = 0

    def train(responses=GROUPS, repairs=(FIX, SLIP), changes=None, go=True, **options) -> Run:
        nonlocal count
        count += 1
        trainer = make_trainer(
            new_tiny_qwen2(),
            tiny_tokenizer,
            tmp_path / f"run{count}",
            responses=list(responses),
            **{
                "credit": "iop",
                "credit_kwargs": {
                    "candidates": 2,
                    "max_new_tokens": 100,
                    "prompt": "brief",
                    "audit": "rules",
                    **options,
                },
                "length_reward": "none",
                "importance_sampling_level": "sequence",
                "loss_type": "grpo",
                **(changes or {}),
            },
        )
        result = Run(trainer, seen=spy(trainer))
        canned, forward = trainer._generate_single_turn, trainer._get_per_token_logps_and_entropies

        def generate(prompt_ids, *args, **kwargs):
            texts = [tiny_tokenizer.decode(ids) for ids in prompt_ids]
            if "Repair:" not in texts[0]:
                return canned(prompt_ids, *args, **kwargs)
            result.asked += texts
            return [repairs[i % len(repairs)].ids(tiny_tokenizer) for i in range(len(texts))], None

        def watched(*args, **kwargs):
            output = forward(*args, **kwargs)
            if output[0].requires_grad:
                output[0].retain_grad()
                result.logps.append(output[0])
            return output

        trainer._generate_single_turn, trainer._get_per_token_logps_and_entropies = generate, watched
        if go:
            trainer.train()
        return result

    return train


def test_rows_and_gates(run, tiny_tokenizer) -> None:
    result = run()
    wrong, repaired = SLIP.ids(tiny_tokenizer), FIX.ids(tiny_tokenizer)
    original = tiny_tokenizer("What is 12 + 30?")["input_ids"]
    assert [row["role"] for row in result.rows()] == [Role.WRONG] * 2 + [Role.REPAIRED] * 2 + [Role.CANDIDATE] * 4
    for row in result.rows(Role.WRONG):
        assert (row["ids"], row["prompt"]) == (wrong, original)
        # SLIP and FIX differ in one token of the thinking and one of the answer, and not in length.
        assert row["gates"] == [a != b for a, b in zip(wrong, repaired, strict=True)]
        assert sum(row["gates"]) == fewest_edits(wrong, repaired) == 2
        assert row["advantages"] == [-1.0 if gate else 0.0 for gate in row["gates"]]  # 8 rows for 8 responses
    for row in result.rows(Role.REPAIRED):
        assert (row["ids"], row["prompt"]) == (repaired, original)
        assert row["gates"] == [a != b for a, b in zip(wrong, repaired, strict=True)]
        assert row["advantages"] == [1.0 if gate else 0.0 for gate in row["gates"]]
    # Candidates: one is right (score 1 − λ_edit·d), one is the wrong response itself (0). RLOO: the difference, ±.
    score = 1 - LAMBDA_EDIT * 2 / len(wrong)
    expected = {tuple(repaired): score, tuple(wrong): -score}
    for row in result.rows(Role.CANDIDATE):
        assert tiny_tokenizer.decode(row["prompt"]) == result.asked[0]
        assert all(row["gates"])
        share = LAMBDA_REP * 0.5  # half of the weight of a response for each of two candidates
        assert_close(torch.tensor(row["advantages"]), torch.full((len(wrong),), share * expected[tuple(row["ids"])]))


def test_the_prompt_shows_the_wrong_response_and_the_shortest_right_one(run) -> None:
    result = run()
    assert len(result.asked) == 4
    for text in result.asked:
        assert text == f"What is 12 + 30?\n\nWrong: {SLIP.text}\n\nRight: {SHORT.text}\n\nRepair:\n\nWhat is 12 + 30?"


def test_metrics_and_records(run) -> None:
    result = run()
    expected = {
        "repair/fallback_groups": 1,
        "repair/tried": 2,
        "repair/candidates": 4,
        "repair/verified": 2,
        "repair/passed": 2,
        "repair/identical": 2,
        "repair/chosen": 2,
        "repair/none_verified": 0,
        "repair/none_passed": 0,
        "repair/untried": 0,
        "repair/too_long": 0,
        "repair/gated_tokens_wrong": 4,
        "repair/gated_tokens_repaired": 4,
        "repair/edits": 4,
        "repair/edits_kept": 4,
        "repair/rows": 8,
    }
    assert {name: result.metrics[name] for name in expected} == expected
    assert result.metrics["extra/rollout_tokens"] == sum(len(FIX.ids(result.trainer._tokenizer)) for _ in range(4))
    (file,) = Path(result.trainer.args.output_dir, "rollouts").glob("train-*.jsonl.gz")
    records = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    repaired = {i: record["repair"] for i, record in enumerate(records) if "repair" in record}
    assert repaired == {i: {"text": FIX.text, "edits_kept": 2, "refused": [None, "identical"]} for i in (1, 3)}
    assert [record["mean_token_advantage"] != 0 for record in records] == [i in (1, 3) for i in range(8)]


def loss_by_hand(rows: list[dict[str, Any]], new: list[list[float]], old: list[list[float]], responses: int) -> float:
    """Σ over rows of −min(w·A, clip(w)·A), over the responses sampled; A from the role, not from the batch."""
    total = 0.0
    for row, now, then in zip(rows, new, old, strict=True):
        gated = [t for t, gate in enumerate(row["gates"]) if gate]
        if not gated:
            continue
        w = math.exp(sum(now[t] - then[t] for t in gated) / len(gated))
        advantage = {Role.WRONG: -1.0, Role.REPAIRED: 1.0}.get(row["role"], row.get("outcome"))
        clipped = min(max(w, 1 - EPSILON), 1 + EPSILON)
        total -= row["share"] * min(w * advantage, clipped * advantage)
    return total / responses


@torch.no_grad()
def logps_of(model: Any, row: dict[str, Any]) -> list[float]:
    """Log-probabilities of the completion's tokens, one row without padding."""
    logits = model(input_ids=torch.tensor([row["prompt"] + row["ids"]])).logits[0]
    first = len(row["prompt"])
    logps = logits.float().log_softmax(dim=-1)
    return [float(logps[first + t - 1, token]) for t, token in enumerate(row["ids"])]


@pytest.mark.parametrize("learning_rate", [1e-3, 0.05])  # the larger one is clipped
def test_off_policy_loss(run, new_tiny_qwen2, learning_rate) -> None:
    """Two updates on one batch: the second one has ratios, of gated tokens only, against the policy that sampled."""
    result = run(changes={"num_iterations": 2, "max_steps": 2, "learning_rate": learning_rate}, go=False)
    weights = []
    inner = result.trainer._compute_loss

    def compute(model, inputs):
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return inner(model, inputs)

    result.trainer._compute_loss = compute
    result.trainer.train()
    assert len(result.seen.batches) == 2
    start, then = new_tiny_qwen2(), new_tiny_qwen2()
    wrong, repaired = SLIP.ids(result.trainer._tokenizer), FIX.ids(result.trainer._tokenizer)
    score = 1 - LAMBDA_EDIT * fewest_edits(wrong, repaired) / len(wrong)
    for i, loss in enumerate(result.seen.losses):
        rows = Run(result.trainer, seen=SimpleNamespace(batches=result.seen.batches[i : i + 1])).rows()
        for row in rows:
            row["share"] = 0.5 if row["role"] == Role.CANDIDATE else 1.0
            if row["role"] == Role.CANDIDATE:
                row["outcome"] = LAMBDA_REP * (score if row["ids"] == repaired else -score)
        then.load_state_dict(weights[i])
        new, old = ([logps_of(model, row) for row in rows] for model in (then, start))
        assert loss == pytest.approx(loss_by_hand(rows, new, old, responses=8), abs=2e-6)
    ratios = [
        math.exp(sum(n - o for n, o, g in zip(a, b, row["gates"], strict=True) if g) / sum(row["gates"]))
        for row, a, b in zip(rows, new, old, strict=True)
    ]
    outside = [abs(w - 1) > EPSILON for w in ratios]
    assert any(outside) == (learning_rate == 0.05)


def test_no_gradient_outside_the_gates(run) -> None:
    result = run(lambda_rep=0)
    (batch,), (logps,) = result.seen.batches, result.logps
    gates = (batch["completion_mask"] * batch["tool_mask"]).bool()
    assert logps.grad is not None
    assert torch.all(logps.grad[~gates] == 0)
    assert torch.all(logps.grad[gates] != 0)
    # d loss / d log π of a gated token, on-policy: −A / (Σg · N)
    for i, role in enumerate(batch["signal/repair_role"].tolist()):
        if role in (Role.WRONG, Role.REPAIRED):
            sign = -1.0 if role == Role.WRONG else 1.0
            assert_close(logps.grad[i][gates[i]], torch.full((2,), -sign / (2 * 8)))
    assert any(g.abs().max() > 0 for g in result.seen.gradients[0].values())


def gradients(result: Run) -> dict[str, torch.Tensor]:
    (found,) = result.seen.gradients
    return found


def test_correct_responses_have_no_part_in_the_gradient(run) -> None:
    """Other words, other lengths, another number of correct ones: as long as the anchor stays, nothing changes."""
    first = gradients(run())
    lengthy = Canned((ADD, CHECK, OTHER, CONCLUDE), RIGHT)
    second = gradients(run(responses=[SHORT, SLIP, lengthy, SLIP, lengthy, lengthy, lengthy, lengthy]))
    assert any(g.abs().max() > 0 for g in first.values())
    for name, gradient in first.items():
        assert_close(second[name], gradient, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("responses", [[SHORT] * 8, [SLIP] * 8], ids=["all right", "all wrong"])
def test_batch_without_signal_has_no_gradient(run, responses) -> None:
    """Every group falls back, and its advantages are 0: one filler row, no gradient, and the run continues."""
    result = run(responses=responses)
    assert result.asked == []
    assert [row["role"] for row in result.rows()] == [Role.FILLER]
    assert result.metrics["repair/fallback_groups"] == 2
    assert all(torch.all(g == 0) for g in gradients(result).values())


def test_a_fallback_batch_has_the_loss_and_gradient_of_the_outcome_method(run) -> None:
    """Only right responses with different length rewards: GSPO on outcome advantages, with or without filler rows."""
    responses = [SHORT, USUAL, LONGER, USUAL, SHORT, SHORT, USUAL, LONGER]
    changes = {"length_reward": "tlmre", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    gated = run(responses=responses, changes=changes)
    outcome = run(responses=responses, changes={**changes, "credit": "outcome", "credit_kwargs": None})
    assert {row["role"] for row in gated.rows()} <= {Role.OUTCOME, Role.FILLER}
    assert sum(gated.seen.losses) == pytest.approx(sum(outcome.seen.losses), abs=1e-6)
    for name, gradient in gradients(outcome).items():
        assert_close(gradients(gated)[name], gradient, rtol=1e-4, atol=1e-7)


def test_filler_rows_and_micro_batches_change_nothing(run) -> None:
    """Two rows in one micro-batch, and the same two with six of filler in eight."""
    responses, repairs = [SHORT, SLIP, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT], (FIX, FIX)
    whole = run(responses, repairs)
    split = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    many = run(responses, repairs, changes=split)
    assert [row["role"] for row in whole.rows()] == [Role.WRONG, Role.REPAIRED]
    assert [row["role"] for row in many.rows()] == [Role.FILLER] * 6 + [Role.WRONG, Role.REPAIRED]
    for name, gradient in gradients(whole).items():
        assert_close(gradients(many)[name], gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("repairs", "counted", "roles"),
    [
        ((SLIP, SLIP), {"repair/none_verified": 2, "repair/identical": 4}, [Role.FILLER]),
        ((PASTED, SLIP), {"repair/none_passed": 2, "repair/refused/pasted": 2}, [Role.FILLER]),
        ((SHORT, SLIP), {"repair/none_passed": 2, "repair/refused/copied": 2}, [Role.FILLER]),
        ((Canned((ADD,), None, truncated=True),) * 2, {"repair/none_verified": 2, "repair/verified": 0}, [Role.FILLER]),
    ],
    ids=["identical", "pasted", "copied", "cut off"],
)
def test_wrong_responses_without_a_usable_repair(run, repairs, counted, roles) -> None:
    result = run(repairs=repairs)
    assert {name: result.metrics[name] for name in counted} == counted
    assert result.metrics["repair/chosen"] == 0
    assert [row["role"] for row in result.rows()] == roles


def test_repair_with_the_fewest_edits_is_chosen(run, tiny_tokenizer) -> None:
    result = run(repairs=(LONGER, FIX))
    assert {tuple(row["ids"]) for row in result.rows(Role.REPAIRED)} == {tuple(FIX.ids(tiny_tokenizer))}


def test_only_the_edits_that_are_needed_are_gated(run) -> None:
    """The repair changes the thinking too; with K = 2 the first two tokens alone verify, what follows stays closed."""
    tail = " Or so one may hope, and it cannot be known."
    wordy = Canned((ADD, OTHER), RIGHT + tail)
    for k in (2, 1):  # with K = 1 the first token does not verify, and 2K do
        result = run(repairs=(wordy, wordy), truncate=k, lambda_rep=0)
        assert result.metrics["repair/edits_kept"] == 2 * 2
        assert result.metrics["repair/edits"] > 2 * 2
        assert [sum(row["gates"]) for row in result.rows(Role.REPAIRED)] == [2, 2]


def test_insertions_alone_leave_only_the_repaired_side(run) -> None:
    lacking = Canned((BAD, OTHER), "\nThe answer is \\boxed{}.")
    filled = Canned((BAD, OTHER + "It is 42, then."), "\nThe answer is \\boxed{42}.")
    responses = [SHORT, lacking, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT]
    result = run(responses, (filled, filled))
    assert [row["role"] for row in result.rows()] == [Role.REPAIRED]
    assert result.metrics["repair/gated_tokens_wrong"] == 0


def test_limits(run) -> None:
    assert run(max_repairs=1).metrics["repair/untried"] == 1
    long = run(max_prompt_tokens=20)
    assert (long.metrics["repair/too_long"], long.metrics["repair/tried"]) == (2, 0)
    assert long.asked == []
    cramped = run(go=False)
    cramped.trainer.model.config.max_position_embeddings = 60
    cramped.trainer.train()
    assert (cramped.metrics["repair/too_long"], cramped.metrics["repair/tried"]) == (2, 0)
    few = run(repairs=(FIX, SLIP, SLIP, SLIP, SLIP, SLIP, SLIP), candidates=7)
    # Four rows of pairs; 16 rows at most: the candidates of one response (7) fit, those of the other do not.
    assert few.metrics["repair/rows"] == 11
    assert few.metrics["repair/rows_left_out"] == 7


def test_a_reward_that_is_missing_is_neither_right_nor_wrong(run) -> None:
    def sometimes(completions, **kwargs):
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        return [None if "eazy" in t else float("boxed{42}" in t) for t in texts]

    sometimes.__name__ = "accuracy"
    result = run(changes={"reward": sometimes})
    assert result.metrics["repair/tried"] == 0
    assert [row["role"] for row in result.rows()] == [Role.FILLER]


def test_refused() -> None:
    def refuse(responses=8, **changes):
        plain = {"num_generations": 4, "use_vllm": False, "vllm_importance_sampling_correction": True}
        plain |= {"is_fsdp_enabled": False, "is_deepspeed_enabled": False, "processes": 1}
        plain |= {
            "args": SimpleNamespace(credit="iop", per_device_train_batch_size=responses, steps_per_generation=1),
            "vllm_mode": "colocate",
            "vllm_tensor_parallel_size": 1,
            **changes,
        }
        accelerator = SimpleNamespace(num_processes=plain["processes"])
        refuse_what_cannot_work(Policy(SimpleNamespace(**plain, accelerator=accelerator)))

    refuse()
    refuse(processes=2)
    refuse(use_vllm=True, vllm_importance_sampling_correction=False)
    with pytest.raises(InputError, match=r"found 6, expected a multiple of num_generations \(4\)"):
        refuse(6)
    with pytest.raises(InputError, match="vllm_importance_sampling_correction: found true, expected false"):
        refuse(use_vllm=True)
    engine = {"use_vllm": True, "vllm_importance_sampling_correction": False, "processes": 2}
    refuse(**engine)
    shared = [{"vllm_mode": "server"}, {"vllm_tensor_parallel_size": 2}]
    for changes in ({"is_fsdp_enabled": True, "processes": 2}, *({**engine, **how} for how in shared)):
        with pytest.raises(InputError, match="expected plain data parallelism"):
            refuse(**changes)
