"""Decoded images on disk, so that a data set is decoded once and then loads in a fraction of a second.

The folder is `FYI_BENCH_CACHE`, else `~/.cache/fyi-bench`, else (where neither can be written) a private folder
below the system's temporary one. A file is keyed by the resolved folder of its source, the name, size and time of
change (nanoseconds) of every source file, and, for packed sources of at most 64 files, the sha256 of the first and
last 64 KiB of each; a source that was touched is decoded again. Files are written to a temporary name and
renamed, so any number of processes may do so at once. A damaged file is noticed by its checksums and rebuilt.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distill.tensor_file import load_tensors, save_tensors
from fyi_bench.errors import DataError, StoreError
from fyi_bench.files import digest_of

ENVIRONMENT = "FYI_BENCH_CACHE"
_EDGE = 64 * 1024
_PACKED = 64  # sources of more files than this are folders of single images, where size and time must do
_log = logging.getLogger("fyi_bench.data")
Contents = tuple[dict[str, torch.Tensor], dict[str, Any]]


def cache_folder() -> Path:
    """The first folder of the list above that can be written; DataError when there is none."""
    wanted = os.environ.get(ENVIRONMENT)
    candidates = [Path(wanted).expanduser()] if wanted else []
    candidates.append(Path("~/.cache/fyi-bench").expanduser())
    for folder in candidates:
        if _writable(folder):
            return folder
    fallback = Path(tempfile.gettempdir()) / f"fyi-bench-{_user()}"
    if not _writable(fallback) or not _private(fallback):
        raise DataError(f"No folder for decoded images can be written.\nName one with {ENVIRONMENT}=DIR.")
    _log.warning("%s cannot be written: decoded images go to %s", candidates[0], fallback)
    return fallback


def cached(name: str, key: Any, make: Callable[[], Contents]) -> Contents:
    """The tensors and metadata stored under (name, key), made and stored first where they are absent or damaged.

    `key` is JSON-able. Metadata read back from a file has the checked sha256 of each tensor under "sha256". Where
    nothing can be written the data is made each time, with a warning.
    """
    digest = digest_of(key)
    try:
        path = cache_folder() / "data" / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}-{digest}.safetensors"
    except DataError as error:
        _log.warning("%s", error)
        return make()
    if path.exists():
        try:
            return load_tensors(path)
        except DataError as error:
            _log.warning("%s It is rebuilt from the source.", str(error).splitlines()[0])
    tensors, metadata = make()
    try:
        save_tensors(path, tensors, metadata)
    except StoreError as error:
        _log.warning("%s\nThe images were not cached and will be decoded again next time.", str(error).splitlines()[0])
    return tensors, metadata


def fingerprint(files: list[Path], base: Path) -> dict[str, Any]:
    """What identifies source files without reading them whole; `base` is the folder their names are relative to."""
    packed = len(files) <= _PACKED
    facts = []
    for path in sorted(files):
        try:
            status = path.stat()
            name = path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()
            facts.append([name, status.st_size, status.st_mtime_ns, _edges(path, status.st_size) if packed else ""])
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.\nCheck the file and its permissions.") from error
    return {"base": str(base.resolve()), "files": digest_of(facts), "count": len(facts)}


def _edges(path: Path, size: int) -> str:
    with open(path, "rb") as handle:
        sha = hashlib.sha256(handle.read(_EDGE))
        handle.seek(max(0, size - _EDGE))
        sha.update(handle.read(_EDGE))
    return sha.hexdigest()


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _private(folder: Path) -> bool:
    """Whether nobody else could have put files there: the temporary folder is shared with other users."""
    status = folder.lstat()
    owned = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return stat.S_ISDIR(status.st_mode) and owned and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "user"
