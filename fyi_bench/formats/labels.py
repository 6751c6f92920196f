"""Stored labels of any form -> int64 [N] or soft [N, C], saying what was changed.

Soft labels of an ImageSet are logits (a softmax is taken at use, DATM's convention), so probabilities are stored as
their logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.formats.arrays import to_tensor, type_name
from fyi_bench.formats.base import Options, Raw

KINDS = ("hard", "logits", "probabilities")  # what `labels=` may say
TARGETS = "targets"  # of regression, around 0: neither of these
_SUM_TOLERANCE = 1e-3
_SHORT_FLOATS = 0.01  # how far bfloat16 takes the sum of a row of probabilities from 1
_SCALES = (1.0, 100.0, 255.0)  # probabilities, percent, levels of a byte
_STEPS = (10, 100, 255, 1000, 10_000)  # of rounded probabilities
_MEAN_TOLERANCE, _MOST_SLACK = 0.05, 0.3
_TINY = 1e-30
_SHOWN = 5
# labels beyond both are no classes: numbers this high are believed of any set, and so many classes an image
FEW_CLASSES, MOST_EMPTY = 1000, 100


@dataclass
class Labels:
    """labels int64 [N], or float32 [N, C] of a kind, 'logits' or 'targets'. classes: C, or the largest label + 1."""

    labels: torch.Tensor
    classes: int
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    kind: str = "logits"


def read_labels(raw: Raw, options: Options, count: int, per_class: int | None) -> Labels | None:
    """The labels of `count` images, or None where the file has none. Raises DataError for what no label is."""
    if options.labels is not None and options.labels not in KINDS:
        raise UnknownNameError("kind of labels", options.labels, KINDS)
    if raw.labels is None:
        return None
    labels = to_tensor(raw.labels, "labels", options.max_bytes)
    nested = per_class and list(labels.shape) == [count // per_class, per_class]
    if labels.ndim == 2 and (labels.shape[1] == 1 or nested):
        labels = labels.flatten()
    if labels.ndim not in (1, 2):
        raise DataError(f"The labels have the shape {list(labels.shape)}, not [N] or [N, classes].\nReshape them.")
    if len(labels) != count:
        raise DataError(
            f"{count} images but {len(labels)} labels.\nThe two do not belong together: name the right files."
        )
    if labels.is_floating_point() and not bool(torch.isfinite(labels).all()):
        raise DataError(
            "The labels hold NaN or infinite values.\nThe run that made them diverged: use an earlier file."
        )
    if labels.ndim == 2:
        return _soft(labels, raw, options)
    found = _hard(labels, options)
    if found.classes > max(FEW_CLASSES, MOST_EMPTY * count):
        raise DataError(
            f"The largest label is {found.classes - 1} for {count} images: that is no class.\n"
            "Check the file: labels are class indices from 0 on."
        )
    return found


def class_major(count: int, per_class: int | None, classes: int | None) -> Labels:
    """Labels 0…0, 1…1, … where the file has none; one of images per class and number of classes must be known.

    Raises DataError where they contradict each other: nothing then says which classes the images are of.
    """
    number = per_class or (count // classes if classes else None)
    if not number or count % number or (classes and count // number != classes):
        split = f"{count} images, {number} a class, are not" if number else f"{count} images do not divide into"
        known = f"{split} {classes} classes, and the file has no labels." if classes else "The file has no labels."
        raise DataError(f"{known}\nState the images per class (ipc=…) or the data set (dataset=…).")
    found = count // number
    note = f"the file has no labels: taken class by class, {number} of each of {found} classes"
    return Labels(torch.arange(found).repeat_interleave(number), found, [note])


def check_classes(found: Labels, num_classes: int, names: tuple[str, ...], ipc: int | None) -> None:
    """DataError for labels outside 0 .. num_classes - 1 or another ipc than stated; odd counts become warnings."""
    hard = found.labels if found.labels.ndim == 1 else found.labels.argmax(dim=1)
    low, high = int(hard.min()), int(hard.max())
    if found.classes > num_classes:
        hint = "They count from 1: subtract 1." if low == 1 and high == num_classes else "Name the right data set."
        raise DataError(f"Labels reach from {low} to {found.classes - 1}, outside 0..{num_classes - 1}.\n{hint}")
    counts = torch.bincount(hard, minlength=num_classes)
    few, many = int(counts[counts > 0].min()), int(counts.max())
    if ipc is not None and (few, many) != (ipc, ipc):
        seen = f"{few}" if few == many else f"{few}-{many}"
        raise DataError(f"ipc={ipc} was stated, but the classes have {seen} images.\nLeave ipc out to take the file's.")
    missing = (counts == 0).nonzero().flatten().tolist()
    if missing:
        listed = ", ".join(names[c] if names else str(c) for c in missing[:_SHOWN])
        more = " …" if len(missing) > _SHOWN else ""
        found.warnings.append(f"{len(missing)} of {num_classes} classes have no image: {listed}{more}")
    if missing == [0] and low == 1:
        found.warnings.append("no image has the label 0: the labels may count from 1")
    if few != many:
        found.warnings.append(f"classes differ in size: {few} to {many} images")


def _hard(labels: torch.Tensor, options: Options) -> Labels:
    if options.labels not in (None, "hard"):
        raise UsageError(f"labels='{options.labels}' was stated, but the file has one number an image.\nLeave it out.")
    if labels.dtype == torch.bool or not bool((labels == labels.round()).all()):
        raise DataError("The labels are not whole numbers.\nSave class indices (int64), or a row of scores an image.")
    whole = labels.dtype == torch.int64
    notes = [] if whole else [f"labels were stored as {type_name(labels)} and are kept as int64"]
    labels = labels.long().contiguous()
    if int(labels.min()) < 0:
        raise DataError(
            f"The smallest label is {int(labels.min())}.\nLabels count from 0: map them to 0 … classes - 1."
        )
    return Labels(labels, int(labels.max()) + 1, notes)


def _soft(rows: torch.Tensor, raw: Raw, options: Options) -> Labels:
    width, asked = rows.shape[1], options.labels or ""
    binary = bool(((rows == 0) | (rows == 1)).all()) and bool((rows.sum(1) == 1).all())
    if not rows.is_floating_point() and not binary:
        raise DataError(f"The labels are whole numbers of shape {list(rows.shape)}.\nSave one class index an image.")
    if not asked and raw.label_kind == TARGETS:
        note = "soft labels are regression targets: a squared loss at use (labels='hard' takes their largest entry)"
        return Labels(rows.float().contiguous(), width, [note], kind=TARGETS)
    if asked == "hard" or (not asked and (binary or raw.label_kind == "hard")):
        stored = "one-hot rows" if binary else "soft"
        note = f"labels were stored as {stored}: the class is the largest entry"
        return Labels(rows.argmax(dim=1), width, [note])
    rows = rows.float().contiguous()
    shares, text = _as_shares(rows)
    if asked == "probabilities" and shares is None:
        raise DataError(f"The labels are no probabilities ({text}).\nSay labels='logits' or 'hard'.")
    if asked != "logits" and shares is not None:
        odd = ["these labels should be logits, but they are probabilities"] * (raw.label_kind == "logits" and not asked)
        note = f"soft labels are probabilities ({text}): kept as logarithms"
        return Labels(shares.clamp_min(_TINY).log(), width, [note], odd)
    note = "soft labels are kept as logits: a softmax is taken at use"
    if asked or raw.label_kind == "logits":
        return Labels(rows, width, [note])
    if float(rows.min()) >= 0 and float(rows.max()) <= 1:
        raise DataError(
            f"The soft labels are neither probabilities nor likely logits ({text}).\n"
            "Say what they are with labels='probabilities', 'logits' or 'hard'."
        )
    return Labels(
        rows, width, [note], ["soft labels do not sum to 1: taken as logits (labels='hard' takes their largest entry)"]
    )


def _as_shares(rows: torch.Tensor) -> tuple[torch.Tensor | None, str]:
    """The rows as probabilities that sum to 1, None where they are none, and what their sums are.

    Rounding is allowed for: half a step of the numbers' own decimals (or 255ths) in every entry, and short floats.
    """
    low, sums = float(rows.min()), rows.sum(1)
    least, most = float(sums.min()), float(sums.max())
    text = f"rows sum to {least:.4g} … {most:.4g}, entries from {low:.3g}"
    whole = float(sums.double().mean())
    if low < -_SUM_TOLERANCE or whole <= 0:
        return None, text
    rows = rows.clamp_min(0)
    scale = next((s for s in _SCALES if abs(whole / s - 1) < _MEAN_TOLERANCE), 0.0)
    if not scale:
        return None, text
    steps = (step for step in _STEPS if float(((rows / scale * step).round() - rows / scale * step).abs().max()) < 1e-2)
    step = next(steps, None)
    slack = max(_SHORT_FLOATS, min(rows.shape[1] / (2 * step), _MOST_SLACK) if step else 0.0)
    if max(abs(least / scale - 1), abs(most / scale - 1)) > slack:
        return None, text
    return rows / rows.sum(1, keepdim=True), text
