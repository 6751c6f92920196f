"""ImageSet: one type for real data, synthetic sets and memory buffers, and its file.

On disk a set is one `.safetensors` (tensors, and a JSON header with space, classes, provenance and a
sha256 per tensor) with a `preview.png` beside it. The file holds nothing that depends on the clock,
so the same run gives the same bytes; what a run cost stands in its record.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch

import distill.zca  # noqa: F401  defines the space 'zca', which files may name
from distill import decoders
from distill.decoders import Decoder
from distill.picture import grid, html_of, png_of
from distill.spaces import NormalizedSpace, PixelSpace, Space, converted, space_from
from distill.tensor_file import load_tensors, save_tensors
from fyi_bench.errors import DataError, UnknownNameError, printable
from fyi_bench.files import canonical_json, write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MOST_CLASSES, MOST_PIXELS = 100_000, 2**26
# what building a set out of facts that make no sense raises
_NO_SET = (
    UnknownNameError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    RuntimeError,
    OverflowError,
    RecursionError,
)
SCHEMA = 2  # a set that needs nothing of schema 2 (decoder, kind of labels, several step sizes) is written as 1

# what soft labels are -> the value of a class that a row says nothing of, from the row's least value
LABEL_KINDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "logits": lambda least: least - 30,
    "probabilities": torch.zeros_like,
    "targets": lambda least: least,
}


@dataclass(frozen=True)
class ImageSet:
    """Images with labels in a stated space; a torch map-style data set of (image, label), which draws itself.

    images: float [N, ch, H, W] in `space`, or uint8 [N, ch, H, W] (then `space` is pixel, value / 255); with a decoder
    the rows it reads.
    labels: int64 [N], or float [N, num_classes] for soft labels.
    label_kind: what soft labels are: 'logits' (a softmax is taken at use), 'probabilities', or 'targets' (of a squared
    loss: half its sum over the classes).
    num_classes: size of the head a network needs (labels lie in 0 .. num_classes - 1).
    class_names: num_classes names, or empty when unknown.
    factor, decode_type: each stored image holds factor² tiles that are enlarged at use (IDC); 1 = none.
    decoder: turns rows into images at use; None where images are stored.
    variants: so many images in turn stand for one, of which each use draws one (a decoded set).
    lr: learned step size of the inner training, where the method learns one; or one for each of its ordered steps.
    provenance: how the set came to be (method, flip, recipe, data digest, seeds, loss curve …).
    """

    images: torch.Tensor
    labels: torch.Tensor
    space: Space
    num_classes: int
    class_names: tuple[str, ...] = ()
    factor: int = 1
    decode_type: str = "single"
    lr: float | tuple[float, ...] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    label_kind: str = "logits"
    decoder: Decoder | None = None
    variants: int = 1

    def __len__(self) -> int:
        return self.images.shape[0]

    @overload
    def __getitem__(self, index: int) -> tuple[torch.Tensor, int | torch.Tensor]: ...

    @overload
    def __getitem__(self, index: slice) -> ImageSet: ...

    def __getitem__(self, index: int | slice) -> ImageSet | tuple[torch.Tensor, int | torch.Tensor]:
        """Image [ch, H, W] as float in the set's space, and its label (a row of the soft ones); a set of a slice.

        A row that a decoder reads gives its first image; tiles stay together.
        """
        try:
            places = range(len(self))[index]
        except IndexError:
            raise IndexError(f"there is no image {index} among {len(self)}") from None
        if isinstance(places, range):
            return self.select(torch.tensor(places, dtype=torch.int64))
        label = self.labels[places]
        return self.batch(slice(places, places + 1))[0], int(label) if label.ndim == 0 else label

    def __repr__(self) -> str:
        p, (channels, height, width) = self.provenance, self.shape
        made = "+".join(str(p[key]) for key in ("method", "flip") if p.get(key) not in (None, "none", "unknown"))
        facts = [
            f"{len(self):,} images" if self.decoder is None else f"{len(self):,} rows of '{self.decoder.name}'",
            f"{channels}x{height}x{width}", f"{len(self.classes)} classes", self.space.kind, f"{self.nbytes:,} bytes",
            *([f"{self.factor}x{self.factor} tiles each"] if self.factor > 1 else []),
            *(["soft labels"] if self.labels.ndim == 2 else []),
        ]  # fmt: skip
        return f"ImageSet({made + ': ' if made else ''}{', '.join(facts)})"

    def picture(self, per_class: int = 10, max_classes: int = 10) -> Picture:
        """Its first images of its first classes, a class a row."""
        shown = self.decoded()
        rows = [shown.batch(shown.indices_of(c)[:per_class]) for c in shown.classes[:max_classes]]
        return grid([shown.space.picture(row) for row in rows])

    def _repr_png_(self) -> bytes:
        return png_of(self.picture())

    def _repr_html_(self) -> str:
        """HTML for a notebook: the set's repr, its picture, and the class of each row."""
        names = (self.class_names[c] if self.class_names else f"class {c}" for c in self.classes[:10])
        return html_of(repr(self), self._repr_png_(), f"Rows: {', '.join(names)}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image, stored or decoded."""
        return self.decoder.shape if self.decoder else tuple(self.images.shape[1:])  # type: ignore[return-value]

    @property
    def items(self) -> int:
        """Images that a pass over the set shows: all, but of variants one each."""
        return len(self) // self.variants

    @property
    def hard_labels(self) -> torch.Tensor:
        """int64 [N]: the labels, or the most likely class of soft ones."""
        return self.labels if self.labels.ndim == 1 else self.labels.argmax(dim=1)

    @property
    def counts(self) -> torch.Tensor:
        """int64 [num_classes]: images per class."""
        return torch.bincount(self.hard_labels, minlength=self.num_classes)

    @property
    def classes(self) -> list[int]:
        """Classes that have at least one image, ascending."""
        return self.counts.nonzero().flatten().tolist()

    @property
    def ipc(self) -> int | None:
        """Images per class, or None when the classes present differ in number."""
        present = self.counts[self.counts > 0]
        return int(present[0]) if len(present) and bool((present == present[0]).all()) else None

    @property
    def nbytes(self) -> int:
        """Bytes of all that is needed to use the set: images or rows and their decoder, labels, step sizes."""
        return sum(t.nbytes for t in self._tensors.values()) + (4 * len(self.lr) if isinstance(self.lr, tuple) else 0)

    @property
    def parts(self) -> dict[str, int]:
        """Bytes of the `stored` images or rows, the `labels`, and the `decoder` with learned step sizes: `nbytes`."""
        decoder = sum(tensor.nbytes for tensor in self.decoder.tensors.values()) if self.decoder else 0
        decoder += 4 * len(self.lr) if isinstance(self.lr, tuple) else 0
        return {"stored": self.nbytes - self.labels.nbytes - decoder, "labels": self.labels.nbytes, "decoder": decoder}

    @property
    def _tensors(self) -> dict[str, torch.Tensor]:
        """The tensors as a file holds them."""
        if self.decoder is None:
            return {"images": self.images, "labels": self.labels}
        shared = {f"decoder.{name}": tensor for name, tensor in self.decoder.tensors.items()}
        return {**self.decoder.pack(self.images), "labels": self.labels, **shared}

    @property
    def digest(self) -> str:
        """16 hex digits over everything a network can see: tensors, space, factor, lr."""
        sha = hashlib.sha256()
        facts = [list(self.images.shape), str(self.images.dtype), str(self.labels.dtype), self.space.describe()]
        sha.update(canonical_json([*facts, self.num_classes, self.factor, self.decode_type, self.lr]).encode())
        if self._more:
            sha.update(canonical_json(self._more).encode())
        for tensor in (self.images, self.labels, *(self.decoder.tensors.values() if self.decoder else ())):
            sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return sha.hexdigest()[:16]

    @property
    def _more(self) -> dict[str, Any]:
        """What schema 1 cannot say, JSON-able; empty for most sets."""
        return {
            **({"label_kind": self.label_kind} if self.labels.ndim == 2 and self.label_kind != "logits" else {}),
            **({"decoder": self.decoder.describe()} if self.decoder else {}),
            **({"variants": self.variants} if self.variants != 1 else {}),
        }

    def decoded(self) -> ImageSet:
        """The set with its rows decoded to images, all variants of a row one after the other; without a decoder itself.

        For tiles see `distill.decode.decoded`.
        """
        if self.decoder is None:
            return self
        images, each = decoders.images_of(self.decoder, self.images), self.decoder.variants
        labels = self.labels.repeat_interleave(each, dim=0)
        return replace(self, images=images, labels=labels, decoder=None, variants=each)

    def batch(
        self, index: torch.Tensor | slice, space: Space | None = None, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Float images [n, ch, H, W] of these indices in `space` (default: the set's own)."""
        chosen = self.images[index]
        images = decoders.images_of(self.decoder, chosen) if self.decoder else chosen
        return converted(images, self.space, space or self.space, dtype)

    def to_space(self, space: Space) -> ImageSet:
        """The set with its images, as floats, in another space."""
        shown = self.decoded()
        return replace(shown, images=converted(shown.images, self.space, space, torch.float32), space=space)

    def pixels(self) -> torch.Tensor:
        """Float images in [0, 1] space, not clipped; tiles are not enlarged."""
        return self.batch(slice(None), PixelSpace())

    def select(self, index: torch.Tensor) -> ImageSet:
        """The subset of these indices (int64), provenance kept."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def of_classes(self, classes: Sequence[int]) -> ImageSet:
        """Only the images of these classes, original labels kept."""
        wanted = torch.isin(self.hard_labels, torch.tensor(list(classes)))
        return self.select(wanted.nonzero().flatten())

    def indices_of(self, label: int) -> torch.Tensor:
        """int64 indices of one class, in the order of the set."""
        return (self.hard_labels == label).nonzero().flatten()

    def validate(self) -> ImageSet:
        """Return the set, or raise DataError saying what is wrong with it and how to mend it."""
        problem = _first_problem(self)
        if problem:
            raise DataError("\n".join(problem))
        return self

    def save(self, path: str | Path, preview: bool = True) -> Path:
        """Write `path` (.safetensors) and, beside it, `preview.png`; both atomically."""
        path = Path(path)
        metadata = {
            "schema": SCHEMA if self._more or isinstance(self.lr, tuple) else 1,
            "space": self.space.describe(),
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "factor": self.factor,
            "decode_type": self.decode_type,
            "lr": self.lr,
            "provenance": self.provenance,
            **self._more,
        }
        save_tensors(path, self._tensors, metadata)
        if preview:
            write_bytes(path.with_name("preview.png"), png_of(self.picture(max_classes=100)))
        return path

    @staticmethod
    def load(path: str | Path) -> ImageSet:
        """Read a file written by `save`, checksums verified. Raises DataError for anything else."""
        tensors, meta = load_tensors(path)
        try:
            return _built(path, tensors, meta)
        except _NO_SET as error:
            what = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
            raise DataError(f"{path} says of itself what no set can be ({what}).\nMake the set again.") from error


def _built(path: str | Path, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> ImageSet:
    """The set of a file. Raises what its facts lead to where they make no sense."""
    if int(meta.get("schema", 0)) > SCHEMA:
        raise DataError(f"{path} was written by a newer fyi-bench (schema {meta['schema']}).\nUpgrade to read it.")
    decoder = None
    if "decoder" in meta:
        if math.prod(meta["decoder"].get("shape", ())) > MOST_PIXELS:
            raise ValueError(f"images of {meta['decoder']['shape']}")
        shared = {name[8:]: tensors.pop(name) for name in list(tensors) if name.startswith("decoder.")}
        decoder = decoders.rebuild(meta["decoder"], shared)
        tensors["images"] = decoder.unpack(tensors)
    if not {"images", "labels"} <= set(tensors) or "space" not in meta:
        raise DataError(f"{path} holds tensors but no ImageSet.\nUse `fyi-bench import` for files of others.")
    return ImageSet(
        images=tensors["images"],
        labels=tensors["labels"],
        space=space_from(meta["space"]),
        num_classes=operator.index(meta["num_classes"]),
        class_names=tuple(printable(name, lines=False) for name in meta["class_names"]),
        factor=operator.index(meta["factor"]),
        decode_type=str(meta["decode_type"]),
        lr=_step_sizes(meta["lr"]),
        provenance={**meta["provenance"]},
        label_kind=meta.get("label_kind", "logits"),
        decoder=decoder,
        variants=meta.get("variants", 1),
    ).validate()


def _step_sizes(value: Any) -> float | tuple[float, ...] | None:
    """Learned step sizes as a file has them. Raises ValueError or TypeError for what is none."""
    given = [] if value is None else value if isinstance(value, list) else [value]
    if value == [] or not all(isinstance(one, int | float) and math.isfinite(one) for one in given):
        raise ValueError(f"step size {value!r}")
    found = [float(one) for one in given]
    return tuple(found) if isinstance(value, list) else found[0] if found else None


def concatenate(sets: Sequence[ImageSet]) -> ImageSet:
    """Sets of one space, size and label kind as one, in order: how a memory buffer grows. Stored rows are decoded."""
    sets = [one.decoded() for one in sets]
    first = sets[0]
    for other in sets[1:]:
        if other.space != first.space or other.shape != first.shape or other.factor != first.factor:
            raise DataError("Sets of different space, size or factor cannot be joined.\nConvert them with to_space().")
        if (other.labels.ndim, other.label_kind, other.variants) != (
            first.labels.ndim,
            first.label_kind,
            first.variants,
        ):
            raise DataError("Sets whose labels are of different kinds cannot be joined.\nUse sets of one method.")
    images = torch.cat([s.images for s in sets])
    return replace(first, images=images, labels=torch.cat([s.labels for s in sets]), provenance={})


def _first_problem(s: ImageSet) -> tuple[str, str] | None:
    """(what is wrong, how to mend it) of the first problem found, or None."""
    x, y = s.images, s.labels
    if s.decoder is not None:
        if not all(bool(torch.isfinite(t).all()) for t in (x, *s.decoder.tensors.values())):
            return "The stored rows or their decoder hold NaN or infinite values.", "The run diverged: lower lr_img."
        try:
            x = s.batch(slice(0, 1))
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            return f"The decoder '{s.decoder.name}' cannot read the stored rows ({error}).", "Make the set again."
    if x.ndim != 4:
        return f"Images have {x.ndim} dimensions, not 4 [N, channels, height, width].", "Reshape them first."
    if not 1 <= s.num_classes <= MOST_CLASSES:
        return f"{s.num_classes} classes are stated; 1 to {MOST_CLASSES:,} are possible.", "Check num_classes."
    if not 1 <= s.factor <= max(1, *x.shape[2:]):
        return f"Images of {x.shape[3]}x{x.shape[2]} cannot hold {s.factor}² tiles.", "State the right factor."
    if x.shape[0] == 0 or x.numel() == 0:
        return "The set holds no images.", "Check the file or the classes that were asked for."
    if x.shape[1] not in (1, 3):
        hint = "They look like [N, H, W, channels]: permute to [N, channels, H, W]." if x.shape[3] in (1, 3) else ""
        return f"Images have {x.shape[1]} channels; 1 or 3 are known.", hint or "Keep grey or RGB channels."
    if x.dtype not in (torch.uint8, torch.float32, torch.float64, torch.float16, torch.bfloat16):
        return f"Images have type {x.dtype}.", "Convert them to float32 or uint8."
    if x.dtype == torch.uint8 and s.space.kind != "pixel":
        return f"uint8 images cannot live in the space '{s.space.kind}'.", "State the space 'pixel'."
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        return f"{bad} of {len(s)} images hold NaN or infinite values.", "The run diverged: lower lr_img."
    if isinstance(s.space, NormalizedSpace) and len(s.space.mean) != x.shape[1]:
        return f"{x.shape[1]} channels, but statistics for {len(s.space.mean)}.", "Name the right mean and std."
    if y.shape[0] != len(s):
        return f"{len(s)} images but {y.shape[0]} labels.", "Each image needs one label."
    if s.variants < 1 or len(s) % s.variants:
        return f"{len(s)} images do not divide into groups of {s.variants}.", "State variants=1."
    return _label_problem(s)


def _label_problem(s: ImageSet) -> tuple[str, str] | None:
    y = s.labels
    if s.label_kind not in LABEL_KINDS:
        return f"Soft labels are said to be '{s.label_kind}'.", f"Known: {', '.join(LABEL_KINDS)}."
    if y.ndim == 2:
        if y.shape[1] != s.num_classes or not y.is_floating_point():
            return f"Soft labels are {tuple(y.shape)} {y.dtype}.", f"They must be float [N, {s.num_classes}]."
        return None if bool(torch.isfinite(y).all()) else ("Soft labels hold NaN.", "Recompute them.")
    if y.ndim != 1 or y.dtype != torch.int64:
        return f"Labels are {tuple(y.shape)} {y.dtype}.", "They must be int64 [N] or float [N, classes]."
    if int(y.min()) < 0 or int(y.max()) >= s.num_classes:
        return (
            f"Labels reach from {int(y.min())} to {int(y.max())}, outside 0..{s.num_classes - 1}.",
            "Check num_classes, or whether labels count from 1.",
        )
    if s.class_names and len(s.class_names) != s.num_classes:
        return f"{len(s.class_names)} class names for {s.num_classes} classes.", "Give one name a class, or none."
    return None
