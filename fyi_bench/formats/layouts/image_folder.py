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
from fyi_bench.data.pictures import decode_images, pictures_in, subfolders
from fyi_bench.errors import DataError, StoreError, UsageError
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.export import png
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.opening import check_pictures
from fyi_bench.formats.origin import method_in

_SPLITS = {"train", "test", "val", "valid", "validation"}
_OF_A_MAC = "__MACOSX"
_PICTURE = re.compile(r"class(\d{1,6})_id\d+\.")  # as SRe2L and RDED name them
_OTHER_PICTURES = (".gif", ".avif", ".heic", ".jp2", ".tga", ".exr", ".svg", ".pt", ".npy")
_UNSAFE = re.compile(r"[^\w.,' ()-]")


def _classes(files: InputFiles) -> dict[str, list[Path]]:
    """The pictures in each sub-folder; [] of those that have none (logs, what a Mac adds to a zip): no classes."""
    found = subfolders(files.folder) if files.kind == FOLDER else []
    return {name: [] if name == _OF_A_MAC else pictures_in(files.folder / name) for name in found}


def _said(name: str, pictures: Sequence[Path]) -> None:
    """DataError where pictures (class005_id000.jpg) are of another class than their folder (new003) says."""
    number = re.fullmatch(r"[a-z]*_?(\d{1,6})", name.lower())  # a WordNet number is longer
    classes = [(path, int(m[1])) for path in pictures if (m := _PICTURE.match(path.name))]
    other = next((path for path, of in classes if number and of != int(number[1])), None)
    if other is not None:
        raise DataError(f"{other} is in the folder of another class, {name}.\nMove it, or name it anew.")


def _of_one_class(folder: Path, pictures: Sequence[Path]) -> None:
    """DataError where the pictures of a class lie in several folders: then the folder is no class, but holds some."""
    inner = sorted({parts[0] for path in pictures if len(parts := path.relative_to(folder).parts) > 1})
    if len(inner) > 1:
        raise DataError(
            f"{folder} holds folders of pictures itself ({', '.join(inner[:3])}{' …' * (len(inner) > 3)}), so it is no"
            " class.\nName the folder that has one folder a class."
        )


def _unread(folders: Sequence[Path]) -> list[str]:
    """What is said of files beside the pictures that may be some, too, of a kind that is not read."""
    every = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())
    odd = [path for path in every if path.suffix.lower() in _OTHER_PICTURES and not path.name.startswith(".")]
    return [f"{len(odd)} pictures of kinds that are not read were left out ({odd[0].name} …)"] if odd else []


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
        return "a sub-folder of pictures a class" if any(_classes(files).values()) else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """All pictures as uint8, classes by the names of their folders."""
        every = _classes(files)
        folders = {name: pictures for name, pictures in every.items() if pictures}
        for name, pictures in folders.items():
            _of_one_class(files.folder / name, pictures)
            _said(name, pictures)
        files.need(folders, "a folder with one sub-folder of pictures a class")
        if set(folders) <= _SPLITS:
            split = next(iter(folders))
            raise DataError(f"{files.path} holds whole data sets ({', '.join(folders)}).\nName {files.folder / split}.")
        listing = [(path, label) for label, pictures in enumerate(folders.values()) for path in pictures]
        bare = [name for name in every if name not in folders]
        told = [f"folders without a picture are no classes: {', '.join(bare)}"] if bare else []
        told += _unread([files.folder / name for name in folders])
        paths = [files.used(path) for path, _ in listing]
        channels = check_pictures(paths, paths, options.max_bytes)
        hint = "All pictures must be squares of one size."
        return Raw(
            decode_images(paths, lambda i: str(paths[i]), channels, hint=hint),
            torch.tensor([label for _, label in listing]),
            space="pixel",
            space_reason="pictures",
            class_names=tuple(folders),
            method=method_in(*files.named[:2]),
            guesses=told,
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
