"""What a card asks: its parts, and the tasks whose runs and answers they are made of."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from downstream.protocol import FLOOR, protocol_data
from fyi_bench.config import option
from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.reading import OneSetFacts
from fyi_bench.registry import spelled_as
from fyi_bench.session import Session
from fyi_bench.tasks.accuracy import Accuracy
from fyi_bench.tasks.base import Part
from fyi_bench.tasks.common import ARCHITECTURES, SET_HELP
from fyi_bench.tasks.continual import Continual
from fyi_bench.tasks.continual.options import JOINT
from fyi_bench.tasks.distill import Distill
from fyi_bench.tasks.full import Full
from fyi_bench.tasks.given import GivenSet, given_set, kept_set
from fyi_bench.tasks.nas import Nas

HERDING = "herding"
# part -> what it measures
PARTS = {
    "labels": "whether the labels fit the images",
    "duplicates": "images that are alike",
    "accuracy": "networks trained on the set, on real images of equal number, on all real images",
    "cross-arch": "other architectures",
    "continual": "classes that come in steps",
    "nas": "ranking architectures",
    "symmetry": "unequalness of the set and its mirror image",
    "cost": "images, bytes, seconds",
}
PART_NAMES = "fyi_bench.tasks.card.asked:spelled"


def spelled(name: str) -> str:
    """The part of a card by its name in any case; a name that is none as it was given."""
    return spelled_as(name, PARTS)


@dataclass(frozen=True)
class CardOptions(OneSetFacts):
    """Which set, and which parts of its card."""

    path: Path = option(MISSING, SET_HELP, argument="SET")
    only: tuple[str, ...] = option((), f"Only these parts: {' '.join(PARTS)}.", names=PART_NAMES)
    without: tuple[str, ...] = option((), "All parts but these.", names=PART_NAMES)
    architectures: tuple[str, ...] = ARCHITECTURES((), help="The other architectures; default: the protocol's.")
    ranked: int | None = option(None, "How many architectures are ranked; default: as the protocol says.")
    html: Path | None = option(None, "Write the page here; default: beside the record.")
    markdown: Path | None = option(None, "Write it as Markdown here; default: beside the record.")

    def __post_init__(self) -> None:
        for name in (*self.only, *self.without):
            if name not in PARTS:
                raise UnknownNameError("part of a card", name, PARTS)
        if self.only and self.without:
            raise UsageError("--only and --without contradict each other.\nGive one of them.")
        if self.ranked is not None and self.ranked < 1:
            raise UsageError("--ranked counts architectures, from 1 on.\nLeave the ranking out with --without nas.")
        if not self.parts:
            raise UsageError("No part of the card is left.\nTake one out of --without.")

    @property
    def parts(self) -> list[str]:
        """The parts that are asked for, in the order of the page."""
        return [name for name in PARTS if (name in self.only if self.only else name not in self.without)]


@dataclass(frozen=True)
class Asked:
    """A card before anything is computed: the set, and the questions to other tasks, each under a name of its own.

    left_out: part, or row of a part -> why it is not measured.
    """

    session: Session
    options: CardOptions
    given: GivenSet
    limits: Mapping[str, Any]
    left_out: Mapping[str, str]

    @classmethod
    def of(cls, session: Session, options: CardOptions) -> Asked:
        """Raises UsageError for a protocol without settings for a card, and what reading the set raises."""
        base = session.settings.protocol.partition("+")[0]
        limits = protocol_data(base).get("card")
        if limits is None:
            raise UsageError(f"The protocol '{base}' has no settings for a card.\nUse paper or quick.")
        given = given_set(session, options.path, options.facts)
        left_out = {name: "left out" for name in PARTS if name not in options.parts}
        if given.image_set.ipc is None:
            left_out["floors"] = "classes differ in number of images"
        return cls(session, options, given, limits, left_out)

    @property
    def soft(self) -> bool:
        """Whether the set has soft labels of its own."""
        return self.given.image_set.labels.ndim == 2

    @property
    def main(self) -> str:
        """The architecture of the headline."""
        return self.session.protocol("accuracy", self.given.method).eval_model

    @property
    def others(self) -> list[str]:
        """The further ones."""
        return [name for name in self.options.architectures or self.limits["architectures"] if name != self.main]

    @cached_property
    def questions(self) -> dict[str, Part]:
        """What is asked of other tasks, by a word of this card's, such as `set`, `random`, `full` or `joint`."""
        wanted, found = self.options.parts, {}
        names = [*([self.main] if "accuracy" in wanted else []), *(self.others if "cross-arch" in wanted else [])]
        if names:
            found["set"] = self._evaluate(self.given.path, names)
            if self.soft:
                hard = replace(self.given.image_set, labels=self.given.image_set.hard_labels)
                found["hard"] = self._evaluate(kept_set(self.session, hard), names)
            if "floors" not in self.left_out:
                found["random"] = self._floor(FLOOR, names)
        if "accuracy" in wanted:
            if "floors" not in self.left_out:
                found["herding"] = self._floor(HERDING, [self.main])
            asked = Full.Options(self.main, self.limits["full_nets"])
            found["full"] = Part(Full(), self.session, asked)
        if "continual" in wanted:
            found["continual"] = self._continual(FLOOR, self.session)
            # a bound, of which no difference is taken: as few networks as of all real images elsewhere
            seeds = self.session.settings.seeds or self.limits["full_nets"]
            found[JOINT] = self._continual(JOINT, self.session.about(seeds=seeds), "--seeds", str(seeds))
        if "nas" in wanted:
            found["nas"] = self._nas()
        return found

    def _evaluate(self, path: Path, names: list[str]) -> Part:
        asked = Accuracy.Options(path=(path,), architectures=tuple(names))
        return Part(Accuracy(), self.session, asked, self._line("evaluate", str(path), "--arch", *names))

    def _floor(self, method: str, names: list[str]) -> Part:
        ipc = self.given.image_set.ipc or 1
        asked = Distill.Options(method=method, only=True, ipc=ipc, architectures=tuple(names))
        words = ("distill", "--method", method, "--ipc", str(ipc), "--only", "--arch", *names)
        return Part(Distill(), self.session, asked, self._line(*words))

    def _continual(self, against: str, session: Session, *more: str) -> Part:
        path, steps = self.given.path, self.limits["steps"]
        asked = Continual.Options(sets=(path,), steps=steps, against=(against,))
        words = ("continual", "--set-file", str(path), "--steps", str(steps), "--against", against, *more)
        return Part(Continual(), session, asked, self._line(*words))

    def _nas(self) -> Part:
        count, limits, path = self.options.ranked or self.limits["space"], self.limits, self.given.path
        sizes = {key: limits[key] for key in ("reference_images", "test_images") if key in limits}
        called, session = (self.given.name,) if self.given.name else (), self.session
        if "precision" not in session.settings.given:  # as `nas` itself, so that it meets stored rankings
            session = session.about(precision=replace(session.settings, **Nas.defaults).resolved().precision)
        asked = Nas.Options(set_files=(path,), names=called, only=True, space=str(count), **sizes)
        words = [word for key, value in sizes.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        line = self._line("nas", "--set-file", str(path), "--space", str(count), *words, "--only",
                          "--precision", session.settings.precision)  # fmt: skip
        return Part(Nas(), session, asked, line)

    def _line(self, *words: str) -> str:
        """A command as a user would type it, with the session's own settings where they matter for its numbers."""
        s = self.session.settings
        changes = [word for key, value in s.overrides.items() for word in ("--set", f"{key}={value}")]
        return shlex.join(["fyi-bench", *words, "--dataset", s.dataset, "--protocol", s.protocol, *changes])
