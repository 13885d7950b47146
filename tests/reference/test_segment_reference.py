"""Segmentation against the examples that came with the method, a slow literal reading of it, and its properties."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attnpo import Step, segment_steps
from attnpo.steps.lexicon import LEXICONS, load_lexicon, phrase_counts
from growth import grows_linearly

LISTS = json.loads((Path(__file__).parents[2] / "src/attnpo/steps/lexicon.json").read_text(encoding="utf-8"))


def literal_steps(text: str, lexicon: str) -> list[tuple[int, int, str]]:
    """Method section 2 sentence by sentence, with no care for speed."""
    lists = {name: list(phrases) for name, phrases in LISTS.items()}
    if lexicon == "released":
        lists["transition"].remove("No,")
        lists["transition"].remove("Let me double-check")
        lists["transition"].append("No,Let me double-check")

    triggers = []
    position = 0
    while position < len(text):
        here = [(len(p), p, name) for name, ps in lists.items() for p in ps if text[position : position + len(p)] == p]
        if not here:
            position += 1
            continue
        length, phrase, name = max(here)
        if name in ("transition", "branch", "answer") or (position > 0 and text[position - 1] == "\n"):
            triggers.append((position, phrase, name))
        position += length

    kinds = {"transition": "confused", "branch": "confused"}
    segments = []  # [text of the trigger, whole text, kind]
    cuts = [at for at, _, _ in triggers]
    if text and (not cuts or cuts[0] != 0):
        segments.append(["", text[: cuts[0]] if cuts else text, "forward"])
    for (at, phrase, name), stop in zip(triggers, [*cuts[1:], len(text)][: len(cuts)], strict=True):
        segments.append([phrase, text[at:stop], kinds.get(name, name)])

    i = 0
    while i < len(segments):
        trigger, body, kind = segments[i]
        has_left, has_right = i > 0, i + 1 < len(segments)
        right_kind = segments[i + 1][2] if has_right else None
        move = "stay"
        if len(body) < 80 and kind == "confused":
            if has_right and right_kind != "answer":
                move = "right"
        elif len(body) < 80 and kind in ("forward", "backward"):
            if right_kind == "confused" and i + 1 != len(segments) - 1:
                move = "left" if has_left else "stay"
            elif kind == "forward":
                if has_right and right_kind != "answer":
                    move = "right"
            elif len(body[len(trigger) :]) <= 15 and has_right and right_kind != "answer":
                move = "right"
            elif has_left:
                move = "left"
        if move == "right":
            segments[i][1] += segments[i + 1][1]
            del segments[i + 1]
        elif move == "left":
            segments[i - 1][1] += segments[i][1]
            del segments[i]
            i -= 1
        else:
            i += 1

    steps, start = [], 0
    for _, body, kind in segments:
        steps.append((start, start + len(body), kind))
        start += len(body)
    return steps


def as_tuples(steps: list[Step]) -> list[tuple[int, int, str]]:
    return [(step.start, step.end, step.kind) for step in steps]


def assert_tiles(steps: list[Step], text: str) -> None:
    assert [step.start for step in steps] == [0, *(step.end for step in steps[:-1])][: len(steps)]
    assert not steps or steps[-1].end == len(text)
    assert all(step.start < step.end for step in steps)
    assert bool(steps) == bool(text)


PHRASES = [phrase for phrases in LISTS.values() for phrase in phrases]
FILLERS = [".", " ", "\n", "\n\n", "\r\n", " it is 4", " x", "日本😀", "\u2028", "é" * 70, "z" * 14, "y" * 79, "w" * 90]
thinking_texts = st.lists(
    st.one_of(
        st.sampled_from(PHRASES),
        st.sampled_from(PHRASES).map("\n".__add__),
        st.sampled_from(FILLERS),
        st.text(max_size=12),
    ),
    max_size=40,
).map("".join)


@pytest.mark.parametrize("lexicon", LEXICONS)
def test_every_published_example(data_dir: Path, lexicon: str):
    rows = [json.loads(line) for line in (data_dir / "segment_examples.jsonl").read_text().splitlines()]
    assert len(rows) == 50
    for row in rows:
        assert as_tuples(segment_steps(row["text"], lexicon)) == [tuple(step) for step in row[lexicon]], row["text"]
        assert literal_steps(row["text"], lexicon) == [tuple(step) for step in row[lexicon]], row["text"]


@settings(max_examples=400, deadline=None)
@given(text=thinking_texts, lexicon=st.sampled_from(LEXICONS))
@example(text="", lexicon="paper")
@example(text="\nSo.\nWait.\nSo.", lexicon="paper")
@example(text="No,Let me double-check", lexicon="released")
def test_equals_the_literal_reading(text: str, lexicon: str):
    steps = segment_steps(text, lexicon)
    assert as_tuples(steps) == literal_steps(text, lexicon)
    assert_tiles(steps, text)


@settings(max_examples=200, deadline=None)
@given(text=thinking_texts, tail=thinking_texts)
def test_a_step_is_short_only_where_the_rules_leave_it(text: str, tail: str):
    steps = segment_steps(text + tail)
    for index, step in enumerate(steps[:-1]):
        if step.end - step.start >= 80 or step.kind == "answer":
            continue
        following = steps[index + 1].kind
        assert following == "answer" or (step.kind != "confused" and index == 0), (step, following)


def test_goldens_by_hand():
    long = "x" * 80
    # A phrase at offset 0 is no trigger for a forward or backward phrase, but is for a transition.
    assert segment_steps("So " + long)[0].kind == "forward"
    assert segment_steps("Wait " + long)[0].kind == "confused"
    # In the middle of a line only transition, branch and answer phrases cut.
    assert as_tuples(segment_steps(f"{long} So {long}")) == [(0, 164, "forward")]
    assert as_tuples(segment_steps(f"{long}\nSo {long}")) == [(0, 81, "forward"), (81, 164, "backward")]
    assert as_tuples(segment_steps(f"{long} But {long}")) == [(0, 81, "forward"), (81, 165, "confused")]
    # 80 characters are not short; 79 are.
    assert len(segment_steps("y" * 80 + "But" + long)) == 2
    assert len(segment_steps("y" * 79 + "But" + long)) == 1
    # After "So": 15 characters introduce the next part, 16 belong to the part before.
    assert as_tuples(segment_steps(f"{long}\nSo{'.' * 14}\nNow{long}"))[1] == (81, 181, "backward")
    assert as_tuples(segment_steps(f"{long}\nSo{'.' * 15}\nNow{long}"))[0] == (0, 99, "forward")


def test_released_lexicon_joins_two_phrases():
    text = "x" * 80 + "No," + "y" * 80 + "Let me double-check" + "z" * 80 + "No,Let me double-check" + "w" * 80
    assert [step.start for step in segment_steps(text, "paper")] == [0, 80, 163, 262]
    assert [step.start for step in segment_steps(text, "released")] == [0, 262]
    paper, released = load_lexicon("paper").phrases, load_lexicon("released").phrases
    assert set(paper) - set(released) == {"No,", "Let me double-check"}
    assert set(released) - set(paper) == {"No,Let me double-check"}


def test_no_phrase_is_in_two_lists():
    assert len(PHRASES) == len(set(PHRASES)) == len(load_lexicon("paper").phrases)


@settings(max_examples=100, deadline=None)
@given(text=thinking_texts)
def test_phrase_counts_are_counted_triggers(text: str):
    counts = phrase_counts(text)
    assert list(counts) == list(LISTS)
    # every step but one at the very start opens with a counted trigger
    assert len(segment_steps(text)) <= sum(counts.values()) + 1
    # a line more adds its own trigger and changes no other
    assert phrase_counts(text + "\nThen ")["forward"] == counts["forward"] + 1


def test_phrase_counts_golden():
    text = "Okay, so\nOkay, so. Wait, Hmm, wait\nSo, is it? Another way\nThen So\nThus\n**Final Answer**"
    assert phrase_counts(text) == {"transition": 3, "branch": 1, "forward": 1, "backward": 2, "answer": 1}


@pytest.mark.parametrize("unit", ["\nSo. Wait.\nNow it is.", "\nSo ", "Wait", "\nTherefore it is 15 or so.", "x"])
def test_time_grows_with_the_trace(unit: str):
    def trace(characters: int) -> str:
        return (unit * (characters // len(unit) + 1))[:characters]

    assert_tiles(segment_steps(trace(175_000)), trace(175_000))
    grows_linearly(segment_steps, trace, 175_000)


def test_merging_is_linear():
    """Each of these segments merges into its left neighbour; deleting from a list would make this quadratic."""

    def trace(segments: int) -> str:
        return "x" * 80 + "\nSo it is as it is and was" * segments

    assert len(segment_steps(trace(300_000))) == 1
    grows_linearly(segment_steps, trace, 300_000)
