"""Pages out of templates: everything escaped, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TableView:
    """A table: first column is a heading. `marked` is the number of rows at the end that are sums of the others.

    prose: whether cells are sentences, which wrap, rather than numbers.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: int = 0
    prose: bool = False


def render(template: str, **values: Any) -> str:
    """A page of `fyi_bench/present/templates` with these values, and the version of the program as `version`."""
    import jinja2
    from markupsafe import Markup

    from fyi_bench.errors import printable
    from fyi_bench.version import __version__

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fyi_bench.present", "templates"),
        autoescape=True,
        finalize=lambda value: printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup  # drawn here; matplotlib escapes the text in it
    environment.filters["whole"] = lambda text: text.replace(" ± ", "\xa0±\xa0").replace(" %", "\xa0%")
    return environment.get_template(template).render(version=__version__, **values)
