"""Trimming: steps kept for their value, the bisection, the resulting rows, and the command."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from attnpo.cli.main import main
from attnpo.cli.trim import add_arguments
from attnpo.errors import InputError
from attnpo.models import resolve_model
from attnpo.report.views.trimmed import read_trimmed
from attnpo.steps.answers import stated_values, used_values
from attnpo.steps.response import answer_of, thinking_of
from attnpo.task.dataset import build_dataset
from attnpo.traces.prepared import prepare_trace
from attnpo.trim import run as trim_run
from attnpo.trim.examples import Writer
from attnpo.trim.orders import (
    after_first_answer,
    kept_for_values,
    last_first,
    lowest_first,
    most_removable,
    random_order,
)
from attnpo.trim.rows import read_source
from attnpo.trim.trimmer import Options, Trimmed
from attnpo.trim.verify import Candidate, Model, answer_likelihoods, leave_one_out

STEPS = ["First 12 + 30 = 42. ", "Wait, is 42 right? 12 plus 30 is 42. ", "Then 42 * 2 = 84. ", "So 84 it is. "]


def trace(parts: list[str] = STEPS, answer: str = "It is 84.", **fields: Any) -> dict[str, Any]:
    steps, start = [], 0
    for part in parts:
        steps.append({"start": start, "end": start + len(part)})
        start += len(part)
    return {
        "problem": "12 + 30, twice?",
        "response": f"{''.join(parts)}</think>{answer}",
        "reference": "84",
        "steps": steps,
        **fields,
    }


def test_a_conversation_is_a_trace(tmp_path):
    source, said = tmp_path / "in.jsonl", {"role": "assistant", "content": trace()["response"]}
    good = {"messages": [{"role": "user", "content": "12 + 30, twice?"}, said], "reference": "84"}
    source.write_text("\n".join(map(json.dumps, [good, {"messages": [said]}, good])) + "\n")
    rows, without = read_source(source)
    assert [number for number, _ in rows] == [1, 3]
    assert (rows[0][1]["problem"], rows[0][1]["response"]) == ("12 + 30, twice?", said["content"])
    (bad,) = without
    assert bad.row == 2
    assert bad.reason.startswith("found no message, expected a list of messages")


# Values and orders


def test_values_by_hand():
    assert stated_values(r"so $x = 1,250$ and y is \boxed{7}, not 3") == {"1250", "7"}
    assert used_values("12 plus 30 is 42, 42 is fine") == {"12", "30"}
    assert stated_values("a = 1{,}250, b is 1,250") == {"1250"}
    assert used_values(r"1{,}250 + 1\,250 + 30") == {"1250", "30"}


CALCULATED = (
    "total = 42 + 18 = 60",
    "total = (42 + 18) * 1 = 60",
    "total is (42) + 18 = 60",
    "total = $42 + $18 = $60",
    "it is 42 plus 18, which is 60",
    "it is **42** + 18 = 60",
    "total = 42 cm + 18 cm = 60 cm",
    r"total = 42\text{ cm} + 18\text{ cm} = 60\text{ cm}",
    r"angle = 42^\circ + 18^{\circ} = 60^\circ",
    "share = 42% + 18% = 60%",
    "x = 42-18 = 60",
    r"x = 42 \times 18 = 60",
    r"x = 42 \cdot \frac{18}{1} = 60",
    "x = 42(18) = 60",
    "x = 42^2 = 60",
    "x = 42/18 = 60",
    "x = 42/18 + 18 = 60",
    "x = 42 + n, 60 = n, so it is 60",
)


@pytest.mark.parametrize("text", CALCULATED)
def test_a_number_that_is_calculated_with_is_used(text):
    assert stated_values(text) == {"60"}
    assert "42" in used_values(text)


@pytest.mark.parametrize(
    "text",
    [
        "It is 42 - so it stays",
        "It is 42 - I checked, 18 times",
        "speed = 42 km/h",
        "area = 42 m^2",
        r"angle = 42^\circ.",
        "P = 42/216.",
        "it = 42 (18 more)",
        "it is 42, so minus 18 comes next",
        r"\boxed{42}",
        "x = 42 = y",
        "- apples = 42\n- 3 baskets are full",
        "* it is 42\n\n* 18 come next",
        "Since n = 42 then - x and the rest",
    ],
)
def test_a_number_that_is_not_calculated_with_is_stated(text):
    assert stated_values(text) == {"42"}


@pytest.mark.parametrize(
    "text",
    [
        "- a = 42\n- b = 60",
        "n = 42 and k + 1 = 60",
        "x = 42 and y - z = 60",
        "Since n = 42 then k + 1 = 60",
        "total is 42 and x - 1 is 60",
        "total is 42 cm and so x - 1 is 60",
    ],
)
def test_a_calculation_after_a_conjunction_or_in_another_item_is_another_one(text):
    assert stated_values(text) == {"42", "60"}


def test_the_source_of_a_number_before_another_calculation_stays():
    steps = ["Counting gives n = 42 and k + 1 = 5. ", "Hmm. ", "So 42 * 2 = 84. "]
    assert kept_for_values(steps, [0, 1], "?") == {0}


def test_no_part_of_a_longer_number_is_stated():
    assert stated_values("is 4.25x") == set()
    assert stated_values("= 4.25 + 3.75 = 8.5") == {"8.5"}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(10, 99), min_size=2, max_size=5, unique=True),
    st.sampled_from(("+", " - ", r"\cdot ", " plus ")),
)
def test_a_chain_of_equations_uses_all_but_its_result(numbers, sign):
    """Whatever is calculated: "it = a + b + c = 100"."""
    step = f"it = {sign.join(map(str, numbers))} = 100"
    assert stated_values(step) == {"100"}
    assert used_values(step) == set(map(str, numbers))


def test_a_step_stays_whose_value_is_used():
    # 42 is stated by steps 0 and 1 and used by step 2, 84 by step 2 and used by step 3 alone.
    assert kept_for_values(STEPS, [0], "12 + 30, twice?") == set()
    assert kept_for_values(STEPS, [0, 1], "12 + 30, twice?") == {1}  # the one that goes last
    assert kept_for_values(STEPS, [1, 0], "12 + 30, twice?") == {0}
    assert kept_for_values(STEPS, [1, 2, 0], "12 + 30, twice?") == {2, 0}  # 2 for 84, then 0 for 42
    assert kept_for_values(STEPS, [0, 1], "42?") == set()  # given by the problem
    assert kept_for_values(["It is 7. ", "So 7. "], [0], "?") == set()  # one digit
    chain = ["First 12 + 30 = 42. ", "Wait, check. ", "total = 42 + 18 = 60. "]
    assert kept_for_values(chain, [0], "12, 30 and 18?") == {0}
    no_source = "It = 42 + 18. "
    assert kept_for_values([*chain[:2], no_source, "So 42 - 2 = 40. "], [0], "?") == {0}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(10, 14), st.integers(10, 14)), min_size=1, max_size=7), st.data())
def test_remaining_steps_use_only_derived_values(numbers, data):
    texts = [f"{used} is used and it = {stated}. " for used, stated in numbers]
    removed = data.draw(st.permutations(range(len(texts))))[: data.draw(st.integers(0, len(texts)))]
    kept = kept_for_values(texts, removed, "?")
    left = [k for k in range(len(texts)) if k not in set(removed) - kept]
    assert kept <= set(removed)
    for k in left:
        used, stated = numbers[k]
        before = [j for j in range(k) if numbers[j][1] == used]
        assert used == stated or not before or any(j in left for j in before)


def test_orders_by_hand():
    assert lowest_first([0.2, 0.1, 0.2, 0.4]) == [1, 2, 0, 3]
    assert last_first(3) == [2, 1, 0]
    assert random_order(6, 0, 4) == random_order(6, 0, 4) != random_order(6, 0, 5)
    assert sorted(random_order(6, 0, 4)) == list(range(6))
    assert after_first_answer(STEPS, "It is 84.") == [3]
    assert after_first_answer(STEPS, "It is 42.") == [3, 2, 1]
    assert after_first_answer(STEPS, "It is 5.") == after_first_answer(STEPS, "no number") == []


# Bisection


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(-1, 20)), max_size=6))
def test_largest_removal_that_passes(cases):
    calls = []

    def check(pairs: list[tuple[int, int]]) -> list[bool]:
        calls.extend(pairs)
        return [count <= cases[i][1] for i, count in pairs]

    found = most_removable([most for most, _ in cases], check)
    assert found == [None if passing < 0 else min(most, passing) for most, passing in cases]
    assert len(set(calls)) == len(calls)
    for i, (most, _) in enumerate(cases):
        assert sum(place == i for place, _ in calls) <= most.bit_length() + 2


def test_result_has_been_verified():
    passing = {0, 3, 6}
    seen: list[int] = []
    (found,) = most_removable([8], lambda pairs: [count in passing for _, count in pairs], seen.append)
    assert found in passing
    assert found + 1 not in passing
    assert seen[-1] == 1


# Options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ranking": "best"}, "--ranking: found 'best', expected one of attention, random"),
        ({"keep": 1.5}, "--keep: found 1.5, expected a share"),
        ({"least": 0}, "--least: found 0"),
        ({"tolerance": -1.0}, "--tolerance: found -1.0"),
        ({"max_answer": 0}, "--max-answer: found 0"),
        ({"verify": "none", "keep": 0}, "--verify none: nothing limits .* or --least, a number of steps above 1"),
        ({"lexicon": "other"}, "other"),
    ],
)
def test_options_out_of_range(given, message):
    with pytest.raises(InputError, match=message):
        Options(**given)


def test_number_of_removable_steps():
    assert [Options().most_removed(n) for n in (1, 2, 9)] == [0, 1, 4]
    assert [Options(keep=0).most_removed(n) for n in (1, 2, 9)] == [0, 1, 8]
    assert [Options(keep=0.3).most_removed(n) for n in (1, 3, 10)] == [0, 2, 7]
    assert [Options(least=4).most_removed(n) for n in (3, 5)] == [0, 1]
    assert Options(keep=1).most_removed(9) == 0
    assert Options(verify="none", keep=0, least=2).most_removed(9) == 7


def test_the_command_has_the_defaults_of_the_options():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = vars(parser.parse_args(["in", "-o", "out"]))
    given["values"] = given["values"] == "keep"
    defaults = vars(Options())
    assert {name: given[name] for name in defaults} == defaults


# Likelihood


def candidate(row: dict[str, Any], tokenizer: Any) -> Candidate:
    return Candidate(1, row, prepare_trace(row, tokenizer))


def test_likelihoods_are_those_of_the_text_that_is_left(tiny_qwen2, tiny_tokenizer):
    import torch

    one = candidate(trace(), tiny_tokenizer)
    model = Model(tiny_qwen2, tiny_tokenizer, 2)
    whole, part = answer_likelihoods(model, [(one, ()), (one, (1, 3))])
    for removed, found in (((), whole), ((1, 3), part)):
        left = "".join(text for k, text in enumerate(STEPS) if k not in removed)
        left = left if not removed else left.strip() + " "
        prompt = "<|im_start|>user\n12 + 30, twice?<|im_end|>\n<|im_start|>assistant\n<think>\n"
        before = tiny_tokenizer(prompt + left + "</think>", add_special_tokens=False)["input_ids"]
        answer = [*tiny_tokenizer("It is 84.", add_special_tokens=False)["input_ids"], tiny_tokenizer.eos_token_id]
        logits = tiny_qwen2(torch.tensor([[*before, *answer]])).logits.detach()[0].log_softmax(-1)
        expected = [float(logits[len(before) + i - 1, token]) for i, token in enumerate(answer)]
        assert found == pytest.approx(sum(expected) / len(expected), abs=1e-4)
    drops = leave_one_out(model, [one, one])[1]
    assert drops[2] == pytest.approx(whole - answer_likelihoods(model, [(one, (2,))])[0], abs=1e-5)


def test_the_benchmark_chooses_heads_on_other_problems(repository, monkeypatch):
    import torch

    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    from trim_real import best_heads, table

    # Heads 0 to 2 are best on problems a and c, heads 3 to 5 on b. Every other trace would mix the halves.
    ours, other = [9.0, 8.0, 7.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0, 8.0, 7.0]
    found = best_heads(torch.tensor([ours, ours, other, ours]), ["a", "a", "b", "c"])
    assert [heads.tolist() for heads in found] == [[3, 4, 5], [3, 4, 5], [0, 1, 2], [3, 4, 5]]
    # One problem only: whatever is drawn, the mean is the same.
    rankings = ("attention", "random", "last first", "first first", "leave-one-out")
    records = [
        {"row": row, "ranking": ranking, "of": 2, "steps": 10, "removed": 2 * row, "tokens": row / 4}
        for ranking in rankings
        for row in (1, 2)
    ]
    assert table(records, {1: "a", 2: "a"}).rows[0][1:4] == ("2 of 1", "0.30 (0.30 to 0.30)", "0.38 (0.38 to 0.38)")


# Rows


def test_an_example_by_hand(tiny_tokenizer):
    one = candidate(trace(id="a", difficulty=2, family="x"), tiny_tokenizer)
    found = Trimmed([1, 3], [0], [0.4, 0.1, 0.5, 0.2], "why")
    row = Writer(tiny_tokenizer, "attention", "sample", "text").example(one, found, preference=False)
    assert row["prompt"].endswith("assistant\n<think>\n")
    assert row["completion"] == row["response"] == "First 12 + 30 = 42. Then 42 * 2 = 84. </think>It is 84."
    assert row["trim"]["response"] == one.row["response"]
    assert (row["difficulty"], "family" in row, "level" in row) == (2, False, False)
    assert [step["removed"] for step in row["trim"]["steps"]] == [False, True, False, True]
    assert [step["kept_for_value"] for step in row["trim"]["steps"]] == [True, False, False, False]
    assert row["trim"]["tokens"]["short"] < row["trim"]["tokens"]["long"]
    pair = Writer(tiny_tokenizer, "attention", "sample", "text").example(one, found, preference=True)
    assert (pair["chosen"], pair["rejected"]) == (row["completion"], one.row["response"])
    assert "completion" not in pair


def test_an_opening_tag_stands_once(tiny_tokenizer):
    for opening in ("", "<think>\n"):
        row = trace()
        row["response"] = opening + row["response"]
        if opening:
            row["steps"] = None
        one = candidate(row, tiny_tokenizer)
        for kind in ("text", "conversation"):
            found = Writer(tiny_tokenizer, "attention", "sample", kind).example(
                one, Trimmed([], [], None, ""), preference=False
            )
            whole = (
                found["prompt"] + found["completion"]
                if kind == "text"
                else tiny_tokenizer.apply_chat_template(found["prompt"] + found["completion"], tokenize=False)
            )
            assert whole.count("<think>") == 1


# The command


@pytest.fixture(scope="module")
def model(tmp_path_factory, new_tiny_qwen2, tiny_tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("model")
    new_tiny_qwen2().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    (folder / "heads.json").write_text('{"heads": [[0, 0], [2, 3]]}')
    return folder


@pytest.fixture(autouse=True)
def _one_pool(monkeypatch, session_pool):
    from contextlib import nullcontext

    monkeypatch.setattr(trim_run, "VerifierPool", lambda: nullcontext(session_pool))


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


LIKELY = ["--verify", "likelihood", "--tolerance", "0.02"]


def test_bad_rows_are_named_and_left_out(model, tmp_path, capsys):
    rows = [
        trace(id="good"),
        "{no json",
        {"problem": "x"},
        trace(id="wrong", answer="It is 85."),
        {**trace(), "response": "no end"},
        trace(reference=None, id="unknown"),
        {**trace(id="gap"), "steps": [{"start": 0, "end": 5}]},
        trace(answer=" ", id="empty"),
        {**trace(), "reference": 5},
    ]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    assert main(["trim", source, "--model", str(model), "-o", str(target), *LIKELY]) == 0
    assert [row.get("id") for row in read(target)] == ["good", "unknown"]  # nothing says that it is wrong
    left_out = {row["row"]: row["reason"] for row in read(tmp_path / "out.jsonl.left-out")}
    assert left_out.keys() == {2, 3, 4, 5, 7, 8, 9}
    for number, reason in ((2, "not valid JSON"), (3, "'response' is missing"), (4, "answer is wrong")):
        assert reason in left_out[number]
    for number, reason in ((5, "steps"), (7, "do not cover"), (8, "empty answer"), (9, "'reference' is a number")):
        assert reason in left_out[number]
    assert "7 rows left out" in capsys.readouterr().out
    assert main(["trim", source, "--model", str(model), "-o", str(target), "--max-answer", "4"]) == 0
    assert "no reference answer" in {row["row"]: row["reason"] for row in read(Path(f"{target}.left-out"))}[6]
    assert read(target)[0]["trim"]["reason"].startswith("unchanged: the answer sampled")  # a random model
    assert re.search(r"unchanged: sampled answer not right +1\b", capsys.readouterr().out)


@pytest.mark.parametrize("ranking", ["attention", "random", "position", "likelihood", "first_answer"])
def test_every_ranking_keeps_to_the_tolerance(ranking, model, tmp_path):
    source = write(tmp_path / "in.jsonl", [trace(), trace([*STEPS, "Hmm, 84 once more. "])])
    options = ["--verify", "likelihood", "--tolerance", "0.05", "--values", "ignore"]
    assert main(["trim", source, "--model", str(model), "-o", str(tmp_path / "o"), "--ranking", ranking, *options]) == 0
    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()
    for row in read(tmp_path / "o"):
        long = {**row, "response": row["trim"]["response"], "steps": row["trim"]["steps"]}
        one = candidate(long, tokenizer)
        removed = [k for k, step in enumerate(row["trim"]["steps"]) if step["removed"]]
        assert thinking_of(row["response"]) == one.without(removed)
        assert answer_of(row["response"]) == "It is 84."
        whole, part = answer_likelihoods(Model(network, tokenizer, 2), [(one, ()), (one, removed)])
        assert row["trim"]["drop"] == pytest.approx(whole - part, abs=1e-5)
        assert whole - part <= 0.05


def test_interrupted_and_continued_gives_the_same_file(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trim_run, "PORTION", 2)
    source = write(tmp_path / "in.jsonl", [trace(id=i) for i in range(3)] + ["{", trace(id=4), trace(id=5)])
    command = ["trim", source, "--model", str(model), *LIKELY, "--ranking", "likelihood", "-o"]
    assert main([*command, str(tmp_path / "whole.jsonl")]) == 0
    target, done = tmp_path / "out.jsonl", 0
    portion = trim_run._Worker.portion

    def interrupted(*args: Any) -> Any:
        nonlocal done
        if (done := done + 1) == 2:
            raise KeyboardInterrupt
        return portion(*args)

    monkeypatch.setattr(trim_run._Worker, "portion", interrupted)
    assert main([*command, str(target)]) == 1
    assert not target.exists()
    partial = Path(f"{target}.partial")
    partial.write_bytes(partial.read_bytes() + b'{"examples": [')  # killed while it wrote
    assert main([*command, str(target)]) == 0
    assert done == 4  # the first portion was not done again
    assert "2 rows were done by an earlier call" in capsys.readouterr().out
    for ending in ("", ".left-out"):
        left, right = (Path(f"{tmp_path / name}.jsonl{ending}").read_text() for name in ("whole", "out"))
        assert left == right
    assert not partial.exists()


def test_the_samples_of_an_evaluation(model, tmp_path, capsys):
    data, folder = tmp_path / "data", tmp_path / "eval"
    data.mkdir()
    (folder / "samples").mkdir(parents=True)
    problems = [
        {"id": name, "problem": f"Problem {name}?", "reference": "84", "difficulty": 3} for name in ("p1", "p2")
    ]
    write(data / "task.jsonl", problems)
    (folder / "eval.yaml").write_text(f"model: m\ndata_dir: {data}\n")
    text = "".join(STEPS) + "</think>It is "
    counts = dict.fromkeys(("seed", "prompt_tokens", "tokens", "thinking_tokens", "answer_tokens"), 1)
    common = {"benchmark": "task", **counts, "extracted": None, "verdict": None, "reference": "84", "level": None}
    samples = [
        {**common, "id": "p2", "sample": 0, "text": f"{text}84.", "truncated": False},
        {**common, "id": "p1", "sample": 1, "text": f"{text}85.", "truncated": False},
        {**common, "id": "p1", "sample": 0, "text": f"{text}84.", "truncated": True},
        {**common, "id": "gone", "sample": 0, "text": f"{text}84.", "truncated": False},
    ]
    write(folder / "samples" / "task.jsonl", samples)
    assert main(["trim", str(folder), "--model", str(model), "-o", str(tmp_path / "o"), *LIKELY]) == 0
    (row,) = read(tmp_path / "o")
    assert (row["id"], row["problem"], row["reference"], row["level"]) == ("p2/0", "Problem p2?", "84", "3")
    reasons = {row["id"]: row["reason"] for row in read(tmp_path / "o.left-out")}
    assert reasons["p1/0"] == "cut off"
    assert reasons["p1/1"] == "answer is wrong"
    assert "no longer in the benchmark" in reasons["gone/0"]
    # Its file has moved: the questions that the evaluation recorded are read.
    recorded = [{"benchmark": "task", "id": row["id"], "problem": row["problem"], "choices": []} for row in problems]
    write(folder / "questions.jsonl", recorded)
    (folder / "eval.yaml").write_text(f"model: m\ndata_dir: {tmp_path / 'moved'}\n")
    assert main(["trim", str(folder), "--model", str(model), "-o", str(tmp_path / "o"), *LIKELY]) == 0
    (again,) = read(tmp_path / "o")
    assert again == {name: value for name, value in row.items() if name != "level"}
    # Another benchmark, whose file is not even there, is left out.
    choice = {**common, "benchmark": "gpqa_diamond", "reference": "A", "text": f"{text}A.", "truncated": False}
    write(folder / "samples" / "gpqa_diamond.jsonl", [{**choice, "id": "g", "sample": k} for k in range(2)])
    assert main(["trim", str(folder), "--model", str(model), "-o", str(tmp_path / "o"), *LIKELY]) == 0
    assert read(tmp_path / "o") == [again]
    reasons = {row["id"]: row["reason"] for row in read(tmp_path / "o.left-out")}
    assert reasons["g/0"] == reasons["g/1"] == "benchmark gpqa_diamond has answers of kind choice, expected math"
    assert len(reasons) == 5
    (folder / "samples" / "task.jsonl").unlink()
    assert main(["trim", str(folder), "--model", str(model), "-o", str(tmp_path / "o"), *LIKELY]) == 2
    assert "2 × benchmark gpqa_diamond has answers of kind choice, expected math" in capsys.readouterr().err


def test_a_partial_file_of_other_options_is_not_used(model, tmp_path, capsys):
    source, target = write(tmp_path / "in.jsonl", [trace()]), tmp_path / "out.jsonl"
    Path(f"{target}.partial").write_text('{"options": {}}\n{"examples": [], "left_out": []}\n')
    assert main(["trim", source, "--model", str(model), "-o", str(target), *LIKELY]) == 0
    assert "starting anew" in capsys.readouterr().err
    assert len(read(target)) == 1


def test_the_shortest_of_a_problem_and_pairs(model, tmp_path, capsys):
    long = trace([*STEPS, "Hmm, 84 once more. "], id="long")
    source = write(tmp_path / "in.jsonl", [long, trace(id="short"), trace(id="other", problem="what?")])
    command = ["trim", source, "--model", str(model), "-o", str(tmp_path / "o"), "--verify", "none"]
    assert main([*command, "--keep", "1", "--shortest", "1"]) == 0
    rows = read(tmp_path / "o")
    assert [row["id"] for row in rows] == ["short", "other"]
    assert all(row["response"] == row["trim"]["response"] for row in rows)
    assert read(tmp_path / "o.left-out") == [
        {
            "row": 1,
            "id": "long",
            "where": f"{source}, row 1",
            "reason": "not written: not among the 1 shortest of its problem (--shortest)",
        }
    ]
    out = capsys.readouterr().out
    assert "1 rows left out" in out
    assert "-0%" not in out
    pairs = [*command, "--preference", "--values", "ignore"]
    assert main([*pairs, "--keep", "0.5"]) == 0
    assert all(len(row["chosen"]) < len(row["rejected"]) for row in read(tmp_path / "o"))
    assert not (tmp_path / "o.left-out").exists()
    assert main([*pairs, "--keep", "0", "--least", "4"]) == 0  # only the long one has more steps
    assert [row["id"] for row in read(tmp_path / "o")] == ["long"]
    reason = "not written: no step was removed, so there is no pair (--preference): unchanged: no step may be removed"
    assert [(row["row"], row["reason"]) for row in read(tmp_path / "o.left-out")] == [(2, reason), (3, reason)]


def test_no_pair_is_an_error(model, tmp_path, capsys):
    source, target = write(tmp_path / "in.jsonl", [trace(), trace()]), tmp_path / "o"
    command = ["trim", source, "--model", str(model), "-o", str(target), "--verify", "none", "--preference"]
    assert main([*command, "--keep", "1"]) == 2
    message = capsys.readouterr().err
    assert f"--preference: no trace of {source} lost a step, so there is no pair to write" in message
    assert "a smaller --keep or --least" in message
    assert "; 2 × not written: no step was removed" in message
    assert not target.exists()
    assert not Path(f"{target}.partial").exists()
    assert len(read(Path(f"{target}.left-out"))) == 2


def test_rows_beyond_the_limit_are_not_listed(model, tmp_path):
    rows = ["{", trace(id="a"), trace(id="wrong", answer="It is 85."), {"problem": "x"}, trace(id="b"), "{", trace()]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "o"
    assert main(["trim", source, "--model", str(model), "-o", str(target), *LIKELY, "--max-traces", "3"]) == 0
    assert [row["id"] for row in read(target)] == ["a", "b"]
    assert [row["row"] for row in read(Path(f"{target}.left-out"))] == [1, 3, 4]


def test_responses_of_one_row_are_verified_each(model, tmp_path):
    """lm-eval writes all responses to a problem into one row, so that row numbers repeat."""
    texts = [trace()["response"], trace(answer="It is 85.")["response"], "no end"]
    row = {"doc_id": 1, "doc": {"question": "12 + 30, twice?"}, "target": "84", "filter": "none", "resps": [texts]}
    row |= {"arguments": {"gen_args_0": {"arg_0": "12 + 30, twice?"}}, "filtered_resps": ["84"], "metrics": []}
    source, target = write(tmp_path / "in.jsonl", [row]), tmp_path / "o"
    command = ["trim", source, "--model", str(model), "-o", str(target), "--verify", "none"]
    assert main([*command, "--keep", "1"]) == 0
    assert [row["response"] for row in read(target)] == texts[:1]
    assert [row["row"] for row in read(Path(f"{target}.left-out"))] == [1, 1]


def test_a_custom_format_is_recorded_and_read_by_the_page(model, tmp_path):
    (tmp_path / "reason.yaml").write_text("opening: <reason>\nclosing: </reason>\n")
    row = {name: trace()[name] for name in ("problem", "reference")}
    row["response"] = f"<reason>{STEPS[0]}\n\n{STEPS[2]}</reason>It is 84."
    source, target = write(tmp_path / "in.jsonl", [row]), tmp_path / "o.jsonl"
    form = ["--thinking-format", str(tmp_path / "reason.yaml")]
    assert main(["trim", source, "--model", str(model), "-o", str(target), *LIKELY, *form]) == 0
    recorded = read(target)[0]["trim"]["thinking_format"]
    assert recorded["closing"] == ["</reason>"]
    assert "closing_ids" not in recorded
    (shown,) = read_trimmed(target).traces
    assert "".join(step.text for step in shown.steps) == f"{STEPS[0]}\n\n{STEPS[2]}"
    assert shown.final == "It is 84."
    assert main(["budget", str(target), "-o", str(tmp_path / "budgets.json")]) == 0
    marks = {"reasoning_start_str": "<reason>", "reasoning_end_str": "</reason>"}
    assert json.loads((tmp_path / "budgets.json").read_text())["reasoning_config"] == marks


def test_no_row_can_be_used(model, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [trace(answer="It is 85.")])
    assert main(["trim", source, "--model", str(model), "-o", str(tmp_path / "o")]) == 2
    assert (
        "no row can be used, expected right traces with a closing tag; 1 × answer is wrong" in capsys.readouterr().err
    )
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "o.partial").exists()
    assert [row["reason"] for row in read(tmp_path / "o.left-out")] == ["answer is wrong"]


def test_marks_that_the_model_does_not_write_are_reported(model, tmp_path, capsys):
    row = trace()
    row["response"] = "[THINK]" + row["response"].replace("</think>", "[/THINK]")
    source = write(tmp_path / "in.jsonl", [{name: row[name] for name in ("problem", "response", "reference")}])
    assert main(["trim", source, "--model", str(model), "-o", str(tmp_path / "o"), *LIKELY]) == 0
    assert "o: 1 of 1 traces keep other marks than the model's (</think>)" in capsys.readouterr().err


def test_a_missing_model_is_named_before_its_heads(tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [trace()])
    assert main(["trim", source, "--model", str(tmp_path / "none"), "-o", str(tmp_path / "o")]) == 2
    assert f"--model {tmp_path / 'none'}: no such folder" in capsys.readouterr().err


def test_a_target_that_cannot_be_written(model, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [trace()])
    assert main(["trim", source, "--model", str(model), "-o", str(tmp_path / "no" / "o"), *LIKELY]) == 2
    assert f"o: the folder {tmp_path / 'no'} does not exist" in capsys.readouterr().err
    assert main(["trim", source, "--model", str(model), "-o", str(tmp_path), *LIKELY]) == 2
    assert "is a folder, expected a file to write" in capsys.readouterr().err
    before = (tmp_path / "in.jsonl").read_bytes()
    assert main(["trim", source, "--model", str(model), "-o", str(tmp_path / "." / "in.jsonl"), *LIKELY]) == 2
    assert "in.jsonl: is the input file, which would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "in.jsonl").read_bytes() == before


@pytest.mark.slow
def test_the_heads_find_more_than_chance(tmp_path):
    source = write(tmp_path / "in.jsonl", build_dataset(30, seed=9, split="test"))
    short, lost = {}, {}
    for ranking in ("attention", "random"):
        assert main(["trim", source, "-o", str(tmp_path / ranking), "--ranking", ranking]) == 0
        rows = read(tmp_path / ranking)
        assert len(rows) == 30
        short[ranking] = sum(row["trim"]["tokens"]["short"] for row in rows)
        lost[ranking] = sum(step["removed"] for row in rows for step in row["trim"]["steps"] if step["essential"])
    assert short["attention"] < 0.85 * short["random"]
    assert lost["attention"] < lost["random"]


@pytest.mark.slow
def test_trl_takes_the_rows_as_they_are(tmp_path):
    """SFTTrainer and DPOTrainer read the file; the loss of SFTTrainer is on the completion alone."""
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    folder = resolve_model(None)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    source = write(tmp_path / "in.jsonl", build_dataset(4, seed=9, split="test"))
    common: dict[str, Any] = {"max_steps": 1, "report_to": "none", "use_cpu": True, "bf16": False}
    for kind in ("text", "conversation"):
        target = tmp_path / f"{kind}.jsonl"
        options = ["--format", kind, "--verify", "none", "--keep", "0.4", "-o", str(target)]
        assert main(["trim", source, *options]) == 0
        data = load_dataset("json", data_files=str(target), split="train")
        trainer = SFTTrainer(folder, SFTConfig(str(tmp_path / "sft"), **common), train_dataset=data)
        for row, wanted in zip(trainer.train_dataset, read(target), strict=True):
            trained = [token for token in row["labels"] if token != -100]
            assert tokenizer.decode(trained) == wanted["response"] + tokenizer.eos_token
            assert tokenizer.decode(row["input_ids"]).count("<think>") == 1
        trainer.train()
    target = tmp_path / "pairs.jsonl"
    options = ["--preference", "--verify", "none", "--keep", "0.4", "-o", str(target)]
    assert main(["trim", source, *options]) == 0
    data = load_dataset("json", data_files=str(target), split="train")
    DPOTrainer(folder, args=DPOConfig(str(tmp_path / "dpo"), **common), train_dataset=data).train()
