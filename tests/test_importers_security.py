"""Opening a foreign file runs nothing, takes no more memory than allowed, and says why it was refused."""

from __future__ import annotations

import ast
import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from fyi_bench.errors import DataError
from fyi_bench.formats import load_set
from fyi_bench.formats.pickle_scan import Suspicious, scan
from importer_files import Trap, dc_file, labels, normalised, picture_folder, trap_bytes

PACKAGES = ("search_space", "distill", "downstream", "fyi_bench")


def torch_zip(path: Path, pickled: bytes, records: dict[str, bytes] | None = None, **options) -> Path:
    """A file in torch's zip layout with any pickle in it."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
        for key, data in (records or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def legacy_prefix() -> bytes:
    """The three pickles that files of old torch begin with."""
    buffer = io.BytesIO()
    torch.save([torch.zeros(1)], buffer, _use_new_zipfile_serialization=False)
    buffer.seek(0)
    for _ in range(3):
        scan(buffer)
    return buffer.getvalue()[: buffer.tell()]


def malicious(folder: Path, sentinel: Path) -> dict[str, Path]:
    """Files of every kind whose careless opening would make the sentinel."""
    paths = {}
    for name in ("plain.pkl", "acc_0.67.pkl", "data.pt", "images_best.pt", "set.pth"):
        paths[name] = folder / name
        paths[name].write_bytes(trap_bytes(sentinel, 4 if name == "set.pth" else 2))
    paths["protocol 0"] = folder / "text.pt"
    paths["protocol 0"].write_bytes(trap_bytes(sentinel, 0))
    trap = Trap(sentinel)
    for old in (False, True):
        paths[f"torch, old {old}"] = folder / f"res_DC_CIFAR10_{old}.pt"
        content = {"data": [[normalised(), labels()]], "accs_all_exps": {"ConvNet": [trap]}}
        torch.save(content, paths[f"torch, old {old}"], _use_new_zipfile_serialization=not old)
    paths["raw zip"] = torch_zip(folder / "raw.pt", trap_bytes(sentinel))
    paths["old, trap as the object"] = folder / "old.pt"
    paths["old, trap as the object"].write_bytes(legacy_prefix() + trap_bytes(sentinel))
    np.save(folder / "objects.npy", np.array([trap], dtype=object), allow_pickle=True)
    paths["npy"] = folder / "objects.npy"
    np.savez(folder / "objects.npz", images=np.array([trap], dtype=object), labels=np.zeros(1))
    paths["npz"] = folder / "objects.npz"
    with zipfile.ZipFile(folder / "nested.zip", "w") as archive:
        archive.writestr("set.pt", paths["raw zip"].read_bytes())
    paths["zip in zip"] = folder / "nested.zip"
    return paths


def test_malicious_files_are_refused_and_run_nothing(tmp_path):
    sentinel = tmp_path / "executed"
    for name, path in malicious(tmp_path, sentinel).items():
        for chosen in (None, "dc", "mtt", "idc", "idm", "kip", "tensors", "haba"):
            with pytest.raises(DataError) as refused:
                load_set(path, format=chosen)
            assert len(str(refused.value).splitlines()) == 2, name
        assert not sentinel.exists(), name
    assert not sentinel.exists()


def test_the_trap_of_these_tests_works(tmp_path):
    """Otherwise the test above would pass for the wrong reason: unpickling would call os.system."""
    call, arguments = Trap(tmp_path / "executed").__reduce__()
    assert call.__name__ == "system"
    assert b"system" in pickle.dumps(Trap(tmp_path / "x"), protocol=2)
    assert str(tmp_path) in arguments[0]


def test_refusal_says_what_was_asked_for_and_how_to_convert(tmp_path):
    sentinel = tmp_path / "executed"
    path = torch_zip(tmp_path / "evil.pt", trap_bytes(sentinel))
    with pytest.raises(DataError, match=r"(?s)evil\.pt asks for '\w+\.system'.*not opened.*torch\.save\(\[images"):
        load_set(path)
    (tmp_path / "acc_1.pkl").write_bytes(trap_bytes(sentinel))
    with pytest.raises(DataError, match=r"(?s)acc_1\.pkl is a pickle.*was not opened.*import data\.pt"):
        load_set(tmp_path / "acc_1.pkl")
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"(?s)Python objects.*not opened.*savez"):
        load_set(tmp_path / "x.npy")


@pytest.mark.parametrize(
    "asked",
    [
        b"cbuiltins\nbytearray\n(L99999999999L\ntR.",
        b"cbuiltins\nbytearray\nM\xff\xff\x85R.",
        b"ctorch\nFloatStorage\nJ\x00\x00\x00\x40\x85R.",
        b"ctorch._utils\n_rebuild_wrapper_subclass\n)R.",
        b"ctorch.serialization\n_load\n)R.",
        b"cfyi_bench.formats.load\nload_set\n)R.",
    ],
)
def test_only_tensors_and_plain_containers_may_be_asked_for(tmp_path, asked):
    with pytest.raises(DataError, match="asks for"):
        load_set(torch_zip(tmp_path / "x.pt", b"\x80\x02" + asked))


def storage(key: str, numel: int, kind: str = "FloatStorage") -> bytes:
    """The instructions that make a storage."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    return (
        b"("
        + text("storage")
        + b"ctorch\n"
        + kind.encode()
        + b"\n"
        + text(key)
        + text("cpu")
        + (b"J" + struct.pack("<i", numel) + b"tQ")
    )


def tensor(key: str, numel: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"J" + struct.pack("<i", v) for v in values) + b"t"

    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(key, numel) + b"K\x00" + numbers(shape) + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def test_a_storage_larger_than_its_record_is_refused(tmp_path):
    good = torch_zip(
        tmp_path / "a.pt", b"\x80\x02" + tensor("0", 192, (1, 3, 8, 8), (192, 64, 8, 1)) + b".", {"0": bytes(768)}
    )
    assert len(load_set(good, ipc=1, dataset=None, space="pixel").image_set) == 1
    for numel in (193, 2**30):
        bad = torch_zip(
            tmp_path / "b.pt", b"\x80\x02" + tensor("0", numel, (1, 3, 8, 8), (192, 64, 8, 1)) + b".", {"0": bytes(768)}
        )
        with pytest.raises(DataError, match="larger than its data"):
            load_set(bad)
    missing = torch_zip(
        tmp_path / "c.pt", b"\x80\x02" + tensor("7", 192, (1, 3, 8, 8), (192, 64, 8, 1)) + b".", {"0": bytes(768)}
    )
    with pytest.raises(DataError, match="larger than its data"):
        load_set(missing)


def test_a_tiny_tensor_that_claims_any_size_is_refused_before_it_is_unfolded(tmp_path):
    claimed = tensor("0", 1, (100_000, 3, 1000, 1000), (0, 0, 0, 0))
    path = torch_zip(tmp_path / "a.pt", b"\x80\x02" + claimed + b".", {"0": bytes(4)})
    with pytest.raises(DataError, match=r"would take 1,117\.6 GiB; at most 8\.0 GiB"):
        load_set(path)


def test_a_hidden_storage_is_refused(tmp_path):
    """A storage whose facts come from anywhere but plain literals cannot be checked, so it is not accepted."""
    literal = b"J" + struct.pack("<i", 5)
    hidden = b"\x80\x02" + storage("0", 5).replace(literal, b"ccollections\nOrderedDict\n)R") + b"."
    with pytest.raises(Suspicious, match="not written as torch writes"):
        scan(io.BytesIO(hidden))
    assert scan(io.BytesIO(b"\x80\x02" + storage("0", 5) + b".")).storages[0].nbytes == 20


def test_old_files_that_declare_more_than_they_have(tmp_path):
    path = tmp_path / "old.pt"
    path.write_bytes(legacy_prefix() + b"\x80\x02" + storage("0", 2**30) + b".\x80\x02]q\x00X\x01\x00\x00\x000a.")
    with pytest.raises(DataError, match="declares more data than it has"):
        load_set(path)


def test_zip_bombs_are_refused_by_the_directory(tmp_path):
    bomb = torch_zip(tmp_path / "bomb.pt", b"\x80\x02].", {"0": bytes(2**22)}, compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 2**14
    with pytest.raises(DataError, match=r"declares 4\.0 MiB; at most 1\.0 MiB"):
        load_set(bomb, max_bytes=2**20)
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((64, 3, 128, 128), dtype="f4"), labels=np.zeros(64))
    with pytest.raises(DataError, match=r"at most 1\.0 MiB"):
        load_set(tmp_path / "bomb.npz", max_bytes=2**20)


def test_huge_declared_arrays_are_refused_before_memory_is_taken(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 3, 1000, 1000), }"
    text = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    (tmp_path / "huge.npy").write_bytes(text + bytes(64))
    with pytest.raises(DataError, match=r"declares 11,175\.9 GiB; at most 8\.0 GiB"):
        load_set(tmp_path / "huge.npy")
    short = text.replace(b"(1000000, 3, 1000, 1000)", b"(10, 3, 32, 32)")
    (tmp_path / "short.npy").write_bytes(
        short.replace(struct.pack("<H", len(header)), struct.pack("<H", len(header) - 9))
    )
    with pytest.raises(DataError, match="bytes"):
        load_set(tmp_path / "short.npy")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_pictures_of_absurd_size_are_refused_by_their_header(tmp_path):
    picture_folder(tmp_path, ["cat", "dog"])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    (tmp_path / "dog" / "big.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")))
    with pytest.raises(DataError, match=r"big\.png is"):
        load_set(tmp_path)
    (tmp_path / "dog" / "big.png").unlink()
    with pytest.raises(DataError, match="at most 512 bytes"):
        load_set(tmp_path, max_bytes=512)


def test_a_parquet_column_that_repeats_one_value_is_noticed(tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    blob = bytes(range(256)) * 64
    column = arrow.DictionaryArray.from_arrays(arrow.array([0] * 4000, arrow.int8()), arrow.array([blob]))
    parquet.write_table(arrow.table({"image": column, "label": [0] * 4000}), tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 2**18
    with pytest.raises(DataError, match=r"at most 2\.0 MiB"):
        load_set(tmp_path / "x.parquet", max_bytes=2**21)


def test_archives_write_nothing_beside_them(tmp_path):
    import tarfile

    folder = tmp_path / "a" / "b"  # two above it is still this test's own: nobody else writes there
    folder.mkdir(parents=True)
    dc_file(folder)
    with tarfile.open(folder / "set.tar", "w") as archive:
        archive.add(folder / "res_DSA_CIFAR10_ConvNet_2ipc.pt", "../../escape.pt")
    with tarfile.open(folder / "set.tar.gz", "w:gz") as archive:
        archive.add(folder / "res_DSA_CIFAR10_ConvNet_2ipc.pt", "escape.pt")
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        archive.writestr("../escape.pt", b"x")
    before = sorted(tmp_path.rglob("*"))
    for name in ("set.tar", "set.zip"):
        with pytest.raises(DataError, match="would write outside its folder"):
            load_set(folder / name)
    assert load_set(folder / "set.tar.gz").format == "dc"
    assert sorted(tmp_path.rglob("*")) == before


def test_two_folders_in_one_file_are_refused(tmp_path):
    """Readers could disagree about which of the two pickles counts."""
    torch.save([normalised(), labels()], tmp_path / "data.pt")
    with zipfile.ZipFile(tmp_path / "data.pt", "a") as archive:
        archive.writestr("other/data.pkl", trap_bytes(tmp_path / "executed"))
    with pytest.raises(DataError, match="not one that torch wrote"):
        load_set(tmp_path / "data.pt")
    assert not (tmp_path / "executed").exists()


def test_no_code_of_ours_opens_files_unsafely():
    root = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    assert not unsafe(node), f"{path}:{node.lineno}"


def unsafe(call: ast.Call) -> bool:
    """Whether a call switches a safe reader off, or unpickles, or runs text."""
    flags = {k.arg: getattr(k.value, "value", None) for k in call.keywords}
    if flags.get("weights_only") is False or flags.get("allow_pickle") is True:
        return True
    target = ast.unparse(call.func)
    if target == "torch.load":
        return flags.get("weights_only") is not True
    return target in ("pickle.load", "pickle.loads", "dill.load", "dill.loads", "yaml.load", "eval", "exec")
