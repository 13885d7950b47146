"""Hides credentials in what is written to files and pages that are shared."""

from __future__ import annotations

import re

SECRETS = ("hub_token", "api_key", "apikey", "password", "secret", "access_token", "auth_token")
HIDDEN = "(hidden)"
# Credentials inside other values: `--hub_token x` in a command, tokens by their prefix, passwords in addresses.
_OPTION = re.compile(rf"(--[\w.-]*(?:{'|'.join(SECRETS)})[\w.-]*)([= ]+)('[^']*'|\S+)", re.IGNORECASE)
_TOKEN = re.compile(r"\b(?:hf_|sk-|ghp_|github_pat_)[A-Za-z0-9_-]{8,}")
_ADDRESS = re.compile(r"(://)[^/\s:@]+:[^/\s@]+@")


def hide(text: str) -> str:
    """Return `text` with credentials that are recognisable by their form replaced."""
    return _ADDRESS.sub(rf"\1{HIDDEN}@", _TOKEN.sub(HIDDEN, _OPTION.sub(rf"\1\2{HIDDEN}", text)))


def is_secret(name: str) -> bool:
    """Whether an option or key of this name has a credential as its value."""
    return any(secret in name.lower() for secret in SECRETS)
