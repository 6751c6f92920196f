"""An ImageSet as files other people's code reads, or as a torch dataset. Whatever is lost on the way is told.

Adding a format is one function: register an `Exporter` in EXPORTERS, or through the entry-point group
`fyi_bench.formats.exporters`.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from distill.image_set import ImageSet
from distill.spaces import NormalizedSpace, PixelSpace, Space
from fyi_bench.data.entry import DATASETS
from fyi_bench.data.real import statistics
from fyi_bench.errors import DataError, StoreError, UsageError
from fyi_bench.files import atomic_write, write_bytes, write_json
from fyi_bench.registry import Registry

_LEVELS = 255
_UNSAFE = re.compile(r"[^\w.,' ()-]")


@dataclass(frozen=True)
class Exported:
    """What was written, and what the files do not say or lose."""

    paths: list[Path]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Exporter:
    """A format to write. title: one line for listings; folder: whether it is a folder of files or a single one.

    write(image_set, path) gives what was written. spaces: kinds of space its readers expect, the first being what
    others are converted to; empty = any, kept as it is. family: whose channel constants they use. tiles: whether
    images of several tiles can be said to be such.
    """

    name: str
    title: str
    write: Callable[[ImageSet, Path], Exported]
    spaces: tuple[str, ...] = ()
    family: str = "dc"
    folder: bool = False
    suffix: str = ""
    tiles: bool = False


# name -> exporter
EXPORTERS: Registry[Exporter] = Registry("export format", group="fyi_bench.exporters", base=Exporter)


def export_set(image_set: ImageSet, path: str | Path, format: str, space: Space | None = None) -> Exported:
    """Write a set for the readers of a format.

    path: the file, or the folder for formats of several files (it is made; a folder of pictures must be new or empty).
    space: what the images are stored in, where it is not what the format's readers expect. Tiles (factor > 1) are
    enlarged where the format knows none.

    Raises UnknownNameError for the format, UsageError where constants are not known or the path does not fit, DataError
    where the space cannot be converted here, StoreError where nothing can be written.
    """
    exporter, path = EXPORTERS.get(format), Path(path).expanduser()
    image_set.validate()
    if exporter.folder and path.is_file():
        raise UsageError(f"{path} is a file, and '{format}' is a folder of files.\nName a folder.")
    if not exporter.folder and path.is_dir():
        raise UsageError(
            f"{path} is a folder, and '{format}' is one file.\nName the file, as {path}/set{exporter.suffix}."
        )
    ready, notes = _converted(image_set, exporter, space)
    written = exporter.write(ready, path)
    return Exported(written.paths, notes + written.notes)


def _converted(image_set: ImageSet, exporter: Exporter, space: Space | None) -> tuple[ImageSet, list[str]]:
    """The set as the readers of the format take it, and what was done for it."""
    notes = []
    if image_set.factor != 1 and not exporter.tiles:
        from distill.decode import decoded

        image_set = decoded(image_set)
        notes.append(f"tiles were enlarged to {len(image_set)} images: the format knows no tiles")
    target = space or _expected(image_set, exporter)
    if target != image_set.space:
        image_set = image_set.to_space(target)
        notes.append(f"images were converted to the space '{target.kind}' ({_facts(target)})")
    return image_set, notes


def _expected(image_set: ImageSet, exporter: Exporter) -> Space:
    """The set's own space where readers take it; the constants are those their code uses."""
    kind = image_set.space.kind
    wanted = kind if kind in exporter.spaces or not exporter.spaces else exporter.spaces[0]
    if wanted == "pixel":
        return PixelSpace()
    name = _dataset_name(image_set)
    if wanted == "normalized" and name and exporter.spaces:
        return NormalizedSpace(*statistics(name, exporter.family))
    if wanted == kind:
        return image_set.space
    raise UsageError(
        f"Readers of '{exporter.name}' expect normalised images, and it is not known with which constants.\n"
        "Give the space to store, for example NormalizedSpace(mean, std)."
    )


def _dataset_name(image_set: ImageSet) -> str:
    """The public data set a set was made from, by its provenance or by its constants and classes, or ''."""
    told, own = image_set.provenance.get("dataset"), image_set.space
    entries = {name: DATASETS.get(name) for name in DATASETS}
    if told in entries:
        return told if entries[told].statistics else ""
    fitting = (name for name, e in entries.items() if e.statistics and e.num_classes == image_set.num_classes)
    return next((name for name in fitting if NormalizedSpace(*statistics(name)) == own), "")


def _facts(space: Space) -> str:
    return ", ".join(f"{k} {v}" for k, v in space.describe().items() if k != "kind") or "values in [0, 1]"


def to_torch_dataset(image_set: ImageSet, space: Space | None = None) -> SetDataset:
    """The set as a torch dataset, in `space` (default: its own; uint8 images as floats). Tiles are enlarged.

    Avalanche takes it as it is: `targets` are int.
    """
    from distill.decode import decoded

    return SetDataset(decoded(image_set), space)


class SetDataset(torch.utils.data.Dataset):
    """Items (float32 image [ch, H, W], int label); `targets` lists the labels, soft ones by their largest entry."""

    def __init__(self, image_set: ImageSet, space: Space | None = None):
        self.images = image_set.batch(slice(None), space)
        self.targets: list[int] = image_set.hard_labels.tolist()
        self.classes = list(image_set.class_names)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], self.targets[index]


def _write_own(s: ImageSet, path: Path) -> Exported:
    try:
        s.batch(slice(0, 1), PixelSpace())
    except DataError:  # whitened by a matrix that is not on this machine: no preview then
        return Exported([s.save(path, preview=False)])
    return Exported([s.save(path), path.with_name("preview.png")])


def _write_dc(s: ImageSet, path: Path) -> Exported:
    content = {"data": [[_floats(s), s.hard_labels.clone()]], "accs_all_exps": {}}
    return Exported([_save_torch(path, content)], _label_notes(s))


def _write_idc(s: ImageSet, path: Path) -> Exported:
    facts = {
        "factor": s.factor,
        "decode_type": s.decode_type,
        "ipc": s.ipc,
        "nclass": s.num_classes,
        "size": s.shape[1],
    }
    written = _save_torch(path, [_floats(s), s.hard_labels.clone()])
    return Exported([written, write_json(path.with_name("args.txt"), facts)], _label_notes(s))


def _write_mtt(s: ImageSet, path: Path) -> Exported:
    return Exported(_pair(s, path, "images_best.pt", "labels_best.pt", "lr_best.pt"), _whitened_notes(s))


def _write_dd_ranking(s: ImageSet, path: Path) -> Exported:
    return Exported(_pair(s, path, "images.pt", "labels.pt", "lr.pt"), _whitened_notes(s))


def _pair(s: ImageSet, folder: Path, images: str, labels: str, lr: str) -> list[Path]:
    """Images, labels (soft ones as logits), and the learned step size where there is one."""
    written = [_save_torch(folder / images, _floats(s)), _save_torch(folder / labels, s.labels.clone())]
    return written + ([_save_torch(folder / lr, torch.tensor(s.lr))] if s.lr is not None else [])


def _write_folder(s: ImageSet, path: Path) -> Exported:
    """`<class>/<number>.png`; the folder appears whole or not at all."""
    if path.is_dir() and any(path.iterdir()):
        raise UsageError(f"{path} is not empty.\nName a new folder for the pictures.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.", dir=path.parent))
    names, levels = _folder_names(s), _to_bytes(s)
    try:
        for label in s.classes:
            folder = temporary / names[label]
            folder.mkdir()
            for number, index in enumerate(s.indices_of(label).tolist()):
                (folder / f"{number:05d}.png").write_bytes(_png(levels[index]))
        os.chmod(temporary, 0o755)
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(f"Could not write {path}: {error.strerror or error}.\nName another folder.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported([path], _rounding_notes(s) + _label_notes(s))


def _write_parquet(s: ImageSet, path: Path) -> Exported:
    """Columns `image` {bytes, path} and `label`, with the schema metadata `datasets` reads."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    rows = [{"bytes": _png(levels), "path": f"{i:06d}.png"} for i, levels in enumerate(_to_bytes(s))]
    names = {"names": list(s.class_names), "_type": "ClassLabel"} if s.class_names else None
    features = {"image": {"_type": "Image"}, "label": names or {"dtype": "int64", "_type": "Value"}}
    schema = arrow.schema(
        [("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])), ("label", arrow.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    table = arrow.table([arrow.array(rows, schema.field("image").type), s.hard_labels.tolist()], schema=schema)
    written = atomic_write(path, lambda temporary: parquet.write_table(table, temporary))
    return Exported([written], _rounding_notes(s) + _label_notes(s))


def _save_torch(path: Path, content: Any) -> Path:
    """Through memory, because torch writes the file's own name into it: equal content, equal bytes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return write_bytes(path, buffer.getvalue())


def _floats(s: ImageSet) -> torch.Tensor:
    return s.batch(slice(None)).clone().contiguous()


def _to_bytes(s: ImageSet) -> torch.Tensor:
    """uint8 [N, ch, H, W] of the pixels, rounded and clipped."""
    if s.images.dtype == torch.uint8:
        return s.images
    return (s.pixels().clamp(0, 1) * _LEVELS).round().to(torch.uint8)


def _png(levels: torch.Tensor) -> bytes:
    from PIL import Image

    picture = levels[0] if levels.shape[0] == 1 else levels.permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(picture.contiguous().numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


def _folder_names(s: ImageSet) -> Sequence[str]:
    """Names that readers who sort them alphabetically give the right labels; numbered where need be."""
    digits = max(2, len(str(s.num_classes - 1)))
    if not s.class_names:
        return [f"{label:0{digits}d}" for label in range(s.num_classes)]
    plain = [_UNSAFE.sub("_", name).strip(". ") or "_" for name in s.class_names]
    in_order = plain == sorted(set(plain)) and len(s.classes) == s.num_classes
    return plain if in_order else [f"{label:0{digits}d}_{name}" for label, name in enumerate(plain)]


def _rounding_notes(s: ImageSet) -> list[str]:
    if s.images.dtype == torch.uint8:
        return []
    pixels = s.pixels()
    outside = float(((pixels < 0) | (pixels > 1)).double().mean())
    notes = [f"pixels are rounded to 8 bits: up to {0.5 / _LEVELS:.4f} off"]
    return notes + ([f"{outside:.2%} of the pixels lie outside [0, 1] and were clipped"] if outside else [])


def _label_notes(s: ImageSet) -> list[str]:
    lost = ["soft labels were replaced by their largest entry"] if s.labels.ndim == 2 else []
    return lost + (["the learned step size is not in the files"] if s.lr is not None else [])


def _whitened_notes(s: ImageSet) -> list[str]:
    return (
        ["the images are whitened: their readers need the ZCA switch on"] if s.space.kind in ("zca", "whitened") else []
    )


_WITH_ZCA = ("normalized", "zca", "whitened")
for _entry in (
    Exporter("fyi-bench", "this project's own file: nothing is lost", _write_own, suffix=".safetensors", tiles=True),
    Exporter("dc", "DC, DSA, DM: one .pt with the key 'data', normalised", _write_dc, ("normalized",), suffix=".pt"),
    Exporter(
        "idc", "IDC: data.pt and args.txt, pixels, tiles kept", _write_idc, ("pixel",), "mtt", suffix=".pt", tiles=True
    ),
    Exporter("mtt", "MTT, FTD, DATM: images_best.pt, labels_best.pt", _write_mtt, _WITH_ZCA, "mtt", folder=True),
    Exporter("dd-ranking", "DD-Ranking: images.pt, labels.pt, lr.pt", _write_dd_ranking, _WITH_ZCA, "mtt", folder=True),
    Exporter("image-folder", "PNG pictures, a sub-folder a class (8 bits)", _write_folder, ("pixel",), folder=True),
    Exporter("parquet", "Hugging Face parquet: image, label (8 bits)", _write_parquet, ("pixel",), suffix=".parquet"),
):
    EXPORTERS.register(_entry.name, _entry)
