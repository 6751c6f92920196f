"""`fyi-bench cross-arch`: how sets of a method, or a set that is a file, train networks of other architectures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from fyi_bench.config import option
from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.reading import NO_FILE, OneSetFacts, is_bare_name, stated_facts
from fyi_bench.run.plan import Plan, Records
from fyi_bench.session import Session
from fyi_bench.tasks.accuracy import Accuracy, AccuracyOptions
from fyi_bench.tasks.base import TASKS, Record
from fyi_bench.tasks.common import ARCHITECTURES, DEFAULT_METHOD, IPC, METHOD, NOT_MADE
from fyi_bench.tasks.distill import Distill, DistillOptions


@dataclass(frozen=True)
class CrossArchOptions(DistillOptions, OneSetFacts):
    """Which sets, and the architectures that they are evaluated on."""

    path: Path | None = option(None, "A condensed set in a file, instead of a method (or its name).", argument="SET")
    method: str | None = METHOD(None, help=f"Distillation method; default: {DEFAULT_METHOD}.")
    ipc: int = IPC(50)
    architectures: tuple[str, ...] = ARCHITECTURES(("convnet", "vgg11", "resnet18"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is not None and self.method is not None:
            raise UsageError("SET and --method contradict each other.\nGive one of them.")

    @property
    def file(self) -> Path | None:
        """The argument where it is a set; without a file of that name it may be a method's name."""
        from distill.methods import METHODS

        if self.path is None or (not self.path.exists() and str(self.path) in METHODS):
            return None
        if is_bare_name(self.path):
            raise UnknownNameError("set or method", str(self.path), METHODS)
        return self.path


@TASKS.register("cross-arch")
class CrossArch(Distill):
    """Sets of one method, or one in a file, on several architectures."""

    summary = "Accuracy of other architectures trained on a condensed set (Table 3)."
    Options: ClassVar[type] = CrossArchOptions
    heading = "Other architectures"
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench cross-arch --method dm --fyi --ipc 50  # 1.5 h",
        "fyi-bench cross-arch --method dsa --fyi --arch convnet3 vgg11 resnet18 --seeds 3  # 4 h",
        "fyi-bench cross-arch set.safetensors",
    )

    def about(self, session: Session, options: Any) -> Session:
        return _OF_FILE.about(session, of_file) if (of_file := _of_file(session, options)) else session

    def ignored(self, options: Any, given: Collection[str]) -> Mapping[str, str]:
        if options.file is None:
            of_files = {f.name for f in fields(OneSetFacts)} - {"method", "ipc"}
            return {**super().ignored(options, given), **dict.fromkeys(of_files, NO_FILE)}
        return dict.fromkeys(("fyi", "flip", "only", "seeds"), NOT_MADE)

    def plan(self, session: Session, options: Any, found: Records) -> Plan:
        if of_file := _of_file(session, options):
            return _OF_FILE.plan(session, of_file, found)
        return super().plan(session, _of_method(options), found)

    def answer(self, session: Session, options: Any, plan: Plan, found: Records) -> Record:
        if of_file := _of_file(session, options):
            return _OF_FILE.answer(session, of_file, plan, found)
        return super().answer(session, _of_method(options), plan, found)

    def words(self, record: Mapping[str, Any]) -> str:
        return super().words(record) if "iterations" in record["arms"][0] else _OF_FILE.words(record)


class _OfFile(Accuracy):
    """The task `accuracy` under this name."""

    name, command = CrossArch.name, ""


_OF_FILE = _OfFile()


def _of_file(session: Session, options: CrossArchOptions) -> AccuracyOptions | None:
    if options.file is None:
        return None
    facts = stated_facts(options, OneSetFacts)
    if "ipc" not in session.settings.given:  # its default is of methods
        facts.pop("ipc", None)
    if "labels" in facts:
        facts["labels"] = (facts["labels"],)
    return AccuracyOptions(path=(options.file,), architectures=options.architectures, floor=options.floor, **facts)


def _of_method(options: CrossArchOptions) -> CrossArchOptions:
    from distill.methods import METHODS

    method = options.method or (DEFAULT_METHOD if options.path is None else METHODS.spelled(str(options.path)))
    return replace(options, path=None, method=method)
