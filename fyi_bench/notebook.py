"""Whether this is a notebook, and what its shell is."""

from __future__ import annotations

import sys
from typing import Any


def notebook_shell() -> Any | None:
    """IPython's shell where its kernel draws the output (Jupyter, Colab, VS Code); None in a terminal or a script."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell if shell is not None and "IPKernelApp" in shell.config else None
