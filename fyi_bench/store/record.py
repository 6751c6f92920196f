"""Records: the JSON a finished job leaves, the facts about the machine in it, and old ones kept readable."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import platform
import re
import resource
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from fyi_bench.errors import StoreError
from fyi_bench.files import digest_of, legal_json, read_table, tree_digest, write_json
from fyi_bench.registry import PACKAGES
from fyi_bench.version import __version__

SCHEMA = 1
# schema of the file -> function that gives the record in the next schema; add one whenever SCHEMA goes up
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "pillow",
    "optuna",
    "avalanche-lib",
    "safetensors",
)

COMMON_KEYS = (
    "task", "dataset", "protocol", "device", "precision", "threads", "seeds", "wall_s", "peak_memory_mib",
    "versions", "digest", "arms",
)  # fmt: skip
ARM_KEYS = ("method", "flip", "ipc")
_SUMMARY = ("values", "mean", "std")
_INTERVAL = ("value", "low", "high")
# what one arm of a task must hold beside ARM_KEYS: key -> keys of its entry, or of each entry of its list
_ARM_KEYS_OF: dict[str, dict[str, tuple[str, ...]]] = {
    "distill": dict.fromkeys(("set", "set_digest", "iterations", "loss_first", "loss_last", "unequalness"), ()),
    "continual": {"accuracy": ("classes_seen", *_SUMMARY)},
    "accuracy": {"architectures": ("name", *_SUMMARY)},
    "cross-arch": {"architectures": ("name", *_SUMMARY)},
    "probe": {"architectures": ("name", *_SUMMARY)},
    "robust": {
        "accuracies": (),
        **dict.fromkeys(("recovery", "improvement", "label_robust", "augmentation_robust"), (*_SUMMARY, "low", "high")),
    },
    "nas": {
        "space": (),
        "evaluated": (),
        "failed": (),
        "spearman_all": _INTERVAL,
        "spearman_top50": _INTERVAL,
        "kendall_all": _INTERVAL,
        "kendall_top50": _INTERVAL,
        "top10_recall": _INTERVAL,
        "regret": _INTERVAL,
    },
}
_TOP_KEYS_OF = {"robust": ("rules", "units"), "continual": ("steps", "class_orders"), "nas": ("ceiling", "reference")}

# cost and circumstances: they differ between two computations of one run and are no result; `set_parts`, which divide
# `set_bytes` up, are not in records of earlier versions
CIRCUMSTANCES = frozenset((
    "artefacts", "date", "device", "environment", "notes", "peak_cuda_memory_mib", "peak_memory_mib", "schema",
    "set_parts", "source_digest", "threads", "versions", "wall_s",
))  # fmt: skip

SEAL = "seal"  # digest of all else in a record; those of earlier versions have none, and no date
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def build_record(
    task: str,
    *,
    dataset: str,
    protocol: Any,
    device: str,
    precision: str,
    seeds: Iterable[int],
    wall_s: float,
    digest: str,
    arms: Iterable[Mapping[str, Any]],
    **more: Any,
) -> dict[str, Any]:
    """The record of a finished command: the common keys, the task's own (`more`), and the machine's facts.

    Accuracies are fractions in [0, 1], `wall_s` is seconds, memory MiB. Numbers that are not finite are allowed.
    Raises ValueError naming what an arm or the record lacks, so that a half-filled record is never written.
    """
    here = environment(device)
    record = {
        "schema": SCHEMA,
        "task": task,
        "dataset": dataset,
        "protocol": protocol,
        "device": device,
        "precision": precision,
        "threads": here["threads"],
        "seeds": list(seeds),
        "wall_s": round(float(wall_s), 3),
        "date": now(),
        "peak_memory_mib": peak_memory_mib(),
        "versions": here["versions"],
        "digest": digest,
        "source_digest": here["source_digest"],
        "environment": {key: here[key] for key in ("device_name", "platform", "cores", "native")},
        "arms": [dict(arm) for arm in arms],
        **more,
    }
    cuda = peak_cuda_memory_mib()
    if cuda is not None:
        record["peak_cuda_memory_mib"] = cuda
    record = plain(record)
    _check_complete(record)
    return record


def now() -> str:
    """The date a record gets: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def with_native(record: dict[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The record of a command with the compiled operations its runs used: they may have run in other processes."""
    facts = (run.get("environment", {}).get("native", "none") for run in runs.values())
    used = sorted(set(facts) - {"none"})
    if used and "environment" in record:
        record["environment"]["native"] = "; ".join(used)
    return record


def environment(device: str | None = None) -> dict[str, Any]:
    """Versions, device name, threads, cores, platform, source digest, compiled code; imports none of the libraries.

    device: "cpu", "cuda" …; None names the GPU where torch is loaded and has one, else the processor.
    `native`: name and source digest of the compiled operations this process has used so far, or "none".
    """
    return {
        "versions": _versions(),
        "device_name": _device_name(device),
        "threads": _threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": platform.platform(),
        "source_digest": source_digest(),
        "native": _native(),
    }


@functools.cache
def source_digest() -> str:
    """First 16 hex digits of the sha256 over names and bytes of every packaged file of the four packages."""
    specs = (importlib.util.find_spec(package) for package in PACKAGES)
    return tree_digest(Path(folder) for spec in specs if spec for folder in spec.submodule_search_locations or ())


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, MiB."""
    try:  # ru_maxrss starts at the size of the process that launched this one
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    if found:
        return round(int(found[1]) / 1024, 1)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def peak_cuda_memory_mib() -> float | None:
    """Largest memory torch had allocated on a GPU, MiB, over all devices; None where no GPU was used."""
    torch = _loaded_torch()
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return round(max(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())) / 2**20, 1)


def plain(value: Any, where: str = "record") -> Any:
    """The value as dictionaries, lists, strings and numbers: numpy and torch values and paths are converted.

    Raises TypeError naming the entry that no JSON can hold.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, f"{where}[{i}]") for i, entry in enumerate(value)]
    if value is None or isinstance(value, str | bool | int | float):
        return getattr(value, "item", lambda: value)()  # numpy's float64 is a float
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist(), where)
    raise TypeError(f"{where} is a {type(value).__name__}, which a record cannot hold")


def restore_numbers(value: Any) -> Any:
    """The value with the strings 'nan', 'inf', '-inf' as the numbers they stand for: undoes `files.legal_json`."""
    if isinstance(value, dict):
        return {key: restore_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [restore_numbers(entry) for entry in value]
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def read_record(path: str | Path) -> dict[str, Any]:
    """A record from its file, in the present schema whichever it was written in.

    Raises StoreError where the file is missing, damaged or of a newer version of this program.
    """
    path = Path(path)
    try:
        record = read_table(path)
        schema = int(record.get("schema", 1))
        if schema < 1:
            raise ValueError(f"there was no schema {schema}")
        if record.get(SEAL, digest := _seal_of(record)) != digest:
            raise ValueError("it was changed after it was written: its seal does not match")
    except FileNotFoundError:
        raise StoreError(f"There is no record {path}.\n`fyi-bench store ls` lists what is stored.") from None
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"{path} is not a readable record ({cause}).\n{_remedy(path)}") from error
    if schema > SCHEMA:
        raise StoreError(
            f"{path} was written by a newer fyi-bench (schema {schema}, known up to {SCHEMA}).\n"
            "Upgrade fyi-bench to read it."
        )
    while schema < SCHEMA:
        record = UPGRADES[schema](record)
        schema += 1
    return restore_numbers({**record, "schema": SCHEMA})


def write_sealed(path: str | Path, record: dict[str, Any]) -> Path:
    """Write a record with a seal over all that is in it, which `read_record` compares."""
    return write_json(path, {**record, SEAL: _seal_of(record)})


def _seal_of(record: dict[str, Any]) -> str:
    return digest_of(legal_json({key: value for key, value in record.items() if key != SEAL}))


def same_result(ours: Any, theirs: Any) -> bool:
    """Whether two records say the same, leaving out cost and circumstances (time, memory, device, versions)."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = (ours.keys() | theirs.keys()) - CIRCUMSTANCES
        return all(key in ours and key in theirs and same_result(ours[key], theirs[key]) for key in keys)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same_result, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float) and math.isnan(ours):
        return math.isnan(theirs)
    return ours == theirs


def _remedy(path: Path) -> str:
    what = f"the folder {path.parent}" if path.name == "record.json" else "it"
    return f"Remove {what} and run the command again, or merge a whole copy."


def _check_complete(record: dict[str, Any]) -> None:
    task = record["task"]
    lacking = _missing(record, (*COMMON_KEYS, *_TOP_KEYS_OF.get(task, ())))
    if not record["arms"]:
        lacking.append("an entry of arms")
    parts = _ARM_KEYS_OF.get(task, {})
    for position, arm in enumerate(record["arms"]):
        here = f"arms[{position}]."
        lacking += _missing(arm, (*ARM_KEYS, *parts), here)
        for part, keys in parts.items():
            entries = arm.get(part, [])
            for entry in entries if isinstance(entries, list) else [entries]:
                lacking += _missing(entry, keys, f"{here}{part}.")
    if lacking:
        raise ValueError(f"the record of '{task}' lacks {', '.join(dict.fromkeys(lacking))}")


def _missing(entry: Any, keys: Iterable[str], where: str = "") -> list[str]:
    return [where + key for key in keys if not isinstance(entry, dict) or key not in entry]


@functools.cache
def _versions() -> dict[str, str]:
    found = {"fyi-bench": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _device_name(device: str | None) -> str:
    torch = _loaded_torch()
    if torch is not None and (device or "cuda").startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _threads() -> int:
    torch = _loaded_torch()
    if torch is not None:
        return torch.get_num_threads()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() else os.cpu_count() or 1


def _native() -> str:
    """Compiled operations in use; where their module was never imported, none are."""
    module = sys.modules.get("search_space.native")
    return module.in_use() if module is not None else "none"


def _loaded_torch() -> Any:
    """torch if something has imported it already: asking for facts must not cost its import."""
    return sys.modules.get("torch")
