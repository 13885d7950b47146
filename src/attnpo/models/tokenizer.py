"""The tokeniser of the shipped model: byte-level BPE trained on the task, digits one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
OPEN_THINK, CLOSE_THINK = "<think>", "</think>"

# A generation prompt ends with an opened thinking part, as R1-like models have it.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)

# The opening of a boxed answer; words with their leading space; single digits; signs with the line breaks after them.
_PIECES = r" ?\\boxed\{| ?\p{L}+| ?\d| ?[^\s\p{L}\d]+\n*|\s+"


def train_tokenizer(texts: Iterable[str], vocabulary: int = 1024) -> PreTrainedTokenizerFast:
    """A fast tokeniser with `vocabulary` entries, special and added tokens included."""
    from transformers import PreTrainedTokenizerFast  # slow to import, and the data workers do without it

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, END, USER, ASSISTANT]
    trainer = BpeTrainer(
        vocab_size=vocabulary - 2,  # the two thinking tags are added below, as tokens that decoding keeps
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([OPEN_THINK, CLOSE_THINK])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def prompt_text(problem: str) -> str:
    """What the chat template makes of one user message, with the thinking opened."""
    return f"{USER}{problem}{ASSISTANT}{OPEN_THINK}\n"
