"""What is known about a condensed set: its file, its numbers, its symmetry, where it came from, and what is odd."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from distill.image_set import ImageSet
from fyi_bench.errors import DataError
from fyi_bench.formats import Imported, load_set
from fyi_bench.formats.common import size_text
from fyi_bench.formats.looks import Looks, look

NEAR = 0.99  # correlation of two images from which they count as nearly the same
_POOLED = 16  # side of the small copies that are compared first
_SLACK = 0.01
_BLOCK = 512
_MOST_IMAGES = 20_000  # beyond it comparing every pair takes minutes
_MOST_PAIRS = 200_000
_EXAMPLES = 5
_OUTSIDE = 0.01


def inspect_set(
    source: str | Path | ImageSet | Imported,
    *,
    unequalness: bool = False,
    networks: int | None = None,
    seed: int = 0,
    duplicates: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Everything known about a set, JSON-able; `format_report` makes lines of it.

    source: a path (read by `load_set` with `options`), or a set already read. unequalness: also the FYI score (eq. 5,
    DM distance) over `networks` random networks (default 20), which takes a while. duplicates: compare all pairs of
    images, up to 20,000 images. Raises what `load_set` raises.
    """
    imported = _imported(source, options)
    s = imported.image_set
    looks = look(s.images)
    pixels = _pixel_facts(s)
    report = {
        "file": _file_facts(source),
        "format": imported.format or None,
        "guesses": list(imported.guesses),
        "warnings": [*imported.warnings, *_oddities(s, looks, pixels)],
        "images": len(s),
        "shape": list(s.shape),
        "dtype": str(s.images.dtype).removeprefix("torch."),
        "classes": _class_facts(s),
        "ipc": s.ipc,
        "labels": {"kind": "hard" if s.labels.ndim == 1 else "soft (logits)", "shape": list(s.labels.shape)},
        "space": s.space.describe(),
        "looks": looks.to_json(),
        "pixels": pixels,
        "not_finite": int((~torch.isfinite(s.images.double())).flatten(1).any(1).sum()),
        "lr": s.lr,
        "factor": s.factor,
        "decode_type": s.decode_type,
        "decoded_images": _decoded_images(s),
        "bytes": s.nbytes,
        "digest": s.digest,
        "duplicates": find_duplicates(s) if duplicates else None,
        "unequalness": _unequalness(s, networks, seed) if unequalness else None,
        "provenance": s.provenance,
    }
    return report


def _imported(source: str | Path | ImageSet | Imported, options: dict[str, Any]) -> Imported:
    if isinstance(source, Imported):
        return source
    if isinstance(source, ImageSet):
        return Imported(source, "", [], [])
    return load_set(source, **options)


def _file_facts(source: Any) -> dict[str, Any] | None:
    if not isinstance(source, str | Path):
        return None
    path = Path(source)
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    return {"path": str(path), "bytes": sum(f.stat().st_size for f in files), "files": len(files)}


def _class_facts(s: ImageSet) -> dict[str, Any]:
    counts = s.counts
    present = counts[counts > 0]
    return {
        "number": s.num_classes,
        "present": len(present),
        "smallest": int(present.min()),
        "largest": int(present.max()),
        "names": list(s.class_names),
    }


def _decoded_images(s: ImageSet) -> int:
    from distill.decode import decoded_count

    return sum(decoded_count(int(n), s.factor, s.decode_type) for n in s.counts if int(n))


def _pixel_facts(s: ImageSet) -> dict[str, Any] | None:
    """Range, channel statistics and share outside [0, 1] of the pixels; None where they cannot be computed here."""
    try:
        x = s.pixels()
    except DataError:  # whitened by a matrix that is not on this machine
        return None
    return {
        "low": float(x.min()),
        "high": float(x.max()),
        "mean": x.double().mean((0, 2, 3)).tolist(),
        "std": x.double().std((0, 2, 3), correction=0).tolist(),
        "outside": float(((x < 0) | (x > 1)).double().mean()),
    }


def _oddities(s: ImageSet, looks: Looks, pixels: dict[str, Any] | None) -> Iterable[str]:
    """What does not fit what the set says of itself."""
    kind = s.space.kind
    if kind in ("pixel", "normalized") and looks.whitened == 1:
        yield f"these look like whitened images ({looks.text()}), but the space is '{kind}'"
    if kind == "normalized" and looks.like_pixels and looks.low >= 0:
        yield "the values lie in [0, 1] like pixels, but the space is 'normalized'"
    if kind == "pixel" and s.images.is_floating_point() and not looks.like_pixels and looks.whitened != 1:
        yield f"the space is 'pixel', but it does not look so ({looks.text()})"
    if not bool(torch.isfinite(s.images.double()).all()):
        yield "some images hold NaN or infinite values: the run that made them diverged"
    if pixels is None:
        yield "the images are whitened by a matrix that is not on this machine, so nothing is said of their pixels"
    elif pixels["outside"] > _OUTSIDE:
        yield f"{pixels['outside']:.1%} of the pixels lie outside [0, 1]: pictures and 8-bit exports clip them"


@dataclass
class _Pairs:
    """Pairs of images that are alike: number, how many join two classes, first examples."""

    pairs: int = 0
    across_classes: int = 0
    examples: list[list[float]] = field(default_factory=list)

    def add(self, i: int, j: int, likeness: float, labels: torch.Tensor) -> None:
        self.pairs += 1
        self.across_classes += int(labels[i] != labels[j])
        if len(self.examples) < _EXAMPLES:
            self.examples.append([i, j, round(likeness, 4)])

    def to_json(self) -> dict[str, Any]:
        return {"pairs": self.pairs, "across_classes": self.across_classes, "examples": self.examples}


def find_duplicates(s: ImageSet, near: float = NEAR) -> dict[str, Any] | None:
    """Pairs of equal images, of one and another's mirror image, and of nearly equal ones; None for over 20,000 images.

    Nearly equal: correlation of all values, each channel's and image's mean taken out, of at least `near`; found on
    copies of at most 16 px first. Each kind has `pairs`, `across_classes`, `examples` [i, j, correlation].
    `complete` is False where so many are alike that counting stopped.
    """
    if len(s) > _MOST_IMAGES:
        return None
    labels, places = s.hard_labels, _places(s.images)
    exact, mirrored = _Pairs(), _Pairs()
    for group in places.values():
        for i, j in _couples(group):
            exact.add(i, j, 1.0, labels)
    for key, group in _places(s.images.flip(-1)).items():
        for i in group:
            for j in places.get(key, []):
                if i < j:
                    mirrored.add(i, j, 1.0, labels)
    distinct = torch.tensor(sorted(group[0] for group in places.values()))
    close, complete = _near_pairs(s.images[distinct], distinct, labels, near)
    found = {"exact": exact.to_json(), "mirrored": mirrored.to_json(), "near": close.to_json()}
    return {**found, "threshold": near, "complete": complete}


def _places(images: torch.Tensor) -> dict[bytes, list[int]]:
    """Digest of an image -> where it is."""
    rows = images.contiguous().flatten(1).view(torch.uint8).numpy()
    found: dict[bytes, list[int]] = {}
    for i, row in enumerate(rows):
        found.setdefault(hashlib.blake2b(memoryview(row), digest_size=16).digest(), []).append(i)
    return found


def _couples(group: list[int]) -> Iterable[tuple[int, int]]:
    """Each image of a group with the first one, so that n equal images count as n - 1 pairs."""
    return ((group[0], other) for other in group[1:])


def _near_pairs(images: torch.Tensor, where: torch.Tensor, labels: torch.Tensor, near: float) -> tuple[_Pairs, bool]:
    small = _unit_rows(_shrunk(images))
    found, looked = _Pairs(), 0
    for start in range(0, len(small), _BLOCK):
        likeness = small[start : start + _BLOCK] @ small[start:].T
        rows, columns = (likeness.triu(1) >= near - _SLACK).nonzero(as_tuple=True)
        looked += len(rows)
        for part in torch.arange(len(rows)).split(_BLOCK):
            a, b = rows[part] + start, columns[part] + start
            exact = (_unit_rows(images[a]) * _unit_rows(images[b])).sum(1)
            for i, j, value in zip(where[a].tolist(), where[b].tolist(), exact.tolist()):
                if value >= near:
                    found.add(i, j, value, labels)
        if looked > _MOST_PAIRS:
            return found, False
    return found, True


def _shrunk(images: torch.Tensor) -> torch.Tensor:
    side = min(_POOLED, *images.shape[2:])
    return torch.nn.functional.adaptive_avg_pool2d(images.float(), side)


def _unit_rows(images: torch.Tensor) -> torch.Tensor:
    """[N, F] of length 1, each image's mean taken out; zeros for an image of one colour."""
    rows = images.float().flatten(1)
    centred = rows - rows.mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    flat = length <= 1e-5 * rows.norm(dim=1, keepdim=True)  # what is left of one colour is rounding
    return torch.where(flat, 0.0, centred / length.clamp_min(1e-30))


def _unequalness(s: ImageSet, networks: int | None, seed: int) -> dict[str, Any]:
    from distill.decode import decoded
    from distill.fyi import NETWORKS, set_unequalness

    found = set_unequalness(decoded(s), seed, networks=networks or NETWORKS)
    return {**found, "per_class": {str(k): v for k, v in found["per_class"].items()}, "seed": seed}


def format_report(report: dict[str, Any]) -> str:
    """The report as lines for people."""
    file, classes, ipc = report["file"], report["classes"], report["ipc"]
    channels, height, width = report["shape"]
    rows = [("file", f"{file['path']} ({size_text(file['bytes'])})" if file else "")]
    rows += [("format", report["format"] or "")]
    colours = _counted(channels, "channel")
    per_class = f"{ipc} a class" if ipc else f"{classes['smallest']} to {classes['largest']} a class"
    decoded = report["decoded_images"] if report["factor"] != 1 else 0
    rows += [
        ("images", f"{report['images']:,} of {width}x{height}, {colours}, {report['dtype']}, {per_class}"),
        ("classes", _classes_text(classes)),
        ("labels", f"{report['labels']['kind']} {report['labels']['shape']}"),
        ("space", _space_text(report["space"])),
        ("values", Looks(**report["looks"]).text().removeprefix("values ")),
        ("pixels", _pixels_text(report["pixels"])),
        ("tiles", _tiles_text(report["factor"], decoded) if decoded else ""),
        ("step size", f"{report['lr']:g} (learned)" if report["lr"] is not None else ""),
        ("size", f"{size_text(report['bytes'])}, digest {report['digest']}"),
        ("alike", _duplicates_text(report["duplicates"])),
        ("unequalness", _score_text(report["unequalness"])),
        ("made by", _provenance_text(report["provenance"])),
        *(("guessed", text) for text in report["guesses"]),
        *(("warning", text) for text in report["warnings"]),
    ]
    return "\n".join(f"{name:<12} {text}" for name, text in rows if text)


def _tiles_text(factor: int, decoded: int) -> str:
    stored = "previews and the values above are of the tiles as stored"
    return f"{factor}x{factor} an image: {decoded:,} images at use; {stored}"


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _classes_text(classes: dict[str, Any]) -> str:
    names = classes["names"]
    listed = f" ({', '.join(names[:_EXAMPLES])}{' …' if len(names) > _EXAMPLES else ''})" if names else ""
    absent = classes["number"] - classes["present"]
    return f"{classes['number']}{listed}" + (f", {absent} without an image" if absent else "")


def _space_text(space: dict[str, Any]) -> str:
    facts = ", ".join(f"{k} {_numbers(v)}" for k, v in space.items() if k != "kind" and v not in ("", None))
    return f"{space['kind']}" + (f" ({facts})" if facts else "")


def _pixels_text(pixels: dict[str, Any] | None) -> str:
    if pixels is None:
        return ""
    spread = f"mean {_numbers(pixels['mean'])}, std {_numbers(pixels['std'])}"
    return f"{pixels['low']:.3f} to {pixels['high']:.3f}, {spread}, {pixels['outside']:.2%} outside [0, 1]"


def _duplicates_text(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    parts = [_kind_text(found[kind], word) for kind, word in (("exact", "equal"), ("mirrored", "mirrored"))]
    parts.append(_kind_text(found["near"], f"nearly equal (correlation {found['threshold']} or more)"))
    parts = [part for part in parts if part]
    more = "" if found["complete"] else "; too many to count them all"
    return ("; ".join(parts) if parts else "no two images are equal, mirrored or nearly equal") + more


def _kind_text(found: dict[str, Any], word: str) -> str:
    if not found["pairs"]:
        return ""
    shown = ", ".join(f"{int(i)}-{int(j)}" for i, j, _ in found["examples"])
    across = f", {found['across_classes']} of them across classes" if found["across_classes"] else ""
    return f"{_counted(found['pairs'], 'pair')} {word}{across} ({shown}{' …' if found['pairs'] > _EXAMPLES else ''})"


def _score_text(score: dict[str, Any] | None) -> str:
    return f"{score['mean']:.4g} ± {score['std']:.2g} over {score['networks']} networks" if score else ""


def _provenance_text(provenance: dict[str, Any]) -> str:
    keys = ("method", "flip", "dataset", "ipc", "seed", "iterations", "loss_first", "loss_last")
    return ", ".join(f"{k} {provenance[k]}" for k in keys if provenance.get(k) not in (None, ""))


def _numbers(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_numbers(v) for v in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
