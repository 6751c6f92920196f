"""Bringing the results of another machine into a store."""

from __future__ import annotations

import re
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fyi_bench.errors import StoreError
from fyi_bench.files import atomic_write, remove, sha256_file, write_json, write_text
from fyi_bench.store.checkpoint import checkpoint_steps
from fyi_bench.store.commands import FOLDER, read_commands, record_path, writing
from fyi_bench.store.excerpt import left_behind, note_absent, place_in, runs_of_protocol, without_folders
from fyi_bench.store.lock import FolderLock, in_use
from fyi_bench.store.record import SEAL, same_result, write_sealed
from fyi_bench.store.run_dir import (
    CONFIG,
    DIVERGED,
    DONE,
    RECORD,
    absent_names,
    artefact_names,
    bare,
    read_config,
    sealed_record,
    sweep,
)
from fyi_bench.store.store import Store
from fyi_bench.store.verify import checkpoint_error, checkpoints_of, config_faults, faults_of


@dataclass
class MergeReport:
    """What a merge did; every entry is kind/digest.

    copied: finished runs brought in. mended: damaged here, replaced by the whole copy. advanced: unfinished runs now
    further than before. same: finished here already, with the same result. older: unfinished there and no further
    than here. answers: records of commands brought in. conflicts: finished in both with different results, ours kept.
    damaged: not whole there, with the reason. busy: being worked on here.
    """

    copied: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    advanced: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    older: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report for people: counts, then what needs a decision."""
        counts = (
            (self.copied, "finished runs brought in"),
            (self.mended, "damaged runs replaced by whole copies"),
            (self.advanced, "unfinished runs brought further"),
            (self.answers, "answers of commands brought in"),
            (self.same, "already here"),
            (self.older, "unfinished there and no further than here"),
        )
        lines = [f"{len(names)} {text}" for names, text in counts if names] or ["nothing to bring in"]
        lines += [f"{name}: both stores have a result and they differ; the one here is kept" for name in self.conflicts]
        lines += [f"{name}: somebody works on it here; merge again later" for name in self.busy]
        return lines + [f"left out {reason}" for reason in self.damaged]


def merge(ours: Store, other: str | Path, excerpt_of: str | None = None) -> MergeReport:
    """Bring the finished runs, and further checkpoints of unfinished ones, from another store into ours.

    Artefacts are checked against their records on the way. Where both stores have a finished run of one digest with
    different results, ours stays and the report names it. excerpt_of: a protocol, of which the finished runs alone are
    brought, large files and real images by their digests (`fyi_bench.store.excerpt`).
    """
    theirs = Store(other, ours.say)
    if not theirs.root.is_dir():
        raise StoreError(f"There is no store {theirs.root}.\nName the folder that holds its types (distill, …).")
    if ours.root.exists() and ours.root.samefile(theirs.root):
        raise StoreError(f"{theirs.root} is this very store.\nName another one.")
    report = MergeReport()
    chosen = None if excerpt_of is None else runs_of_protocol(theirs, excerpt_of, on_the_way=True)
    with in_use(ours.root):
        for info in theirs.ls():
            if chosen is not None and info.digest not in chosen:
                continue
            source, target = info.folder, ours.root / info.kind / info.digest
            name = f"{info.kind}/{info.digest}"
            try:
                _check_regular(source)
                if info.state == "done":
                    outcome = _merge_finished(source, target, excerpt_of is not None)
                else:
                    outcome = _merge_unfinished(source, target)
                getattr(report, outcome).append(name)
            except _TheirsDamaged as error:
                report.damaged.append(f"{name}: {error}")
        if excerpt_of is None:
            _merge_commands(ours, theirs, report)
    return report


class _TheirsDamaged(Exception):
    """A run of the other store that cannot be trusted."""


def _check_regular(source: Path) -> None:
    """Refuse a run folder with anything in it that leads elsewhere or never ends: a link, a pipe, a device."""
    for path in (source.parent, source, *source.rglob("*")):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:  # who works on it there has removed it meanwhile
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            what = "a link" if stat.S_ISLNK(mode) else "no regular file"
            raise _TheirsDamaged(f"{path.name} is {what}; only regular files are brought")


def _merge_commands(ours: Store, theirs: Store, report: MergeReport) -> None:
    """Bring the records of finished commands; where both stores have one, ours stays."""
    records, damaged = read_commands(theirs)
    report.damaged += [str(error).splitlines()[0] for error in damaged]
    for record in records:
        name, target = f"{FOLDER}/{record['task']}-{record['digest']}", record_path(ours, record)
        if not re.fullmatch(r"[a-z0-9_-]+-[0-9a-f]{16}", name.removeprefix(f"{FOLDER}/")):
            report.damaged.append(f"{name}: no name of a record")
        elif not target.exists():
            with writing(ours):
                (write_sealed if SEAL in record else write_json)(target, record)
            report.answers.append(name)


def _merge_finished(source: Path, target: Path, excerpt: bool) -> str:
    """Bring in one finished run; returns the list of the report it belongs to."""
    faults = faults_of(source)
    if faults:
        raise _TheirsDamaged(faults[0].what)
    if excerpt and (place := place_in(source)):
        raise _TheirsDamaged(f"it mentions {place}, which is a place on that machine")
    absent = {*absent_names(source), *(left_behind(sealed_record(source)) if excerpt else ())}
    lock = FolderLock(target)
    if not lock.try_acquire():
        return "busy"
    try:
        finished_here = (target / DONE).exists()
        if finished_here and not faults_of(target):
            if not _equal_runs(source, target):
                return "conflicts"
            if absent.issuperset(absent_names(target)):
                return "same"
        _replace(source, target, absent, without_folders if excerpt else None)
    finally:
        lock.release()
    return "mended" if finished_here else "copied"


def _replace(
    source: Path, target: Path, absent: set[str], changed: Callable[[dict[str, Any]], dict[str, Any]] | None
) -> None:
    """Make `target` a copy of a finished run without the artefacts `absent`.

    changed(content): what its config and its record become, for what is not to be shown; None: copies. A kill on the
    way leaves an unfinished one that completes itself.
    """
    artefacts = {name: facts for name, facts in sealed_record(source)["artefacts"].items() if name not in absent}
    remove(target / DONE)
    remove(target / RECORD)
    sweep(target)
    config, record = read_config(source), sealed_record(source)
    same = changed is None or (changed(config), changed(record)) == (config, record)

    def put(name: str, content: dict[str, Any]) -> None:
        if changed is None or same:
            _copy(source / name, target / name)
        else:
            write_json(target / name, changed(content))

    put(CONFIG, config)  # first: what is cut from here on is an unfinished run
    for name in set(artefact_names(target)) - set(artefacts):
        remove(target / name)
    for name, facts in artefacts.items():
        _copy(source / name, target / name, facts["sha256"])
    remove(target / DIVERGED)
    note_absent(target, sorted(absent))
    put(RECORD, record)
    checkpoints_of(target).clear()
    if same:
        _copy(source / DONE, target / DONE)
    else:
        write_text(target / DONE, sha256_file(target / RECORD) + "\n")


def _merge_unfinished(source: Path, target: Path) -> str:
    """Bring in artefacts and checkpoints of an unfinished run that is further than ours."""
    if bare(source):
        return "older"
    try:
        wrong = config_faults(source)
    except StoreError as error:
        wrong = [str(error).splitlines()[0]]
    if wrong:
        raise _TheirsDamaged(wrong[0])
    if (target / DONE).exists() or _progress(source) <= _progress(target):
        return "older"
    whole = [step for step in checkpoint_steps(source) if checkpoint_error(source, step) is None]
    if checkpoint_steps(source) and not whole:
        raise _TheirsDamaged("none of its checkpoints is whole")
    lock = FolderLock(target)
    if not lock.try_acquire():
        return "busy"
    try:
        if (target / DONE).exists() or _progress(source) <= _progress(target):
            return "older"
        sweep(target)
        if not (target / CONFIG).exists():
            _copy(source / CONFIG, target / CONFIG)
        marks = [DIVERGED] if (source / DIVERGED).exists() else []
        for name in artefact_names(source) + marks:
            _copy(source / name, target / name)
        for step in whole:
            _copy(checkpoints_of(source).path(step), checkpoints_of(target).path(step))
    finally:
        lock.release()
    return "advanced"


def _progress(folder: Path) -> tuple[int, bool, bool]:
    """How far an unfinished run is: newest step, whether it diverged there, whether it has artefacts."""
    steps = checkpoint_steps(folder)
    return (steps[-1] if steps else -1, (folder / DIVERGED).exists(), bool(artefact_names(folder)))


def _equal_runs(source: Path, target: Path) -> bool:
    """Whether two finished runs hold the same result: their values, and the tensors of their sets."""
    ours, theirs = sealed_record(target), sealed_record(source)
    files, other_files = ours["artefacts"], theirs["artefacts"]
    tensors = {name for name in files if name.endswith(".safetensors")}
    if tensors != {name for name in other_files if name.endswith(".safetensors")} or not same_result(ours, theirs):
        return False
    known = tensors - {*absent_names(source), *absent_names(target)}  # of the others `set_digest` was compared
    changed = [name for name in known if files[name]["sha256"] != other_files[name]["sha256"]]
    return all(_tensor_digests(target / name) == _tensor_digests(source / name) for name in changed)


def _tensor_digests(path: Path) -> dict[str, str]:
    """sha256 of each tensor: a header also holds cost and versions, which may differ."""
    from distill.tensor_file import load_tensors

    return load_tensors(path)[1].get("sha256", {"": sha256_file(path)})


def _copy(source: Path, target: Path, sha256: str | None = None) -> None:
    def write(temporary: Path) -> None:
        try:
            shutil.copyfile(source, temporary)
        except FileNotFoundError:
            if source.exists():
                raise
            raise _TheirsDamaged(f"{source.name} went away: somebody works on it there; merge again later") from None
        if sha256 is not None and sha256_file(temporary) != sha256:
            raise _TheirsDamaged(f"{source.name} does not match its checksum")

    atomic_write(target, write)
