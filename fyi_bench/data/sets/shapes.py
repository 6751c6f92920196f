"""shapes10 and shapes100: generated pictures, so that everything can be tried without a download.

32x32 colour, 500 train and 100 test images a class (shapes10), 300 and 50 (shapes100). What the pictures show and why
is told in `fyi_bench.data.scenes`. In shapes10 five bodies are shared by two classes each, which only their
ends tell apart; shapes100 is every combination of five bodies, ten pairs of ends, plain or striped.

Test accuracy after training on everything: ConvNet of width 128, depth 3, instance norm, three epochs: shapes10
0.984, shapes100 0.939; one linear layer on pixels, 20 epochs: 0.451 and 0.092. Repeat with
`pytest tests/test_shapes.py -m slow -n0` (105 s and 549 s on two cores that were also doing other work).

Pixels are the same on every machine by construction (see `scenes`); `VERSION` is raised when they change.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fyi_bench.data.entry import DATASETS, DataFiles, DatasetEntry, Decoded, Split, Statistics
from fyi_bench.data.scenes import BODIES, ENDS, SIDE, Draws, ShapeClass, render
from fyi_bench.rng import numpy_stream

VERSION = 1
_PAIRS = tuple(itertools.combinations(ENDS, 2))
_BODIES = tuple(BODIES)
CLASSES = {
    "shapes10": tuple(ShapeClass(_BODIES[k % 5], pair, k % 5 % 2 == 1) for k, pair in enumerate(_PAIRS)),
    "shapes100": tuple(ShapeClass(*facts) for facts in itertools.product(_BODIES, _PAIRS, (False, True))),
}
PER_CLASS: dict[str, dict[Split, int]] = {
    "shapes10": {"train": 500, "test": 100},
    "shapes100": {"train": 300, "test": 50},
}
STATISTICS: dict[str, Statistics] = {
    "shapes10": ((0.3969, 0.3876, 0.3875), (0.2525, 0.2611, 0.2571)),
    "shapes100": ((0.3927, 0.3818, 0.3825), (0.2525, 0.2576, 0.2550)),
}


@dataclass(frozen=True)
class Drawn:
    """Generated images uint8 [N, 3, 32, 32], labels int64 [N], and which were mirrored, bool [N]."""

    images: torch.Tensor
    labels: torch.Tensor
    mirrored: torch.Tensor


def draw_shapes(name: str, split: Split, per_class: int | None = None) -> Drawn:
    """The pictures of a split in rounds of one image of each class, so the first k rounds are k images a class.

    `per_class` draws another number than the data set has; it is another sample, not a part of it.
    """
    classes = CLASSES[name]
    count = per_class or PER_CLASS[name][split]
    images = np.empty((count, len(classes), 3, SIDE, SIDE), dtype=np.uint8)
    mirrored = np.empty((count, len(classes)), dtype=bool)
    for label, shape in enumerate(classes):
        draws = Draws(numpy_stream(0, name, VERSION, split, label), count)
        images[:, label], mirrored[:, label] = render(shape, draws)
    labels = torch.arange(len(classes)).repeat(count)
    flat = torch.from_numpy(images.reshape(-1, 3, SIDE, SIDE))
    return Drawn(flat, labels, torch.from_numpy(mirrored.reshape(-1)))


@dataclass(frozen=True)
class Shapes(DataFiles):
    """The generator as a data set without files."""

    name: str = ""

    def options(self) -> dict[str, Any]:
        return {"generator": self.name, "version": VERSION}

    def read(self, split: Split) -> Decoded:
        drawn = draw_shapes(self.name, split)
        names = tuple(shape.name for shape in CLASSES[self.name])
        return Decoded(drawn.images, drawn.labels, len(names), names)


for _name, _classes in CLASSES.items():
    _train, _test = (count * len(_classes) for count in PER_CLASS[_name].values())
    _constants = {"dc": STATISTICS[_name]}
    DATASETS.register(
        _name,
        DatasetEntry(_name, (), _constants, len(_classes), SIDE, 3, _train, _test, fixed=Shapes(name=_name)),
    )
