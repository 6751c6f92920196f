"""A C++ source file as a library: compiled at first use, kept per machine, or absent with one line saying so.

The library is named by a digest of the source, the compiler, the flags and the processor, so that a changed file, an
upgraded compiler or another machine on the same home directory gets its own. It is written beside its final name and
moved there in one step, with its sha256 beside it; one that is not as it was compiled is compiled anew. Of several
processes one compiles and the others wait.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from fyi_bench.files import read_small, sha256_file

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# vectors are written out in the sources: the compiler need not look for more
FLAGS = ("-std=c++17", "-O3", "-fno-tree-vectorize", "-march=native", "-fPIC", "-shared")
THREADS = "-fopenmp"
SWITCH = "FYI_BENCH_NATIVE"  # 0: do without
SOURCES = ("norm_act_pool", "patches", "winograd")  # what nearly every network uses
_SECONDS = 300
_UNCOMPILED = ContextVar("uncompiled", default=False)
_IN_USE: dict[str, str] = {}  # name of a loaded library -> digest of its source


@functools.cache
def library(source: Path) -> ctypes.CDLL | None:
    """The compiled library of a source file, or None where it cannot be had (the reason is printed once)."""
    if os.environ.get(SWITCH, "1") == "0":
        return None
    compiler = _compiler()
    if compiler is None:
        return _without("There is no C++ compiler (g++ or clang++) on the PATH")
    try:
        path = _folder() / f"{source.stem}-{_digest(source, compiler)}.so"
        with _alone(path.with_suffix(".lock")):  # of its own: who has all wanted ones waits for nobody's compiler
            if not _whole(path):
                _compile(source, compiler, path)
        loaded = ctypes.CDLL(str(path))
        _IN_USE[source.stem] = hashlib.sha256(_text(source).encode()).hexdigest()[:16]
        return loaded
    except (OSError, subprocess.SubprocessError) as error:
        return _without(f"{source.name}: {_reason(error)}")


def call(source: Path, name: str, kind: torch.dtype, sizes: Sequence[int], *tensors: Tensor | None) -> None:
    """The function `name` of a loaded library for numbers of this kind: whole numbers first, then where tensors lie."""
    function = getattr(library(source), f"{name}_{str(kind).removeprefix('torch.')}")
    pointers = [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]
    function((ctypes.c_int64 * len(sizes))(*sizes), *pointers)


def channels_last(maps: Tensor) -> Tensor:
    """Maps [N, C, H, W] as the libraries read them: without graph, channels last in memory."""
    import torch

    return maps.detach().contiguous(memory_format=torch.channels_last)


def missing() -> list[str]:
    """Names of the operations that this process does without: PyTorch's own give other bits. May compile them first.

    Within `uncompiled` nothing is compiled, and where there is a compiler it is taken to work.
    """
    if _UNCOMPILED.get():
        return list(SOURCES) if os.environ.get(SWITCH, "1") == "0" or _compiler() is None else []
    return [name for name in SOURCES if library(Path(__file__).with_name(f"{name}.cpp")) is None]


def in_use() -> str:
    """The libraries this process has loaded, each as name-digest of its source (16 hex digits), or "none"."""
    return ", ".join(f"{name}-{digest}" for name, digest in sorted(_IN_USE.items())) or "none"


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Plan without compiling anything."""
    before = _UNCOMPILED.set(True)
    try:
        yield
    finally:
        _UNCOMPILED.reset(before)


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "")) or shutil.which("g++") or shutil.which("clang++")


@functools.cache
def _without(reason: str) -> None:
    """Say so, once whatever the number of sources."""
    print(f"{reason}; PyTorch's own operations are used, a third as fast on a CPU.", file=sys.stderr)


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    return (said.strip().splitlines() or [type(error).__name__])[0]


def _folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "fyi-bench" / "native"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _digest(source: Path, compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=_SECONDS)
    parts = (_text(source), compiler, version.stdout, *FLAGS, THREADS, _processor())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _text(source: Path) -> str:
    """The source with the headers beside it, whichever it includes."""
    return "\0".join(path.read_text() for path in (source, *sorted(source.parent.glob("*.h"))))


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "cpu family", "model", "stepping", "flags", "Features")
    found = {line.split(":")[0].strip(): line for line in reversed(lines) if line.split(":")[0].strip() in wanted}
    return "\n".join(sorted(found.values())) or platform.machine()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time, where the system has such locks; elsewhere several may do the same work."""
    with open(path, "w") as handle:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _whole(path: Path) -> bool:
    """Whether the library is there as it was compiled: a byte changed since could change numbers without a word."""
    try:
        known = read_small(_sum_of(path)).decode(errors="replace").strip()
        return path.is_file() and known == sha256_file(path)
    except OSError:
        return False


def _sum_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _compile(source: Path, compiler: str, path: Path) -> None:
    print(f"Compiling {source.name} once for this machine (some seconds) …", file=sys.stderr)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".so")
    os.close(handle)
    try:
        command = [compiler, *FLAGS, THREADS, "-o", name, str(source)]
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS)
        _sum_of(path).unlink(missing_ok=True)
        os.replace(name, path)
        _sum_of(path).write_text(sha256_file(path) + "\n")
    finally:
        Path(name).unlink(missing_ok=True)
