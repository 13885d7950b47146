"""`attnpo probe` on a tiny model: figures against direct calls, interrupted probes, rows that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from attnpo.attention.capture import score_steps
from attnpo.attention.heads import load_heads
from attnpo.cli.main import main
from attnpo.heads.find import find_heads
from attnpo.heads.table import step_ranking_accuracy
from attnpo.traces.prepared import prepare_trace

STEPS = [
    "First add 12 and 30, which gives 42. Now I am done with the sum.\n",
    "Wait, let me check: 12 + 30 = 42, é €.\n",
    "Hmm, so it is 42 again.\n",
]


def trace(order: list[int], labels: list[Any], name: str = "t") -> dict[str, Any]:
    steps, start = [], 0
    for index, label in zip(order, labels, strict=True):
        steps.append({"start": start, "end": start + len(STEPS[index]), "essential": label})
        start = steps[-1]["end"]
    thinking = "".join(STEPS[index] for index in order)
    return {"id": name, "problem": "12 + 30?", "response": f"{thinking}</think>It is 42.", "steps": steps}


USED = [
    trace([0, 1, 2], [True, False, False], "a"),
    trace([1, 0], [False, True], "b"),
    trace([0, 2, 1, 2], [True, None, False, False], "c"),
    trace([0, 1], [True, False], "d"),
]
UNUSED = [trace([0, 1], [True, True]), trace([0, 1], [None, None]), {**USED[0], "response": "".join(STEPS)}]


@pytest.fixture
def model(tiny_qwen2, tiny_tokenizer, trainer_kit, tmp_path) -> Path:
    return trainer_kit.save_model(tmp_path / "model", trainer_kit.sharpen(tiny_qwen2), tiny_tokenizer)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def slow_accuracy(model: Path, rows: list[dict[str, Any]]) -> dict[tuple[int, int], float]:
    """One head, one trace at a time."""
    network, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    result = {}
    for head in [(layer, head) for layer in range(3) for head in range(4)]:
        found = []
        for row in rows:
            one = prepare_trace(row, tokenizer)
            (scores,) = score_steps(
                network, torch.tensor([one.ids]), None, steps=[one.spans], answers=[one.answer], heads=[head]
            )
            kept = [i for i, step in enumerate(row["steps"]) if step["essential"] is not None]
            labels = torch.tensor([row["steps"][i]["essential"] for i in kept])
            found.append(float(step_ranking_accuracy(scores[:, kept], labels)))
        result[head] = sum(found) / len(found)
    return result


def test_every_head_against_direct_calls(model, tmp_path, capsys):
    source, target = write(tmp_path / "in.jsonl", [*USED, *UNUSED]), tmp_path / "found.json"
    assert main(["probe", source, "--model", str(model), "-o", str(target), "--top", "2", "--batch-size", "3"]) == 0
    printed = capsys.readouterr()
    for reason in ("steps of one kind only", "no labels", "no closing tag"):
        assert f"1 left out ({reason})" in printed.err
    assert "on 4 traces" in printed.out
    content = json.loads(target.read_text())
    expected = slow_accuracy(model, USED)
    found = {tuple(map(int, name.split(","))): value for name, value in content["sra"].items()}
    assert found == pytest.approx(expected, abs=1e-6)
    assert len({round(value, 3) for value in expected.values()}) > 3
    assert load_heads(target) == sorted(expected, key=lambda head: (-expected[head], head))[:2]
    assert (content["traces"], content["labels"]) == (4, source)
    assert not Path(f"{target}.partial").exists()


def test_a_range_of_layers_and_a_number_of_traces(model, tmp_path):
    found = find_heads(
        write(tmp_path / "in.jsonl", USED), tmp_path / "h.json", model=str(model), layers=(1, 2), max_traces=2
    )
    assert {layer for layer, _ in found.table.mean()} == {1, 2}
    assert found.table.traces == 2


def test_an_interrupted_probe_goes_on(model, tmp_path, monkeypatch):
    source, target = write(tmp_path / "in.jsonl", USED), tmp_path / "found.json"
    calls: list[int] = []

    def stop(done: int, total: int) -> None:
        calls.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_heads(source, target, model=str(model), batch_size=1, progress=stop)
    assert not target.exists()
    with open(f"{target}.partial", "a") as file:
        file.write('{"key": "cut off')  # killed while it wrote
    again: list[int] = []
    whole = find_heads(source, target, model=str(model), batch_size=1, progress=lambda done, total: again.append(done))
    assert (calls, again) == ([0, 1, 2], [2, 3, 4])
    fresh = find_heads(source, tmp_path / "other.json", model=str(model), batch_size=4)
    torch.testing.assert_close(whole.table.figures, fresh.table.figures, rtol=1e-5, atol=1e-6)


def test_kept_figures_of_other_labels_are_not_taken(model, tmp_path):
    target = tmp_path / "found.json"

    def stop(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_heads(write(tmp_path / "in.jsonl", USED[:1]), target, model=str(model), progress=stop)
    other = trace([0, 1, 2], [False, True, True], "a")
    found = find_heads(write(tmp_path / "in.jsonl", [other]), target, model=str(model))
    right = find_heads(write(tmp_path / "in.jsonl", USED[:1]), target, model=str(model))
    torch.testing.assert_close(found.table.figures[:, 0], 1 - right.table.figures[:, 0])


def test_a_figure_on_request(model, tmp_path):
    source = write(tmp_path / "in.jsonl", USED)
    options = ["--model", str(model), "-o", str(tmp_path / "h.json"), "--figure", str(tmp_path / "map.png")]
    assert main(["probe", source, *options]) == 0
    assert (tmp_path / "map.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (USED, ["--layers", "1-3"], "--layers: found 1-3, expected a range within 0-2"),
        (USED, ["--top", "13"], "--top is 13, expected 1 to 12"),
        (USED, ["--batch-size", "0"], "--batch-size is 0"),
        (USED, ["--max-traces", "0"], "--max-traces is 0"),
        (UNUSED, [], "no row can be used (found 1 with steps of one kind only, 1 with no labels, 1 with no closing"),
        ([trace([0, 1], ["yes", False])], [], "row 1: steps[0], field 'essential' is 'yes', expected true, false or"),
        ([{"problem": "?", "response": "a</think>b"}], [], "row 1: field 'steps' is missing"),
    ],
)
def test_bad_input(model, tmp_path, capsys, rows, options, message):
    source = write(tmp_path / "in.jsonl", rows)
    assert main(["probe", source, "--model", str(model), "-o", str(tmp_path / "h.json"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "h.json").exists()


@pytest.mark.parametrize(("name", "message"), [("map.docx", "found .docx, expected one of"), ("no/map.png", "no does")])
def test_a_figure_that_cannot_be_written_is_refused_first(name, message, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", USED)
    assert main(["probe", source, "-o", str(tmp_path / "h.json"), "--figure", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "h.json").exists()


def test_the_output_folder_is_looked_at_first(tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", USED)
    assert main(["probe", source, "-o", str(tmp_path / "none" / "h.json")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["probe", "score"])
def test_a_damaged_model_is_refused(command, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, capsys):
    """NaN in the last layer only: the heads below it have figures, and it must not simply rank last."""
    with torch.no_grad():
        tiny_qwen2.model.layers[2].self_attn.q_proj.weight.fill_(torch.nan)
    model = trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    source, target = write(tmp_path / "in.jsonl", [UNUSED[2], USED[0]]), tmp_path / "out.json"
    assert main([command, source, "--model", str(model), "-o", str(target)]) == 2
    head = {"probe": 0, "score": 3}[command]  # of the layer, the first that is read
    message = (
        f"{source}, row 2: layer 2, head {head} scores step 0 nan, expected a finite number; is the model damaged?"
    )
    assert message in capsys.readouterr().err
    assert not target.exists()
