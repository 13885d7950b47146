"""Configuration of judges: chat endpoints from `URL#MODEL` or a YAML file. Keys stay in the environment."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from attnpo.errors import InputError

OPENAI_HOST = "api.openai.com"
OPENAI_KEY = "OPENAI_API_KEY"
_TEXT, _NUMBER, _MAPPING = "a text", "a number", "a mapping"


@dataclass(frozen=True)
class Judge:
    """One OpenAI-compatible chat endpoint and model.

    Attributes:
        name: the name of its votes in the output.
        base_url: up to and without `/chat/completions`, such as `https://api.openai.com/v1`.
        api_key_env: the environment variable that holds its key. None: no key is sent, except that OpenAI's own
            endpoint gets OPENAI_API_KEY; a key is never sent to an endpoint it was not named for.
        price_in, price_out: per million tokens, in any one currency; None: not known.
        temperature: None: not sent (some models refuse it).
        max_tokens: of an answer; None: not sent, the endpoint's own limit applies.
        extra_body: further fields of every request (`max_completion_tokens`, `reasoning_effort`, …).
    """

    name: str
    base_url: str
    model: str
    api_key_env: str | None = None
    price_in: float | None = None
    price_out: float | None = None
    temperature: float | None = 0.0
    max_tokens: int | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_openai(self) -> bool:
        """Whether the endpoint is OpenAI's own rather than a compatible one."""
        return urlsplit(self.base_url).hostname == OPENAI_HOST

    @property
    def sampling(self) -> dict[str, Any]:
        """Fields of a request other than model and messages."""
        given = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {**{name: value for name, value in given.items() if value is not None}, **self.extra_body}

    def api_key(self) -> str | None:
        """Return the key, read from the environment now; None: no key is sent.

        Raises:
            InputError: the variable is not set, or its value cannot be a key. The value is not shown.
        """
        variable = self.api_key_env or (OPENAI_KEY if self.is_openai else None)
        if variable is None:
            return None
        key = os.environ.get(variable, "").strip()
        if not key:
            raise InputError(f"judge {self.name}: the environment variable {variable} with its API key is not set")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(f"judge {self.name}: the environment variable {variable} does not hold an API key")
        return key

    def cost(self, tokens_in: float, tokens_out: float) -> float | None:
        """Return the cost in the currency of the prices; None without both of them."""
        if self.price_in is None or self.price_out is None:
            return None
        return (self.price_in * tokens_in + self.price_out * tokens_out) / 1e6


def collect_judges(
    given: Sequence[str] = (), file: str | Path | None = None, api_key_env: str | None = None
) -> list[Judge]:
    """Return the judges of the options --judge (`URL#MODEL`, all with the key in `api_key_env`) and --judges (a file).

    Raises:
        InputError: none is given, one is malformed, two have the same name; names option or file and what was expected.
    """
    if api_key_env is not None and not given:
        raise InputError("--api-key-env goes with --judge; a file for --judges has a key api_key_env per judge")
    judges = [parse_judge(text, api_key_env) for text in given]
    if file is not None:
        judges += load_judges(file)
    if not judges:
        raise InputError("--judge: none is given, expected at least one URL#MODEL, or --judges FILE.yaml")
    names = [judge.name for judge in judges]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"--judge: {names.count(name)} judges are called {name!r}; expected different models, or names in a "
                "file for --judges"
            )
    return judges


def parse_judge(text: str, api_key_env: str | None = None) -> Judge:
    """Return a judge from `URL#MODEL`, named after its model."""
    where = f"--judge {_without_password(text)}"
    url, _, model = text.partition("#")
    if not model.strip():
        raise InputError(f"{where}: found no model, expected URL#MODEL such as http://localhost:8000/v1#my-model")
    return Judge(model.strip(), _checked_url(url, where), model.strip(), api_key_env)


def load_judges(path: str | Path) -> list[Judge]:
    """Return judges from a YAML file: a list under `judges` of mappings with the fields of `Judge`."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--judges {path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--judges {path}: not valid YAML ({' '.join(str(error).split())})") from None
    items = content.get("judges") if isinstance(content, dict) and set(content) == {"judges"} else None
    if not isinstance(items, list) or not items:
        raise InputError(f"--judges {path}: expected one key 'judges' with a list of judges")
    return [_from_mapping(item, f"--judges {path}, judge {number}") for number, item in enumerate(items, start=1)]


_KINDS = {
    "name": _TEXT,
    "base_url": _TEXT,
    "model": _TEXT,
    "api_key_env": _TEXT,
    "price_in": _NUMBER,
    "price_out": _NUMBER,
    "temperature": _NUMBER,
    "max_tokens": "a whole number",
    "extra_body": _MAPPING,
}
_MAY_BE_NULL = ("api_key_env", "price_in", "price_out", "temperature", "max_tokens")


def _from_mapping(item: object, where: str) -> Judge:
    if not isinstance(item, dict):
        raise InputError(f"{where}: expected a mapping with base_url and model, found {item!r}")
    known = [entry.name for entry in fields(Judge)]
    for name in item:
        if name not in known:
            raise InputError(f"{where}: unknown key {name!r}, expected some of {', '.join(known)}")
    for name in ("base_url", "model"):
        if name not in item:
            raise InputError(f"{where}: {name} is missing")
    for name, value in item.items():
        if not (value is None and name in _MAY_BE_NULL) and not _fits(value, _KINDS[name]):
            raise InputError(f"{where}: {name} is {value!r}, expected {_KINDS[name]}")
    url = _checked_url(item["base_url"], f"{where}, base_url")
    return Judge(**{"name": item["model"], **item, "base_url": url})


def _fits(value: object, kind: str) -> bool:
    if kind == _TEXT:
        return isinstance(value, str) and bool(value.strip())
    if kind == _MAPPING:
        return isinstance(value, dict) and all(isinstance(name, str) for name in value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return False
    return kind == _NUMBER or (isinstance(value, int) and value > 0)


def _checked_url(url: str, where: str) -> str:
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, an incomplete IPv6 address
        valid = False
    else:
        if parts.username is not None or parts.password is not None:
            raise InputError(f"{where}: found a user name or password in the address, expected the key in api_key_env")
        if parts.path.endswith("/chat/completions"):
            raise InputError(f"{where}: found an address that ends in /chat/completions, expected it without that")
    if not valid:
        raise InputError(f"{where}: found {_without_password(url)!r}, expected an address such as https://host/v1")
    return url


def _without_password(text: str) -> str:
    """Return an address without the part before an @, which may contain a password."""
    return re.sub(r"//[^/#]*@", "//…@", text)


def scrubbed(text: str, keys: Iterable[str | None]) -> str:
    """Return `text` without any of the keys: endpoints often repeat a refused key in their message."""
    for key in keys:
        if key:
            text = text.replace(key, "***")
    return text
