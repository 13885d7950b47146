"""Sampled token ids -> text, with the character at which each token begins. Nothing is tokenised again.

The text is that of ``tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)``, and
every result is compared with it, so a wrong assumption about a tokenizer raises an error and never shifts silently.

There are two methods:
- byte-level vocabularies: every token is a string of bytes; the bytes are exact, and so is the map to characters;
- all others: the text that a token adds between two letters is taken as the text it adds anywhere, and computed once
  per distinct token. Tokens that decode only together (bytes of one character) are decoded together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np

from attnpo.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# The longest run of undecodable tokens that is tried as one piece of text; a character has at most four bytes.
_LONGEST_GROUP = 32

Decode = Callable[[Sequence[int]], str]


def token_offsets(
    tokenizer: PreTrainedTokenizerBase, ids: Iterable[int], *, skip: Collection[int] = ()
) -> tuple[str, list[int]]:
    """Decode sampled ids, and return where in the text each token begins.

    A token begins at the character that contains its first byte: all tokens that share one multi-byte character begin
    at that character. A token without text begins where the next token does.

    Args:
        tokenizer: a transformers tokenizer.
        ids: sampled token ids, one response.
        skip: ids that add no text (end and padding tokens).

    Returns:
        text: the decoded ids without `skip`.
        starts: per token an offset into the text; never decreasing, at most ``len(text)``.

    Raises:
        InputError: an id is negative, or the tokenizer cannot be decoded piece by piece.
    """
    ids = as_ids(ids)
    if ids and min(ids) < 0:
        negative = next(index for index, token in enumerate(ids) if token < 0)
        raise InputError(f"token {negative} has the id {ids[negative]}; ids of a sampled response are not negative")
    kept = [token for token in ids if token not in skip] if skip else ids
    if not kept:
        return "", [0] * len(ids)

    def decode(tokens: Sequence[int]) -> str:
        # clean-up would delete spaces before punctuation, and shift everything after them
        # (an array, because the library checks the type of every entry of a list, which takes longer than decoding)
        given: Any = np.array(tokens) if tokenizer.is_fast else list(tokens)
        text = tokenizer.decode(given, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    text = decode(kept)
    decoders = _decoder_types(tokenizer)
    starts = None
    if decoders == ["ByteLevel"]:
        starts = _byte_level_starts(tokenizer, kept, text)
    if starts is None:
        starts = _piecewise_starts(tokenizer, kept, text, decode, byte_fallback="ByteFallback" in decoders)
    if starts is None:
        raise InputError(
            f"{type(tokenizer).__name__} cannot be decoded token by token: the pieces of a response of {len(kept)} "
            "tokens do not add up to its text, so steps cannot be placed on the sampled tokens"
        )
    return text, starts if len(kept) == len(ids) else _with_skipped(ids, starts, skip, len(text))


def as_ids(ids: Iterable[int]) -> list[int]:
    """Plain integers from a list, an array or a tensor of one dimension."""
    tolist = getattr(ids, "tolist", None)  # one call instead of one per element
    return tolist() if tolist is not None else list(map(int, ids))


def _with_skipped(ids: Sequence[int], starts: Sequence[int], skip: Collection[int], end: int) -> list[int]:
    """Give the skipped tokens the start of the next token that has one."""
    kept = ~np.isin(np.array(ids), np.array(list(skip)))
    before = np.cumsum(kept) - kept  # per token, the number of kept tokens before it: the index of the next kept one
    return np.append(np.array(starts, dtype=np.int64), end)[before].tolist()


def _decoder_types(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Names of the decoders in the chain of a `tokenizers` tokenizer; empty for a Python tokenizer."""
    decoder: Any = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    if decoder is None:
        return []
    state = json.loads(decoder.__getstate__())
    return [part["type"] for part in state.get("decoders", [state])]


# --- byte-level vocabularies -------------------------------------------------------------------------------------


def _byte_alphabet() -> dict[str, int]:
    """The published GPT-2 alphabet: printable bytes map to themselves, the others to characters from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _byte_level_starts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> list[int] | None:
    """Starts from the bytes of every token; None if the bytes do not decode to `text`."""
    distinct, which = np.unique(np.array(ids), return_inverse=True)
    names: list[str | None] = list(tokenizer.convert_ids_to_tokens(distinct.tolist()))
    pieces = [_token_bytes(name) for name in names]
    data = b"".join([pieces[i] for i in which.tolist()])
    if data.decode("utf-8", "replace") != text:
        return None
    lengths = np.array([len(piece) for piece in pieces])[which]
    positions = (np.cumsum(lengths) - lengths).tolist()
    if data.isascii():  # one byte per character: nearly every response, and several times faster
        return positions
    character_starts = chain(_character_starts(data), [len(data) + 1])
    starts, index, following = [], -1, next(character_starts)
    for position in positions:
        while following <= position:
            index, following = index + 1, next(character_starts)
        starts.append(index if position < len(data) else len(text))
    return starts


@lru_cache(maxsize=1 << 18)
def _token_bytes(name: str | None) -> bytes:
    if name is None:  # an id beyond the vocabulary (embeddings are often padded) decodes to nothing
        return b""
    # an added token may contain characters outside the alphabet; the decoder then uses its text unchanged
    if all(character in _ALPHABET for character in name):
        return bytes(_ALPHABET[character] for character in name)
    return name.encode()


def _character_starts(data: bytes) -> Iterator[int]:
    """Byte offsets at which the characters of ``data.decode("utf-8", "replace")`` begin."""
    position = replaced_until = 0
    for character in data.decode("utf-8", "surrogateescape"):
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:  # one invalid byte; up to three together make one replacement character
            if position >= replaced_until:
                yield position
                replaced_until = position + _invalid_length(data[position : position + 4])
            position += 1
        else:
            yield position
            position += 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4


def _invalid_length(data: bytes) -> int:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.end - error.start
    raise AssertionError("called on valid UTF-8")


# --- everything else ---------------------------------------------------------------------------------------------


def _piecewise_starts(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str, decode: Decode, *, byte_fallback: bool
) -> list[int] | None:
    """Starts from the text that each token adds; None if the pieces do not add up to `text`."""
    distinct = list(dict.fromkeys(ids))
    byte_of: dict[int, int] = {}
    if byte_fallback:
        for token, name in zip(distinct, tokenizer.convert_ids_to_tokens(distinct), strict=True):
            if name is not None and (match := _BYTE_TOKEN.fullmatch(name)):
                byte_of[token] = int(match[1], 16)
    added = _added_text(tokenizer, decode)
    pieces = {token: added([token]) for token in distinct if token not in byte_of}
    starts, parts, length, index = [], [], 0, 0
    while index < len(ids):
        token = ids[index]
        if token in byte_of:
            stop = index
            while stop < len(ids) and ids[stop] in byte_of:
                stop += 1
            part, inner = _byte_run(bytes(byte_of[token] for token in ids[index:stop]))
        elif pieces[token] and REPLACEMENT not in pieces[token]:
            part, inner = pieces[token], [0]
        else:
            part, inner = _group(ids, index, pieces, byte_of, added)
        starts.extend(length + offset for offset in inner)
        parts.append(part)
        length += len(part)
        index += len(inner)
    return _fit_to_ends(starts, "".join(parts), text)


def _added_text(tokenizer: PreTrainedTokenizerBase, decode: Decode) -> Callable[[Sequence[int]], str]:
    """A function: tokens -> the text they add between two letters, where no decoder strips spaces."""
    letter = tokenizer.encode("a", add_special_tokens=False)[-1:]
    before = decode(letter)
    after = decode([*letter, *letter])[len(before) :]

    def added(tokens: Sequence[int]) -> str:
        text = decode([*letter, *tokens, *letter])
        return text[len(before) : max(len(before), len(text) - len(after))]

    return added


def _byte_run(data: bytes) -> tuple[str, list[int]]:
    """Text and starts of neighbouring byte-fallback tokens: characters if the bytes are valid UTF-8, else one
    replacement character each."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return REPLACEMENT * len(data), list(range(len(data)))
    starts, index = [], -1
    for byte in data:
        index += byte & 0xC0 != 0x80
        starts.append(index)
    return text, starts


def _group(
    ids: Sequence[int],
    first: int,
    pieces: dict[int, str],
    byte_of: dict[int, int],
    added: Callable[[Sequence[int]], str],
) -> tuple[str, list[int]]:
    """Text and inner starts of the tokens from `first` on that decode to a character only together."""
    stop, text = first, ""
    while stop < min(len(ids), first + _LONGEST_GROUP) and ids[stop] not in byte_of:
        piece = pieces[ids[stop]]
        if piece and REPLACEMENT not in piece:
            break
        stop += 1
        text = added(ids[first:stop])
        if text and not text.endswith(REPLACEMENT):
            break
    inner = [min(len(added(ids[first:end]).rstrip(REPLACEMENT)), len(text)) for end in range(first + 1, stop)]
    return text, [0, *accumulate(inner, max)]


def _fit_to_ends(starts: list[int], joined: str, text: str) -> list[int] | None:
    """Account for spaces that a decoder strips from the two ends; None if more than that differs."""
    stripped = (len(joined) - len(joined.lstrip())) - (len(text) - len(text.lstrip()))
    if stripped < 0 or joined[stripped : stripped + len(text)] != text or joined[stripped + len(text) :].strip():
        return None
    return [min(max(start - stripped, 0), len(text)) for start in starts]
