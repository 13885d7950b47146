"""A hook of mkdocs: a link to a file outside of docs/ becomes its path, as the site has the pages only."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)\s]+)\)")


def on_page_markdown(markdown: str, **page: Any) -> str:
    """`[its recipe](../configs/x.yaml)` → `its recipe (configs/x.yaml)`; `[x.yaml](../x.yaml)` → `x.yaml`."""

    def named(link: re.Match[str]) -> str:
        text, path = link[1], f"`{link[2]}`"
        return path if text.strip("`") == link[2] else f"{text} ({path})"

    return OUTSIDE.sub(named, markdown)
