"""The prompts under which a model repairs its own wrong response. IOP's are not published; these are ours.

A prompt keeps the kind that the data set has: in a conversation the last user message is replaced, so the chat template
(with an opened thinking tag, say) stays in force; a plain text gets the repair request put before it, so whatever it
ends with stays at its end.
"""

from __future__ import annotations

import re
from typing import Any

from attnpo.errors import InputError

PROMPTS = {
    "instruct": """\
{problem}

Below are two attempts at this problem. The first one has a wrong answer. The second one has the right answer.

First attempt:
{wrong}

Second attempt:
{anchor}

Write the first attempt again with its error repaired. Keep its steps and its wording wherever they are right, change \
only what the error makes necessary, and end with the right answer in the same form. Do not mention the attempts.""",
    "brief": "{problem}\n\nWrong: {wrong}\n\nRight: {anchor}\n\nRepair:",
}
"""`instruct` for models that follow instructions; `brief` for small ones that a cold start has taught it."""

_FIELDS = re.compile(r"\{(problem|wrong|anchor)\}")


def check_prompt(prompt: str) -> None:
    """Raises InputError unless `prompt` is the name of a prompt or a text with {problem}, {wrong} and {anchor}."""
    missing = {"problem", "wrong", "anchor"} - set(_FIELDS.findall(prompt)) if isinstance(prompt, str) else {""}
    if prompt not in PROMPTS and missing:
        known = " or ".join(PROMPTS)
        raise InputError(
            f"prompt: found {prompt!r}, expected {known}, or a text with {{problem}}, {{wrong}} and {{anchor}}"
        )


def repair_prompt(
    prompt: Any, *, wrong: str, anchor: str, template: str = "instruct", problem: str | None = None
) -> Any:
    """The repair prompt for a prompt of the data set: a conversation, or a text.

    `problem`: the problem alone, for a text that has more in it.

    >>> repair_prompt([{"role": "user", "content": "1 + 1?"}], wrong="3", anchor="2", template="brief")
    [{'role': 'user', 'content': '1 + 1?\\n\\nWrong: 3\\n\\nRight: 2\\n\\nRepair:'}]
    """
    text = PROMPTS.get(template, template)
    if isinstance(prompt, str):
        stated = prompt if problem is None else problem
        return _filled(text, problem=stated, wrong=wrong, anchor=anchor) + "\n\n" + prompt
    *before, last = prompt
    content = _filled(text, problem=str(last["content"]), wrong=wrong, anchor=anchor)
    return [*before, {**last, "content": content}]


def _filled(text: str, **values: str) -> str:
    """One pass, so that what stands in a value is never taken for a field."""
    return _FIELDS.sub(lambda found: values[found[1]].strip(), text)
