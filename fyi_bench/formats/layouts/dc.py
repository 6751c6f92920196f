"""Files with the key 'data': DC, DSA, DM (`res_*.pt`), CAFE, DataDAM, and the continual files of DM.

The list has one entry [images, labels] an experiment; in continual files one a step; DataDAM's released files have
the pair itself there, and its `res_` files a snapshot of every evaluation.
"""

from __future__ import annotations

from typing import Any

import torch

from fyi_bench.errors import DataError
from fyi_bench.formats.base import Format, Options, Raw, register
from fyi_bench.formats.layouts._shared import (
    choose_experiment,
    classes_of,
    is_pair,
    method_in,
    need,
    one_file,
    scalar,
)
from fyi_bench.formats.pixels import to_tensor
from fyi_bench.formats.source import FOLDER, Source

_NAMES = r"(res|cl|syn_data)_.*\.pth?"


def _entries(source: Source) -> list[Any]:
    """The [images, labels] pairs of the file, or [] where it is none of these files."""
    name = one_file(source, _NAMES) if source.kind == FOLDER else source.name
    if not name or (source.kind not in (FOLDER, "torch")):
        return []
    content = source.content(name)
    data = content.get("data") if isinstance(content, dict) else None
    if is_pair(data):
        return [data]
    return list(data) if isinstance(data, list | tuple) and data and all(map(is_pair, data)) else []


def _file_name(source: Source) -> str:
    return source.name or one_file(source, _NAMES)


def _is_continual(source: Source, entries: list[Any]) -> bool:
    """A name that says so, or several entries of which no two share a class."""
    return _file_name(source).startswith("cl_") or (len(entries) > 1 and _disjoint(entries, Options()))


def _is_cafe(source: Source, entries: list[Any]) -> bool:
    return getattr(entries[0][1], "dtype", None) == torch.int32 or method_in(_file_name(source)) == "cafe"


def _is_datadam(source: Source, entries: list[Any]) -> bool:
    name = _file_name(source)
    return name.startswith("syn_data_") or method_in(name) == "datadam"


def _recogniser(applies: Any, reason: str) -> Any:
    def recognise(source: Source) -> str:
        entries = _entries(source)
        return reason if entries and applies(source, entries) else ""

    return recognise


def read_experiments(source: Source, options: Options) -> Raw:
    """One of the experiments of a file."""
    entries = _entries(source)
    need(bool(entries), source, "a file with the key 'data' and [images, labels] in it")
    raw = Raw(method=method_in(_file_name(source)) or method_in(source.folder.name))
    raw.images, raw.labels = choose_experiment(entries, options, raw)
    raw.facts |= _accuracies(source.content(_file_name(source)))
    raw.space, raw.space_reason = "normalized", "files of this kind are channel-normalised"
    return raw


def read_steps(source: Source, options: Options) -> Raw:
    """All steps of a continual file joined, or one; where a step repeats the classes before it, the last counts."""
    entries = _entries(source)
    need(bool(entries), source, "a continual file with the key 'data' and [images, labels] a step in it")
    raw = Raw(method=method_in(_file_name(source)), facts={"steps": len(entries)})
    raw.space, raw.space_reason = "normalized", "files of this kind are channel-normalised"
    if options.step is not None:
        if not 0 <= options.step < len(entries):
            raise DataError(f"{source.path} has the steps 0 to {len(entries) - 1}, not {options.step}.")
        raw.images, raw.labels = entries[options.step]
        raw.facts["step"] = options.step
        return raw
    if not _disjoint(entries, options):
        raw.guesses.append(f"step {len(entries) - 1}: later steps repeat the classes of earlier ones")
        raw.images, raw.labels = entries[-1]
        return raw
    raw.guesses.append(f"all {len(entries)} steps joined, in their order (step=N for one)")
    budget = options.max_bytes
    raw.images = torch.cat([to_tensor(images, "images", budget) for images, _ in entries])
    raw.labels = torch.cat([to_tensor(labels, "labels", budget) for _, labels in entries])
    return raw


def read_datadam(source: Source, options: Options) -> Raw:
    """DataDAM: the pair itself, or the last of the snapshots."""
    raw = read_experiments(source, options)
    raw.method, raw.space = "datadam", ""  # whitened or not, by a switch of its code
    return raw


def read_cafe(source: Source, options: Options) -> Raw:
    """CAFE: as DC with int32 labels; its code is for CIFAR-10."""
    raw = read_experiments(source, options)
    raw.method = "cafe"
    return raw


def _disjoint(entries: list[Any], options: Options) -> bool:
    classes = [classes_of(labels, options) for _, labels in entries]
    return sum(map(len, classes)) == len(set().union(*classes))


def _accuracies(content: dict[str, Any]) -> dict[str, Any]:
    """Mean of the accuracies the file reports, by network."""
    reported = content.get("accs_all_exps")
    if not isinstance(reported, dict):
        return {}
    numbers = {str(k): [scalar(v) for v in values] for k, values in reported.items() if isinstance(values, list)}
    found = {k: [v for v in values if v is not None] for k, values in numbers.items()}
    return {"reported_accuracy": {k: sum(v) / len(v) for k, v in found.items() if v}} if any(found.values()) else {}


def _always(source: Source, entries: list[Any]) -> bool:
    return True


_ONE, _STEPS = ("experiment",), ("step",)

for _entry in (
    Format(
        "dm-continual",
        "DM's class-incremental files: 'data' is a list over steps",
        _recogniser(_is_continual, "'data' has one [images, labels] a step of new classes"),
        read_steps,
        rank=30,
        takes=_STEPS,
    ),
    Format(
        "datadam",
        "DataDAM: res_DataDAM_*.pt, syn_data_*.pt",
        _recogniser(_is_datadam, "the name is one of DataDAM's"),
        read_datadam,
        rank=31,
        takes=_ONE,
    ),
    Format(
        "cafe",
        "CAFE: res_*.pt with int32 labels",
        _recogniser(_is_cafe, "the key 'data' with int32 labels"),
        read_cafe,
        rank=32,
        family="mtt",
        takes=_ONE,
    ),
    Format(
        "dc",
        "DC, DSA, DM, IDM and DC-Bench: res_<METHOD>_<DATASET>_<MODEL>_<n>ipc.pt",
        _recogniser(_always, "the key 'data' with [images, labels] an experiment"),
        read_experiments,
        rank=33,
        takes=_ONE,
    ),
):
    register(_entry)
