"""fyi-bench: a continual-learning and NAS benchmark harness for dataset distillation.

The Python API uses the words of the command line; its parts are imported when first used, so that
`import fyi_bench` and `--help` do not import torch.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.version import __version__

__all__ = ["__version__"]


def _check_not_hidden() -> None:
    """Raise ImportError where another module has the name of one of our packages: a script `distill.py`, say."""
    home = Path(__file__).resolve().parent.parent
    for name in ("distill", "downstream", "search_space"):
        spec, ours = find_spec(name), home / name / "__init__.py"
        if spec is None or not ours.is_file() or Path(spec.origin or "").resolve() == ours:
            continue
        where = spec.origin or next(iter(spec.submodule_search_locations or ()), name)
        text = (
            f"{where} hides the package '{name}' of fyi-bench: Python looks in that folder first.\n"
            "Start in another folder, run the command fyi-bench, or rename that file."
        )
        if sys.argv[:1] == ["-m"]:  # `python -m fyi_bench`: two lines are enough
            print(f"fyi-bench: {text}", file=sys.stderr)
            raise SystemExit(2)
        raise ImportError(text)


_check_not_hidden()

if TYPE_CHECKING:
    from fyi_bench.api import *  # noqa: F403  api.pyi, for editors and type checkers
else:

    def __getattr__(name: str) -> Any:
        # `from fyi_bench import rng` asks here first: a module is no word
        if name.startswith("_") or find_spec(f"fyi_bench.{name}") is not None:
            raise AttributeError(f"module 'fyi_bench' has no attribute '{name}'")
        from fyi_bench import api

        return getattr(api, name)

    def __dir__() -> list[str]:
        from fyi_bench import api

        return ["__version__", *api.words()]
