"""Lexicons other than the two of the method: Chinese, paragraphs, files, several joined."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpo import segment_steps
from attnpo.data.jsonl import read_jsonl
from attnpo.errors import InputError
from attnpo.steps.lexicon import LEXICONS, PHRASE_KINDS, WIDE, load_lexicon, phrase_counts
from attnpo.steps.response import thinking_of
from attnpo.steps.segment import SHORT_STEP

CHINESE = Path(__file__).parents[1] / "data" / "traces_zh.jsonl"
FILLER = "x" * SHORT_STEP


def pieces(text: str, lexicon: str) -> list[tuple[str, str]]:
    return [(step.kind, text[step.start : step.end]) for step in segment_steps(text, lexicon)]


def test_chinese_phrases():
    zh = load_lexicon("zh")
    assert set(zh.phrases.values()) == set(PHRASE_KINDS)
    assert not any("," in phrase or "\n" in phrase for phrase in zh.phrases)


def test_a_but_inside_a_sentence_does_not_cut():
    """但是 has no capital letter: it counts at the beginning of a sentence, also after quotes or stars."""
    one, other = "先算出这个数是七，但是还要加上三才可以，所以一共是十个苹果，这一点没有疑问。", "但是要再想清楚一些。"
    assert phrase_counts(one + other, "zh")["transition"] == 1
    for before in ("。", "？", "！\n", "。“", "……", "\n\n- **", ";  "):
        assert phrase_counts(f"一{before}等一下", "zh")["transition"] == int(before != "\n\n- **"), before
    assert phrase_counts("嗯等一下", "zh")["transition"] == 0
    assert phrase_counts("等一下", "zh")["transition"] == 1


def test_chinese_forward_and_backward_at_line_starts():
    text = "七加三，所以是十。\n所以是十。\n首先看题。"
    assert phrase_counts(text, "zh") == {"transition": 0, "branch": 0, "forward": 1, "backward": 1, "answer": 0}


def test_chinese_steps_are_merged_by_width():
    """27 characters are as long as 81 letters and stay; 26 are merged."""
    assert WIDE * 27 >= SHORT_STEP > WIDE * 26
    for count, steps in ((27, 2), (26, 1)):
        text = "但" + "数" * (count - 1) + "\n首先" + "数" * 40
        found = segment_steps(text, "zh")
        assert len(found) == steps, count
        assert len(segment_steps(text, "paper")) == 1


def test_chinese_traces():
    """The steps begin where a person put the marks, and nowhere else; those left out are short and were merged."""
    marked = found = both = 0
    for row in read_jsonl(CHINESE):
        thinking, cuts = thinking_of(row["response"]), set(row["cuts"])
        starts = {step.start for step in segment_steps(thinking, "zh")}
        assert len(segment_steps(thinking, "paper")) == 1
        marked, found, both = marked + len(cuts), found + len(starts), both + len(starts & cuts)
    assert (marked, found, both) == (104, 84, 84)


def test_a_chinese_trace_by_hand():
    row = next(read_jsonl(CHINESE))
    thinking = thinking_of(row["response"])
    assert [(kind, text[:5]) for kind, text in pieces(thinking, "zh")] == [
        ("forward", "嗯，我先看"),
        ("forward", "首先，送出"),
        ("confused", "等等，我是"),
        ("confused", "再检查一遍"),
    ]


def test_joined():
    text = f"But {FILLER}。等一下，{'数' * 30}"
    assert [kind for kind, _ in pieces(text, "paper+zh")] == ["confused", "confused"]
    assert [kind for kind, _ in pieces(text, "paper")] == ["confused"]
    assert [kind for kind, _ in pieces(text, "zh")] == ["forward", "confused"]


def test_paragraphs():
    text = f"{FILLER}\n\n{FILLER} a\n \t\n\n  {FILLER} b\nstill b\n\nshort\n\nshort\n\n{FILLER}\n"
    assert pieces(text, "paragraphs") == [
        ("forward", f"{FILLER}\n\n"),
        ("forward", f"{FILLER} a\n \t\n\n  "),
        ("forward", f"{FILLER} b\nstill b\n\n"),
        ("forward", f"short\n\nshort\n\n{FILLER}\n"),
    ]
    assert sum(phrase_counts(text, "paragraphs").values()) == 0


def test_paragraphs_beside_phrases():
    """A paragraph that opens with a phrase is of its kind; others go forward."""
    text = f"{FILLER}\n\nSo {FILLER}\n\nFirstly {FILLER}"
    assert [kind for kind, _ in pieces(text, "paper+paragraphs")] == ["forward", "backward", "forward"]
    assert [kind for kind, _ in pieces(text, "paper")] == ["forward", "backward"]


PARTS = ["但是", "所以", "\n", "\n\n", "。", "数" * 30, "Wait", "So ", "a" * 50, "，"]
NAMES = ("zh", "paragraphs", "paper+zh", "released+zh+paragraphs", "paper+paragraphs")


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PARTS)).map("".join), st.sampled_from(NAMES))
def test_steps_tile_the_text(text, lexicon):
    steps = segment_steps(text, lexicon)
    assert "".join(text[step.start : step.end] for step in steps) == text
    assert all(step.end > step.start for step in steps)


@given(st.text(alphabet=st.sampled_from("但是所以Wait So,.\n\nah"), max_size=200))
def test_built_in_lexicons_ignore_chinese_phrases(text):
    """No Chinese phrase, width or paragraph reaches paper and released."""
    for name in LEXICONS:
        lexicon = load_lexicon(name)
        assert lexicon.widths(text) is None
        assert not lexicon.at_sentences
        assert all(trigger.list_name in PHRASE_KINDS for trigger in lexicon.triggers(text))


def write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return str(path)


def test_a_file(tmp_path):
    name = write(tmp_path / "de.json", {"_note": "x", "transition": ["Moment"], "backward": ["Also"]})
    text = f"{FILLER}\nAlso {FILLER} Moment {FILLER}"
    assert [kind for kind, _ in pieces(text, name)] == ["forward", "backward", "confused"]
    assert [kind for kind, _ in pieces(f"{text} Wait {FILLER}", f"{name}+paper")][-2:] == ["confused", "confused"]
    write(tmp_path / "de.json", {"branch": ["Moment mal"]})  # read again when it has changed
    assert [kind for kind, _ in pieces(text, name)] == ["forward"]


def test_the_later_list_wins(tmp_path):
    name = write(tmp_path / "own.json", {"forward": ["Wait"]})
    assert load_lexicon(f"paper+{name}").phrases["Wait"] == "forward"
    assert load_lexicon(f"{name}+paper").phrases["Wait"] == "transition"
    chinese = write(tmp_path / "chinese.json", {"transition": ["但是"]})
    assert "但是" in load_lexicon("zh").at_sentences
    assert "但是" not in load_lexicon(f"zh+{chinese}").at_sentences


BAD = {
    "[1, 2]": "found list, expected an object with lists of texts: transition, branch",
    '{"transition": ["a"': r"line 1, column 20: Expecting ',' delimiter",
    "{}": "has no phrases, expected an object",
    '{"transitions": ["a"]}': "found a list 'transitions', expected transition, branch, forward, backward, answer, se",
    '{"branch": "a"}': "branch is 'a', expected a list of texts",
    '{"branch": ["a", 3]}': "branch, phrase 2 is 3, expected a text",
    '{"branch": ["a", " "]}': "branch, phrase 2 is ' ', expected a text",
    '{"branch": ["a"], "forward": ["b", "a"]}': "forward, phrase 2, 'a', is already in branch, expected it once",
    '{"branch": ["a\\nb"]}': r"branch, phrase 1, 'a\\nb', has a line break",
    '{"branch": ["a"], "sentence_start": 1}': "sentence_start is 1, expected true or false",
}


@pytest.mark.parametrize("content", BAD)
def test_bad_files(content, tmp_path):
    name = write(tmp_path / "bad.json", content)
    with pytest.raises(InputError) as error:
        load_lexicon(f"paper+{name}")
    assert f"lexicon {name}" in str(error.value)
    assert BAD[content].replace("\\\\", "\\") in str(error.value)


def test_bad_names(tmp_path):
    with pytest.raises(InputError, match=r"'chinese' does not exist; choose one of: paper, released, zh, paragraphs,"):
        load_lexicon("paper+chinese")
    with pytest.raises(InputError, match=r"absent\.json: cannot be read \(No such file"):
        load_lexicon(str(tmp_path / "absent.json"))
    (tmp_path / "latin.json").write_bytes(b'{"branch": ["\xe4"]}')
    with pytest.raises(InputError, match=r"latin\.json, byte 14: not UTF-8 text"):
        load_lexicon(str(tmp_path / "latin.json"))
