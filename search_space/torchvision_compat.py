"""torchvision, importable beside any build of torch: `from search_space.torchvision_compat import torchvision`.

torchvision registers shape functions for its operators `nms` and `qnms` at import. Where its compiled
extension cannot be loaded (typically a CUDA build of torchvision beside a CPU build of torch) these operators
do not exist and the import fails, although nothing here uses them. Declaring their schemas first is enough;
calling them still fails, as it should.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _extension_loads() -> bool:
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        return False
    for library in Path(package.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return True
    return False


def _declare_missing() -> list[torch.library.Library]:
    missing = [schema for schema in _SCHEMAS if not hasattr(torch.ops.torchvision, schema.partition("(")[0])]
    if not missing or _extension_loads():
        return []
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in missing:
        library.define(schema)
    return [library]


_DECLARED = _declare_missing()  # a declaration lives as long as its Library object

import torchvision  # noqa: E402

__all__ = ["torchvision"]
