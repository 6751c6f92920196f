"""One worker per run folder: an advisory `flock` that the system frees the moment its owner dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fyi_bench.errors import StoreError
from fyi_bench.files import read_table

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0
_SILENT_WAIT = 0.2  # a listing holds the lock for an instant; that is not worth a message
_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN)

_held: dict[tuple[int, int], tuple[int, int]] = {}  # (device, inode) -> (descriptor, thread)
_guard = threading.Lock()
_watching_forks = False


class FolderLock:
    """Exclusive lock on `folder/lock`; the file names its owner for the people who look.

    Waiting is polling, so that a budget or an interrupt can end it and the deadlock of a process with itself is
    noticed. The file stays when the lock is freed: removing a locked file would let two owners in.
    """

    def __init__(self, folder: Path):
        self.path = folder / "lock"
        self._descriptor: int | None = None
        self._process = 0

    def acquire(self, check: Callable[[], None] | None = None, on_wait: Callable[[str], None] | None = None) -> None:
        """Wait until the lock is ours. `check()` is called meanwhile and may raise; `on_wait(line)` once at most.

        Raises StoreError where the folder cannot be written or the file system has no locks.
        """
        began, pause, told = time.monotonic(), _FIRST_WAIT, False
        while not self.try_acquire():
            if not told and time.monotonic() - began >= _SILENT_WAIT:
                told = True
                if on_wait is not None:
                    on_wait(f"Waiting for {self.owner()}, which works on the same job in {self.path.parent}.")
            if check is not None:
                check()
            time.sleep(pause)
            pause = min(_LONGEST_WAIT, pause * 1.5)

    def try_acquire(self) -> bool:
        """Take the lock if it is free now; the folder is made if need be."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
        except OSError as error:
            raise StoreError(_cannot(self.path, error)) from error
        try:
            taken = self._take(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if not taken:
            os.close(descriptor)
        return taken

    def _take(self, descriptor: int) -> bool:
        opened = os.fstat(descriptor)
        key = (opened.st_dev, opened.st_ino)
        with _guard:
            if _held.get(key, (0, 0))[1] == threading.get_ident():
                raise StoreError(f"{self.path.parent} is already open in this very thread.\nClose the first run of it.")
        if not _flock(self.path, descriptor, fcntl.LOCK_EX):
            return False
        if not _same_file(self.path, opened):  # the folder was removed while we waited: this lock guards nothing
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            return False
        owner = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n"
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, owner.encode(), 0)
        except OSError as error:
            raise StoreError(_cannot(self.path, error)) from error
        with _guard:
            _held[key] = (descriptor, threading.get_ident())
            _watch_forks()
        self._descriptor, self._process = descriptor, os.getpid()
        return True

    def release(self) -> None:
        """Free the lock; doing so twice is harmless."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None or self._process != os.getpid():  # a forked helper leaves its parent's lock alone
            return
        with _guard:
            for key in [key for key, (held, _) in _held.items() if held == descriptor]:
                del _held[key]
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    def owner(self) -> str:
        """'process 1234 on host', as far as the lock file tells."""
        try:
            facts = read_table(self.path)
            return f"process {int(facts['pid'])} on {facts['host']}"
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return "another process"

    def held_by_someone(self) -> bool:
        """Whether some process holds the lock now; needs no permission to write."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe in its place must not hang us
        except OSError:
            return False
        try:
            return not _flock(self.path, descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextlib.contextmanager
def in_use(folder: Path, alone: bool = False) -> Iterator[bool]:
    """Hold the folder's `in-use`, with others that do, or alone where nobody does; whether it could be had.

    Not alone, this waits for who is alone. In a folder that may only be read, and on a file system without locks,
    everybody has it.
    """
    try:
        descriptor = os.open(folder / "in-use", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
    except OSError:
        yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        had = True
    except OSError as error:
        had = error.errno not in _BUSY
    try:
        yield had
    finally:
        os.close(descriptor)


def _flock(path: Path, descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise StoreError(
            f"The file system of {path.parent} has no locks ({error.strerror}).\n"
            "Give a --store on a local disk and bring the results here with `fyi-bench store merge`."
        ) from error
    return True


def _same_file(path: Path, opened: os.stat_result) -> bool:
    try:
        now = os.stat(path)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (opened.st_dev, opened.st_ino)


def _watch_forks() -> None:
    """A forked helper must not keep the lock alive after its parent: it closes its copy (which frees nothing)."""
    global _watching_forks
    if not _watching_forks:
        _watching_forks = True
        os.register_at_fork(after_in_child=_close_copies)


def _close_copies() -> None:
    global _guard
    _guard = threading.Lock()  # another thread may have held it at the moment of the fork
    for descriptor, _ in _held.values():
        os.close(descriptor)
    _held.clear()


def _cannot(path: Path, error: OSError) -> str:
    return (
        f"Could not write {path}: {error.strerror or error}.\n"
        "Make the folder writable and see that the disk has room, or choose another --store."
    )
