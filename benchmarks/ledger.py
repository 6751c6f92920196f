"""Every measured round in a file, so that a benchmark goes on where its budget ended."""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.case import Case
from benchmarks.jsonl import append_line, read_lines
from benchmarks.measure import Machine, Round
from fyi_bench.files import digest_of, tree_digest
from fyi_bench.store.record import environment
from search_space import native

FOLDER, FILE = "bench", "rounds.jsonl"


class Ledger:
    """Rounds by key; a key stands for one case with its sides on one machine, source and set of versions."""

    def __init__(self, store: Path):
        self.folder = store / FOLDER
        self._rounds: dict[str, list[Round]] = defaultdict(list)
        for line in read_lines(self.folder / FILE):
            if line.get("void"):
                self._rounds.pop(line["key"], None)
            else:
                self._rounds[line["key"]].append(line["sides"])

    def rounds(self, key: str) -> list[Round]:
        """What was measured under the key, in order."""
        return list(self._rounds[key])

    def add(self, key: str, case: Case, sides: Round) -> None:
        """Keep a round."""
        append_line(self.folder / FILE, {"key": key, "case": case.describe(), "sides": sides})
        self._rounds[key].append(sides)

    def void(self, keys: Iterable[str]) -> None:
        """Measure these anew; the old lines stay in the file."""
        for key in keys:
            if self._rounds.pop(key, None):
                append_line(self.folder / FILE, {"key": key, "void": True})


@functools.cache
def _own_digest() -> str:
    return tree_digest([Path(__file__).parent])


def key_of(case: Case, machine: Machine, sides: Iterable[str], **more: Any) -> str:
    """Digest of everything that may change how long the case takes: every packaged file and this folder among it."""
    here = environment(machine.device)
    facts = {name: here[name] for name in ("versions", "device_name", "cores", "source_digest")}
    facts["benchmarks"] = _own_digest()
    return digest_of(
        {"case": case.describe(), "device": machine.device, "threads": machine.threads, "sides": list(sides),
         "real": str(machine.data_root), "native": os.environ.get(native.SWITCH, "1") != "0", **facts, **more}
    )  # fmt: skip
