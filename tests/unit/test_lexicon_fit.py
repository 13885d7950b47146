"""Whether a lexicon fits: statistics of steps, the warning, `attnpo segment --stats` and `--suggest`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attnpo.cli.main import main
from attnpo.steps.fit import fit_of
from attnpo.steps.lexicon import load_lexicon
from attnpo.steps.suggest import suggest_openers, suggestion

CHINESE = Path(__file__).parents[1] / "data" / "traces_zh.jsonl"


def spans(*lengths: int) -> list[tuple[int, int]]:
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return list(zip([0, *ends], ends, strict=False))


def test_by_hand():
    """Four responses, one without thinking: 1, 2 and 4 steps of 10, 5 + 15 and 4 × 10 characters."""
    rows = [spans(10), spans(5, 15), [], spans(10, 10, 10, 10)]
    fit = fit_of(["a" * 10, "b" * 20, "", "c" * 40], rows, tokens=[5, 10, 0, 20])
    assert (fit.traces, fit.empty, fit.steps) == (3, 1, 2)
    assert (fit.low, fit.high) == (pytest.approx(1.2), pytest.approx(3.6))
    assert fit.characters == 10
    assert fit.tokens == 5
    assert fit.largest == 0.75  # of 1, 3/4 and 1/4
    assert fit.uncut == pytest.approx(1 / 3)
    assert fit.wide == 0


def test_nothing_thought():
    fit = fit_of(["", ""], [[], []])
    assert (fit.traces, fit.empty, fit.tokens) == (0, 2, None)
    assert (fit.warning("paper") or "").startswith(
        "none of 2 responses has a thinking part: credit per step has nothing"
    )
    assert fit_of([], []).warning("paper") is None


FITS = {
    "enough": ([spans(20, 20, 20)] * 3, False),
    "few": ([spans(20, 20)] * 3, True),
    "one large": ([spans(5, 5, 90)] * 3, True),
    "large, but not too large": ([spans(10, 10, 80)] * 3, False),
    "half uncut": ([spans(20)] * 2 + [spans(5, 5, 5, 5)] * 2, True),  # their median share is 0.625
    "a third uncut": ([spans(20)] * 2 + [spans(5, 5, 5, 5)] * 4, False),
}


@pytest.mark.parametrize("name", FITS)
def test_warning(name):
    rows, warned = FITS[name]
    fit = fit_of(["a" * (row[-1][1]) for row in rows], rows)
    assert (fit.warning("paper") is not None) == warned


def test_suggested_phrases():
    english, chinese = fit_of(["a" * 20], [spans(20)]), fit_of(["数" * 20], [spans(20)])
    assert "try lexicon paragraphs, or propose one" in str(english.warning("paper"))
    assert "try lexicon paper+zh, or" in str(chinese.warning("paper"))
    assert "try lexicon paragraphs, or" in str(chinese.warning("paper+zh"))
    assert "a lexicon of the model's own phrases can be proposed" in str(english.warning("paper+paragraphs"))


@pytest.fixture
def segment(capsys):
    def run(*argv: object) -> tuple[int, str, str]:
        code = main(["segment", *map(str, argv)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


def test_stats_by_model(segment, tmp_path):
    step = "Wait, " + "x" * 94
    rows = [{"response": f"{step * n}</think>4", "model": m} for n, m in ((3, "b"), (5, "b"), (1, "a"))]
    rows.append({"response": "</think>4"})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = segment(tmp_path / "in.jsonl", "--stats", "-o", tmp_path / "out.csv")
    assert code == 0
    assert out.splitlines()[2:] == [
        "| a | 1 | 1 | 1 | 1 | 100 |  | 100% | 100% |",
        "| b | 2 | 4 | 3.2 | 4.8 | 100 |  | 27% | 0% |",
        "| not named | 0 | 0 | 0 | 0 | 0 |  | 0% | 0% |",
    ]
    assert err.startswith("a: the lexicon paper cuts too few steps for credit per step to mean anything: median 1 per")
    assert err.splitlines()[1].startswith("not named: none of 1 responses has a thinking part")
    assert err.count("\n") == 2
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == "a,1,1,1,1,100,,100%,100%"


def test_stats_in_tokens(segment):
    code, out, _ = segment(CHINESE, "--stats", "--lexicon", "zh", "--tokenizer", "overthinker")
    assert code == 0
    cells = [cell.strip() for cell in out.splitlines()[2].split("|")]
    assert cells[1:6] == ["written by hand", "20", "4", "3", "5"]
    assert int(cells[7]) > int(cells[6]) > 40  # a byte-level tokenizer has three tokens for such a character


def test_bad_options(segment, tmp_path):
    assert segment(CHINESE) == (2, "", "attnpo segment: option -o: expected where to write\n")
    assert "the lexicon, a JSON file" in segment(CHINESE, "--suggest")[2]
    assert "--tokenizer needs --stats" in segment(CHINESE, "-o", "x", "--tokenizer", "overthinker")[2]
    assert "lexicon 'zhh' does not exist" in segment(CHINESE, "--stats", "--lexicon", "zhh")[2]
    code, _, err = segment(CHINESE, "--suggest", "-o", tmp_path / "absent" / "x.json")
    assert code == 2
    assert "x.json: cannot be written" in err


def test_suggested_openers():
    """Aside opens a paragraph of every text and occurs nowhere else; The occurs everywhere and opens one."""
    rest = (
        "Aside, the sum is 4 and The sum of The sum stays.\n\nMhm check the sum, the sum is 4.\n\n"
        "In the end, so the sum is the sum of the sum, and The sum is The sum of all.\n\nAlternativa: the sum."
    )
    texts = [f"The {word} is right.\n\n{rest}" for word in ("one", "two", "three", "four")]
    found = {opener.phrase: opener for opener in suggest_openers(texts)}
    assert {phrase: opener.list_name for phrase, opener in found.items()} == {
        "Aside,": "forward",
        "Mhm check the sum,": "transition",
        "In the end,": "forward",
        "Alternativa": "branch",
    }
    words = 4 + 11 + 7 + 20 + 3  # of a text, in five paragraphs
    assert (found["Aside,"].count, found["Aside,"].traces, found["Aside,"].lift) == (4, 4, words / 5)


def test_a_suggestion_is_a_lexicon(segment, tmp_path):
    target = tmp_path / "own.json"
    code, out, err = segment(CHINESE, "--suggest", "-o", target)
    assert code == 0
    assert "backward    所以  (12 paragraphs of 12 traces" in out
    assert f"Edit it, then --lexicon {target}" in err
    content = json.loads(target.read_text())
    assert content["sentence_start"] is content["wide_characters"] is True
    assert set(load_lexicon(str(target)).phrases) == set(content["_evidence"])
    assert segment(CHINESE, "--stats", "--lexicon", target)[0] == 0


def test_nothing_to_suggest(segment, tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"response": "One text.</think>1"}) + "\n")
    code, _, err = segment(tmp_path / "in.jsonl", "--suggest", "-o", tmp_path / "x.json")
    assert code == 2
    assert "found no phrase that opens paragraphs of at least 3 of its 1 responses" in err
    assert not (tmp_path / "x.json").exists()


def test_suggestion_lists_all_five():
    assert list(suggestion([]))[1:6] == ["transition", "branch", "forward", "backward", "answer"]
