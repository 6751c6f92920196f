"""Options of every command that reads a condensed set: what is not to be guessed about it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fyi_bench.config import DATASET_NAMES, METHOD_NAMES, option

MOST_BYTES = 8 * 2**30  # the largest published sets have several experiments of 10,000 images of 64 px: 2.5 GB
PANEL = "A set in a file"


@dataclass(frozen=True, kw_only=True)
class SetFacts:
    """What is not to be guessed about other people's files."""

    format: str | None = option(None, "Layout; guessed from the content where not given.", panel=PANEL)
    factor: int | None = option(None, "Tiles a side in each image (IDC), where not told.", panel=PANEL)
    mean: tuple[float, ...] | None = option(None, "Means of the normalisation, one a channel.", panel=PANEL)
    std: tuple[float, ...] | None = option(None, "Its standard deviations.", panel=PANEL)
    zca: str | Any = option(None, "Data set that the whitening was fitted to.", names=DATASET_NAMES, panel=PANEL)
    experiment: int = option(-1, "Which of several sets in a file, from the end if negative.", panel=PANEL)
    step: int | None = option(None, "Which step of a continual file; default: all.", panel=PANEL)
    labels: str | None = option(
        None, "What soft labels are: logits or probabilities; hard: take the class alone.", panel=PANEL
    )
    lr: float | None = option(None, "Learned step size that belongs to the set.", panel=PANEL)
    classes: Path | None = option(None, "File that lists its classes, in the order of its numbers.", panel=PANEL)
    max_bytes: int = option(MOST_BYTES, "Bytes that a file may unpack to.", panel=PANEL)

    @property
    def facts(self) -> dict[str, Any]:
        """What was stated, as `load_set` takes it."""
        return stated_facts(self, SetFacts)


@dataclass(frozen=True, kw_only=True)
class OneSetFacts(SetFacts):
    """`SetFacts` where `--name`, `--method`, `--space` and `--ipc` can mean nothing else."""

    name: str | None = option(None, "What to call the set.", panel=PANEL)
    method: str | None = option(None, "Method that made it, where not told.", names=METHOD_NAMES, panel=PANEL)
    space: str | Any = option(None, "pixel, normalized or zca, where the guess is wrong.", panel=PANEL)
    ipc: int | None = option(None, "Images per class, where not told.", panel=PANEL)

    @property
    def facts(self) -> dict[str, Any]:
        """What was stated, as `load_set` takes it."""
        return stated_facts(self, OneSetFacts)


def is_bare_name(text: str | Path) -> bool:
    """Whether this can only be meant as a name: no file is there, and it looks like no path or address."""
    return re.fullmatch(r"[\w-]+", str(text)) is not None and not Path(text).exists()


NO_FILE = "it is about a set in a file, and none is given"


def stated_facts(options: Any, kind: type) -> dict[str, Any]:
    """The values of those fields of a dataclass of options that are not at their default."""
    return {f.name: value for f in fields(kind) if (value := getattr(options, f.name)) != f.default}
