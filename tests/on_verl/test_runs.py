"""Complete runs on two workers: every number of a step recomputed, a run killed and resumed, a model that learns.

Responses of the first run are canned, so that everything can be recomputed: steps from their pieces, scores from
eager attention of the model's file, sums from plain loops. No run may leave a process or a port.
"""

from __future__ import annotations

import gzip
import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from by_hand import BETA, rewards_by_hand, rloo_by_hand, scale_by_hand, step_scores_by_hand
from verl_runs import Left, command, end, launch

STEPS = 3


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def records(folder: Path, step: int) -> list[dict]:
    with gzip.open(folder / "rollouts" / f"train-{step:06d}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    """As verl loads it, which cuts numbers in another way than the one in memory."""
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def canned(tmp_path_factory, trainer_kit, tiny_folder, tokenizer):
    """Words of a run whose two problems get the mixed batch, again and again, and where it lies."""
    kit = trainer_kit
    folder = tmp_path_factory.mktemp("canned")
    rows, served = [], {}
    for i in range(2):
        messages = [{"role": "user", "content": f"What is {12 + i} + {30 - i}?"}]
        info = {"index": i, "place": i, "id": f"p{i}"}
        judged = {"style": "rule", "ground_truth": "42"}
        rows.append({"data_source": "sums", "prompt": messages, "reward_model": judged, "extra_info": info})
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        served[",".join(map(str, ids))] = [response.ids(tokenizer) for response in kit.MIXED[4 * i : 4 * i + 4]]
    Dataset.from_list(rows).to_parquet(str(folder / "problems.parquet"))
    (folder / "canned.json").write_text(json.dumps(served), encoding="utf-8")
    (folder / "heads.json").write_text(json.dumps({"heads": [list(head) for head in kit.HEADS]}), encoding="utf-8")
    file = folder / "problems.parquet"
    words = ["--output_dir", folder / "run", "--heads", folder / "heads.json", "--credit_delay", "0"]
    words += ["trainer.device=cpu", "trainer.n_gpus_per_node=2", f"trainer.total_training_steps={STEPS}"]
    words += ["trainer.total_epochs=100", "trainer.save_freq=1", "trainer.val_before_train=false", "data.shuffle=false"]
    words += [f"data.train_files={file}", f"data.val_files={file}", "data.train_batch_size=2"]
    words += ["data.max_prompt_length=200", "data.max_response_length=800", "actor_rollout_ref.rollout.n=4"]
    words += ["actor_rollout_ref.actor.ppo_mini_batch_size=2", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1600"]
    words += ["actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=1600", "actor_rollout_ref.actor.optim.lr=1e-3"]
    words += [f"actor_rollout_ref.model.path={tiny_folder}"]
    words += [f"+actor_rollout_ref.rollout.engine_kwargs.attnpo_cpu.canned={folder / 'canned.json'}"]
    return folder, [str(word) for word in words], served


@pytest.fixture(scope="module")
def killed_and_resumed(canned):
    """The run, killed after its first checkpoint; its files at that time, and its output when it is resumed."""
    folder, words, _ = canned
    left, run = Left(), folder / "run"
    line, environment = command(*words)
    with open(folder / "first.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            line, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        try:
            until = time.monotonic() + 900
            mark = run / "verl" / "latest_checkpointed_iteration.txt"
            while not (mark.is_file() and (run / "metrics.jsonl").is_file()):
                assert process.poll() is None, (folder / "first.log").read_text()[-4000:]
                assert time.monotonic() < until, (folder / "first.log").read_text()[-4000:]
                time.sleep(0.2)
            process.send_signal(signal.SIGKILL)  # alone: what Ray does then is what is looked at
            process.wait()
        finally:
            end(process)
    left.check(seconds=300)  # Ray's own agents notice on a busy machine after a minute or two
    first = lines(run / "metrics.jsonl"), records(run, 1)
    # Other heads and another delay now; the run keeps those it was begun with.
    (folder / "heads.json").write_text(json.dumps({"heads": [[0, 0]]}), encoding="utf-8")
    done = launch(*words, "--resume", "true", "--credit_delay", "500")
    left.check()
    return run, first, done


def test_all_scores_and_advantages_of_a_step_recomputed(
    canned, killed_and_resumed, trainer_kit, tiny_folder, tokenizer
):
    _, _, served = canned
    _, (_, found), _ = killed_and_resumed
    kit = trainer_kit
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, attn_implementation="eager").eval()
    by_text = {(record["id"], record["text"]): record for record in found}
    assert len(found) == 8
    prompts = [[int(token) for token in key.split(",")] for key in served]
    differences = {"score": 0.0, "advantage": 0.0, "token": 0.0}
    scales = []
    for group in range(2):
        responses = kit.MIXED[4 * group : 4 * group + 4]
        ids = [response.ids(tokenizer) for response in responses]
        right = [response.answer == kit.RIGHT for response in responses]
        advantages = rloo_by_hand(rewards_by_hand(right, [len(row) for row in ids]))
        p = sum(right) / 4
        for response, row, ok, advantage in zip(responses, ids, right, advantages, strict=True):
            record = by_text[f"p{group}", response.text]
            differences["advantage"] = max(differences["advantage"], abs(record["advantage"] - advantage))
            assert record["correct"] == ok
            assert record["tokens"]["completion"] == len(row)
            total, spans = advantage * len(row), response.spans(tokenizer)
            if response.answer:
                a, b = answer = response.answer_span(tokenizer)
                with torch.no_grad():
                    scores = step_scores_by_hand(model, prompts[group], row, spans, answer, kit.HEADS)
                baseline = p**BETA * (b - a) / (len(prompts[group]) + len(row))
                for step, (start, end), score in zip(record["steps"], spans, scores, strict=True):
                    differences["score"] = max(differences["score"], abs(step["score"] - score))
                    scale = scale_by_hand(score, baseline, advantage, p) if ok else 1.0
                    scales.append((scale, advantage))
                    assert step["scale"] == pytest.approx(scale, abs=1e-5)
                    total += (scale - 1) * advantage * (end - start)
            difference = abs(record["mean_token_advantage"] - total / len(row))
            differences["token"] = max(differences["token"], difference)
    print("largest differences:", {name: f"{value:.1e}" for name, value in differences.items()})
    assert any(0 < scale < 1 and a > 0 for scale, a in scales), "no attenuated step"
    assert any(scale == 0 and a < 0 for scale, a in scales), "no protected step"
    assert differences["score"] < 1e-6
    assert differences["advantage"] < 1e-6
    assert differences["token"] < 1e-6


def test_the_loss_is_that_of_the_advantages(killed_and_resumed):
    """On-policy every ratio is 1: the loss is the mean token advantage, with its sign turned."""
    _, ((first, *_), found), _ = killed_and_resumed
    tokens = sum(record["tokens"]["completion"] for record in found)
    expected = -sum(record["mean_token_advantage"] * record["tokens"]["completion"] for record in found) / tokens
    assert first["step"] == 1
    assert first["loss"] == pytest.approx(expected, abs=1e-6)
    assert first["accuracy"] == 5 / 8
    assert first["verdicts/right"] == 5
    assert first["seconds/credit"] > 0
    assert first["bytes/credit"] > 0
    print({name: first[name] for name in first if name.startswith(("seconds", "bytes"))})


def test_killed_and_resumed(killed_and_resumed):
    run, _, done = killed_and_resumed
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = lines(run / "metrics.jsonl")
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    said = re.search(r"resuming after step (\d+), with heads (.*?), AttnPOCredit\((.*?)\)", done.stdout)
    assert said is not None, done.stdout[-3000:]
    assert int(said[1]) >= 1
    assert said[2] == "[(1, 0), (2, 3)]"
    assert "delay=0," in said[3]
    assert json.loads((run / "heads.json").read_text())["heads"] == [[1, 0], [2, 3]]
    state = json.loads((run / "verl" / f"global_step_{STEPS}" / "attnpo.json").read_text())
    assert state["heads"] == [[1, 0], [2, 3]]
    assert state["options"]["delay"] == 0
    assert any(step["score"] is not None for record in records(run, STEPS) for step in record["steps"])


def test_report_reads_the_run_folder(killed_and_resumed, tmp_path):
    from attnpo.cli.main import main

    run, _, _ = killed_and_resumed
    assert main(["report", str(run), "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_shipped_model_generates_and_trains(tmp_path, repository, left):
    """The recipe for a CPU: the shipped model's heads are found; it answers, is verified, and is trained with them."""
    run = tmp_path / "run"
    auto = ["--heads", "auto", "--heads_traces", "32"]
    done = launch("--config", repository / "recipes" / "verl" / "tiny-cpu.yaml", "--output_dir", run, *auto)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    left.check()
    heads = json.loads((run / "heads.json").read_text(encoding="utf-8"))
    assert heads["labels"] == "causal, on the model's own responses"
    assert heads["traces"] >= 16
    said = "key-focus heads (layer, head) with their step ranking accuracy: "
    assert all(
        f"({layer}, {head}) " in done.stdout.partition(said)[2].partition("\n")[0] for layer, head in heads["heads"]
    )
    assert not (run / "heads-search").exists()
    with gzip.open(run / "heads-traces.jsonl.gz", "rt", encoding="utf-8") as file:
        assert len(file.readlines()) == 32
    assert any(step["score"] is not None for record in records(run, 1) for step in record["steps"])
    state = json.loads((run / "verl" / "global_step_3" / "attnpo.json").read_text(encoding="utf-8"))
    assert state["heads"] == heads["heads"]
    metrics, evaluations = lines(run / "metrics.jsonl"), lines(run / "evaluations.jsonl")
    assert [row["step"] for row in metrics] == [1, 2, 3]
    assert [row["step"] for row in evaluations] == [0, 3]
    assert all(row["grad_norm"] > 0 for row in metrics)
    assert all(row["accuracy"] > 0.2 for row in metrics), "the shipped model is right more often than that"
    assert all(row["length/completion"] > 50 for row in metrics)
    assert len({record["text"] for record in records(run, 1)}) > 24  # really sampled
    assert {record["split"] for record in records(run, 1)} == {"train"}
    assert all(row["n"] == 8 for row in evaluations)
    weights = list((run / "verl" / "global_step_3" / "actor").glob("*"))
    assert weights


def test_nothing_is_left_of_a_run_that_fails(canned, left, tmp_path):
    """A prompt without a canned response: the rollouts fail, the run ends with code 1 and names the place."""
    _, words, served = canned
    few = dict(list(served.items())[:1])
    (tmp_path / "few.json").write_text(json.dumps(few), encoding="utf-8")
    words = [word for word in words if "attnpo_cpu.canned" not in word]
    words += [f"+actor_rollout_ref.rollout.engine_kwargs.attnpo_cpu.canned={tmp_path / 'few.json'}"]
    words += ["--output_dir", str(tmp_path / "run"), "--credit", "outcome"]
    done = launch(*words)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert "the run on verl failed" in done.stderr
    left.check()
