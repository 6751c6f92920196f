"""The options shared by every command, as one frozen object for CLI, files and Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fyi_bench.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("fp32", "bf16")
PROTOCOL_BY_DEVICE = {"cpu": "quick", "cuda": "paper"}


@dataclass(frozen=True)
class Settings:
    """How and where to work; what to compute comes from the command.

    data_root: folder of real data (None: FYI_BENCH_DATA, then ./data). store: folder of results (None:
    FYI_BENCH_STORE, then ./runs). protocol 'auto' is 'paper' on a GPU and 'quick' on a CPU.
    seed: first seed; seeds: how many independently distilled sets (None: as the protocol says).
    workers: processes that share the cells (None: one a core on a CPU, else 1); threads: of each worker (None: what
    `threads_for` says). overrides: `--set key=value`, any key of the recipe or the protocol.
    budget: seconds after which to checkpoint and stop, or None.
    """

    dataset: str = "cifar10"
    data_root: Path | None = None
    store: Path | None = None
    protocol: str = "auto"
    device: str = "auto"
    precision: str = "fp32"
    seed: int = 0
    seeds: int | None = None
    workers: int | None = None
    threads: int | None = None
    budget: float | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise UsageError(f"Unknown device '{self.device}'.\nKnown: {', '.join(DEVICES)}.")
        if self.precision not in PRECISIONS:
            raise UsageError(f"Unknown precision '{self.precision}'.\nKnown: {', '.join(PRECISIONS)}.")
        for name in ("seeds", "workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be 1 or more, not {value}.")

    def resolved(self) -> Settings:
        """The same with every 'auto', and None but that of the threads, replaced by what it is on this machine.

        Raises UsageError for a device that is not there.
        """
        device = self.device if self.device == "cpu" else _default_device()
        if self.device not in ("auto", device):
            raise UsageError("There is no CUDA device here.\nUse --device auto, or leave it out.")
        name = PROTOCOL_BY_DEVICE[device] if self.protocol == "auto" else self.protocol
        return replace(
            self,
            device=device,
            protocol=name,
            store=self.store or Path(os.environ.get("FYI_BENCH_STORE", "runs")),
            workers=self.workers or (_cores() if device == "cpu" else 1),
        )

    def threads_for(self, cells: int) -> int:
        """Threads of each worker for a stage of so many cells: on a CPU the cores are shared out among the cells.

        Networks side by side with a thread each are faster than one after the other with all threads. Another number of
        threads may change a last bit: so it does not depend on the workers, nor on how many cells are done already, and
        under `quick` it is 1 on every machine.
        """
        if self.threads is not None:
            return self.threads
        if self.protocol == "quick" and self.device == "cpu":
            return 1
        return _cores() if self.device == "cuda" else max(1, _cores() // max(1, cells))


def parse_overrides(pairs: list[str]) -> dict[str, str]:
    """`key=value` texts of --set as a dict. Raises UsageError for anything else."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"'{pair}' is not key=value.\nWrite for instance --set lr_img=1.0.")
        found[key.strip()] = value.strip()
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
