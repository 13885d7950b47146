"""What a run was started with, for those who want to repeat it."""

from __future__ import annotations

from typing import Any

from attnpo.report.data.run import Run
from attnpo.report.words import esc

MAPPED = ("sra", "sra_interval")  # one number or pair per head: the map shows them
# A run's configuration may hold credentials for a model hub; the page is made to be passed on.
SECRETS = ("hub_token", "api_key", "apikey", "password", "secret", "access_token", "auth_token")


def details_html(run: Run) -> str:
    """The configuration, the environment and the head file of a run, each collapsed."""
    heads = {key: value for key, value in run.heads.items() if key not in MAPPED}
    parts = {"Configuration": run.config, "Environment": run.environment, "Head file": heads}
    tables = "".join(
        f"<details><summary>{name} of {esc(run.name)}</summary>{_mapping_table(values, name)}</details>\n"
        for name, values in parts.items()
        if values
    )
    return f'{tables}<p class="aside">Run folder: <code>{esc(run.path)}</code></p>'


def _mapping_table(values: dict[str, Any], name: str) -> str:
    rows = "".join(
        f'<tr><th scope="row">{esc(key)}</th><td>{esc(_shown(key, value))}</td></tr>\n' for key, value in values.items()
    )
    return (
        f'<div class="scroll tall" tabindex="0" role="region" aria-label="{name}"><table class="plain">'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _shown(key: str, value: Any) -> str:
    if value and any(secret in key.lower() for secret in SECRETS):
        return "(hidden)"
    if isinstance(value, dict):
        return ", ".join(f"{inner}: {_shown(str(inner), item)}" for inner, item in value.items())
    return ", ".join(_shown(key, item) for item in value) if isinstance(value, list) else str(value)
