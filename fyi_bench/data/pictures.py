"""Encoded images (PNG, JPEG, WebP …), and folders of them with a sub-folder a class, as uint8 tensors.

Folders are `train/<class>/…` and `test/<class>/…` (or `val/`), as torchvision's ImageFolder reads them. Classes are
the sub-folders of `train/` in alphabetical order unless a list is given; pictures may lie deeper
(`train/<class>/images/…`). Order is that of the names, never of the file system.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fyi_bench.data.entry import DataFiles, Decoded, Split
from fyi_bench.errors import DataError
from fyi_bench.files import read_text

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
TEST_NAMES = ("test", "val", "valid", "validation")
_MODES = {1: "L", 3: "RGB"}
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # pictures of 16 bits a pixel
_DEEPEST = 65535
_CHUNK = 256
MOST_PIXELS = 80_000_000  # of a picture before it is resized; the largest of ImageNet has 61 million
FEW_PIXELS, MOST_A_BYTE = 4_000_000, 2000  # a large one is packed that far at most: deflate ends at a thousandth
Resize = int | tuple[int, int]  # side of the middle square that is kept, or (height, width) the whole is squashed to
_SAME_SIZE = "Bring all to one square size first, or ask for imagefolder:PATH@64 to have them resized and cropped."


@dataclass(frozen=True)
class PictureFolder(DataFiles):
    """`<root>/<folder>/train/<class>/…` and a test split.

    classes: (sub-folder, name) of each class, in order; empty = all sub-folders. resize: as in `decode_images`.
    annotations: the list of a test split whose pictures lie in one folder, relative to the data (Tiny-ImageNet).
    words: a file of `sub-folder<TAB>name` lines with readable class names.
    """

    layout = "folder"
    test_names: tuple[str, ...] = TEST_NAMES
    classes: tuple[tuple[str, str], ...] = ()
    resize: Resize | None = None
    annotations: str = ""
    words: str = ""

    @property
    def looks_like(self) -> str:
        return f"{self.folders[0]}/train/{self.classes[0][0] if self.classes else '<class>'}/"

    def lie_in(self, folder: Path) -> bool:
        return (folder / "train").is_dir() and all((folder / "train" / name).is_dir() for name, _ in self.classes)

    def files(self, split: Split) -> list[Path]:
        return [path for path, _ in self._listing(split)]

    def count(self, split: Split) -> int | None:
        return len(self._listing(split))

    def options(self) -> dict[str, Any]:
        return {**super().options(), "resize": self.resize, "classes": [name for name, _ in self.classes]}

    def read(self, split: Split) -> Decoded:
        paths, labels = zip(*self._listing(split), strict=True)
        images = decode_images(paths, lambda i: str(paths[i]), 3, self.resize, hint=_SAME_SIZE)
        return Decoded(images, torch.tensor(labels, dtype=torch.int64), len(self.class_folders), self.names)

    @property
    def class_folders(self) -> list[str]:
        """The folder of each class, in order; DataError where there are none."""
        found = [name for name, _ in self.classes] or subfolders(self.folder / "train")
        if not found:
            raise DataError(f"{self.folder / 'train'} has no sub-folders.\nIt needs one folder of pictures a class.")
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class that is shown."""
        words, table = self.folder / self.words, dict(self.classes)
        if self.words and words.is_file():
            lines = (line.split("\t", 1) for line in words.read_text(encoding="utf-8", errors="replace").splitlines())
            table |= {parts[0]: parts[1].split(",")[0].strip() for parts in lines if len(parts) == 2}
        return tuple(table.get(name, name) for name in self.class_folders)

    def _listing(self, split: Split) -> list[tuple[Path, int]]:
        """(picture, label) of the split, class after class; DataError for classes without pictures."""
        classes = self.class_folders
        folder = self.folder / "train" if split == "train" else self._test_folder()
        listed = bool(self.annotations) and (self.folder / self.annotations).is_file()
        if split == "test" and listed and not any((folder / name).is_dir() for name in classes):
            listing = self._annotated(classes)
        else:
            others = [] if self.classes else sorted(set(subfolders(folder)) - set(classes))
            for name in others:
                if pictures_in(folder / name):
                    raise DataError(
                        f"{folder} has the class {name}, which train/ has not.\nName classes alike in both."
                    )
            listing = [(path, label) for label, name in enumerate(classes) for path in pictures_in(folder / name)]
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
        found = next((self.folder / name for name in self.test_names if (self.folder / name).is_dir()), None)
        if found is None:
            names = " or ".join(f"{name}/" for name in self.test_names[:2])
            raise DataError(
                f"{self.folder} has train/ but no {names}.\nPut the held-out pictures there, a folder a class."
            )
        return found

    def _annotated(self, classes: list[str]) -> list[tuple[Path, int]]:
        """Rows of `val_annotations.txt`: picture, class folder, and a box that is not used."""
        path, labels = self.folder / self.annotations, {name: label for label, name in enumerate(classes)}
        listing = []
        try:
            lines = read_text(path).splitlines()
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}).\nCopy that file again.") from error
        for number, line in enumerate(lines, start=1):
            parts = line.split("\t")
            if len(parts) < 2 or parts[1] not in labels:
                raise DataError(f"Line {number} of {path} names no class of train/.\nCopy that file again.")
            listing.append((path.parent / "images" / parts[0], labels[parts[1]]))
        return sorted(listing, key=lambda item: (item[1], item[0]))


def folder_at(argument: str) -> PictureFolder:
    """The folder of `PATH` or `PATH@SIZE`; DataError where PATH is not a folder with train/."""
    path, at, size = argument.rpartition("@")
    if not at or not size.isdigit() or Path(argument).is_dir():
        path, size = argument, ""
    folder = Path(path).expanduser()
    if not (folder / "train").is_dir():
        what = "is not a folder" if not folder.is_dir() else "has no sub-folder train/"
        raise DataError(f"{folder} {what}.\nIt needs train/<class>/*.png and test/<class>/*.png (or val/).")
    folder = folder.resolve()
    return PictureFolder((folder.name,), resize=int(size) if size else None, where=folder)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, hidden ones left out."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def pictures_in(folder: Path) -> list[Path]:
    """Pictures in a folder and below it, sorted, hidden ones left out."""
    found = []
    for parent, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [Path(parent, n) for n in names if n.lower().endswith(SUFFIXES) and not n.startswith(".")]
    return sorted(found)


def decode_images(
    blobs: Sequence[bytes | Path],
    describe: Callable[[int], str],
    channels: int = 3,
    resize: Resize | None = None,
    hint: str = "Replace that file.",
) -> torch.Tensor:
    """uint8 [N, channels, side, side] of encoded images, given as bytes or as paths, in their order.

    `resize`: a number brings the shorter side to this many pixels and keeps the middle square, a pair brings the whole
    image to (height, width), whatever its shape (both bilinear, antialiased); without it all images must be squares of
    one size. `describe(i)` names image i in messages, and `hint` says what to do about images of different size.
    Decoding runs in threads; the result does not depend on their number.
    """
    if not blobs:
        raise DataError("There are no images to decode.\nCheck the folder or file that was named.")
    first = _decode(blobs[0], describe(0), channels, resize)
    side = first.shape[0]
    if first.shape[1] != side:
        raise DataError(f"{describe(0)} is {first.shape[1]}x{side} pixels; images must be square.\n{hint}")
    _check_memory(len(blobs), first.nbytes, hint)
    images = np.empty((len(blobs), channels, side, side), dtype=np.uint8)

    def fill(start: int) -> None:
        for i in range(start, min(start + _CHUNK, len(blobs))):
            picture = _decode(blobs[i], describe(i), channels, resize)
            if picture.shape != first.shape:
                sizes = f"{picture.shape[1]}x{picture.shape[0]} pixels, but {describe(0)} is {side}x{side}"
                raise DataError(f"{describe(i)} is {sizes}.\n{hint}")
            images[i] = picture.transpose(2, 0, 1)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(0, len(blobs), _CHUNK)):
            pass
    return torch.from_numpy(images)


def _decode(blob: bytes | Path, name: str, channels: int, resize: Resize | None) -> np.ndarray:
    """uint8 [H, W, channels]."""
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(blob, Path) and blob.exists() and not blob.is_file():
            raise ValueError("it is no regular file")
        with Image.open(blob if isinstance(blob, Path) else io.BytesIO(blob)) as picture:
            _check_pixels(picture, blob)
            picture.load()
            image = _of_16_bits(picture) if picture.mode in _DEEP else picture
            image = image if image.mode == _MODES[channels] else image.convert(_MODES[channels])  # which would copy
        if isinstance(resize, tuple):
            image = image.resize(resize[::-1], Image.Resampling.BILINEAR)
        elif resize is not None:
            scale = resize / min(image.size)
            width, height = (max(resize, round(length * scale)) for length in image.size)
            left, top = (width - resize) // 2, (height - resize) // 2
            larger = image.resize((width, height), Image.Resampling.BILINEAR)
            image = larger.crop((left, top, left + resize, top + resize))
        return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, channels)
    except Exception as error:  # Pillow's decoders raise whatever the damaged bytes led them to
        cause = "not in a known format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{name} is not an image that can be decoded ({cause}).\nReplace or remove it.") from error


def _check_pixels(picture: Any, blob: bytes | Path) -> None:
    """Raise ValueError for a picture of more pixels than a camera makes, or than its bytes can be unpacked to."""
    size, count = f"{picture.width}x{picture.height}", picture.width * picture.height
    held = blob.stat().st_size if isinstance(blob, Path) else len(blob)
    if count > MOST_PIXELS:
        raise ValueError(f"it has {size} pixels: more than any camera's")
    if count > FEW_PIXELS and count > MOST_A_BYTE * held:
        raise ValueError(f"it claims {size} pixels in {held:,} bytes")


def _of_16_bits(picture: Any) -> Any:
    """A grey picture of 8 bits; ValueError where its levels fit into 8 bits, so that nothing says which is white."""
    from PIL import Image

    levels = np.asarray(picture).astype(np.int64)
    if not 0 <= levels.min() <= levels.max() <= _DEEPEST:
        raise ValueError(f"its levels reach from {levels.min()} to {levels.max()}, not 0 to {_DEEPEST}")
    if 0 < levels.max() <= 255:
        raise ValueError("it has 16 bits a pixel, and no level above 255: save it with 8")
    return Image.fromarray(np.rint(levels * (255 / _DEEPEST)).astype(np.uint8))


def _check_memory(count: int, nbytes: int, hint: str) -> None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if count * nbytes > 0.8 * have:
        need = f"{count:,} images of {nbytes / 2**20:.2f} MiB need {count * nbytes / 2**30:.1f} GiB"
        raise DataError(f"{need}; this machine has {have / 2**30:.1f} GiB.\n{hint}")
