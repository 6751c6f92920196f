"""Pairs of files images_<it|best>.pt and labels_<it|best>.pt: MTT, TESLA, FYI, FTD (ema_…), DATM (with lr_….pt).

`images_zca_<it>.pt` holds, against its name, pixels with the whitening undone. DC-Bench splits its largest sets into
images_best_0.pt … images_best_4.pt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fyi_bench.formats.base import Format, Options, Raw, register
from fyi_bench.formats.layouts._shared import dims, method_in, need, scalar
from fyi_bench.formats.pixels import to_tensor
from fyi_bench.formats.source import FOLDER, Source

_IMAGES = re.compile(r"(?P<ema>ema_)?images_(?P<undone>zca_)?(?P<tag>best|\d+)(_(?P<part>\d))?\.pt")


@dataclass(frozen=True)
class Pair:
    """Names of the files of one set. parts: suffixes of split files, or ('',)."""

    ema: str
    undone: str
    tag: str
    parts: tuple[str, ...] = ("",)

    @property
    def images(self) -> list[str]:
        return [f"{self.ema}images_{self.undone}{self.tag}{part}.pt" for part in self.parts]

    @property
    def labels(self) -> list[str]:
        return [f"{self.ema}labels_{self.tag}{part}.pt" for part in self.parts]

    @property
    def lr(self) -> str:
        return f"lr_{self.tag}.pt"


def find_pair(source: Source) -> Pair | None:
    """The set a file belongs to, or the best (else the latest) one of a folder; None where there is none."""
    if source.kind == FOLDER:
        found = [match for name in source.names if (match := _IMAGES.fullmatch(name)) and not match["undone"]]
        chosen = max(
            found, key=lambda m: (m["tag"] == "best", int(m["tag"]) if m["tag"] != "best" else 0), default=None
        )
    else:
        chosen = _IMAGES.fullmatch(source.name.replace("labels_", "images_", 1))
    if chosen is None:
        return None
    pair = Pair(chosen["ema"] or "", chosen["undone"] or "", chosen["tag"])
    if chosen["part"] is None and all(map(source.has, pair.images)):
        return pair
    parts = tuple(f"_{i}" for i in range(10) if source.has(f"{pair.ema}images_{pair.undone}{pair.tag}_{i}.pt"))
    return Pair(pair.ema, pair.undone, pair.tag, parts) if parts else None


def _age(match: re.Match[str]) -> tuple[bool, int]:
    """The best set counts as the newest."""
    return match["tag"] == "best", 0 if match["tag"] == "best" else int(match["tag"])


def _recogniser(reason: str, applies: Callable[[Source, Pair], bool]) -> Callable[[Source], str]:
    def recognise(source: Source) -> str:
        pair = find_pair(source)
        return reason if pair and all(map(source.has, pair.labels)) and applies(source, pair) else ""

    return recognise


def _is_datm(source: Source, pair: Pair) -> bool:
    return source.has(pair.lr) or dims(source.content(pair.labels[0])) == 2


def read_pair(source: Source, options: Options) -> Raw:
    """Images and labels of a pair of files, the parts of split ones joined."""
    pair = find_pair(source)
    need(pair is not None, source, "one of the files images_<it|best>.pt or labels_<it|best>.pt, nor a folder of them")
    absent = [name for name in (*pair.images, *pair.labels) if not source.has(name)]
    need(not absent, source, f"complete: {', '.join(absent)} is missing", "Copy that file beside it.")
    raw = Raw(method=method_in(source.folder.name) or "mtt", facts={"saved": pair.tag})
    raw.images, raw.labels = (_joined(source, names, options) for names in (pair.images, pair.labels))
    if source.kind == FOLDER:
        raw.guesses.append(f"the files …images_{pair.tag}….pt of the folder (name another for another)")
    if len(pair.parts) > 1:
        raw.guesses.append(f"{len(pair.parts)} parts joined, in the order of their numbers")
    if pair.undone:
        raw.space, raw.space_reason = "pixel", "images_zca_ files hold pixels, their whitening undone"
    return raw


def read_ftd(source: Source, options: Options) -> Raw:
    """FTD's running mean of the images."""
    raw = read_pair(source, options)
    raw.method = "ftd"
    return raw


def read_datm(source: Source, options: Options) -> Raw:
    """DATM: labels are logits, the learned step size is beside them."""
    raw = read_pair(source, options)
    raw.method, raw.label_kind = "datm", "logits"
    pair = find_pair(source)
    raw.lr = scalar(source.content(pair.lr)) if source.has(pair.lr) else None
    return raw


def _joined(source: Source, names: list[str], options: Options) -> torch.Tensor:
    tensors = [to_tensor(source.content(name), f"contents of {name}", options.max_bytes) for name in names]
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


register(
    Format(
        "datm", "DATM: images_*.pt, labels_*.pt (logits), lr_*.pt",
        _recogniser("images_, labels_ with a row a class, or lr_ beside them", _is_datm), read_datm, 20, "mtt",
    )
)  # fmt: skip
register(
    Format(
        "ftd", "FTD: ema_images_*.pt and ema_labels_*.pt",
        _recogniser("ema_images_ and ema_labels_", lambda source, pair: bool(pair.ema)), read_ftd, 21, "mtt",
    )
)  # fmt: skip
register(
    Format(
        "mtt", "MTT, TESLA, FYI: images_<it|best>.pt and labels_<it|best>.pt",
        _recogniser("images_ and labels_ files of one name", lambda source, pair: True), read_pair, 22, "mtt",
    )
)  # fmt: skip
