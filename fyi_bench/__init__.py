"""fyi-bench: a continual-learning and NAS benchmark harness for dataset distillation.

The Python API uses the words of the command line; its parts are imported when first used, so that
`import fyi_bench` and `--help` do not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fyi_bench.version import __version__

__all__ = ["__version__"]

if TYPE_CHECKING:
    from fyi_bench.api import *  # noqa: F403  api.pyi, for editors and type checkers
else:

    def __getattr__(name: str) -> Any:
        from importlib.util import find_spec

        # `from fyi_bench import rng` asks here first: a module is no word
        if name.startswith("_") or find_spec(f"fyi_bench.{name}") is not None:
            raise AttributeError(f"module 'fyi_bench' has no attribute '{name}'")
        from fyi_bench import api

        return getattr(api, name)

    def __dir__() -> list[str]:
        from fyi_bench import api

        return ["__version__", *api.words()]
