"""Whole files for every reader, what reads them, and how they are changed below their checksums."""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load

import search_space
import tests.tiny as tiny
from benchmarks.jsonl import read_lines
from distill.engine import distill
from distill.expert_file import Trajectory
from distill.experts import ExpertConfig, train_expert
from distill.image_set import ImageSet
from distill.methods import METHODS
from distill.spaces import NormalizedSpace, PixelSpace
from distill.tensor_file import packed, save_tensors
from downstream.continual.steps import named_orders
from fyi_bench.data.classes import read_class_file
from fyi_bench.data.coco import object_places
from fyi_bench.data.pictures import decode_images
from fyi_bench.errors import DataError, Interrupted
from fyi_bench.files import digest_of, sha256_file
from fyi_bench.formats import export_set, load_set
from fyi_bench.formats.fkd import FKDLabels
from fyi_bench.formats.inspection import format_report, inspect_set
from fyi_bench.run.artefacts import unpack
from fyi_bench.run.teachers import weights_into
from fyi_bench.store.checkpoint import Checkpoints
from fyi_bench.store.commands import read_command
from fyi_bench.store.lock import FolderLock
from fyi_bench.store.record import SEAL, read_record, write_sealed
from fyi_bench.store.run_dir import absent_names, final_record, read_config
from fyi_bench.tasks.nas.points import listed_space
from search_space import ranking

Read = Callable[[Path], Any]
KEY = "0123456789abcdef"


def _checkpoint(path: Path) -> Any:
    return Checkpoints(path.parent, KEY).read(int(path.name.split("-")[1].split(".")[0]))


class _At:
    """Two iterations of a computation: stopped there, its checkpoint is kept; from a file of it, it is gone on with."""

    def __init__(self, compute: Callable[..., Any], path: Path, begun: bool):
        self.path, self.begun, self.left = path, begun, 2 - begun * 2
        with contextlib.suppress(Interrupted):
            compute(checkpointer=self, stop=self)

    def save(self, step: int, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        if not self.begun:
            Checkpoints(self.path.parent, KEY).save(step, tensors, {"wall_s": 1.0, "user": meta})

    def load(self, take: Callable[[int, dict[str, torch.Tensor]], None]) -> Any:
        if not self.begun:
            return None
        tensors, meta = _checkpoint(self.path)
        try:
            take(2, tensors)
        except ValueError as error:
            raise DataError(str(error)) from error
        return 2, tensors, meta

    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0

    def check(self) -> None:
        raise Interrupted("stopped")


def _method(name: str) -> Callable[..., Any]:
    problem = tiny.problem(space=tiny.SPACES.get(METHODS.get(name).space_kind, tiny.SPACE))
    return lambda **how: distill(problem, name, tiny.config(name), "fyi", **how)


def _expert(**how: Any) -> Any:
    config = ExpertConfig(model=tiny.MODEL, epochs=3, lr=0.05, momentum=0.9, wd=0.0, batch=36, augment="none",
                          dispatcher="dsa", storage="fp32")  # fmt: skip
    return train_expert(tiny.problem(), config, **how)


# folder of a checkpoint -> what goes on from it
RESUMED = {"of-rtp": _method("rtp"), "of-frepo": _method("frepo"), "of-idc": _method("idc"), "of-expert": _expert}


def _gone_on(path: Path) -> Any:
    return _At(RESUMED[path.parent.name], path, True)


def _inspected(path: Path) -> str:
    return format_report(inspect_set(path, duplicates=False))


def _unpacked(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unpack(path, Path(folder) / "run")


def _weighted(path: Path) -> Any:
    network = search_space.build(tiny.MODEL, 3, 8, 3, torch.Generator().manual_seed(0))
    return weights_into(network, path, True, "Name another file.")


# name of a file -> its reader; the small ones come first and more often
LIGHT: dict[str, Read] = {
    "set.safetensors": ImageSet.load, "unsealed.safetensors": ImageSet.load, "ckpt-7.safetensors": _checkpoint,
    "trajectory.safetensors": lambda path: Trajectory.open(path).at(1), "record.json": read_record,
    "command.json": read_command, "config.json": lambda path: read_config(path.parent), "rows.jsonl": read_lines,
    "absent.json": lambda path: absent_names(path.parent), "done": lambda path: final_record(path.parent),
    "lock": lambda path: FolderLock(path.parent).owner(), "ranking.csv": ranking.load,
    "order.txt": lambda path: named_orders(str(path), "dots", [0], "abc"), "space.txt": listed_space,
    "classes.txt": read_class_file, "classes.json": read_class_file,
}  # fmt: skip
HEAVY: dict[str, Read] = {
    "normal.safetensors": _inspected, "a.png": lambda path: decode_images([path], str),
    "a.jpg": lambda path: decode_images([path], str), "classes/0.png": lambda path: load_set(path.parent.parent),
    "data.pt": load_set, "old.pt": load_set, "res_DM_CIFAR10_ConvNet_1ipc.pt": load_set,
    "images_best.pt": lambda path: load_set(path.parent), "labels_best.pt": lambda path: load_set(path.parent),
    "weights_best.pt": lambda path: load_set(path.parent, ipc=2), "data.npz": load_set, "kip_a.npz": load_set,
    "data.npy": lambda path: load_set(path, ipc=2), "data.parquet": load_set, "pack.zip": load_set,
    "pack.tar": load_set,
    "epoch_0/batch_0.tar": lambda path: FKDLabels.open(path.parent.parent).batch(epoch=0, number=0),
}  # fmt: skip
HEAVY |= {
    "teacher.pt": _weighted, "teacher.safetensors": _weighted, "run.zip": _unpacked,
    "annotations.json": lambda path: object_places(path, ["cat"], 8),
}  # fmt: skip
HEAVY |= {f"{name}/ckpt-2.safetensors": _gone_on for name in RESUMED}
READERS = LIGHT | HEAVY


def seeds(folder: Path) -> dict[str, bytes]:
    """A whole file for each reader; what has to lie beside some of them stays in the folder."""
    draw = torch.Generator().manual_seed(0)
    images, labels = torch.rand((6, 3, 8, 8), generator=draw), torch.arange(6) % 3
    own = ImageSet(images, labels, PixelSpace(), 3, ("a", "b", "c"), lr=0.01, provenance={"method": "dm", "ipc": 2})
    own.save(folder / "set.safetensors", preview=False)
    ImageSet(images, labels, NormalizedSpace((0.5,) * 3, (0.2,) * 3), 3).save(folder / "normal.safetensors", False)
    _without_seals(folder / "unsealed.safetensors", images, labels)
    Checkpoints(folder, KEY).save(7, {"x": images}, {"wall_s": 1.0, "user": {}})
    Trajectory(torch.rand((3, 5), generator=draw)).save(folder / "trajectory.safetensors")
    _of_a_store(folder)
    picture = Image.fromarray((images[0].permute(1, 2, 0).numpy() * 255).astype("uint8"))
    for name in ("a.png", "a.jpg", "classes/0.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        picture.save(folder / name)
    torch.save([images, labels], folder / "data.pt")
    torch.save([images, labels], folder / "old.pt", _use_new_zipfile_serialization=False)
    ten, of_ten = torch.rand((10, 3, 8, 8), generator=draw), torch.arange(10)
    torch.save(
        {"data": [[ten, of_ten]], "accs_all_exps": {"ConvNet": [0.2]}}, folder / "res_DM_CIFAR10_ConvNet_1ipc.pt"
    )
    torch.save(images, folder / "images_best.pt")
    torch.save(labels, folder / "labels_best.pt")
    torch.save(_hallucinator(draw), folder / "weights_best.pt")
    np.savez(folder / "data.npz", images=images.numpy(), labels=labels.numpy())
    np.savez(folder / "kip_a.npz", images=ten.permute(0, 2, 3, 1).numpy(), labels=np.eye(10, dtype="float32") - 0.1)
    np.save(folder / "data.npy", images.numpy())
    export_set(own, folder / "data.parquet", "parquet")
    with zipfile.ZipFile(folder / "pack.zip", "w") as pack:
        pack.write(folder / "data.npz", "sets/data.npz")
    with tarfile.open(folder / "pack.tar", "w") as tar:
        tar.add(folder / "data.npz", "sets/data.npz")
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.5]] * 2)
    batch = [boxes, torch.tensor([True, False]), torch.tensor([1, 0]), 0.5, (1, 1, 3, 3), torch.rand(2, 3)]
    _texts(folder)
    network = search_space.build(tiny.MODEL, 3, 8, 3, draw)
    torch.save({"state_dict": network.state_dict()}, folder / "teacher.pt")
    save_tensors(folder / "teacher.safetensors", network.state_dict(), {})
    with zipfile.ZipFile(folder / "run.zip", "w", zipfile.ZIP_DEFLATED) as pack:
        for name in ("record.json", "config.json", "done"):
            pack.write(folder / name, name)
    for name, compute in RESUMED.items():
        (folder / name).mkdir()
        _At(compute, folder / name / "ckpt-2.safetensors", False)
    (folder / "epoch_0").mkdir()
    torch.save([*batch, torch.tensor([0, 1])], folder / "epoch_0" / "batch_0.tar")
    return {name: (folder / name).read_bytes() for name in READERS}


def place_of(name: str, whole: Path, folder: Path) -> Path:
    """Where the changed file of this name is to be written, what belongs beside it lying there."""
    path = folder / name.replace("/", "_") / name
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
        stem = path.name.partition("_")[0]
        beside = {"images": ["labels_best.pt"], "labels": ["images_best.pt"], "weights": ["images_best.pt"]}
        for other in [*beside.get(stem, []), *(["record.json"] if name == "done" else [])]:
            shutil.copy(whole / other, path.with_name(other))
        if stem == "0.png":
            for other in "ab":
                (path.parent.parent / other).mkdir()
                shutil.copy(whole / "a.png", path.parent.parent / other)
    return path


def _without_seals(path: Path, images: torch.Tensor, labels: torch.Tensor) -> None:
    from safetensors.torch import save

    facts = {"schema": 1, "space": {"kind": "normalized", "mean": [0.5] * 3, "std": [0.2] * 3}, "num_classes": 3}
    facts |= {"class_names": ["a", "b", "c"], "factor": 1, "decode_type": "single", "lr": 0.1, "provenance": {"a": 1}}
    path.write_bytes(save({"images": images, "labels": labels}, {"fyi_bench": json.dumps(facts)}))


def _of_a_store(folder: Path) -> None:
    record = {"schema": 1, "task": "distill", "digest": "0" * 16, "arms": [{"method": "dm", "flip": "none", "ipc": 1}]}
    write_sealed(folder / "record.json", {**record, "date": "2026", "artefacts": {"a": {"bytes": 1, "sha256": "0"}}})
    (folder / "command.json").write_text(json.dumps(record))
    (folder / "config.json").write_text(json.dumps({"schema": 1, "inputs": {"seed": 0, "a": [1, 2]}, "notes": {}}))
    (folder / "rows.jsonl").write_text('{"a": 1}\n{"b": [1, 2, "nan"]}\n')
    (folder / "absent.json").write_text('["set.safetensors", "preview.png"]')
    (folder / "done").write_text(sha256_file(folder / "record.json") + "\n")
    (folder / "lock").write_text('{"pid": 17, "host": "here"}\n')
    shipped = Path(ranking.__file__).with_name(ranking.FOLDER) / f"{ranking.names()[0]}.csv"
    (folder / "ranking.csv").write_text("".join(shipped.read_text().splitlines(keepends=True)[:3]))


def _texts(folder: Path) -> None:
    (folder / "order.txt").write_text("0, 1, 2\n\n# another\nb\nc\na\n")
    (folder / "space.txt").write_text("w128-d1-layer-sigmoid-avg  # a remark\nw128-d1-nonorm-relu-avg\nmlp\n")
    (folder / "classes.txt").write_text("0\tcat\tn02123045\n1\tdog\n")
    (folder / "classes.json").write_text('{"cat": 0, "dog": 1}')
    masks = [
        {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[1, 1, 6, 1, 6, 6]]},
        {"id": 2, "image_id": 7, "category_id": 3, "segmentation": {"size": [8, 8], "counts": [20, 10, 34]}},
    ]
    facts = {"images": [{"id": 7, "height": 8, "width": 8}], "categories": [{"id": 3, "name": "cat"}]}
    (folder / "annotations.json").write_text(json.dumps({**facts, "annotations": masks}))


def _hallucinator(draw: torch.Generator) -> dict[str, torch.Tensor]:
    shapes = {"enc.weight": (3, 3, 3, 3), "scale": (3, 6, 6), "shift": (3, 6, 6), "dec.weight": (3, 3, 3, 3)}
    return {f"0.{name}": torch.rand(shape, generator=draw) for name, shape in shapes.items()}


# changes that go deeper than bytes: the seals are made anew, as somebody who means harm would ----------------------

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 2**31, 2**63, 10**30, 10**400, 1e308, -1e308, 0.5, "", "nan", "inf", "abc",
    "\x1b[31m\u202e", "a" * 3000, "../../x", [], {}, [[]], [None], {"a": {}}, ["x"] * 200, float("nan"), float("inf"),
    "fp32", "cifar10", "pixel",
)  # fmt: skip


def changed_tree(value: Any, draw: random.Random) -> Any:
    """The JSON value with one thing in it replaced, taken away, doubled or put in."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.15:
        return draw.choice(ODD)
    if isinstance(value, dict):
        key = draw.choice(list(value))
        match draw.randrange(8):
            case 0:
                return {name: entry for name, entry in value.items() if name != key}
            case 1:
                return {**value, str(draw.choice(ODD)): value[key]}
            case _:
                return {**value, key: changed_tree(value[key], draw)}
    at = draw.randrange(len(value))
    match draw.randrange(8):
        case 0:
            return value[:at] + value[at + 1 :]
        case 1:
            return value + value[at:]
        case _:
            return [*value[:at], changed_tree(value[at], draw), *value[at + 1 :]]


def _json(content: bytes, draw: random.Random, mutate: Callable[..., bytes]) -> bytes:
    value = json.loads(content)
    if isinstance(value, dict) and SEAL in value:
        value = changed_tree({key: entry for key, entry in value.items() if key != SEAL}, draw)
        return json.dumps({**value, SEAL: _digest(value)} if isinstance(value, dict) else value).encode()
    return json.dumps(changed_tree(value, draw)).encode()


def _digest(value: Any) -> str:
    try:
        return digest_of(value)
    except ValueError:  # not a number
        return ""


def _safetensors(content: bytes, draw: random.Random, mutate: Callable[..., bytes]) -> bytes:
    """Another header: of the library, or the facts in it, sealed anew."""
    (size,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    if draw.random() < 0.3:
        header = changed_tree(header, draw)
    else:
        facts = json.loads(header["__metadata__"]["fyi_bench"])
        sealed = facts.pop("header_digest", None)
        facts = changed_tree(facts, draw)
        if sealed and isinstance(facts, dict):
            facts["header_digest"] = _digest(facts)
        header["__metadata__"]["fyi_bench"] = json.dumps(facts)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _tensors(content: bytes, draw: random.Random, mutate: Callable[..., bytes]) -> bytes:
    """One tensor with another name, shape, type or value, or none, or one too much; or another header."""
    if draw.random() < 0.3:
        return _safetensors(content, draw, mutate)
    tensors = load(content)
    facts = json.loads(json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])["__metadata__"]["fyi_bench"])
    chosen = draw.choice(list(tensors))
    value = tensors.pop(chosen) if draw.random() < 0.9 else tensors[chosen].clone()
    match draw.randrange(6):
        case 0:
            tensors[draw.choice((chosen + ".0", chosen[:-1], "x", "optimiser.7.step", "\x1b"))] = value
        case 1:
            tensors[chosen] = value.reshape(-1)[: draw.randrange(value.numel() + 1)]
        case 2:
            tensors[chosen] = value.unsqueeze(draw.randrange(value.ndim + 1)).repeat_interleave(2, 0)
        case 3:
            kinds = (torch.int64, torch.int8, torch.uint8, torch.bool, torch.float16, torch.float64, torch.bfloat16)
            tensors[chosen] = value.to(draw.choice(kinds))
        case 4:
            odd = (0.0, -1.0, math.nan, math.inf, 1e38) if value.is_floating_point() else (0, 1)
            tensors[chosen] = torch.full_like(value, draw.choice(odd))
    return packed(tensors, {key: facts[key] for key in ("cell", "step", "meta")})


def _zip(content: bytes, draw: random.Random, mutate: Callable[..., bytes]) -> bytes:
    """One member changed, with the checksum it then has."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    chosen = draw.choice(list(members))
    members[chosen] = mutate(members[chosen], draw)
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as new:
        for name, data in members.items():
            new.writestr(zipfile.ZipInfo(name), data)
    return found.getvalue()


def _png(content: bytes, draw: random.Random, mutate: Callable[..., bytes]) -> bytes:
    """One chunk changed, with the checksum it then has; of the pixels what is packed."""
    at, chunks = 8, []
    while at < len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    chosen = draw.randrange(len(chunks))
    kind, data = chunks[chosen]
    data = zlib.compress(mutate(zlib.decompress(data), draw)) if kind == b"IDAT" else mutate(data, draw)
    chunks[chosen] = (kind, data)
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return content[:8] + b"".join(packed)


# ending of a name -> how such a file is changed below its checksums
DEEP: dict[str, Callable[[bytes, random.Random, Callable[..., bytes]], bytes]] = {
    ".json": _json, "ckpt-2.safetensors": _tensors, ".safetensors": _safetensors, ".pt": _zip, ".npz": _zip,
    ".zip": _zip, ".png": _png, "lock": _json, "batch_0.tar": _zip,
}  # fmt: skip


def deep(name: str) -> Callable[[bytes, random.Random, Callable[..., bytes]], bytes] | None:
    """How a file of this name is changed below its checksums; None where it has none."""
    found = (change for ending, change in DEEP.items() if name.endswith(ending) and name != "old.pt")
    return next(found, None)
