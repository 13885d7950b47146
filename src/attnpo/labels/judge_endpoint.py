"""One request to one OpenAI-compatible chat endpoint, by OpenAI's client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attnpo.errors import InputError
from attnpo.labels.judge_config import Judge

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CHARACTERS_PER_TOKEN = 4  # a rough rule for English; formulas and code have fewer


def require_client() -> None:
    """Raises InputError where the package that talks to the endpoints is not installed."""
    try:
        import openai  # noqa: F401
    except ImportError:
        raise InputError("--by judges needs the package openai: pip install 'attnpo[judges]'") from None


def make_client(judge: Judge, key: str | None, *, retries: int, timeout: float) -> AsyncOpenAI:
    """A client that retries by itself: time-outs, broken connections, HTTP 408, 409, 429 and 5xx, with exponential
    back-off or as long as Retry-After says (at most two minutes)."""
    from openai import AsyncOpenAI, Omit

    # The client fills what is not given from OPENAI_* variables. Only OpenAI itself may see those.
    headers: dict[str, Any] = {} if judge.is_openai else {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
    return AsyncOpenAI(
        api_key=key or "",
        admin_api_key="",
        base_url=judge.base_url,
        timeout=timeout,
        max_retries=retries,
        default_headers=headers,
    )


async def request_answer(client: AsyncOpenAI, judge: Judge, prompt: str) -> tuple[str | None, tuple[int, int] | None]:
    """The text of the answer and its (prompt, completion) tokens; None for what the reply does not have.

    The reply is read by hand: the client does not check that what it got is a completion.

    Raises:
        openai.APIError: after the client's own retries.
    """
    from openai import Omit

    response = await client.chat.completions.with_raw_response.create(
        model=judge.model,
        messages=[{"role": "user", "content": prompt}],
        extra_body=judge.sampling,
        extra_headers={} if client.api_key else {"Authorization": Omit()},
    )
    body = _json(response.http_response.text)
    text = _at(body, "choices", 0, "message", "content")
    tokens_in, tokens_out = _at(body, "usage", "prompt_tokens"), _at(body, "usage", "completion_tokens")
    counted = all(type(count) is int and count >= 0 for count in (tokens_in, tokens_out))
    return text if isinstance(text, str) else None, (tokens_in, tokens_out) if counted else None


def estimated_tokens(characters: int) -> int:
    """Rounded up: a quarter of the characters."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a proxy's HTML page, say
        return None


def _at(value: Any, *path: str | int) -> Any:
    """What stands at a path in parsed JSON; None where there is no such place."""
    for part in path:
        if isinstance(part, int):
            value = value[part] if isinstance(value, list) and len(value) > part else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value
