"""Folders of pictures: `train/<class>/…` and `test/<class>/…` (or `val/`), as torchvision's ImageFolder reads them.

Classes are the sub-folders of `train/` in alphabetical order unless a list is given; pictures may lie deeper
(`train/<class>/images/…`). Order is that of the names, never of the file system.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fyi_bench.data.entry import Decoded, Source, Split, places
from fyi_bench.data.pictures import decode_images
from fyi_bench.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
TEST_NAMES = ("test", "val", "valid", "validation")
_SAME_SIZE = "Bring all to one square size first, or ask for imagefolder:PATH@64 to have them resized and cropped."


@dataclass(frozen=True)
class FolderLayout:
    """`<root>/<folder>/train/<class>/…` for any of the folder names.

    classes: (sub-folder, name) of each class, in order; empty = all sub-folders. resize: as in `decode_images`.
    annotations: the list of a test split whose pictures lie in one folder, relative to the data (Tiny-ImageNet).
    words: a file of `sub-folder<TAB>name` lines with readable class names.
    """

    folders: tuple[str, ...]
    test_names: tuple[str, ...] = TEST_NAMES
    classes: tuple[tuple[str, str], ...] = ()
    resize: int | None = None
    annotations: str = ""
    words: str = ""

    @property
    def looks_like(self) -> str:
        return f"{self.folders[0]}/train/{self.classes[0][0] if self.classes else '<class>'}/"

    def find(self, root: Path) -> Source | None:
        for folder in places(root, self.folders):
            if all((folder / "train" / name).is_dir() for name, _ in self.classes) and (folder / "train").is_dir():
                return FolderSource(folder, self)
        return None


@dataclass(frozen=True)
class FolderSource:
    """One folder with `train/` and a test split."""

    where: Path
    layout: FolderLayout
    complete: bool = True

    def files(self, split: Split) -> list[Path]:
        return [path for path, _ in self._listing(split)]

    def options(self) -> dict[str, Any]:
        names = [name for name, _ in self.layout.classes]
        return {"layout": "folder", "resize": self.layout.resize, "classes": names}

    def read(self, split: Split) -> Decoded:
        listing = self._listing(split)
        paths = [path for path, _ in listing]
        images = decode_images(paths, lambda i: str(paths[i]), 3, self.layout.resize, hint=_SAME_SIZE)
        labels = torch.tensor([label for _, label in listing], dtype=torch.int64)
        return Decoded(images, labels, len(self._classes()), self._names())

    def _classes(self) -> list[str]:
        if self.layout.classes:
            return [name for name, _ in self.layout.classes]
        found = _subfolders(self.where / "train")
        if not found:
            raise DataError(f"{self.where / 'train'} has no sub-folders.\nIt needs one folder of pictures a class.")
        return found

    def _names(self) -> tuple[str, ...]:
        words = self.where / self.layout.words
        if self.layout.classes:
            return tuple(name for _, name in self.layout.classes)
        if not self.layout.words or not words.is_file():
            return tuple(self._classes())
        lines = (line.split("\t", 1) for line in words.read_text(encoding="utf-8", errors="replace").splitlines())
        table = {parts[0]: parts[1].split(",")[0].strip() for parts in lines if len(parts) == 2}
        return tuple(table.get(name, name) for name in self._classes())

    def _listing(self, split: Split) -> list[tuple[Path, int]]:
        """(picture, label) of the split, class after class; DataError for classes without pictures."""
        classes = self._classes()
        folder = self.where / "train" if split == "train" else self._test_folder()
        if split == "test" and self._is_flat(folder, classes):
            listing = self._annotated(classes)
        else:
            self._refuse_unknown(folder, classes)
            listing = [(path, label) for label, name in enumerate(classes) for path in _pictures(folder / name)]
        present = {label for _, label in listing}
        empty = [name for label, name in enumerate(classes) if label not in present]
        if empty:
            more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
            raise DataError(
                f"{folder} has no pictures of the class {', '.join(empty[:5])}{more}.\n"
                f"Add some ({', '.join(SUFFIXES[:4])} …), or remove the class everywhere."
            )
        return listing

    def _test_folder(self) -> Path:
        found = next((self.where / n for n in self.layout.test_names if (self.where / n).is_dir()), None)
        if found is None:
            names = " or ".join(f"{name}/" for name in self.layout.test_names[:2])
            raise DataError(
                f"{self.where} has train/ but no {names}.\nPut the held-out pictures there, a folder a class."
            )
        return found

    def _is_flat(self, folder: Path, classes: list[str]) -> bool:
        """Whether the split is listed in a file (Tiny-ImageNet as published) and not in a folder a class."""
        listed = bool(self.layout.annotations) and (self.where / self.layout.annotations).is_file()
        return listed and not any((folder / name).is_dir() for name in classes)

    def _refuse_unknown(self, folder: Path, classes: list[str]) -> None:
        others = sorted(set(_subfolders(folder)) - set(classes)) if not self.layout.classes else []
        unknown = [name for name in others if _pictures(folder / name)]
        if unknown:
            raise DataError(f"{folder} has the class {unknown[0]}, which train/ has not.\nName classes alike in both.")

    def _annotated(self, classes: list[str]) -> list[tuple[Path, int]]:
        """Rows of `val_annotations.txt`: picture, class folder, and a box that is not used."""
        path = self.where / self.layout.annotations
        labels = {name: label for label, name in enumerate(classes)}
        listing = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            parts = line.split("\t")
            if len(parts) < 2 or parts[1] not in labels:
                raise DataError(f"Line {number} of {path} names no class of train/.\nCopy that file again.")
            listing.append((path.parent / "images" / parts[0], labels[parts[1]]))
        return sorted(listing, key=lambda item: (item[1], item[0]))


def folder_at(argument: str) -> tuple[FolderLayout, Path]:
    """Layout and folder of `PATH` or `PATH@SIZE`; DataError where PATH is not a folder with train/."""
    path, at, size = argument.rpartition("@")
    if not at or not size.isdigit() or Path(argument).is_dir():
        path, size = argument, ""
    folder = Path(path).expanduser()
    if not (folder / "train").is_dir():
        what = "is not a folder" if not folder.is_dir() else "has no sub-folder train/"
        raise DataError(f"{folder} {what}.\nIt needs train/<class>/*.png and test/<class>/*.png (or val/).")
    folder = folder.resolve()
    return replace(FolderLayout((folder.name,)), resize=int(size) if size else None), folder


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    found = []
    for parent, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [Path(parent, n) for n in names if n.lower().endswith(SUFFIXES) and not n.startswith(".")]
    return sorted(found)
