"""Architectures: the ConvNet family, the 720-point search space, and the zoo for cross-architecture tests.

`build`, `renew`, `describe`, `cost` and `ARCHITECTURES` are loaded at first use, so that the names of the
search space can be listed without importing torch.
"""

from typing import Any

from search_space.names import NUMERICS_VERSION as NUMERICS_VERSION

_LAZY = ("ARCHITECTURES", "Architecture", "build", "cost", "describe", "renew")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from search_space import architectures

        return getattr(architectures, name)
    raise AttributeError(f"module 'search_space' has no attribute '{name}'")
