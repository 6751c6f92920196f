"""Damage to every kind of file that a store holds: `store verify` names it, and using it never gives a wrong number.

The store is filled by the run types themselves, one of each; a file of a kind that is not listed here fails the test.
"""

from __future__ import annotations

import _ctypes
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_runs
from test_same_data import dataset, runs, worker
from toy_runs import toy

import tiny
from data_files import write_mnist
from distill.image_set import ImageSet
from fyi_bench.data import load_dataset
from fyi_bench.errors import DivergenceError, FyiBenchError
from fyi_bench.files import sha256_file
from fyi_bench.present.figures.real_scores import Series, measured
from fyi_bench.present.figures.request import Effort, Request
from fyi_bench.run.drain import Drain, Habits
from fyi_bench.run.executor import default_url
from fyi_bench.run.queue import Queue, connect
from fyi_bench.run.run_type import Worker, ensure
from fyi_bench.store.commands import read_commands, save_record
from fyi_bench.store.excerpt import note_absent
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from fyi_bench.store.verify import verify
from fyi_bench.tasks.report import write_report
from sample_records import distill_record
from search_space import native

pytestmark = pytest.mark.long

UNFINISHED, DIVERGED = RunSpec("distill", {"seed": 1}), RunSpec("distill", {"seed": 2})
SOURCE = """
// most of the file is numbers that the answer is made of, so that a changed byte is likely to change it
extern "C" { unsigned char numbers[65536] = {42};
int answer() { int sum = 0; for (unsigned char each : numbers) sum += each; return sum; } }
"""
TOYS = [toy(n) for n in range(4)]


class Place:
    """A store, the caches beside it, and how each is used."""

    def __init__(self, root: Path):
        self.root = root
        self.store = Store(root / "store", lambda text: None)

    def fill(self) -> None:
        """Leave a file of every kind."""
        once = worker(self.root, dataset())
        for name, (spec, _) in runs().items():
            if "measured" not in name:
                ensure(spec, once)
        with self.store.run(UNFINISHED) as run:
            for step in (1, 2):
                run.save(step, {"x": torch.full((40,), float(step))}, {})
            tiny.real_set().save(run.path("last_good.safetensors"))
        with contextlib.suppress(DivergenceError), self.store.run(DIVERGED):
            raise DivergenceError("no longer finite", 7)
        ranked = next(self.store.root.glob("floor/*/preview.png")).parent
        note_absent(ranked, ["preview.png"])
        (ranked / "preview.png").unlink()
        save_record(self.store, distill_record())
        write_report(self.store)
        imported = tiny.real_set()
        imported.save(self.store.root / "imported" / imported.digest / "set.safetensors")
        with self.store.in_use():
            pass
        self.figure()
        self.queue(work=False)
        write_mnist(self.root / "real" / "mnist")
        (self.root / "answer.cpp").write_text(SOURCE)
        self.decoded()
        self.compiled()

    def finished(self, path: Path) -> Any:
        """The record of the run whose folder a file is in, and the files in that record."""
        kind, digest = path.relative_to(self.store.root).parts[:2]
        known = next((spec for spec, _ in runs().values() if spec.digest == digest))
        record = self.store.record(known)
        if record is None:  # computed anew
            return None
        names = set(record["artefacts"]) - {"preview.png"}
        return record, {name: sha256_file(self.store.artefact(kind, digest, name)) for name in names}

    def went_on(self, path: Path) -> Any:
        """The checkpoint that an unfinished run goes on from: what its tensor holds is its step."""
        with self.store.run(UNFINISHED) as run:
            step, tensors, _ = run.load() or (0, {"x": torch.zeros(40)}, {})
        assert torch.equal(tensors["x"], torch.full((40,), float(step)))
        return None

    def last_good(self, path: Path) -> str:
        """A set that an unfinished run has left."""
        return ImageSet.load(path).digest

    def diverged(self, path: Path) -> Any:
        """Where a run diverged."""
        return RunDir(self.store.folder(DIVERGED), DIVERGED, self.store.say).diverged

    def answered(self, path: Path) -> Any:
        """Records of commands."""
        return read_commands(self.store)[0] or None

    def imported(self, path: Path) -> str:
        """The imported set as a worker takes it."""
        reference = {"file": str(path), "digest": tiny.real_set().digest}
        return Worker(self.store).image_set(reference).digest

    def figure(self, path: Path | None = None) -> Any:
        """A measurement that a figure keeps."""
        request = Request(self.store, lambda name: dataset(), effort=Effort((1, 2), 1, 1, 1, tiny.MODEL))
        return measured("tiny", Series("DM", "dm"), request)

    def queue(self, path: Path | None = None, work: bool = True) -> Any:
        """What the runs of a queue have given."""
        ask = connect(default_url(self.store), lambda: None, lambda line: None)
        queue = Queue.open(ask, "toys", TOYS)
        queue.enqueue(TOYS, self.store)
        if work:
            Drain([queue], Worker(self.store), Habits(linger=False, beat_s=60.0)).run()
        ask("remove_session")
        ask.storage.engine.dispose()
        found = [self.store.record(spec)["value"] for spec in TOYS] if work else None
        for left in ("toy", "computed.jsonl"):
            shutil.rmtree(self.store.root / left, ignore_errors=True)
            with contextlib.suppress(OSError):
                (self.store.root / left).unlink()
        return found

    def decoded(self, path: Path | None = None) -> str:
        """Real images, from the cache where it is sound."""
        return load_dataset("mnist", self.root / "real").digest

    def compiled(self, path: Path | None = None) -> Any:
        """What a compiled operation gives; None where there is none, which a run's digest tells."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "_folder", lambda: self.root / "cache" / "native")
            (self.root / "cache" / "native").mkdir(exist_ok=True)
            library = native.library.__wrapped__(self.root / "answer.cpp")
        if library is None:
            return None
        answer = library.answer()
        _ctypes.dlclose(library._handle)  # or the next one would be this one, from memory
        return answer


# path of a file below the place -> how a file of this kind is used; None: nothing reads it but people
RUN = r"store/(?!imported)[a-z]+/[0-9a-f]{16}/"
USES: dict[str, Callable[[Place, Path], Any] | None] = {
    rf"{RUN}(config\.json|record\.json|done|absent\.json)": Place.finished,
    rf"{RUN}(?!ckpt-|last_good)[\w-]+\.safetensors": Place.finished,
    rf"{RUN}ckpt-\d+\.safetensors": Place.went_on,
    rf"{RUN}last_good\.safetensors": Place.last_good,
    rf"{RUN}diverged\.json": Place.diverged,
    rf"{RUN}preview\.png": None,
    rf"{RUN}lock": Place.went_on,
    r"store/reports/[a-z-]+-[0-9a-f]{16}\.json": Place.answered,
    r"store/reports/(report\.html|[a-z-]+-[0-9a-f]{16}/.+|lock)": None,
    r"store/imported/[0-9a-f]{16}/set\.safetensors": Place.imported,
    r"store/imported/[0-9a-f]{16}/preview\.png": None,
    r"store/figures/[a-z-]+-[0-9a-f]{16}\.json": Place.figure,
    r"store/queue-.+\.sqlite3": Place.queue,
    r"store/in-use": None,
    r"cache/data/.+\.safetensors": Place.decoded,
    r"cache/native/.+\.(so|sha256)": Place.compiled,
    r"cache/native/.+\.lock": None,
}


def halved(path: Path, whole: bytes) -> None:
    path.write_bytes(whole[: len(whole) // 2])


def flipped(share: float) -> Callable[[Path, bytes], None]:
    def flip(path: Path, whole: bytes) -> None:
        at = int(share * len(whole))
        path.write_bytes(whole[:at] + bytes([byte ^ 1 for byte in whole[at : at + 1]]) + whole[at + 1 :])

    return flip


def replaced(make: Callable[[Path], object]) -> Callable[[Path, bytes], None]:
    def replace(path: Path, whole: bytes) -> None:
        path.unlink()
        make(path)

    return replace


DAMAGES: dict[str, Callable[[Path, bytes], None]] = {
    "truncated": halved,
    **{f"changed at {share}": flipped(share) for share in (0.0, 0.2, 0.5, 0.9)},
    "emptied": lambda path, whole: path.write_bytes(b""),
    "folder": replaced(lambda path: path.mkdir()),
    "link": replaced(lambda path: path.symlink_to("nowhere")),
    "endless": replaced(lambda path: path.symlink_to("/dev/zero")),
    "pipe": replaced(os.mkfifo),
}


def unnamed(name: str, damage: str) -> bool:
    """Whether this damage is one that `store verify` need not name."""
    content = damage in ("truncated", "emptied") or damage.startswith("changed")
    return (
        name.startswith("cache/")  # outside of the store
        or (name.endswith("lock") and content)  # it holds the name of its owner, for people
        or (name.endswith("last_good.safetensors") and damage == "folder")  # not yet in any record
        # sqlite has no checksums: a changed run is noticed by its digest, and an empty queue is a new one
        or (name.endswith(".sqlite3") and content and damage != "truncated")
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    """A filled place."""
    found = Place(tmp_path_factory.mktemp("damage"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FYI_BENCH_CACHE", str(found.root / "cache"))
        toy_runs.known(patch)
        found.fill()
        assert verify(found.store) == []
        yield found


def kinds(place: Place) -> dict[str, list[Path]]:
    """Files of each kind. Fails for a file of none."""
    found: dict[str, list[Path]] = {pattern: [] for pattern in USES}
    for path in sorted(place.root.rglob("*")):
        name = path.relative_to(place.root).as_posix()
        if path.is_file() and name.startswith(("store/", "cache/")):
            [kind] = [pattern for pattern in USES if re.fullmatch(pattern, name)] or pytest.fail(f"new kind: {name}")
            found[kind].append(path)
    return found


class Hung(BaseException):
    """What waits for ever; no handler of errors takes it for one."""


@contextlib.contextmanager
def in_time(seconds: int = 60) -> Iterator[None]:
    """Ends what hangs."""

    def hung(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def damaged(place: Place, path: Path, damage: str) -> Iterator[None]:
    """The file with its damage; its folder is as before afterwards."""
    kept = place.root / "kept"
    shutil.copytree(path.parent, kept, symlinks=True)
    try:
        DAMAGES[damage](path, path.read_bytes())
        yield
    finally:
        shutil.rmtree(path.parent)
        kept.rename(path.parent)


def used(place: Place, path: Path, use: Callable[[Place, Path], Any]) -> Any:
    """What using gives; 'refused' where it ends in words."""
    try:
        return use(place, path)
    except FyiBenchError as error:
        return "refused" if len(str(error).splitlines()) <= 3 else str(error)


def test_every_kind_of_file_is_there(place):
    assert [kind for kind, paths in kinds(place).items() if not paths] == []


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", USES)
def test_damage_is_named_and_gives_no_wrong_number(place, kind, damage):
    use = USES[kind]
    one_of_each_name = {re.sub(r"[0-9a-f]{8,}|\d+", "", path.name): path for path in kinds(place)[kind]}
    for path in one_of_each_name.values():
        name = path.relative_to(place.root).as_posix()
        right = used(place, path, use) if use else None
        with damaged(place, path, damage), in_time():
            faults = [str(fault) for fault in verify(place.store)]
            found = used(place, path, use) if use else None
        if use and not unnamed(name, damage):
            assert any(str(path) in fault or str(path.parent) in fault for fault in faults), name
        assert found in (right, None, "refused"), name
    assert verify(place.store) == []
