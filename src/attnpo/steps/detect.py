"""Which thinking format a tokenizer has: by its response template, else by its chat template and added tokens."""

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
"""Formats that no tokenizer shows, because the prompt asks for them."""


@dataclass(frozen=True)
class Chosen:
    """The format of a model, and why it is that one."""

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
        """The same for responses of a file, which others may have written: by their marks where nothing was asked for.

        How this model's prompts begin says nothing about them.
        """
        form = replace(self.form, prompt_opens=None)
        return ByMarks(form) if option == AUTO else form


def format_of_file(
    option: str, tokenizer: Any, rows: Iterable[tuple[int, Mapping[str, Any]]], say: Callable[[str], None]
) -> Form:
    """The format of numbered rows with a response, for a model that reads them; `say` is told about it.

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
        option: the name of a format, a YAML file, or "auto": the tokenizer's response template, else what its chat
            template and added tokens show, else ``<think>``.
        prompt: one as the model gets it; it may ask for a format.
        tail: what stands behind the last user message of a prompt, and says whether the thinking is opened there.
            Default: the end of `prompt`; without one what the chat template puts there.
        template_options: for the chat template.

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
            tail = _tail(tokenizer, template_options or {})
        form = replace(form, prompt_opens=form.left_open_by(prompt) if tail is None else form.opened_by(tail))
    return Chosen(form, chosen.why)


def _tail(tokenizer: Any, options: Mapping[str, Any]) -> str:
    """What the chat template puts behind a user message; empty where it refuses."""
    import jinja2

    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": _QUESTION}], tokenize=False, add_generation_prompt=True, **options
        )
    except (jinja2.TemplateError, TypeError, ValueError):  # whoever writes the prompts will say so
        return ""
    return text.rpartition(_QUESTION)[2]


def _by_marks(tokenizer: Any, prompt: str) -> Chosen | None:
    """The built-in format of which the template and the added tokens show most."""
    template = getattr(tokenizer, "chat_template", None) or ""
    templates = template if isinstance(template, str) else "\n".join(map(str, dict(template).values()))
    tokens = "\n".join(tokenizer.get_added_vocab())  # a mark may be a part of one
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
    """The format of transformers' response template; None without one, or where its patterns are not plain marks."""
    template = getattr(tokenizer, "response_template", None)
    fields = template.get("fields") if isinstance(template, Mapping) else None
    if not isinstance(fields, Mapping):
        return None
    thinking = next((fields[name] for name in THINKING_FIELDS if isinstance(fields.get(name), Mapping)), None)
    if thinking is None:
        return None
    opening, closing = _marks(thinking, "open"), _marks(thinking, "close")
    content = fields.get("content")
    answer = _marks(content, "open") if isinstance(content, Mapping) else ()
    if not closing:
        return None
    why = "as the tokenizer's response template has it"
    for form in built_in().values():
        own = form.answer_opening if form.channels else form.closing
        if set(answer or closing) <= set(own) and form.channels == bool(answer):
            named = _by_marks(tokenizer, "")
            same = named is not None and (named.form.opening, named.form.closing) == (form.opening, form.closing)
            return Chosen(named.form if named is not None and same else form, why)
    return Chosen(
        ThinkingFormat(
            "response_template", opening=opening, closing=closing, answer_opening=answer, channels=bool(answer)
        ),
        why,
    )


def _marks(field: Mapping[str, Any], side: str) -> tuple[str, ...]:
    """The plain marks at one side of a field of a response template; none where only a real pattern says them."""
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
    """Raises InputError where a tokenizer does not give a mark of the format back: no response could have it."""
    for mark in (*form.closing, *form.answer_opening):
        ids = tokenizer(mark, add_special_tokens=False)["input_ids"]
        text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if text.strip() != mark.strip():
            raise InputError(
                f"thinking_format {form.name}: the tokenizer turns the mark {mark!r} into {text!r}: no response can "
                "have it; expected a format whose marks it can write"
            )
