"""Questions as token ids: the chat template where there is one, and whether it opens the thinking itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jinja2

from attnpo.errors import InputError
from attnpo.evaluation.prompts import user_message
from attnpo.evaluation.records import Question
from attnpo.steps.response import CLOSE_TAG, OPEN_TAG


@dataclass(frozen=True)
class Prompter:
    """Writes prompts.

    Attributes:
        tokenizer: one with a chat template, unless `template` is given.
        template: a text containing {problem}, which stands for the benchmark's message, choices and instructions
            included: the user message in a conversation, the whole prompt without a chat template.
        options: for the chat template, e.g. {"enable_thinking": False}.
    """

    tokenizer: Any
    template: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises InputError for a template without {problem}, and where there is neither kind of template."""
        if self.template is not None and "{problem}" not in self.template:
            raise InputError(f"--prompt-template: found {self.template!r}, expected a text containing {{problem}}")
        if self.template is None and not self._conversational:
            raise InputError(
                f"the tokenizer of {getattr(self.tokenizer, 'name_or_path', '') or 'this model'} has no chat template; "
                "give --prompt-template, a text containing {problem}, e.g. 'Problem: {problem}\\n<think>\\n'"
            )
        if self.options and not self._conversational:
            raise InputError("--chat-template-kwargs: found options, but the tokenizer has no chat template")

    def encode(self, question: Question) -> list[int]:
        """The prompt of a question, in tokens."""
        # A chat template writes the special tokens itself; plain text gets those that the tokenizer adds.
        text = self.text(user_message(question))
        return self.tokenizer(text, add_special_tokens=not self._conversational)["input_ids"]

    def text(self, message: str) -> str:
        """The prompt as text. Raises InputError where the chat template refuses."""
        if self.template is not None:
            message = self.template.replace("{problem}", message)
        if not self._conversational:
            return message
        try:
            return self.tokenizer.apply_chat_template(
                [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True, **self.options
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise InputError(f"the chat template cannot be used: {error}") from error

    def opens_thinking(self) -> bool | None:
        """Whether a response begins in an opened thinking part; None: the prompt does not say.

        False where the prompt closes the tag itself, as templates do that are told not to think.
        """
        tail = self.text(_ANY).rpartition(_ANY)[2]
        if OPEN_TAG not in tail and CLOSE_TAG not in tail:
            return None
        return tail.rfind(OPEN_TAG) > tail.rfind(CLOSE_TAG)

    @property
    def _conversational(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))


_ANY = "QUESTION"
