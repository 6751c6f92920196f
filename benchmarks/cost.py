"""What a command costs with all its processes: `python -m benchmarks.cost fyi-bench card SET` (Linux).

Printed after the command's own words: processor seconds of all its processes, seconds by the clock, and the most memory
they held at one moment (proportional set size: what they share counts once).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

_SUBREAPER = 36  # prctl: orphans of the command become children of this process, which waits for them
_EVERY_S = 1.0


def held(session: int) -> int:
    """KiB of memory that the processes of a session hold together."""
    total = 0
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):  # one that has just ended
            if os.getsid(int(each.name)) == session:
                lines = (each / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def main(words: list[str]) -> int:
    """Run the command, print what it cost, and give its exit status."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    began, most = time.monotonic(), 0
    command = subprocess.Popen(words, start_new_session=True)
    while command.poll() is None:
        most = max(most, held(command.pid))
        time.sleep(_EVERY_S)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{used.ru_utime + used.ru_stime:.0f} processor seconds, {time.monotonic() - began:.0f} s by the clock,"
        f" at most {most / 2**20:.2f} GiB at one moment"
    )
    return command.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
