"""A data set together with its mirror images: every image once as it is and once mirrored, in both splits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fyi_bench.data.entry import Decoded, Layout, Source, Split


@dataclass(frozen=True)
class MirroredLayout:
    """The data of another layout, found where that finds it."""

    plain: Layout

    @property
    def looks_like(self) -> str:
        return self.plain.looks_like

    def find(self, root: Path) -> Source | None:
        found = self.plain.find(root)
        return None if found is None else MirroredSource(found)


@dataclass(frozen=True)
class MirroredSource:
    """A source whose images are followed by their mirror images, labels repeated."""

    plain: Source

    @property
    def where(self) -> Path | None:
        return self.plain.where

    @property
    def complete(self) -> bool:
        return self.plain.complete

    def files(self, split: Split) -> list[Path]:
        return self.plain.files(split)

    def options(self) -> dict[str, Any]:
        return {**self.plain.options(), "mirrored": True}

    def read(self, split: Split) -> Decoded:
        found = self.plain.read(split)
        both = torch.cat([found.images, found.images.flip(-1)])
        return replace(found, images=both, labels=found.labels.repeat(2))
