"""Who holds a run: a process of a machine, told apart from every other one, before and after a restart."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import socket
from pathlib import Path


def this_process() -> str:
    """Who holds a run: machine and process, and a name for people."""
    return f"{_machine()}:{os.getpid()}:{_start_of(os.getpid())}:{socket.gethostname()}"


def is_gone(holder: str | None) -> bool:
    """Whether a holder was a process of this very machine that no longer runs; never a guess about other machines."""
    if holder is None:
        return False
    machine, pid, start, _ = holder.split(":", 3)
    return machine == _machine() and _start_of(int(pid)) != start


def worker_words(holder: str | None) -> str:
    """'process 12 on host'."""
    if holder is None:
        return "(not known)"
    _, pid, _, host = holder.split(":", 3)
    return f"process {pid} on {host}"


@functools.cache
def _machine() -> str:
    """Differs between machines, boots and containers, so that a process number means what it says."""
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _start_of(pid: int) -> str:
    """When a process started, in ticks since the boot; '' for none (a zombie counts as none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
