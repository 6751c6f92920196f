"""Figures of the paper that cannot be made here, each with the reason."""

from __future__ import annotations

from fyi_bench.errors import DataError
from fyi_bench.present.figures.request import FIGURES, PaperFigure, Request
from fyi_bench.present.figures.style import Drawing

_REASONS = {
    "2": (
        "Where class activation maps fall",
        "it needs full-size ImageNet photographs and a ResNet-18 pre-trained on ImageNet, and neither is part of "
        "fyi-bench",
        "For symmetry of real data see: fyi-bench figure 3",
    ),
    "4": (
        "The idea of FYI",
        "it is a drawing of the method, there is nothing to measure in it",
        "The method itself is distill/fyi.py.",
    ),
    "C": (
        "Where objects lie in COCO",
        "it needs the images and object masks of COCO, which are not part of fyi-bench",
        "For symmetry of real data see: fyi-bench figure 3",
    ),
}


def _refuse(name: str) -> PaperFigure:
    title, reason, instead = _REASONS[name]

    def make(request: Request) -> Drawing:
        raise DataError(f"Figure {name} of the paper ({title.lower()}) cannot be made: {reason}.\n{instead}")

    return PaperFigure(name, title, make)


for _name in _REASONS:
    FIGURES.register(_name, _refuse(_name))
