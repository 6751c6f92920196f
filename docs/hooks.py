"""Links from a page into the sources lead to the repository; tables that the code holds stand in the pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_SETTINGS = "<!-- settings -->"
_LINK = re.compile(r"\]\(\.\./([^)#\s]+)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Called by mkdocs for every page; a link to a file that is not there stays, and the strict build names it."""

    def absolute(found: re.Match[str]) -> str:
        path = ROOT / found[1]
        if page.file.src_uri.count("/") or not path.exists():
            return found[0]
        return f"]({config.repo_url}/{'tree' if path.is_dir() else 'blob'}/main/{found[1]}"

    return _LINK.sub(absolute, markdown.replace(_SETTINGS, _common_options() if _SETTINGS in markdown else ""))


def _common_options() -> str:
    """The options of every command that computes, as a table."""
    from fyi_bench.config import Settings
    from fyi_bench.parameters import of_dataclass

    rows = [f"| `{each.name}` | `{each.flag}` | {each.option.help} |" for each in of_dataclass(Settings, common=True)]
    return "\n".join(["| keyword | command line | |", "| --- | --- | --- |", *rows])
