"""fyi-bench: a continual-learning and NAS benchmark harness for dataset distillation.

The Python API uses the words of the command line; its parts are imported when first used, so that
`import fyi_bench` and `--help` do not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_API = dict.fromkeys(
    (
        "distill", "evaluate", "cross_arch", "continual", "nas", "load", "inspect", "export", "table", "make_report",
        "demo", "CondensedBuffer",
    ),
    "fyi_bench.api",
)  # fmt: skip

__all__ = ["__version__", *_API]


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(importlib.import_module(_API[name]), name)
    raise AttributeError(f"module 'fyi_bench' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
