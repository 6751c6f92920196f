"""What the readers of foreign files share: the size budget, and one line of an error for a message."""

from __future__ import annotations

from pathlib import Path

from fyi_bench.errors import DataError

# Bytes a file may unpack to. The largest published sets have several experiments of 10,000 images of 64 px: 2.5 GB.
SIZE_BUDGET = 8 * 2**30
DAMAGED = "It is truncated or damaged: copy or download it again."


def check_size(path: Path, nbytes: int, budget: int) -> None:
    """DataError where `nbytes`, declared by a file that is not yet read, are more than the budget."""
    if nbytes > budget:
        raise DataError(
            f"{path} declares {size_text(nbytes)}; at most {size_text(budget)} are read.\n"
            "A condensed set is far smaller: check the file, or raise max_bytes if it is what you want."
        )


def size_text(nbytes: int) -> str:
    """Bytes for people: '12 bytes', '3.1 MiB', '8.0 GiB'."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if nbytes >= size:
            return f"{nbytes / size:,.1f} {unit}"
    return f"{nbytes} bytes"


def first_line(error: Exception) -> str:
    """The first line of an error's text, shortened, without a full stop."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")[:200]
