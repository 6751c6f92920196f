"""Links from a page into the sources (`../distill/recipes/quick.toml`) lead to the repository on the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"\]\(\.\./([^)#\s]+)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Called by mkdocs for every page; a link to a file that is not there stays, and the strict build names it."""

    def absolute(found: re.Match[str]) -> str:
        path = ROOT / found[1]
        if page.file.src_uri.count("/") or not path.exists():
            return found[0]
        return f"]({config.repo_url}/{'tree' if path.is_dir() else 'blob'}/main/{found[1]}"

    return _LINK.sub(absolute, markdown)
