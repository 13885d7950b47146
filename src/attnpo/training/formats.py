"""The thinking format of a training run: by its option, the tokenizer, and the first prompt as the model gets it."""

from __future__ import annotations

from typing import Any

from trl.data_utils import is_conversational

from attnpo.steps.detect import Chosen, check_marks, choose_format
from attnpo.steps.formats import AUTO
from attnpo.training.config import AttnPOConfig


def format_of_run(args: AttnPOConfig, tokenizer: Any, dataset: Any) -> Chosen:
    """The format that the responses of a run are read by.

    Raises:
        InputError: an unknown format, or one whose marks the tokenizer cannot write.
    """
    prompt, tail = _first_prompt(dataset, tokenizer, args)
    chosen = choose_format(
        args.thinking_format, tokenizer, prompt=prompt, tail=tail, template_options=args.chat_template_kwargs
    )
    if args.thinking_format != AUTO:
        check_marks(chosen.form, tokenizer)
    return chosen


def _first_prompt(dataset: Any, tokenizer: Any, args: AttnPOConfig) -> tuple[str, str | None]:
    """As text, and what stands behind its last message; None where there is no conversation, or the data set cannot be
    asked for a row without being read (a stream)."""
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or len(dataset) == 0:
        return "", None
    row = dataset[0]
    prompt = row.get("prompt") if isinstance(row, dict) else None
    if isinstance(prompt, str):
        return prompt, None
    if prompt is None or not is_conversational({"prompt": prompt}):
        return "", None
    options = {**(args.chat_template_kwargs or {}), **(row.get("chat_template_kwargs") or {})}
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **options)
    content = prompt[-1]["content"]
    said = content.strip() if isinstance(content, str) else ""
    return text, text.rpartition(said)[2] if said and said in text else None
