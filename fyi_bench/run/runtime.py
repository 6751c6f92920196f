"""Process-wide settings, made in one place at the start of a command or a worker."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

_TOP_PAD = 64 * 2**20
_TRIM_THRESHOLD = 2**31 - 1


def prepare(threads: int) -> None:
    """Tune the allocator and set torch's threads; called once before numerical work, never at import."""
    tune_allocator()
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import torch

    torch.set_num_threads(threads)


def set_threads(threads: int | None) -> None:
    """Let torch compute with so many threads from now on; None changes nothing."""
    if threads is not None:
        prepare(threads)


def tune_allocator() -> bool:
    """Tell glibc to keep big freed blocks instead of returning them to the system at every step.

    Training frees and asks for the same tens of megabytes each step; handing them back costs page faults that
    make unchanged code about 1.6 times slower. Returns whether the allocator understood (glibc only).
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
    wanted = ((m_mmap_max, 0), (m_trim_threshold, _TRIM_THRESHOLD), (m_top_pad, _TOP_PAD))
    accepted = [mallopt(option, value) for option, value in wanted]  # each is tried, whatever the others say
    return all(code == 1 for code in accepted)


def release_memory() -> None:
    """Give free memory back to the system once, at the end of something that does not come again (planning, say)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # other C libraries have no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
