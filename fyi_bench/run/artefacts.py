"""Finished runs that travel between machines without a shared folder, through an Optuna artifact store.

A run folder is packed into one zip named by kind and digest, so that putting it twice changes nothing; what arrives is
checked against its record before it counts. Places: a folder, `s3://bucket/prefix` (needs boto3),
`gs://bucket/prefix` (needs google-cloud-storage).
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import DataError, StoreError, UnknownNameError, UsageError
from fyi_bench.files import write_bytes
from fyi_bench.store.merge import merge
from fyi_bench.store.run_dir import DONE, LOCK
from fyi_bench.store.store import Store

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

_EARLIEST = (1980, 1, 1, 0, 0, 0)  # zip's own epoch: the same run gives the same bytes


class Artefacts:
    """Packed run folders in one place."""

    def __init__(self, backend: ArtifactStore, prefix: str, place: str):
        self._backend, self._prefix, self.place = backend, prefix, place
        self._there: set[str] = set()

    @staticmethod
    def open(place: str) -> Artefacts:
        """The artefacts at a folder or a URL. Raises UsageError for an unknown kind of place or a missing library."""
        scheme, colon, rest = place.partition("://")
        if not colon:
            return _folder(place)
        if scheme not in _PLACES:
            raise UnknownNameError("kind of place for artefacts", scheme, [*_PLACES, "a folder"])
        try:
            return _PLACES[scheme](rest.rstrip("/"), place)
        except ImportError as error:
            raise UsageError(f"{place} needs the library {error.name}.\nInstall it, or give a shared folder.") from None

    @staticmethod
    def check(place: str) -> None:
        """Raise what `open` would for a place that cannot be one, without making a folder."""
        if "://" in place:
            Artefacts.open(place)
            return
        folder = Path(place).absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise StoreError(f"The folder {place} of artefacts cannot be made in {there}.\nChoose another --artefacts.")

    def put(self, store: Store, kind: str, digest: str) -> None:
        """Give out a finished run of the store; nothing happens when it is there already."""
        name = self._name(kind, digest)
        if name in self._there or self._has(name):
            return
        try:
            self._backend.write(name, io.BytesIO(pack(store.root / kind / digest)))
        except Exception as error:  # each kind of place has errors of its own
            raise StoreError(f"{self.place} did not take {name}: {error}.\nIs it writable, is there room?") from error
        self._there.add(name)

    def bring(self, store: Store, kind: str, digest: str, optional: bool = False) -> bool:
        """Merge a run into the store unless it has it; whether it has it now. A missing one is a StoreError."""
        from optuna.artifacts.exceptions import ArtifactNotFound

        done = store.root / kind / digest / DONE
        if done.exists():
            return True
        name = self._name(kind, digest)
        with tempfile.TemporaryDirectory(prefix="fyi-bench-") as folder:
            packed, place = Path(folder) / "packed.zip", Path(folder) / "store"
            try:
                with self._backend.open_reader(name) as reader, open(packed, "wb") as writer:
                    shutil.copyfileobj(reader, writer)
            except ArtifactNotFound:
                if optional:
                    return False
                raise StoreError(
                    f"{self.place} has no {kind} run {digest}.\n"
                    "It is put there by the command that enqueues: run it again."
                ) from None
            except Exception as error:  # each kind of place has errors of its own
                raise StoreError(f"{self.place} did not give {name}: {error}.\nCan it be reached and read?") from error
            unpack(packed, place / kind / digest)
            report = merge(store, place)
        if not done.exists():
            raise StoreError(
                f"The {kind} run {digest} in {self.place} is not whole: {'; '.join(report.lines())}.\nRemove it there."
            )
        return True

    def _has(self, name: str) -> bool:
        from optuna.artifacts.exceptions import ArtifactNotFound

        try:
            self._backend.open_reader(name).close()
        except ArtifactNotFound:
            return False
        return True

    def _name(self, kind: str, digest: str) -> str:
        return f"{self._prefix}{kind}-{digest}.zip"


def pack(folder: Path) -> bytes:
    """A run folder as a zip, without its lock; equal folders give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name != LOCK and not name.endswith(".tmp"):
                packed.writestr(zipfile.ZipInfo(name, _EARLIEST), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def unpack(packed: Path, folder: Path) -> None:
    """Write the files of a packed run into a new folder. Raises StoreError for what is none, or more than there is room
    for."""
    from fyi_bench.formats.unpacking import unpack as unpack_archive

    try:
        folder.mkdir(parents=True)
        unpack_archive(packed, folder, shutil.disk_usage(folder).free)
    except (DataError, OSError) as error:
        cause = str(error).splitlines()[0].rstrip(".")
        raise StoreError(f"A run that was brought is damaged: {cause}.\nRemove it there and run again.") from error


def _folder(place: str) -> Artefacts:
    from optuna.artifacts import FileSystemArtifactStore

    class Folder(FileSystemArtifactStore):
        """Optuna's folder, but what is in it is whole: a kill while writing leaves nothing under the final name."""

        def write(self, artifact_id: str, content_body: Any) -> None:
            write_bytes(Path(place) / artifact_id, content_body.read())

    try:
        Path(place).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"The folder {place} of artefacts cannot be made: {error.strerror or error}.") from error
    return Artefacts(Folder(place), "", place)


def _s3(rest: str, place: str) -> Artefacts:
    import boto3  # noqa: F401  Optuna reports its absence only later, and less plainly
    from optuna.artifacts import Boto3ArtifactStore

    bucket, _, prefix = rest.partition("/")
    return Artefacts(Boto3ArtifactStore(bucket), f"{prefix}/" if prefix else "", place)


def _gs(rest: str, place: str) -> Artefacts:
    import google.cloud.storage  # noqa: F401
    from optuna.artifacts import GCSArtifactStore

    bucket, _, prefix = rest.partition("/")
    return Artefacts(GCSArtifactStore(bucket), f"{prefix}/" if prefix else "", place)


_PLACES: dict[str, Callable[[str, str], Any]] = {"s3": _s3, "gs": _gs}
