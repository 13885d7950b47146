"""Real tokenizers of every kind that a causal language model is likely to have, trained on a few lines of text."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

CORPUS = [
    "Wait, let me check 3 + 4 = 7 .\n\nSo the answer is 7, isn't it?\nHmm, the the the answer answer is is 12.",
    "Alternatively, we double 12: 24. Therefore the result is 24.\n\n**Final Answer**\n\\boxed{24} Ă ¡",
    "é ö 日本 語 😀 €",
] * 20
TAGS = ["<think>", "</think>"]
ENDS = ["<eos>", "<pad>"]
NAMES = [
    "byte-level",
    "byte-level, special tags",
    "byte-level, no tags",
    "llama",
    "llama, special tags",
    "gemma",
    "unigram",
    "wordpiece",
    "words",
    "suffixes",
    "byt5",
    "bytes, replacing",
    "sentencepiece",
]


def _wrap(backend: Any, tags: str) -> Any:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    # clean-up on: it must not reach the text
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>", clean_up_tokenization_spaces=True
    )
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    if tags != "none":
        tokenizer.add_tokens(
            [AddedToken(tag, special=tags == "special", normalized=False) for tag in TAGS],
            special_tokens=tags == "special",
        )
    return tokenizer


def _byte_level(tags: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=ENDS, show_progress=False),
    )
    return _wrap(backend, tags)


def _byte_fallback(tags: str, *, strips: bool) -> Any:
    """Llama 2 (strips the leading space) or Gemma (does not): BPE over pieces, bytes for unknown characters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.train_from_iterator(CORPUS[:2] * 9, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    names = [*ENDS, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    backend = Tokenizer(
        models.BPE(
            vocab={name: index for index, name in enumerate(names)},
            merges=[tuple(pair) for pair in model["merges"]],
            byte_fallback=True,
            unk_token="<unk>",
            fuse_unk=True,
        )
    )
    backend.normalizer = trained.normalizer
    chain = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*chain, decoders.Strip(" ", 1, 0)] if strips else chain)
    return _wrap(backend, tags)


def _other(name: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    common = {"special_tokens": [*ENDS, "<unk>"], "show_progress": False}
    if name == "unigram":
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", **common)
    elif name == "wordpiece":
        backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=True)
        trainer = trainers.WordPieceTrainer(vocab_size=150, **common)
    elif name == "words":
        backend = Tokenizer(models.WordLevel(unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(**common)
    else:
        backend = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Whitespace(), decoders.BPEDecoder("</w>")
        trainer = trainers.BpeTrainer(vocab_size=150, end_of_word_suffix="</w>", **common)
    backend.train_from_iterator(CORPUS, trainer)
    return _wrap(backend, "plain")


def _sentencepiece(folder: Any) -> Any:
    """A slow (Python) tokenizer over a trained sentencepiece model; it strips spaces at both ends."""
    import sentencepiece
    from transformers import BertGenerationTokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=320, byte_fallback=True, minloglevel=2
    )
    file = folder / "spiece.model"
    file.write_bytes(model.getvalue())
    return BertGenerationTokenizer(str(file), pad_token="<pad>")


def _replacing_bytes() -> Any:
    """A slow tokenizer over bytes that shows broken ones, as those around tiktoken do; ByT5 leaves them out."""
    from transformers import ByT5Tokenizer

    class ReplacingTokenizer(ByT5Tokenizer):
        def convert_tokens_to_string(self, tokens: list[str]) -> str:
            raw = b"".join(token.encode() if len(token) > 1 else bytes([ord(token)]) for token in tokens)
            return raw.decode("utf-8", "replace")

    return ReplacingTokenizer(extra_ids=0)


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Name -> transformers tokenizer, for every name in NAMES."""
    from transformers import ByT5Tokenizer

    return {
        "byte-level": _byte_level("plain"),
        "byte-level, special tags": _byte_level("special"),
        "byte-level, no tags": _byte_level("none"),
        "llama": _byte_fallback("plain", strips=True),
        "llama, special tags": _byte_fallback("special", strips=True),
        "gemma": _byte_fallback("plain", strips=False),
        **{name: _other(name) for name in ("unigram", "wordpiece", "words", "suffixes")},
        "byt5": ByT5Tokenizer(extra_ids=0),
        "bytes, replacing": _replacing_bytes(),
        "sentencepiece": _sentencepiece(tmp_path_factory.mktemp("sentencepiece")),
    }


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", NAMES)


@pytest.fixture
def tokenizer(tokenizers: dict[str, Any], kind: str) -> Any:
    return tokenizers[kind]
