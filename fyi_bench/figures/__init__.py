"""Figures: the curves of a record, and those of the FYI paper."""

from __future__ import annotations

from fyi_bench.figures.continual import continual_drawing, continual_figure, continual_panels

__all__ = ["continual_drawing", "continual_figure", "continual_panels"]
