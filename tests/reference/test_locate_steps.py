"""Steps and answers on sampled tokens: cases a human can redo, then a slow reference and invariances."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnpo import segment_steps
from attnpo.steps.response import CLOSE_TAG, OPEN_TAG
from attnpo.steps.spans import LocatedSteps, locate_steps, token_offsets

relaxed = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LONG = "we double the 12 and see 24 , and the answer is what we get when we check it all the way."
texts = st.lists(
    st.sampled_from([LONG, " " + LONG, "\nSo " + LONG, " Wait " + LONG, "日本😀é", "\n", " But", "x", "€" * 30]),
    max_size=7,
).map("".join)


def ids_of(tokenizer: Any, *parts: str | int) -> list[int]:
    """Encode the parts one by one, so that their tokens stay apart; a number is an id."""
    ids: list[int] = []
    for part in parts:
        ids += [part] if isinstance(part, int) else tokenizer.encode(part, add_special_tokens=False)
    return ids


def assert_tiles(located: LocatedSteps) -> None:
    ends = [end for _, end in located.spans]
    assert [start for start, _ in located.spans][1:] == ends[:-1]
    assert all(start <= end for start, end in located.spans)
    assert len(located.spans) == len(located.steps)
    if located.spans and located.answer:
        assert ends[-1] <= located.answer[0] <= located.answer[1]


@pytest.mark.parametrize("name", ["byte-level", "byte-level, special tags", "llama", "llama, special tags"])
def test_complete_response(tokenizers: dict[str, Any], name: str):
    tokenizer = tokenizers[name]
    first, second = ids_of(tokenizer, LONG), ids_of(tokenizer, "Wait 日本 " + LONG)
    close, answer = ids_of(tokenizer, CLOSE_TAG), ids_of(tokenizer, "12")
    assert len(close) == 1
    located = locate_steps(tokenizer, [*first, *second, *close, *answer, tokenizer.eos_token_id])
    a, b, c = len(first), len(first) + len(second), len(first) + len(second) + 1
    # where a word starts with "▁", the space before "Wait" is the first character of its token
    assert located.spans == ([(0, a), (a, b)] if "byte" in name else [(0, a + 1), (a + 1, b)])
    assert [step.kind for step in located.steps] == ["forward", "confused"]
    assert located.answer == (c, c + len(answer) + 1)
    assert located.has_answer_text
    assert "<eos>" not in located.text
    assert CLOSE_TAG in located.text


def test_a_tag_in_several_ordinary_tokens(tokenizers: dict[str, Any]):
    tokenizer = tokenizers["byte-level, no tags"]
    close = ids_of(tokenizer, CLOSE_TAG)
    assert len(close) > 2
    thinking = ids_of(tokenizer, LONG)
    located = locate_steps(tokenizer, [*thinking, *close, *ids_of(tokenizer, "12")])
    assert located.spans == [(0, len(thinking))]
    assert located.answer is not None
    assert located.answer[0] == len(thinking) + len(close)


def glued_tokenizer(*words: str) -> Any:
    """Every word is one token; the byte-level decoder joins them as they are (no spaces in the words)."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_a_tag_glued_to_its_neighbours():
    words = ("a", "b.</", "think", ">12", "c", "</think>", "x</think>y", "<think>a")
    tokenizer = glued_tokenizer(*words)
    index = {word: position for position, word in enumerate(words)}

    def located(*tokens: str) -> LocatedSteps:
        return locate_steps(tokenizer, [index[token] for token in tokens])

    # "b.</" begins in the thinking and belongs to it; ">12" begins in the tag, so the answer begins after it
    glued = located("a", "b.</", "think", ">12", "c")
    assert (glued.spans, glued.answer, glued.has_answer_text) == ([(0, 2)], (4, 5), True)
    # one token from the thinking to the answer
    swallowed = located("a", "x</think>y", "c")
    assert (swallowed.spans, swallowed.answer) == ([(0, 2)], (2, 3))
    assert swallowed.text == "ax</think>yc"
    # the opening tag and the first character of the thinking in one token: it begins outside the thinking
    opened = located("<think>a", "a", "</think>", "c")
    assert (opened.spans, opened.answer) == ([(1, 2)], (3, 4))


def test_a_step_without_a_token_of_its_own():
    """The token begins in the first step and holds the whole second one and the start of the third."""
    first, second, third = "x" * 90, "Wait" + "y" * 90, "But" + "z" * 90
    apart = locate_steps(glued_tokenizer(first, second, third), [0, 1, 2])
    together = locate_steps(glued_tokenizer(first + second + third[:3], third[3:]), [0, 1])
    assert [step.start for step in apart.steps] == [step.start for step in together.steps] == [0, 90, 184]
    assert apart.spans == [(0, 1), (1, 2), (2, 3)]
    assert together.spans == [(0, 1), (1, 1), (1, 2)]


@pytest.mark.parametrize("name", ["byte-level", "byte-level, special tags", "byte-level, no tags", "llama"])
def test_unusual_responses(tokenizers: dict[str, Any], name: str):
    tokenizer = tokenizers[name]
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    close, thinking = ids_of(tokenizer, CLOSE_TAG), ids_of(tokenizer, LONG)

    truncated = locate_steps(tokenizer, thinking)
    assert (truncated.spans, truncated.answer, truncated.has_answer_text) == ([(0, len(thinking))], None, False)
    assert not truncated.parts.has_close
    # an end token of a response that never closed its thinking is in no step
    assert locate_steps(tokenizer, [*thinking, eos]).spans == [(0, len(thinking))]

    nothing = locate_steps(tokenizer, [])
    assert (nothing.text, nothing.steps, nothing.spans, nothing.answer) == ("", [], [], None)
    assert locate_steps(tokenizer, [eos, pad]).spans == []

    ids = [*close, *ids_of(tokenizer, "12"), eos]
    no_thinking = locate_steps(tokenizer, ids)
    assert (no_thinking.steps, no_thinking.spans, no_thinking.answer) == ([], [], (len(close), len(ids)))

    for blank in ([], ids_of(tokenizer, "\n\n")):
        ids = [*thinking, *close, *blank, eos]
        empty = locate_steps(tokenizer, ids)
        assert empty.answer == (len(ids) - 1 - len(blank), len(ids))
        assert not empty.has_answer_text

    twice = locate_steps(tokenizer, [*thinking, *close, *thinking, *close, eos])
    assert twice.spans == [(0, len(thinking))]
    assert twice.answer == (len(thinking) + len(close), 2 * (len(thinking) + len(close)) + 1)

    opening = ids_of(tokenizer, OPEN_TAG)
    opened = locate_steps(tokenizer, [*opening, *thinking, *close, eos])
    assert opened.spans == [(len(opening), len(opening) + len(thinking))]
    assert opened.steps[0].start == 0


def test_special_tokens_inside_the_thinking_belong_to_the_step_around_them(tokenizers: dict[str, Any]):
    tokenizer = tokenizers["byte-level"]
    eos = tokenizer.eos_token_id
    ids = ids_of(tokenizer, LONG, eos, " and on", "Wait", eos, LONG, eos, CLOSE_TAG, eos)
    located = locate_steps(tokenizer, ids)
    assert located.text == f"{LONG} and onWait{LONG}</think>"
    assert [ids[start:end].count(eos) for start, end in located.spans] == [1, 1]
    assert located.answer == (len(ids) - 1, len(ids))


def test_lexicon_is_passed_on(tokenizers: dict[str, Any]):
    tokenizer = tokenizers["byte-level"]
    ids = ids_of(tokenizer, LONG + " No," + LONG)
    assert len(locate_steps(tokenizer, ids).steps) == 2
    assert len(locate_steps(tokenizer, ids, "released").steps) == 1


@relaxed
@given(thinking=texts, answer=texts, splits=st.lists(st.integers(0, 400), max_size=12), close=st.booleans())
def test_equals_the_slow_reference(
    tokenizer: Any, kind: str, thinking: str, answer: str, splits: list[int], close: bool
):
    """Tokens of a text cut at random places: not the tokens a tokenizer would choose for it."""
    whole = thinking + (CLOSE_TAG if close else "") + answer
    cuts = sorted({min(cut, len(whole)) for cut in splits} | {0, len(whole)})
    ids = ids_of(tokenizer, *(whole[start:end] for start, end in itertools.pairwise(cuts)))
    ids.append(tokenizer.eos_token_id)
    located = locate_steps(tokenizer, ids)
    assert_tiles(located)

    body = ids[:-1]
    unknown = {i for i, token in tokenizer.added_tokens_decoder.items() if str(token) == "<unk>"}  # special, so no text
    text, starts = token_offsets(tokenizer, body, skip=unknown)
    assert located.text == text
    if kind.startswith(("byte", "gemma")) and "\ufffd" not in text:
        assert text.replace(" ", "") == whole.replace(" ", "")
    inside, _, _ = text.partition(CLOSE_TAG)
    assert located.steps == segment_steps(inside)
    owners = [next((k for k, s in enumerate(located.steps) if s.start <= at < s.end), None) for at in starts]
    for k, (start, end) in enumerate(located.spans):
        assert [index for index, owner in enumerate(owners) if owner == k] == list(range(start, end))
    if CLOSE_TAG in text:
        after_tag = [index for index, at in enumerate([*starts, len(text)]) if at >= len(inside) + len(CLOSE_TAG)]
        assert located.answer == (after_tag[0], len(ids))
    else:
        assert located.answer is None


@settings(max_examples=25, deadline=None)
@given(text=texts, position=st.integers(0, 300), character=st.sampled_from("éж日😀"))
def test_a_wider_character_moves_no_later_step(tokenizers: dict[str, Any], text: str, position: int, character: str):
    """Replace one letter, as a token of its own, by a character of two to four bytes: every boundary moves alike."""
    tokenizer = tokenizers["byte-level"]
    spots = [index for index, letter in enumerate(text) if letter == "w"]
    if not spots:
        return
    spot = spots[position % len(spots)]
    before = locate_steps(tokenizer, ids_of(tokenizer, text[:spot], "w", text[spot + 1 :], CLOSE_TAG, "12"))
    after = locate_steps(tokenizer, ids_of(tokenizer, text[:spot], character, text[spot + 1 :], CLOSE_TAG, "12"))
    wider, at = len(ids_of(tokenizer, character)) - 1, len(ids_of(tokenizer, text[:spot]))
    assert after.steps == before.steps

    def moved(index: int) -> int:
        return index + wider if index > at else index

    assert after.spans == [(moved(start), moved(end)) for start, end in before.spans]
    assert before.answer is not None
    assert after.answer == (moved(before.answer[0]), moved(before.answer[1]))
