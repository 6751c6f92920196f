"""Mutated files for every reader: `python -m tests.fuzz 1000000` prints how many were read, refused, slow or uncaught.

A reader may take a file or refuse it in the project's own words; anything else is a find, and is kept in
`tests/attacks/found`, which every run begins with. Half of the changes strike bytes; the others strike below the
checksums, which are then made anew. Each mutation follows from the seed and its number, so that
`build/fuzz-<seed>.json` is all that the same command needs to go on. A reader that takes the process down is found too.
"""

from __future__ import annotations

import argparse
import math
import mmap
import os
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fyi_bench.duration import parse_duration
from fyi_bench.errors import FyiBenchError, printable
from fyi_bench.files import read_table, write_json
from tests.fuzz_files import HEAVY, LIGHT, READERS, deep, place_of, seeds

CORPUS = Path(__file__).parent / "attacks" / "found"
STATE = Path(__file__).resolve().parent.parent / "build"
SLOW_S, MOST_MIB = 2.0, 1024
LIGHT_TURNS, BATCH = 10, 5000
TURNS = [*HEAVY, *list(LIGHT) * LIGHT_TURNS]  # of whose file each mutation is, over and over
INTERESTING = (
    b"\x00", b"\xff", b"[" * 3000, b"{" * 500, b"1e999", b"-1", b"9" * 25, b"null", b"\x80\x04", b"NaN", b'""',
)  # fmt: skip


def mutate(content: bytes, draw: random.Random) -> bytes:
    """The file with one to four things changed: bytes, numbers, parts cut, doubled or put in."""
    found = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(found) + 1) if draw.random() < 0.5 else draw.randrange(min(len(found), 600) + 1)
        match draw.randrange(6):
            case 0 if at < len(found):
                found[at] ^= 1 << draw.randrange(8)
            case 1:
                found[at : at + draw.choice((1, 4, 8))] = draw.randbytes(draw.choice((1, 4, 8)))
            case 2:
                del found[at : at + draw.randrange(1, 64)]
            case 3:
                found[at:at] = draw.choice(INTERESTING)
            case 4:
                found[at:at] = found[at : at + draw.randrange(1, 64)]
            case _:
                digits = [i for i in range(at, min(len(found), at + 200)) if 48 <= found[i] <= 57]
                if digits:
                    found[digits[0]] = 48 + draw.randrange(10)
    return bytes(found)


def mutation(number: int, seed: int, whole: dict[str, bytes]) -> tuple[str, bytes]:
    """Name and content of the mutated file of this number."""
    name, draw = TURNS[number % len(TURNS)], random.Random(seed * 10**9 + number)
    change = deep(name)
    if change is not None and draw.random() < 0.5:
        return name, change(whole[name], draw, mutate)
    return name, mutate(whole[name], draw)


def tried(path: Path, name: str) -> str:
    """'read', 'refused', or the find: 'slow …', 'large …', 'uncaught …'."""
    began, before = time.process_time(), _peak_mib()  # a busy machine is no fault of a reader
    try:
        READERS[name](path)
        ended = "read"
    except FyiBenchError as error:
        words = printable(error)  # as a terminal gets them
        ended = "refused" if len(words.splitlines()) <= 3 else f"uncaught long words: {words[:60]}"
    except Exception as error:
        first = str(error).splitlines()[0][:80] if str(error) else ""
        ended = printable(f"uncaught {type(error).__name__}: {first}")
    spent, grown = time.process_time() - began, _peak_mib() - before
    if not ended.startswith("uncaught") and spent > SLOW_S:
        return f"slow {spent:.1f} s"
    return f"large {grown:.0f} MiB" if grown > MOST_MIB / 2 and not ended.startswith("uncaught") else ended


def fuzz(numbers: Sequence[int], seed: int = 0, keep: bool = True, reached: Any = None) -> Counter[str]:
    """Try the mutations of these numbers; how each ended. reached: memory that is told the number under way."""
    found: Counter[str] = Counter()
    with _folder() as place:
        whole, tries = seeds(_made(Path(place) / "whole")), Path(place) / "tried"
        paths = {name: place_of(name, Path(place) / "whole", tries) for name in READERS}
        for number in numbers:
            name, content = mutation(number, seed, whole)
            paths[name].write_bytes(content)
            if reached is not None:
                struct.pack_into("q", reached, 0, number)
            ended = tried(paths[name], name)
            found[_noted(ended, name)] += 1
            if keep and ended not in ("read", "refused"):
                _keep(name, f"{seed}-{number}", content)
    return found


def corpus() -> Counter[str]:
    """Try the files that were once finds."""
    found: Counter[str] = Counter()
    with _folder() as place:
        seeds(_made(Path(place) / "whole"))
        for kept in sorted(CORPUS.glob("*/*.bin")):
            name = kept.parent.name.replace("__", "/")
            path = place_of(name, Path(place) / "whole", Path(place) / "tried")
            path.write_bytes(kept.read_bytes())
            found[_noted(tried(path, name), name)] += 1
    return found


def long(count: int, seed: int, budget_s: float) -> Counter[str]:
    """The corpus and the first `count` mutations, those of earlier calls not again, until the time is up."""
    began, state = time.monotonic(), STATE / f"fuzz-{seed}.json"
    known = read_table(state) if state.exists() else {"next": 0, "found": {}, "peak_mib": 0.0}
    found: Counter[str] = Counter(known["found"])
    while known["next"] < count and time.monotonic() - began < budget_s:
        numbers = range(known["next"], min(count, known["next"] + BATCH))
        ended, reached = _apart(numbers, seed)
        found.update(ended)
        peak = max(known["peak_mib"], resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
        known = {"next": reached, "found": dict(found), "peak_mib": peak}
        write_json(state, known)
    print(f"{known['next']:,} mutated files of {len(READERS)} kinds, at most {known['peak_mib']:.0f} MiB")
    if known["peak_mib"] > MOST_MIB:
        found[f"large: {known['peak_mib']:.0f} MiB"] += 1
    return found + corpus()


def _apart(numbers: range, seed: int) -> tuple[Counter[str], int]:
    """The mutations tried in a process of their own: how they ended, and the number to go on from."""
    reached, result = mmap.mmap(-1, 8), STATE / f"fuzz-{seed}-part.json"
    struct.pack_into("q", reached, 0, numbers.start)
    result.unlink(missing_ok=True)
    STATE.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            write_json(result, dict(fuzz(numbers, seed, reached=reached)))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if status == 0:
        return Counter(read_table(result)), numbers.stop
    number = struct.unpack("q", reached)[0]
    with _folder() as place:
        name, content = mutation(number, seed, seeds(_made(Path(place))))
    _keep(name, f"{seed}-{number}", content)
    died = Counter({f"{name}: uncaught death of the process ({os.waitstatus_to_exitcode(status)})": 1})
    before, _ = _apart(range(numbers.start, number), seed) if number > numbers.start else (Counter(), 0)
    return before + died, number + 1


def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder in memory, where there is one."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _keep(name: str, label: str, content: bytes) -> None:
    kept = CORPUS / name.replace("/", "__") / f"{label}.bin"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(content)


def _noted(ended: str, name: str) -> str:
    return ended if ended in ("read", "refused") else f"{name}: {ended}"


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("count", type=int, nargs="?", default=10_000)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--budget", type=parse_duration, default=math.inf)
    given = asked.parse_args()
    results = long(given.count, given.seed, given.budget)
    for ending, times in results.most_common():
        print(f"{times:>9,}  {ending}")
    sys.exit(any(ending not in ("read", "refused") for ending in results))
