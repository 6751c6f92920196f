"""Hostile files, small on disk: code in pickles, bombs, paths that lead away, numbers that ask for all memory.

`write(name, folder)` makes one; `found/` holds the mutated files that once were finds of `tests.fuzz`. What each is
tried with is a command, `{}` standing for the file: it has to be refused in words, in bounded memory and time.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from distill.tensor_file import save_tensors
from fyi_bench.files import write_json
from fyi_bench.store.record import write_sealed

INSPECT, VERIFY, REPORT = ("inspect", "{}"), ("store", "verify", "--store", "{}"), ("report", "--store", "{}")
RANK = ("ranking", "--dataset", "shapes10", "--protocol", "quick", "--space", "3", "--out", "{}", "--yes", "--quiet",
        "--dry-run")  # fmt: skip
NAMED, ORDERED, SEARCHED, TAUGHT = (
    ("inspect", "{}/data.pt", "--classes", "{}/list"),
    ("continual", "--dataset", "shapes10", "--steps", "2", "--order", "{}", "--dry-run"),
    ("nas", "--dataset", "shapes10", "--method", "random", "--space", "{}", "--dry-run"),
    ("evaluate", "{}/data.pt", "--dataset", "shapes10", "--teacher", "{}/list", "--labels", "teacher", "--dry-run"),
)
MARK = "ran.txt"  # what the code in a file would write, in the current folder

Maker = Callable[[Path], Path]
# name -> the command, and what writes the file into a folder and returns its path
ATTACKS: dict[str, tuple[tuple[str, ...], Maker]] = {}


def attack(words: tuple[str, ...] = INSPECT) -> Callable[[Maker], Maker]:
    """Register what a function writes."""

    def register(make: Maker) -> Maker:
        ATTACKS[make.__name__] = words, make
        return make

    return register


def write(name: str, folder: Path) -> list[str]:
    """Write one into an empty folder; the words of the command it is for."""
    words, make = ATTACKS[name]
    path = make(folder)
    return [word.format(path) for word in words]


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return _make_mark, (MARK, "w")


def _make_mark(name: str, mode: str) -> object:  # what `open` is to a pickle, by a name that a scanner does not know
    return open(name, mode).close()


def _packed(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as pack:
        for name, data in members.items():
            pack.writestr(name, data)
    return path


def _of_torch(path: Path, pickled: bytes) -> Path:
    return _packed(path, {"archive/data.pkl": pickled, "archive/version": b"3\n", "archive/byteorder": b"little"})


def _put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _header(text: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


# code ---------------------------------------------------------------------------------------------------------------


@attack()
def pickle_that_runs_code(folder: Path) -> Path:
    return _of_torch(folder / "data.pt", pickle.dumps(_Runs(), protocol=2))


@attack()
def old_pickle_that_runs_code(folder: Path) -> Path:
    return _put(folder / "data.pt", b"c__builtin__\nopen\n(S'ran.txt'\nS'w'\ntR.")


@attack()
def array_of_objects_that_run_code(folder: Path) -> Path:
    np.save(folder / "data.npy", np.array([_Runs()], dtype=object), allow_pickle=True)
    return folder / "data.npy"


@attack()
def pickle_of_a_million_marks(folder: Path) -> Path:
    return _of_torch(folder / "data.pt", b"\x80\x02" + b"(" * 1_000_000 + b".")


@attack()
def pickle_that_doubles_a_list_forty_times(folder: Path) -> Path:
    lines = b"".join(b"](h" + bytes([k]) + b"h" + bytes([k]) + b"eq" + bytes([k + 1]) for k in range(40))
    return _of_torch(folder / "data.pt", b"\x80\x02]q\x00" + lines + b".")


# numbers that ask for memory ------------------------------------------------------------------------------------------


@attack()
def header_of_two_to_the_sixty(folder: Path) -> Path:
    return _put(folder / "set.safetensors", struct.pack("<Q", 2**60) + b"{}")


@attack()
def header_nested_sixty_thousand_deep(folder: Path) -> Path:
    return _put(folder / "set.safetensors", _header(b"[" * 60_000))


@attack()
def tensors_that_overlap(folder: Path) -> Path:
    one = {"dtype": "F32", "shape": [1024], "data_offsets": [0, 4096]}
    text = json.dumps({"images": one, "labels": one}).encode()
    return _put(folder / "set.safetensors", _header(text, bytes(4096)))


@attack()
def facts_nested_sixty_thousand_deep(folder: Path) -> Path:
    return _put(folder / "set.safetensors", save({"images": torch.zeros(1)}, {"fyi_bench": "[" * 60_000}))


@attack()
def decoder_of_a_billion_pixels(folder: Path) -> Path:
    tensors = {"images": torch.zeros(2, 3, 4, 4), "labels": torch.arange(2)}
    facts = {"schema": 2, "space": {"kind": "pixel"}, "num_classes": 2, "class_names": [], "factor": 1}
    decoder = {"name": "frequencies", "shape": [3, 60_000, 60_000]}
    return save_tensors(folder / "set.safetensors", tensors, {**facts, "decode_type": "single", "decoder": decoder})


@attack()
def array_of_ten_to_the_twelve(folder: Path) -> Path:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 3, 1000, 1000), }"
    return _put(folder / "data.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))


@attack()
def array_whose_sizes_overflow(folder: Path) -> Path:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296, 3), }"
    return _put(folder / "data.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))


@attack()
def label_of_two_to_the_forty(folder: Path) -> Path:
    torch.save([torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2**40])], folder / "data.pt")
    return folder / "data.pt"


@attack()
def view_of_one_number_as_a_billion(folder: Path) -> Path:
    torch.save([torch.zeros(1).expand(1000, 3, 600, 600), torch.arange(1000) % 10], folder / "data.pt")
    return folder / "data.pt"


@attack()
def picture_of_sixty_thousand_pixels_a_side(folder: Path) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    sizes = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", sizes) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return _pictures(folder, content)


@attack()
def picture_with_a_bomb_in_its_text(folder: Path) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    text = chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(200 * 2**20), 9))
    whole = io.BytesIO()
    Image.new("RGB", (8, 8)).save(whole, "PNG")
    return _pictures(folder, whole.getvalue()[:33] + text + whole.getvalue()[33:])


def _pictures(folder: Path, bad: bytes) -> Path:
    for name in "ab":
        (folder / "set" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "set" / name / "0.png")
    (folder / "set" / "b" / "1.png").write_bytes(bad)
    return folder / "set"


# packed ---------------------------------------------------------------------------------------------------------------


@attack()
def pack_of_nine_gigabytes(folder: Path) -> Path:
    """Nothing but zeros in a kilobyte: the sizes in the directory are written, the content is not."""
    inner = _packed(folder / "inner.zip", {"data.npy": bytes(2**24)})
    content = bytearray(inner.read_bytes())
    inner.unlink()
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.index(mark) + at
        content[place : place + 4] = struct.pack("<I", 2**32 - 2)
    return _put(folder / "pack.zip", bytes(content))


@attack()
def pack_in_a_pack_in_a_pack(folder: Path) -> Path:
    content = bytes(2**24)
    for depth in range(8):
        content = _packed(folder / f"{depth}.zip", {f"{depth}.zip" if depth else "data.npy": content}).read_bytes()
        (folder / f"{depth}.zip").unlink()
    return _put(folder / "pack.zip", content)


@attack()
def pack_that_writes_above_its_folder(folder: Path) -> Path:
    return _packed(folder / "pack.zip", {"../../ran.txt": b"x"})


@attack()
def archive_with_a_link_to_a_secret(folder: Path) -> Path:
    (folder / "secret").write_text("my private key")
    with tarfile.open(folder / "pack.tar", "w") as pack:
        link = tarfile.TarInfo("data.npy")
        link.type, link.linkname = tarfile.SYMTYPE, str(folder / "secret")
        pack.addfile(link)
    return folder / "pack.tar"


@attack()
def archive_with_a_device(folder: Path) -> Path:
    with tarfile.open(folder / "pack.tar", "w") as pack:
        device = tarfile.TarInfo("data.npy")
        device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 5
        pack.addfile(device)
    return folder / "pack.tar"


@attack()
def archive_of_a_hundred_thousand_files(folder: Path) -> Path:
    one = tarfile.TarInfo("a").tobuf()
    return _put(folder / "pack.tar.gz", _gzipped(one * 100_000 + bytes(1024)))


def _gzipped(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(content) + packer.flush()


# texts that users name ------------------------------------------------------------------------------------------------


def _of_ten(folder: Path) -> Path:
    torch.save([torch.rand(10, 3, 32, 32), torch.arange(10)], folder / "data.pt")
    return folder


@attack(NAMED)
def list_of_classes_nested_sixty_thousand_deep(folder: Path) -> Path:
    (_of_ten(folder) / "list").write_text("[" * 60_000)
    return folder


@attack(NAMED)
def list_of_classes_that_is_a_pipe(folder: Path) -> Path:
    os.mkfifo(_of_ten(folder) / "list")
    return folder


@attack(NAMED)
def list_of_classes_without_end(folder: Path) -> Path:
    (_of_ten(folder) / "list").symlink_to("/dev/zero")
    return folder


@attack(TAUGHT)
def weights_of_a_teacher_that_are_a_pipe(folder: Path) -> Path:
    os.mkfifo(_of_ten(folder) / "list")
    return folder


@attack(ORDERED)
def order_of_classes_that_is_no_text(folder: Path) -> Path:
    return _put(folder / "order.txt", b"\xff\xfe0\x00,\x001\x00")


@attack(ORDERED)
def order_of_a_gigabyte_of_nothing(folder: Path) -> Path:
    with open(folder / "order.txt", "wb") as file:
        file.truncate(2**30)
    return folder / "order.txt"


@attack(SEARCHED)
def search_space_that_is_no_text(folder: Path) -> Path:
    return _put(folder / "space.txt", b"\x80\x81\x82")


@attack(SEARCHED)
def search_space_of_a_gigabyte_of_nothing(folder: Path) -> Path:
    with open(folder / "space.txt", "wb") as file:
        file.truncate(2**30)
    return folder / "space.txt"


# what never ends ------------------------------------------------------------------------------------------------------


@attack()
def pipe_for_a_file(folder: Path) -> Path:
    os.mkfifo(folder / "data.pt")
    return folder / "data.pt"


@attack()
def zeros_without_end_for_a_file(folder: Path) -> Path:
    (folder / "data.pt").symlink_to("/dev/zero")
    return folder / "data.pt"


@attack()
def pipe_among_pictures(folder: Path) -> Path:
    place = _pictures(folder, b"")
    (place / "b" / "1.png").unlink()
    os.mkfifo(place / "b" / "1.png")
    return place


@attack()
def folder_that_holds_itself(folder: Path) -> Path:
    (folder / "set").mkdir()
    (folder / "set" / "again").symlink_to(folder / "set")
    return folder / "set"


# stores ---------------------------------------------------------------------------------------------------------------


def _run(folder: Path) -> Path:
    place = folder / "store" / "distill" / "0123456789abcdef"
    place.mkdir(parents=True)
    write_json(place / "config.json", {"schema": 1, "kind": "distill", "inputs": {}, "notes": {}})
    return place


@attack(VERIFY)
def record_nested_sixty_thousand_deep(folder: Path) -> Path:
    place = _run(folder)
    (place / "record.json").write_text("[" * 60_000 + "]" * 60_000)
    (place / "done").write_text("0" * 64)
    return folder / "store"


@attack(VERIFY)
def number_of_a_million_digits(folder: Path) -> Path:
    place = _run(folder)
    (place / "config.json").write_text('{"schema": ' + "9" * 1_000_000 + ', "inputs": {}}')
    return folder / "store"


@attack(VERIFY)
def artefact_that_lies_elsewhere(folder: Path) -> Path:
    place = _run(folder)
    write_json(
        place / "record.json", {"schema": 1, "artefacts": {"../../../../etc/passwd": {"bytes": 1, "sha256": ""}}}
    )
    (place / "done").write_text("0" * 64)
    return folder / "store"


@attack(VERIFY)
def command_record_that_is_a_pipe(folder: Path) -> Path:
    (folder / "store" / "reports").mkdir(parents=True)
    os.mkfifo(folder / "store" / "reports" / "distill-0123456789abcdef.json")
    return folder / "store"


@attack(VERIFY)
def command_record_with_arms_of_another_world(folder: Path) -> Path:
    record = {"task": "distill", "digest": "0" * 16, "arms": [[[]]], "date": "\x1b]0;owned\x07"}
    write_sealed(folder / "store" / "reports" / "distill-0000000000000000.json", record)
    return folder / "store"


@attack(VERIFY)
def record_of_a_gigabyte_of_nothing(folder: Path) -> Path:
    place = _run(folder)
    with open(place / "record.json", "wb") as file:
        file.truncate(2**30)
    (place / "done").write_text("0" * 64)
    return folder / "store"


@attack(RANK)
def ranking_of_a_gigabyte_of_nothing(folder: Path) -> Path:
    with open(folder / "ranking.csv", "wb") as file:
        file.truncate(2**30)
    return folder / "ranking.csv"


@attack(RANK)
def ranking_that_is_a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "ranking.csv")
    return folder / "ranking.csv"
