"""Folders of pictures, a sub-folder a class: DD-Ranking's and anybody's."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from distill.image_set import ImageSet
from fyi_bench.data.entry import DATASETS, DatasetEntry
from fyi_bench.data.pictures import PictureFolder, decode_images, pictures_in, subfolders
from fyi_bench.errors import DataError, StoreError, UsageError
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.export import png
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.opening import check_pictures
from fyi_bench.formats.origin import method_in

_NUMBERED = re.compile(r"(\d+)[-_ ](.+)")
_SPLITS = ("train", "test", "val", "valid", "validation")
_UNSAFE = re.compile(r"[^\w.,' ()-]")


def _classes(files: InputFiles) -> list[str]:
    return subfolders(files.path) if files.kind == FOLDER else []


def _order(folders: Sequence[str], dataset: str | None) -> tuple[dict[str, int], tuple[str, ...], str]:
    """(folder -> label, class names, how it was decided)."""
    if all(name.isdigit() for name in folders):
        return {name: int(name) for name in folders}, (), "labels: the numbers that the folders are called by"
    numbered = [match for name in folders if (match := _NUMBERED.fullmatch(name))]
    if len(numbered) == len(folders):
        labels = {match[0]: int(match[1]) for match in numbered}
        whole = sorted(labels.values()) == list(range(len(labels)))
        names = tuple(match[2] for match in sorted(numbered, key=lambda m: int(m[1]))) if whole else ()
        return labels, names, "labels: the numbers at the beginning of the folders' names"
    known, _ = DATASETS.usable()
    for entry in [known[dataset]] if dataset in known else known.values():
        table = _known_names(entry)
        if set(folders) <= set(table) and (dataset or len(folders) == entry.num_classes):
            return {n: table[n] for n in folders}, entry.class_names, f"labels: the order of {entry.name}'s classes"
    return {n: i for i, n in enumerate(folders)}, tuple(folders), "labels: the alphabetical order of the folders"


def _known_names(entry: DatasetEntry) -> dict[str, int]:
    """Names and folder names of a data set's classes -> label."""
    listed = [layout.classes for layout in entry.layouts if isinstance(layout, PictureFolder) and layout.classes]
    pairs = [(name, i) for classes in listed[:1] for i, both in enumerate(classes) for name in both]
    return dict(pairs) | {name: i for i, name in enumerate(entry.class_names)}


def _folder_names(s: ImageSet) -> Sequence[str]:
    """Names that readers who sort them alphabetically give the right labels; numbered where need be."""
    digits = max(2, len(str(s.num_classes - 1)))
    if not s.class_names:
        return [f"{label:0{digits}d}" for label in range(s.num_classes)]
    plain = [_UNSAFE.sub("_", name).strip(". ") or "_" for name in s.class_names]
    in_order = plain == sorted(set(plain)) and len(s.classes) == s.num_classes
    return plain if in_order else [f"{label:0{digits}d}_{name}" for label, name in enumerate(plain)]


@FORMATS.register("image-folder")
class ImageFolder(Format):
    """folders of PNG or JPEG pictures, one a class; PNG when written"""

    rank, spaces, bytes_only = 80, ("pixel",), True

    def looks(self, files: InputFiles) -> str:
        has_some = any(pictures_in(files.path / name) for name in _classes(files))
        return "a sub-folder of pictures a class" if has_some else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """All pictures as uint8, classes by the names of their folders."""
        folders = files.need(_classes(files), "a folder with one sub-folder of pictures a class")
        if split := next((name for name in folders if name in _SPLITS), ""):
            raise DataError(f"{files.path} holds whole data sets ({', '.join(folders)}).\nName {files.path / split}.")
        labels, names, note = _order(folders, options.dataset)
        listing = [(path, labels[name]) for name in folders for path in pictures_in(files.path / name)]
        files.need(listing, "a folder with pictures in its sub-folders")
        paths = [files.used(path) for path, _ in listing]
        channels = check_pictures(paths, paths, options.max_bytes)
        hint = "All pictures must be squares of one size."
        return Raw(
            decode_images(paths, lambda i: str(paths[i]), channels, hint=hint),
            torch.tensor([label for _, label in listing]),
            space="pixel",
            space_reason="pictures",
            class_names=names,
            num_classes=len(names) or max(labels.values()) + 1,
            method=method_in(files.path.name),
            guesses=[note],
        )

    def write(self, image_set: ImageSet, path: Path) -> list[Path]:
        """`<class>/<number>.png`; the folder appears whole or not at all."""
        if path.is_dir() and any(path.iterdir()):
            raise UsageError(f"{path} is not empty.\nName a new folder for the pictures.")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, names = (
            Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.", dir=path.parent)),
            _folder_names(image_set),
        )
        try:
            for label in image_set.classes:
                folder = temporary / names[label]
                folder.mkdir()
                for number, index in enumerate(image_set.indices_of(label).tolist()):
                    (folder / f"{number:05d}.png").write_bytes(png(image_set.images[index]))
            os.chmod(temporary, 0o755)
            os.replace(temporary, path)
        except OSError as error:
            raise StoreError(f"Could not write {path}: {error.strerror or error}.\nName another folder.") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return [path]
