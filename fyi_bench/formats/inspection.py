"""What is known about a condensed set: its file, its numbers, its symmetry, where it came from, and what is odd."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from distill.decode import decoded, decoded_count
from distill.fyi import NETWORKS, set_unequalness
from distill.image_set import ImageSet
from fyi_bench.data.hub import Address, fetch, is_address
from fyi_bench.errors import DataError, printable
from fyi_bench.formats.alike import EXAMPLES, find_duplicates
from fyi_bench.formats.arrays import type_name
from fyi_bench.formats.base import Imported
from fyi_bench.formats.guard import agreement_of
from fyi_bench.formats.load import load_set
from fyi_bench.formats.looks import Looks, look
from fyi_bench.formats.opening import SIZE_BUDGET, size_text

_OUTSIDE = 0.01
_MADE_BY = ("method", "flip", "dataset", "ipc", "seed", "iterations", "loss_first", "loss_last")


def inspect_set(
    source: str | Path | ImageSet | Imported,
    *,
    unequalness: bool = False,
    networks: int = NETWORKS,
    seed: int = 0,
    duplicates: bool = True,
    **facts: Any,
) -> dict[str, Any]:
    """Everything known about a set, JSON-able; `format_report` makes lines of it.

    source: a path (read by `load_set` with `facts`), or a set already read. unequalness: also the FYI score (eq. 5,
    DM distance) over `networks` random networks, which takes a while. duplicates: compare all pairs of images, up to
    20,000 images. Raises what `load_set` raises.
    """
    of = str(source.provenance.get("dataset", "")) if isinstance(source, ImageSet) else ""
    imported = Imported(source, "", [], [], of) if isinstance(source, ImageSet) else source
    if isinstance(imported, str | Path):
        imported = load_set(imported, **facts)
    stored = imported.image_set
    s = stored.decoded()
    looks, pixels, counts = look(s.images), _pixel_facts(s), s.counts
    agreement = agreement_of(imported, facts.get("data_root"))
    doubt = [agreement.doubt] if agreement and agreement.doubtful else []
    present = counts[counts > 0]
    return {
        "file": _file_facts(Path(source)) if isinstance(source, str | Path) else None,
        "format": imported.format or None,
        "guesses": list(imported.guesses),
        "warnings": [*imported.warnings, *_oddities(s, looks, pixels), *doubt],
        "images": len(stored),
        "shape": list(s.shape),
        "dtype": type_name(s.images),
        "classes": {
            "number": s.num_classes,
            "present": len(present),
            "smallest": int(present.min()),
            "largest": int(present.max()),
            "names": list(s.class_names),
        },
        "ipc": s.ipc,
        "labels": {"kind": "hard" if s.labels.ndim == 1 else f"soft ({s.label_kind})", "shape": list(s.labels.shape)},
        "space": s.space.describe(),
        "agreement": asdict(agreement) if agreement else None,
        "looks": looks.to_json(),
        "pixels": pixels,
        "not_finite": int((~torch.isfinite(s.images.double())).flatten(1).any(1).sum()),
        "lr": s.lr,
        "factor": s.factor,
        "decode_type": s.decode_type,
        "decoder": stored.decoder.describe() if stored.decoder else None,
        "decoded_images": sum(decoded_count(int(n), s.factor, s.decode_type) for n in present),
        "bytes": stored.nbytes,
        "digest": stored.digest,
        "duplicates": find_duplicates(s) if duplicates else None,
        "unequalness": _score(s, networks, seed) if unequalness else None,
        "provenance": s.provenance,
    }


def _file_facts(path: Path) -> dict[str, Any]:
    place = fetch(Address.of(str(path)), SIZE_BUDGET) if is_address(path) else path
    files = [f for f in place.rglob("*") if f.is_file()] if place.is_dir() else [place]
    return {"path": str(path), "bytes": sum(f.stat().st_size for f in files), "files": len(files)}


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


def _score(s: ImageSet, networks: int, seed: int) -> dict[str, Any]:
    found = set_unequalness(decoded(s), seed, networks=networks)
    return {**found, "per_class": {str(k): v for k, v in found["per_class"].items()}, "seed": seed}


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


def format_report(report: dict[str, Any]) -> str:
    """The report as lines for people."""
    file, classes, ipc, factor = report["file"], report["classes"], report["ipc"], report["factor"]
    (channels, height, width), labels, score = report["shape"], report["labels"], report["unequalness"]
    decoder = report["decoder"]
    per_class = f"{ipc} a class" if ipc else f"{classes['smallest']} to {classes['largest']} a class"
    colours = _counted(channels, "channel")
    tiles = (
        f"{factor}x{factor} an image: {report['decoded_images']:,} images at use; "
        "previews and the values above are of the tiles as stored"
    )
    spread = f"{score['mean']:.4g} ± {score['std']:.2g} over {score['networks']} networks" if score else ""
    made_by = {"method": "unknown", **report["provenance"]}
    rows = [
        ("file", f"{file['path']} ({size_text(file['bytes'])})" if file else ""),
        ("format", report["format"] or ""),
        ("images", f"{report['images']:,} of {width}x{height}, {colours}, {report['dtype']}, {per_class}"),
        ("classes", _classes_text(classes)),
        ("labels", f"{labels['kind']} {labels['shape']}"),
        ("space", _space_text(report["space"])),
        ("values", Looks(**report["looks"]).text().removeprefix("values ")),
        ("pixels", _pixels_text(report["pixels"])),
        ("tiles", tiles if factor != 1 else ""),
        ("decoder", f"{decoder['name']}: {report['decoded_images']:,} images at use" if decoder else ""),
        ("step size", _step_size_text(report["lr"])),
        ("size", f"{size_text(report['bytes'])}, digest {report['digest']}"),
        ("alike", _alike_text(report["duplicates"])),
        ("unequalness", spread),
        ("made by", ", ".join(f"{k} {v}" for k in _MADE_BY if (v := made_by.get(k)) not in (None, ""))),
        *(("guessed", text) for text in report["guesses"]),
        *(("warning", text) for text in report["warnings"]),
    ]
    return "\n".join(f"{name:<12} {printable(text, lines=False)}" for name, text in rows if text)


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _step_size_text(lr: float | tuple[float, ...] | None) -> str:
    if isinstance(lr, tuple):
        return f"{len(lr)} learned, one a step, {min(lr):g} to {max(lr):g}"
    return "" if lr is None else f"{lr:g} (learned)"


def _classes_text(classes: dict[str, Any]) -> str:
    names = classes["names"]
    listed = f" ({', '.join(names[:EXAMPLES])}{' …' if len(names) > EXAMPLES else ''})" if names else ""
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


def _numbers(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_numbers(v) for v in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _alike_text(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    words = {"exact": "equal", "mirrored": "mirrored"}
    words["near"] = f"nearly equal (correlation {found['threshold']} or more)"
    parts = [_pairs_text(found[kind], word) for kind, word in words.items() if found[kind]["pairs"]]
    more = "" if found["complete"] else "; too many to count them all"
    return ("; ".join(parts) or "no two images are equal, mirrored or nearly equal") + more


def _pairs_text(found: dict[str, Any], word: str) -> str:
    shown = ", ".join(f"{int(i)}-{int(j)}" for i, j, _ in found["examples"])
    across = f", {found['across_classes']} of them across classes" if found["across_classes"] else ""
    return f"{_counted(found['pairs'], 'pair')} {word}{across} ({shown}{' …' if found['pairs'] > EXAMPLES else ''})"
