"""The methods, one file each with its recipe beside it, registered by being here.

A plug-in's method is an entry point of the group `fyi_bench.methods`: `mine = my_package:Mine`, a subclass of
`distill.method.Method`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fyi_bench.registry import Registry

if TYPE_CHECKING:
    from distill.method import Method, MethodConfig

METHODS: Registry[type[Method]] = Registry(
    "method", package="distill.methods", group="fyi_bench.methods", base="distill.method:Method", by_file=True
)


def config_of(method: str, values: Mapping[str, Any]) -> MethodConfig:
    """The named method's config from a recipe's values; unknown names are answered with suggestions."""
    return METHODS.get(method).Config.from_values(values)
