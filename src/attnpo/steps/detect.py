"""Detection of a model's thinking format: by its response template, else by its chat template and added tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from attnpo.errors import InputError
from attnpo.steps.formats import AUTO, THINK, ByMarks, Form, ThinkingFormat, built_in, evidence, load_format
from attnpo.steps.response import THINKING_FIELDS, unclosed_message

_QUESTION = "QUESTION"
IN_PROMPTS = ("answer_tags",)
"""Formats that the prompt asks for, so that the tokenizer does not show them."""


@dataclass(frozen=True)
class Chosen:
    """The format of a model, and the reason for the choice."""

    form: ThinkingFormat
    why: str

    def __str__(self) -> str:
        """One line for the screen."""
        opened = {
            True: "; the prompt opens it",
            False: "; the prompt closes it: all of a response is its answer",
            None: "",
        }
        return f"thinking format: {self.form}, {self.why}{opened[self.form.prompt_opens]}"

    def of_rows(self, option: str) -> Form:
        """The format for responses of a file, which other models may have written.

        With "auto" each response is read by its own marks. Whether this model's prompts open the thinking does not
        matter for them.
        """
        form = replace(self.form, prompt_opens=None)
        return ByMarks(form) if option == AUTO else form


def format_of_file(
    option: str, tokenizer: Any, rows: Iterable[tuple[int, Mapping[str, Any]]], say: Callable[[str], None]
) -> Form:
    """The format of numbered rows with a response, for a model that reads them; `say` prints the choice and warnings.

    Raises:
        InputError: see `load_format`.
    """
    chosen = choose_format(option, tokenizer)
    form = chosen.of_rows(option)
    say(str(chosen))
    texts = [row["response"] for _, row in rows]
    others = {str(form.of(text)) for text in texts} - {str(chosen.form)}
    if others:
        say(f"responses with the marks of other formats are read by those: {', '.join(sorted(others))}")
    if (unclosed := unclosed_message(texts, form)) is not None:
        say(unclosed)
    return form


def choose_format(
    option: str,
    tokenizer: Any,
    *,
    prompt: str = "",
    tail: str | None = None,
    template_options: Mapping[str, Any] | None = None,
) -> Chosen:
    """The format of a model.

    Args:
        option: the name of a format, a YAML file, or "auto": detected from the tokenizer's response template, else from
            its chat template and added tokens, else ``<think>``.
        prompt: an example prompt as the model gets it; it may ask for a format.
        tail: the text after the last user message of a prompt, which may open the thinking. Default: the end of
            `prompt`, or without one the text that the chat template puts there.
        template_options: options of the chat template.

    Raises:
        InputError: see `load_format`.
    """
    if option != AUTO:
        chosen = Chosen(load_format(option), "as given")
    else:
        chosen = _by_template(tokenizer) or _by_marks(tokenizer, prompt) or Chosen(THINK, "as nothing shows one")
    form = chosen.form.with_ids(tokenizer)
    if form.prompt_opens is None:
        if tail is None and not prompt and getattr(tokenizer, "chat_template", None):
            tail = _template_tail(tokenizer, template_options or {})
        form = replace(form, prompt_opens=form.left_open_by(prompt) if tail is None else form.opened_by(tail))
    return Chosen(form, chosen.why)


def _template_tail(tokenizer: Any, options: Mapping[str, Any]) -> str:
    """The text that the chat template puts after a user message; empty if the template raises."""
    import jinja2

    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": _QUESTION}], tokenize=False, add_generation_prompt=True, **options
        )
    except (jinja2.TemplateError, TypeError, ValueError):  # the code that builds the prompts reports it
        return ""
    return text.rpartition(_QUESTION)[2]


def _by_marks(tokenizer: Any, prompt: str) -> Chosen | None:
    """The built-in format all of whose strings (`evidence`) are in the chat template, the added tokens or the prompt;
    of several formats the one with the most strings, None if there is none."""
    template = getattr(tokenizer, "chat_template", None) or ""
    templates = template if isinstance(template, str) else "\n".join(map(str, dict(template).values()))
    tokens = "\n".join(tokenizer.get_added_vocab())  # joined, because a mark may be a part of a token
    shown = {
        name: strings
        for name, strings in evidence().items()
        if strings
        and all(mark in tokens or mark in templates or (name in IN_PROMPTS and mark in prompt) for mark in strings)
    }
    if not shown:
        return None
    name = max(shown, key=lambda name: (len(shown[name]), name != THINK.name))
    where = [
        place
        for place, found in (
            ("the added tokens", any(mark in tokens for mark in shown[name])),
            ("the chat template", any(mark in templates and mark not in tokens for mark in shown[name])),
            ("the prompt", any(mark not in tokens and mark not in templates for mark in shown[name])),
        )
        if found
    ]
    return Chosen(built_in()[name], f"shown by {' and '.join(where)}")


def _by_template(tokenizer: Any) -> Chosen | None:
    """The format of transformers' response template; None without one, or if its patterns are not plain marks.

    A template has a field for the thinking and one for the answer ("content"), each with marks on both sides. An
    opening mark of the answer means a format of channels.
    """
    template = getattr(tokenizer, "response_template", None)
    fields = template.get("fields") if isinstance(template, Mapping) else None
    if not isinstance(fields, Mapping):
        return None
    thinking = next((fields[name] for name in THINKING_FIELDS if isinstance(fields.get(name), Mapping)), None)
    closing = _plain_marks(thinking, "close")
    if not closing:
        return None
    opening, answer_opening = _plain_marks(thinking, "open"), _plain_marks(fields.get("content"), "open")
    channels = bool(answer_opening)
    form = _built_in_with(answer_opening or closing, channels=channels)
    if form is None:
        form = ThinkingFormat("response_template", opening, closing, answer_opening, channels=channels)
    elif (shown := _by_marks(tokenizer, "")) is not None and _same_thinking_marks(shown.form, form):
        form = shown.form  # of several built-in formats with these marks, the one that the tokenizer shows
    return Chosen(form, "as the tokenizer's response template has it")


def _built_in_with(ends: tuple[str, ...], *, channels: bool) -> ThinkingFormat | None:
    """The first built-in format in which all of these marks end the thinking; None if there is none."""
    for form in built_in().values():
        own = form.answer_opening if form.channels else form.closing
        if form.channels == channels and set(ends) <= set(own):
            return form
    return None


def _same_thinking_marks(one: ThinkingFormat, other: ThinkingFormat) -> bool:
    return (one.opening, one.closing) == (other.opening, other.closing)


def _plain_marks(field: Any, side: str) -> tuple[str, ...]:
    """The marks at one side ("open" or "close") of a field of a response template.

    A template gives them as texts, or as a regular expression (``open_pattern``), which is read if it is one escaped
    text, optionally followed by white space or the end of the response. Empty for any other pattern, or if `field` is
    not a mapping.
    """
    if not isinstance(field, Mapping):
        return ()
    given = field.get(side)
    if isinstance(given, str):
        return (given,)
    if isinstance(given, list) and all(isinstance(mark, str) for mark in given):
        return tuple(given)
    pattern = field.get(f"{side}_pattern")
    if not isinstance(pattern, str):
        return ()
    bare = re.sub(r"(\\s\*)?(\|\$)?$", "", pattern)
    if re.search(r"(?<!\\)[.^$*+?{}\[\]()|]", bare.replace("\\\\", "")) or re.search(r"\\[a-zA-Z]", bare):
        return ()
    return (re.sub(r"\\(.)", r"\1", bare),)


def check_marks(form: ThinkingFormat, tokenizer: Any) -> None:
    """Raise InputError if a mark of the format does not survive the tokenizer: no response could contain it."""
    for mark in (*form.closing, *form.answer_opening):
        ids = tokenizer(mark, add_special_tokens=False)["input_ids"]
        text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if text.strip() != mark.strip():
            raise InputError(
                f"thinking_format {form.name}: the tokenizer turns the mark {mark!r} into {text!r}: no response can "
                "have it; expected a format whose marks it can write"
            )
