"""DD, the first dataset distillation: results.pth, a list of steps (images, labels, step size) in their order.

Wang, Zhu, Torralba, Efros, "Dataset Distillation", 2018. The images of a step come again in each pass over them; every
step has a step size of its own.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from fyi_bench.errors import DataError
from fyi_bench.formats.arrays import dims, scalar, to_tensor
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.input_files import FOLDER, InputFiles

_FILE = "results.pth"


def _is_step(value: Any) -> bool:
    """Whether it is (images, labels, step size)."""
    whole = isinstance(value, list | tuple) and len(value) == 3
    return whole and dims(value[0]) == 4 and dims(value[1]) == 1 and scalar(value[2]) is not None


@FORMATS.register("dd")
class DD(Format):
    """DD: results.pth with the steps (images, labels, step size)"""

    rank, family = 16, "dd"

    def looks(self, files: InputFiles) -> str:
        name = files.name or (_FILE if files.has(_FILE) else "")
        if not name or files.kind not in (FOLDER, "torch"):
            return ""
        content = files.content(name)
        steps = isinstance(content, list | tuple) and len(content) > 0 and all(map(_is_step, content))
        return "a list of steps (images, labels, step size)" if steps else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """The images of one pass, in the order of the steps, and the step sizes of all passes."""
        files.need(self.looks(files), f"DD's {_FILE}, a list of steps (images, labels, step size)")
        steps = files.content(files.name or _FILE)
        rates = [scalar(step[2]) for step in steps]
        if not all(rate is not None and math.isfinite(rate) and rate > 0 for rate in rates):
            raise DataError("A step size is no positive number.\nCopy the file again.")
        pairs = [
            (to_tensor(step[0], "images", options.max_bytes), to_tensor(step[1], "labels", options.max_bytes))
            for step in steps
        ]
        if len({images.shape[1:] for images, _ in pairs}) > 1 or any(len(x) != len(y) for x, y in pairs):
            raise DataError(
                "The steps differ in the shape of their images, or in the number of labels.\nCopy the file again."
            )
        period = _period(pairs)
        once = pairs[:period]
        raw = Raw(torch.cat([x for x, _ in once]), torch.cat([y for _, y in once]), method="dd")
        raw.space, raw.space_reason = "normalized", "DD's code optimises normalised images"
        raw.lr = tuple(rate for rate in rates if rate is not None)
        shown = {tuple(map(tuple, torch.stack(y.unique(return_counts=True)).tolist())) for _, y in once}
        counts = {count for _, found in shown for count in found}
        each = counts.pop() if len(shown) == len(counts) == 1 else 0  # of a class in a step; 0: not as many of each
        raw.facts = {"steps": len(steps), "distinct_steps": period, "step_images": each}
        raw.warnings.append(f"made for {len(steps)} ordered steps: as an ordinary training set its images are poor")
        return raw


def _period(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> int:
    """After how many steps the images come again."""

    def alike(i: int, j: int) -> bool:
        return torch.equal(pairs[i][0], pairs[j][0]) and torch.equal(pairs[i][1], pairs[j][1])

    count = len(pairs)
    whole = (p for p in range(1, count) if count % p == 0 and all(alike(i, i % p) for i in range(p, count)))
    return next(whole, count)
