"""Architectures: the ConvNet family, the 720-point search space, and the zoo for cross-architecture tests.

`build`, `renew`, `describe`, `cost` and `ARCHITECTURES` are loaded at first use, so that the names of the
search space can be listed without importing torch.
"""

from typing import Any

# Bump when the numbers a network produces change (initialisation, structure, rounding): results are keyed by it.
NUMERICS_VERSION = 2

_LAZY = ("ARCHITECTURES", "Architecture", "build", "cost", "describe", "renew")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from search_space import architectures

        return getattr(architectures, name)
    raise AttributeError(f"module 'search_space' has no attribute '{name}'")
