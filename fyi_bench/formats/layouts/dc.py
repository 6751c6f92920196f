"""Files with the key 'data': DC, DSA, DM (`res_*.pt`), CAFE, DataDAM, and the continual files of DM.

The list has one entry [images, labels] an experiment; in continual files one a step; DataDAM's released files have
the pair itself there, and its `res_` files a snapshot of every evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distill.image_set import ImageSet
from fyi_bench.errors import DataError
from fyi_bench.formats.arrays import is_pair, scalar, to_tensor
from fyi_bench.formats.base import FORMATS, LAST, Format, Options, Raw
from fyi_bench.formats.export import floats, save_torch
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.opening import SIZE_BUDGET
from fyi_bench.formats.origin import method_in

_NAMES = r"(res|cl|syn_data)_.*\.pth?"
_REASON = "files of this kind are channel-normalised"


def _file_name(files: InputFiles) -> str:
    return files.name or files.only(_NAMES)


def _entries(files: InputFiles) -> list[Any]:
    """The [images, labels] pairs of the file, or [] where it is none of these files."""
    name = _file_name(files)
    if not name or files.kind not in (FOLDER, "torch"):
        return []
    content = files.content(name)
    data = content.get("data") if isinstance(content, dict) else None
    if is_pair(data):
        return [data]
    entries = data if isinstance(data, list | tuple) else ()
    entries = [each[0] if isinstance(each, list) and len(each) == 1 else each for each in entries]  # FreD nests them
    return entries if entries and all(map(is_pair, entries)) else []


def _disjoint(entries: list[Any], budget: int) -> bool:
    labels = [to_tensor(pair[1], "labels", budget) for pair in entries]
    classes = [set((t if t.ndim == 1 else t.argmax(dim=1)).unique().tolist()) for t in labels]
    return sum(map(len, classes)) == len(set().union(*classes))


def _accuracies(content: dict[str, Any]) -> dict[str, Any]:
    """Mean of the accuracies the file reports, by network."""
    reported = content.get("accs_all_exps")
    if not isinstance(reported, dict):
        return {}
    lists: dict[str, Sequence[Any]] = {str(k): values for k, values in reported.items() if isinstance(values, list)}
    found = {k: [n for v in values if (n := scalar(v)) is not None] for k, values in lists.items()}
    means = {k: sum(numbers) / len(numbers) for k, numbers in found.items() if numbers}
    return {"reported_accuracy": means} if means else {}


@FORMATS.register("dc")
class DC(Format):
    """DC, DSA, DM, IDM and DC-Bench: res_<METHOD>_<DATASET>_<MODEL>_<n>ipc.pt"""

    rank, takes, suffix, spaces = 33, ("experiment",), ".pt", ("normalized",)
    reason = "the key 'data' with [images, labels] an experiment"

    def applies(self, name: str, entries: list[Any]) -> bool:
        """Whether a file with such entries is of this format, by its name or by them."""
        return True

    def looks(self, files: InputFiles) -> str:
        entries = _entries(files)
        return self.reason if entries and self.applies(_file_name(files), entries) else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """One of the experiments of a file."""
        entries = files.need(_entries(files), "a file with the key 'data' and [images, labels] in it")
        asked = options.experiment
        count = len(entries)
        if not -count <= asked < count:
            raise DataError(
                f"The file has {count} experiments, so experiment={asked} is not there.\nSay 0 to {count - 1}."
            )
        name = _file_name(files)
        images, labels = entries[asked]
        method = method_in(name, *files.folders[:1])
        raw = Raw(images, labels, space="normalized", space_reason=_REASON, method=method, writer=self.name)
        if count > 1 and asked == LAST:
            raw.guesses.append(f"experiment {count - 1}, the last of {count}, as is usual (experiment=N for another)")
        raw.facts = {"experiments": count, "experiment": asked % count, **_accuracies(files.content(name))}
        return raw

    def write(self, image_set: ImageSet, path: Path) -> list[Path]:
        """One experiment, without accuracies."""
        pair = [floats(image_set), image_set.labels.clone()]
        return [save_torch(path, {"data": [pair], "accs_all_exps": {}})]


class _Variant(DC):
    """Files that only their makers write."""

    write = Format.write


@FORMATS.register("cafe")
class CAFE(_Variant):
    """CAFE: res_*.pt with int32 labels; its code is for CIFAR-10"""

    rank, family, reason = 32, "mtt", "the key 'data' with int32 labels"

    def applies(self, name: str, entries: list[Any]) -> bool:
        return getattr(entries[0][1], "dtype", None) == torch.int32 or method_in(name) == "cafe"


@FORMATS.register("datadam")
class DataDAM(_Variant):
    """DataDAM: res_DataDAM_*.pt, syn_data_*.pt"""

    rank, reason = 31, "the name is one of DataDAM's"

    def applies(self, name: str, entries: list[Any]) -> bool:
        return name.startswith("syn_data_") or method_in(name) == "datadam"

    def read(self, files: InputFiles, options: Options) -> Raw:
        """The pair itself, or the last of the snapshots; whitened or not, by a switch of its code."""
        return replace(super().read(files, options), space="")


@FORMATS.register("dm-continual")
class DMContinual(_Variant):
    """DM's class-incremental files: 'data' is a list over steps"""

    rank, takes, reason = 30, ("step",), "'data' has one [images, labels] a step of new classes"

    def applies(self, name: str, entries: list[Any]) -> bool:
        """A name that says so, or several entries of which no two share a class."""
        return name.startswith("cl_") or (len(entries) > 1 and _disjoint(entries, SIZE_BUDGET))

    def read(self, files: InputFiles, options: Options) -> Raw:
        """All steps joined, or one; where a step repeats the classes before it, the last counts."""
        what = "a continual file with the key 'data' and [images, labels] a step in it"
        entries, step = files.need(_entries(files), what), options.step
        last = len(entries) - 1
        raw = Raw(space="normalized", space_reason=_REASON, method=method_in(_file_name(files)))
        raw.facts = {"steps": len(entries)}
        if step is not None:
            if not 0 <= step <= last:
                raise DataError(f"{files.path} has the steps 0 to {last}, not {step}.")
            raw.images, raw.labels = entries[step]
            raw.facts["step"] = step
        elif _disjoint(entries, options.max_bytes):
            raw.guesses.append(f"all {len(entries)} steps joined, in their order (step=N for one)")
            raw.images = torch.cat([to_tensor(images, "images", options.max_bytes) for images, _ in entries])
            raw.labels = torch.cat([to_tensor(labels, "labels", options.max_bytes) for _, labels in entries])
        else:
            raw.guesses.append(f"step {last}: later steps repeat the classes of earlier ones")
            raw.images, raw.labels = entries[-1]
        return raw
