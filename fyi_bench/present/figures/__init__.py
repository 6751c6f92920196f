"""Figures: the curves of a record, and those of the FYI paper by their names: `figure('3', Request(store, data))`."""

from __future__ import annotations

from fyi_bench.present.figures.continual import continual_drawing, continual_figure, continual_panels
from fyi_bench.present.figures.request import (
    EFFORTS,
    FIGURES,
    Effort,
    PaperFigure,
    Request,
    figure,
    figure_needs,
    paper_figure,
)

__all__ = [
    "EFFORTS",
    "FIGURES",
    "Effort",
    "PaperFigure",
    "Request",
    "continual_drawing",
    "continual_figure",
    "continual_panels",
    "figure",
    "figure_needs",
    "paper_figure",
]
