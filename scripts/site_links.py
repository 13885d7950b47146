"""A hook of mkdocs: replace links to files outside of docs/ by their paths, as the site only has the pages."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)\s]+)\)")


def on_page_markdown(markdown: str, **page: Any) -> str:
    """Replace `[its recipe](../configs/x.yaml)` by `its recipe (configs/x.yaml)`, `[x.yaml](../x.yaml)` by `x.yaml`."""

    def named(link: re.Match[str]) -> str:
        text, path = link[1], f"`{link[2]}`"
        return path if text.strip("`") == link[2] else f"{text} ({path})"

    return OUTSIDE.sub(named, markdown)
