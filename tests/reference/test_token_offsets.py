"""Incremental decoding against slow references that decode every prefix, for many kinds of tokenizers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.convert_slow_tokenizer import bytes_to_unicode

from attnpo.errors import InputError
from attnpo.steps.spans import token_offsets
from growth import grows_linearly

STRIPS_THE_END = ("sentencepiece", "suffixes")
relaxed = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
written = st.lists(
    st.one_of(
        st.sampled_from(
            ["Wait", " the answer", "\n", "\nSo", " is 12.", " ", "  ", "</think>", "é", "日本", "😀", "n't", " ,"]
        ),
        st.text(max_size=4),
    ),
    max_size=12,
).map("".join)


def plain_decode(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def encoded(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def common_length(one: str, other: str) -> int:
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def prefix_starts(tokenizer: Any, ids: list[int], *, strips_the_end: bool) -> list[int]:
    """Token i begins where the decoded prefix ids[:i] stops agreeing with the whole text; whole characters only.

    If the decoder strips spaces from the end, a token is appended to every prefix and its text removed again.
    """
    closing = encoded(tokenizer, "answer")[-1:] if strips_the_end else []
    text, starts, reached = plain_decode(tokenizer, ids), [], 0
    for count in range(len(ids)):
        prefix = plain_decode(tokenizer, ids[:count] + closing).removesuffix(plain_decode(tokenizer, closing))
        reached = max(reached, common_length(prefix.rstrip("\ufffd"), text))
        starts.append(reached)
    return starts


def assert_sound(tokenizer: Any, ids: list[int]) -> tuple[str, list[int]]:
    text, starts = token_offsets(tokenizer, ids)
    assert text == plain_decode(tokenizer, ids)
    assert len(starts) == len(ids)
    assert starts == sorted(starts)
    assert all(0 <= start <= len(text) for start in starts)
    assert not ids or not text or starts[0] == 0
    return text, starts


@relaxed
@given(text=written)
def test_written_text_equals_the_decoding_of_every_prefix(tokenizer: Any, kind: str, text: str):
    ids = encoded(tokenizer, text)
    decoded, starts = assert_sound(tokenizer, ids)
    if "\ufffd" not in decoded:
        assert starts == prefix_starts(tokenizer, ids, strips_the_end=kind in STRIPS_THE_END)


@relaxed
@given(data=st.data())
def test_any_sampled_ids_equal_the_decoding_of_every_prefix(tokenizer: Any, kind: str, data: st.DataObject):
    """A policy samples what no tokenizer would write: broken characters, end tokens in the middle, odd splits."""
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=25))
    if kind == "wordpiece":  # it keeps the marks of a continued word at the start of a text, and only there
        ids = encoded(tokenizer, "the") + ids
    decoded, starts = assert_sound(tokenizer, ids)
    if "\ufffd" not in decoded and kind != "byt5":  # byt5 leaves broken bytes out of its text
        assert starts == prefix_starts(tokenizer, ids, strips_the_end=kind in STRIPS_THE_END)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_broken_bytes_equal_the_decoding_of_every_byte(tokenizers: dict[str, Any], data: st.DataObject):
    """Byte-level: the first byte of a token is part of the last character of everything up to that byte."""
    tokenizer = tokenizers["byte-level"]
    lead = [bytes([byte]) for byte in (0x41, 0x82, 0x9F, 0xA0, 0xC3, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xFF)]
    whole = ["é".encode(), "€".encode(), "😀".encode(), "\ufffd".encode(), b"Wait", b" the", b"\n"]
    pieces = data.draw(st.lists(st.sampled_from([*lead, *whole]), min_size=1, max_size=14))
    single = {byte: tokenizer.convert_tokens_to_ids(name) for byte, name in bytes_to_unicode().items()}
    ids, firsts, raw = [], [], b""
    for piece in pieces:
        known = encoded(tokenizer, piece.decode()) if piece in whole and data.draw(st.booleans()) else None
        tokens = known if known is not None and len(known) == 1 else [single[byte] for byte in piece]
        for index, token in enumerate(tokens):
            ids.append(token)
            firsts.append(len(raw) + index)
        raw += piece
    text, starts = assert_sound(tokenizer, ids)
    assert text == raw.decode("utf-8", "replace")
    assert starts == [len(raw[: first + 1].decode("utf-8", "replace")) - 1 for first in firsts]


@pytest.mark.parametrize("name", ["byte-level", "llama", "byt5"])
def test_tokens_of_one_character_all_begin_at_it(tokenizers: dict[str, Any], name: str):
    tokenizer = tokenizers[name]
    letter = encoded(tokenizer, "a")
    for character in "ß✓🚀":
        ids = encoded(tokenizer, "a" + character)[len(letter) :]
        assert len(ids) > 1
        text, starts = token_offsets(tokenizer, [*ids, *ids, letter[-1]])
        assert text == character + character + "a"
        assert starts == [0] * len(ids) + [1] * len(ids) + [2]


def test_byte_fallback_decodes_a_broken_run_byte_by_byte(tokenizers: dict[str, Any]):
    """The decoder replaces each byte of a run that is not valid as a whole, valid characters in it too."""
    tokenizer = tokenizers["llama"]
    a, *euro = (tokenizer.convert_tokens_to_ids(name) for name in ("a", "<0xE2>", "<0x82>", "<0xAC>"))
    assert token_offsets(tokenizer, [a, *euro, a]) == ("a€a", [0, 1, 1, 1, 2])
    assert token_offsets(tokenizer, [a, *euro[:2], a]) == ("a\ufffd\ufffda", [0, 1, 2, 3])
    assert token_offsets(tokenizer, [a, *euro, euro[0], a]) == ("a" + "\ufffd" * 4 + "a", [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("name", ["llama", "unigram", "sentencepiece"])
def test_a_stripped_leading_space_shifts_nothing(tokenizers: dict[str, Any], name: str):
    tokenizer = tokenizers[name]
    ids = encoded(tokenizer, "the answer is 12.")
    text, starts = token_offsets(tokenizer, ids)
    assert text == "the answer is 12."
    names = tokenizer.convert_ids_to_tokens(ids)
    assert "".join(names) == "▁the▁answer▁is▁12."
    position = 0
    for token, start in zip(names, starts, strict=True):
        assert start == max(position - 1, 0)  # the first "▁" is not in the text
        position += len(token)


def test_clean_up_of_spaces_never_reaches_the_text(tokenizers: dict[str, Any]):
    for name in ("byte-level", "llama"):
        tokenizer = tokenizers[name]
        ids = encoded(tokenizer, "it is n't 4 . So")
        assert tokenizer.decode(ids) == "it isn't 4. So"  # what a caller gets who does not switch it off
        assert token_offsets(tokenizer, ids)[0] == "it is n't 4 . So"


def test_skipped_tokens_have_no_text_and_begin_with_the_next(tokenizers: dict[str, Any]):
    tokenizer = tokenizers["byte-level"]
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    euro = encoded(tokenizer, "✓")
    ids = [pad, *encoded(tokenizer, "a"), eos, *euro[:1], eos, *euro[1:], eos, eos]
    text, starts = token_offsets(tokenizer, ids, skip={eos, pad})
    assert text == "a✓"
    assert starts == [0, 0, 1, 1, 1, *[1] * (len(euro) - 1), 2, 2]
    assert token_offsets(tokenizer, [eos, pad], skip={eos, pad}) == ("", [0, 0])
    assert token_offsets(tokenizer, []) == ("", [])


def test_ids_beyond_the_vocabulary_have_no_text(tokenizers: dict[str, Any]):
    """Embedding tables are padded, so an untrained policy can sample ids that no tokenizer knows."""
    for name in ("byte-level", "llama"):
        tokenizer = tokenizers[name]
        a, b = encoded(tokenizer, "a")[-1], encoded(tokenizer, "b")[-1]
        assert token_offsets(tokenizer, [a, 10_000, b]) == ("ab", [0, 1, 1])


def test_tensors_and_arrays_are_taken_too(tokenizers: dict[str, Any]):
    import numpy as np
    import torch

    tokenizer = tokenizers["byte-level"]
    ids = encoded(tokenizer, "Wait, 日本")
    assert token_offsets(tokenizer, torch.tensor(ids)) == token_offsets(tokenizer, ids)  # type: ignore[arg-type]
    assert token_offsets(tokenizer, np.array(ids)) == token_offsets(tokenizer, ids)


def test_negative_ids_are_refused(tokenizers: dict[str, Any]):
    with pytest.raises(InputError, match="token 1 has the id -100"):
        token_offsets(tokenizers["byte-level"], [5, -100])


def test_a_tokenizer_that_cannot_be_decoded_incrementally_is_refused(tokenizers: dict[str, Any]):
    """Its decoder merges repeated tokens, so a token's text depends on its neighbour."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1, "|": 2, "<pad>": 3}, unk_token="<pad>"))
    backend.decoder = decoders.CTC()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    with pytest.raises(InputError, match="cannot be decoded token by token"):
        token_offsets(tokenizer, [1, 1, 0, 0, 1])


@pytest.mark.parametrize("name", ["byte-level", "llama"])
def test_time_grows_with_the_response(tokenizers: dict[str, Any], name: str):
    tokenizer = tokenizers[name]
    ids = (encoded(tokenizer, "Wait, let me check 3 + 4 = 7 .\nSo the answer is 日本 12.") * 2000)[:16_384]
    token_offsets(tokenizer, ids[:10])
    grows_linearly(lambda part: token_offsets(tokenizer, part), lambda size: ids[:size], len(ids))
