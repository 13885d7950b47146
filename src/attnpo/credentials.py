"""Hides credentials in what is written to files and pages that are shared."""

from __future__ import annotations

import re

SECRETS = ("hub_token", "api_key", "apikey", "password", "secret", "access_token", "auth_token")
HIDDEN = "(hidden)"
# Not --api_key_env, whose value is the name of a variable.
_NAME = rf"[\w.-]*(?:{'|'.join(SECRETS).replace('_', '[_-]')})(?![\w.-]*env\b)[\w.-]*"
_WORD = r"""(?:'[^']*'|"[^"]*"|[^\s'"])+"""  # of a shell, as shlex.join quotes it
# Credentials inside other values: `--hub_token x` in a command, a JSON option, tokens by their prefix, addresses.
_OPTION = re.compile(rf"(--{_NAME})([= ]+){_WORD}", re.IGNORECASE)
_JSON = re.compile(rf"""("{_NAME}"\s*:\s*)"(?:[^"\\]|\\.)*\"""", re.IGNORECASE)
_TOKEN = re.compile(r"\b(?:hf_|sk-|ghp_|github_pat_)[A-Za-z0-9_-]{8,}")
_ADDRESS = re.compile(r"(://)[^/\s:@]+:[^/\s@]+@")


def hide(text: str) -> str:
    """Return `text` with credentials that are recognisable by their name or form replaced.

    Example:
        >>> hide("attnpo train --hub-token 'a b' --seed 3")
        'attnpo train --hub-token (hidden) --seed 3'
    """
    text = _JSON.sub(rf'\1"{HIDDEN}"', _OPTION.sub(rf"\1\2{HIDDEN}", text))
    return _ADDRESS.sub(rf"\1{HIDDEN}@", _TOKEN.sub(HIDDEN, text))


def is_secret(name: str) -> bool:
    """Whether an option or key of this name has a credential as its value."""
    name = name.lower().replace("-", "_")
    return any(secret in name for secret in SECRETS) and not name.endswith("_env")
