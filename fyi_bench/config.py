"""Options: how one is declared, and those that every command that computes has, as one frozen object.

Command line and Python API are generated from such dataclasses, so a default and a help text are written once.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fyi_bench.duration import parse_duration
from fyi_bench.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
MOST = 1024  # seeds, workers, threads
PRECISIONS = ("fp32", "bf16", "auto")
PROTOCOL_BY_DEVICE = {"cpu": "quick", "cuda": "paper"}


@dataclass(frozen=True)
class Option:
    """How a field of an options dataclass is asked for. help: one line.

    flag: the word on the command line, default `--name-of-the-field`. argument: placeholder of a positional one
    ('SET'), instead of a flag. environment: variable that gives the value where nothing else does. parse: text of the
    command line -> value. names: 'module:function' that says how a name is spelled here, given in any case.
    advanced: listed in the last panel of the help. panel: title of another one it is listed in.
    """

    help: str
    flag: str = ""
    argument: str = ""
    environment: str = ""
    parse: Callable[[Any], Any] | None = None
    names: str = ""
    advanced: bool = False
    panel: str = ""


# what spells the names of these; nothing is imported before one is given
METHOD_NAMES, FLIP_NAMES = "distill.methods:METHODS.spelled", "distill.fyi:FLIPS.spelled"
ARCHITECTURE_NAMES, PROTOCOL_NAMES = "search_space.architectures:spelled", "downstream.protocol:spelled"
DATASET_NAMES = "fyi_bench.data.entry:spelled"


def option(default: Any, help: str, **how: Any) -> Any:
    """A field of an options dataclass. how: further fields of `Option`. A field of type tuple takes several values.

    A field without a default is required: give `dataclasses.MISSING`.
    """
    kept = {"default_factory": lambda: dict(default)} if isinstance(default, dict) else {"default": default}
    return dataclasses.field(**kept, metadata={"option": Option(help, **how)})


def options_of(kind: type) -> dict[str, tuple[dataclasses.Field, Option]]:
    """The fields of an options dataclass that a user can set, in their order, by name."""
    return {f.name: (f, f.metadata["option"]) for f in dataclasses.fields(kind) if "option" in f.metadata}


def _overrides_of(pairs: Any) -> Any:
    return parse_overrides([f"{key}={value}" for key, value in pairs.items()] if isinstance(pairs, Mapping) else pairs)


def _seconds_of(text: Any) -> Any:
    return parse_duration(text) if isinstance(text, str) else text


@dataclass(frozen=True)
class Settings:
    """How and where to work; what to compute comes from the task's own options.

    None means: as the help of the field says. `resolved` fills in what this machine gives.
    """

    dataset: str = option(
        "cifar10", "Data set; `fyi-bench ls datasets` lists them. For a set in a file: what it states.",
        names=DATASET_NAMES,
    )  # fmt: skip
    data_root: Path | None = option(
        None, "Folder of real data sets; default: ./data.", environment="FYI_BENCH_DATA"
    )  # fmt: skip
    store: Path | None = option(None, "Folder of results; default: ./runs.", environment="FYI_BENCH_STORE")
    protocol: str = option(
        "auto", "auto: paper on a GPU, quick on a CPU; or a name of `fyi-bench ls protocols`.", names=PROTOCOL_NAMES
    )  # fmt: skip
    seed: int = option(0, "First seed.")
    seeds: int | None = option(None, "How many distilled sets, or class orders; default: as the protocol says.")
    overrides: Mapping[str, str] = option(
        {}, "key=value of the recipe or the protocol; may be repeated.", flag="--set", parse=_overrides_of
    )  # fmt: skip
    budget: float | None = option(
        None, "Stop cleanly in time, such as 9m; the next call goes on.", parse=_seconds_of
    )  # fmt: skip
    device: str = option("auto", "auto, cpu or cuda.")
    devices: tuple[str, ...] = option((), "GPUs to use, such as cuda:0 cuda:1; default: all.", advanced=True)
    precision: str = option("fp32", "fp32; bf16, where first derivatives are enough; auto: the faster of them here.")
    workers: int | None = option(
        None, "Processes that share the work; default: one per core or GPU, 1 for work of seconds."
    )
    threads: int | None = option(
        None, "Threads of each worker; default: 1 under quick and on a GPU, else runs share the cores.", advanced=True
    )  # fmt: skip
    storage: str | None = option(
        None, "Database of the queue: postgresql+psycopg://… or sqlite:///…; default: a file in the store.",
        environment="FYI_BENCH_STORAGE", advanced=True,
    )  # fmt: skip
    artefacts: str | None = option(
        None, "Where finished runs travel when workers share no store: a folder, s3://… or gs://…", advanced=True
    )  # fmt: skip
    enqueue: bool = option(False, "Leave the work to `fyi-bench worker`.", advanced=True)
    log: str | None = option(
        None, "Curves while it runs: tensorboard[:FOLDER] (default: in the store) or wandb[:PROJECT].", advanced=True
    )  # fmt: skip
    # names of all options that the user gave, the task's own among them; what a field was left open for can differ
    # from its default
    given: frozenset[str] = dataclasses.field(default=frozenset(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise UsageError(f"Unknown device '{self.device}'.\nKnown: {', '.join(DEVICES)}.")
        for name in self.devices:
            if not re.fullmatch(r"cuda:[0-9]+", name):
                raise UsageError(f"'{name}' is no GPU.\nWrite for instance --devices cuda:0 cuda:1.")
        if self.precision not in PRECISIONS:
            raise UsageError(f"Unknown precision '{self.precision}'.\nKnown: {', '.join(PRECISIONS)}.")
        if self.enqueue and self.log:
            raise UsageError("--log is written where the work is done.\nGive it to `fyi-bench worker` instead.")
        if self.seed < 0:
            raise UsageError(f"--seed must be 0 or more, not {self.seed}.")
        for name in ("seeds", "workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be 1 or more, not {value}.")
            if value is not None and value > MOST:
                raise UsageError(f"--{name} {value} is more than any machine has use for (up to {MOST}).")

    def resolved(self) -> Settings:
        """Settings with every 'auto', and None but of threads and workers, replaced by what it is on this machine.

        Raises UsageError for a device that is not there.
        """
        device = self.device if self.device == "cpu" else _default_device()
        if self.device not in ("auto", device):
            raise UsageError("There is no CUDA device here.\nUse --device auto, or leave it out.")
        if self.devices and device == "cpu":
            raise UsageError("--devices names GPUs, and the work is on the CPU.\nLeave it out, or give --device cuda.")
        devices = (self.devices or _gpus()) if device == "cuda" else ()
        for name in devices:
            if name not in _gpus():
                raise UsageError(f"--devices {name} is not here.\nThere are {', '.join(_gpus())}.")
        protocol = PROTOCOL_BY_DEVICE[device] if self.protocol == "auto" else self.protocol
        return replace(
            self,
            device=device,
            devices=devices,
            protocol=protocol,
            precision=_fast_precision(device, protocol) if self.precision == "auto" else self.precision,
            store=self.store or Path(os.environ.get("FYI_BENCH_STORE", "runs")),
        )

    @property
    def processes(self) -> int:
        """How many processes may work here, one a core or one a GPU where that was left open; of resolved settings."""
        return self.workers or (_cores() if self.device == "cpu" else len(self.devices))

    def threads_for(self, runs: int) -> int:
        """Threads of each worker for so many runs of a kind: on a CPU the cores are shared out among them.

        Networks side by side with a thread each are faster than one after the other with all threads. Another number of
        threads may change a last bit: so it does not depend on the workers, nor on how many runs are done already, and
        under `quick` it is 1 on every machine. A GPU leaves the CPU small operations, which many threads make slow.
        """
        if self.threads is not None:
            return self.threads
        if self.protocol == "quick" or self.device == "cuda":
            return 1
        return max(1, _cores() // max(1, runs))


def parse_overrides(pairs: Iterable[str]) -> dict[str, str]:
    """`key=value` texts of --set as a dict. Raises UsageError for anything else."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"'{pair}' is not key=value.\nWrite for instance --set lr_img=1.0.")
        found[key.strip()] = value.strip()
    return found


def _fast_precision(device: str, protocol: str) -> str:
    """bf16 under quick on a processor with instructions for it; what is published was computed in fp32."""
    if device != "cpu" or protocol != "quick":
        return "fp32"
    import torch

    known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # of torch.cpu; not every version has both
    return "bf16" if any(getattr(torch.cpu, name, bool)() for name in known) else "fp32"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> tuple[str, ...]:
    import torch

    return tuple(f"cuda:{number}" for number in range(max(1, torch.cuda.device_count())))


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
