"""An ImageSet as files other people's code reads, or as a torch dataset. Whatever is lost on the way is told."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distill.decode import decoded
from distill.image_set import ImageSet
from distill.spaces import NormalizedSpace, PixelSpace, Space
from fyi_bench.data.entry import DATASETS
from fyi_bench.data.real import statistics
from fyi_bench.errors import UsageError
from fyi_bench.files import write_bytes
from fyi_bench.formats.base import Format, Imported, named_format

if TYPE_CHECKING:
    from downstream.continual.memory import MemoryDataset

_LEVELS = 255
_TINY = 1e-30  # least probability whose logarithm is taken
_WHITENED = ("zca", "whitened")
WITH_ZCA = ("normalized", *_WHITENED)  # what readers with a ZCA switch expect


@dataclass(frozen=True)
class Exported:
    """What was written, and what the files do not say or lose."""

    paths: list[Path]
    notes: list[str] = field(default_factory=list)


def export_set(image_set: ImageSet, path: str | Path, format: str, space: Space | None = None) -> Exported:
    """Write a set for the readers of a format.

    path: the file, or the folder for formats of several files (it is made; a folder of pictures must be new or empty).
    space: what the images are stored in, where it is not what the format's readers expect. Tiles (factor > 1) are
    enlarged where the format knows none.

    Raises UnknownNameError for the format, UsageError where constants are not known or the path does not fit, DataError
    where the space cannot be converted here, StoreError where nothing can be written.
    """
    chosen, path = named_format(format, "write"), Path(path).expanduser()
    image_set.validate()
    if not chosen.suffix and path.is_file():
        raise UsageError(f"{path} is a file, and '{format}' is a folder of files.\nName a folder.")
    if chosen.suffix and path.is_dir():
        raise UsageError(
            f"{path} is a folder, and '{format}' is one file.\nName the file, as {path}/set{chosen.suffix}."
        )
    ready, notes = as_held(image_set, chosen, space)
    return Exported(chosen.write(ready, path), notes)


def save_imported(imported: Imported, path: str | Path) -> Path:
    """Write the set as a .safetensors file, with a preview where its pixels can be computed here."""
    return export_set(imported.image_set, path, "fyi-bench").paths[0]


def as_held(s: ImageSet, chosen: Format, space: Space | None) -> tuple[ImageSet, list[str]]:
    """The set as the format can hold it, and what was done for it or lost."""
    notes = []
    if s.decoder is not None and not chosen.whole:
        s = s.decoded()
        notes.append(f"stored rows were decoded to {len(s)} images: the format knows no decoders")
    if s.factor != 1 and not chosen.tiles:
        s = decoded(s)
        notes.append(f"tiles were enlarged to {len(s)} images: the format knows no tiles")
    target = space or _expected(s, chosen)
    if target != s.space:
        s = s.to_space(target)
        notes.append(f"images were converted to the space '{target.kind}' ({_facts(target)})")
    if chosen.bytes_only and s.images.dtype != torch.uint8:
        pixels = s.pixels()
        outside = float(((pixels < 0) | (pixels > 1)).double().mean())
        notes.append(f"pixels are rounded to 8 bits: up to {0.5 / _LEVELS:.4f} off")
        if outside:
            notes.append(f"{outside:.2%} of the pixels lie outside [0, 1] and were clipped")
        levels = (pixels.clamp(0, 1) * _LEVELS).round().to(torch.uint8)
        s = replace(s, images=levels, space=PixelSpace())
    if chosen.spaces and s.space.kind in _WHITENED:
        notes.append("the images are whitened: their readers need the ZCA switch on")
    if s.labels.ndim == 2 and not chosen.soft:
        s = replace(s, labels=s.hard_labels)
        notes.append("soft labels were replaced by their largest entry")
    if s.labels.ndim == 2 and s.label_kind == "probabilities" and not chosen.whole:
        s = replace(s, labels=s.labels.clamp_min(_TINY).log(), label_kind="logits")
    if s.labels.ndim == 2 and s.label_kind == "targets" and not chosen.whole:
        notes.append("soft labels are regression targets, which the files do not say")
    if isinstance(s.lr, tuple) and not chosen.whole:
        s = replace(s, lr=None)
        notes.append("the learned step sizes are not in the files")
    if s.lr is not None and not chosen.soft:
        notes.append("the learned step size is not in the files")
    return s, notes


def _expected(s: ImageSet, chosen: Format) -> Space:
    """The set's own space where readers take it; the constants are those their code uses."""
    kind = s.space.kind
    wanted = kind if kind in chosen.spaces or not chosen.spaces else chosen.spaces[0]
    if wanted == "pixel":
        return PixelSpace()
    name = _dataset_name(s)
    if wanted == "normalized" and name and chosen.spaces:
        return NormalizedSpace(*statistics(name, chosen.family))
    if wanted == kind:
        return s.space
    raise UsageError(
        f"Readers of '{chosen.name}' expect normalised images, and it is not known with which constants.\n"
        "Give the space to store, for example NormalizedSpace(mean, std)."
    )


def _dataset_name(s: ImageSet) -> str:
    """The public data set a set was made from, by its provenance or by its constants and classes, or ''."""
    told = s.provenance.get("dataset")
    entries, _ = DATASETS.usable()
    if told in entries:
        return told if entries[told].statistics else ""
    fitting = (name for name, e in entries.items() if e.statistics and e.num_classes == s.num_classes)
    return next((name for name in fitting if NormalizedSpace(*statistics(name)) == s.space), "")


def _facts(space: Space) -> str:
    return ", ".join(f"{k} {v}" for k, v in space.describe().items() if k != "kind") or "values in [0, 1]"


def save_torch(path: Path, content: Any) -> Path:
    """A file of `torch.save`; through memory, because torch writes the file's own name into it.

    So equal content gives equal bytes.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return write_bytes(path, buffer.getvalue())


def floats(s: ImageSet) -> torch.Tensor:
    """The images as a float32 tensor of their own."""
    return s.batch(slice(None)).clone().contiguous()


def save_parts(s: ImageSet, images: Path, labels: Path, lr: Path) -> list[Path]:
    """Images, labels (soft ones as logits), and the learned step size where there is one, a file each."""
    written = [save_torch(images, floats(s)), save_torch(labels, s.labels.clone())]
    return written + ([save_torch(lr, torch.tensor(s.lr))] if s.lr is not None else [])


def png(levels: torch.Tensor) -> bytes:
    """A PNG file of an image uint8 [ch, H, W]."""
    from PIL import Image

    picture = levels[0] if levels.shape[0] == 1 else levels.permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(picture.contiguous().numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


def to_torch_dataset(image_set: ImageSet, space: Space | None = None) -> MemoryDataset:
    """The set as a torch dataset, in `space` (default: its own; uint8 images as floats). Tiles are enlarged.

    Items are (float32 image [ch, H, W], int label); `targets` lists the labels, soft ones by their largest entry.
    """
    from downstream.continual.memory import MemoryDataset

    return MemoryDataset(image_set, space or image_set.space)
